"A run that is killed at any moment and resumed ends with the bits of the run that was not."
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from book import ROOT
from edm_lab.training.checkpoint import flatten, load_ckpt, steps_in
from edm_lab.core import rng

STEPS = 48
RUN = """
import os, sys, time, torch
from edm_lab.data.synthetic import toy
from edm_lab.diffusion.sigma_dist import LogNormal
from edm_lab.nets.mlp import MLP
from edm_lab.diffusion.precond import Precond
from edm_lab.training.step import Optim, Task
from edm_lab.training.loop import fit

out, slow, kill_at = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])

class Moving(LogNormal): # a distribution with a state, which can be slow, or take the process with it
    top = 1.
    def update(self, step, losses):
        object.__setattr__(self, 'top', self.top * 1.01 + float(losses.F_mse.mean()) / 100)
        if step == kill_at: os.kill(os.getpid(), 9)
        time.sleep(slow)
    def sample(self, n, gen=None): return super().sample(n, gen).clamp(max=self.top)
    def state_dict(self): return dict(top=self.top)
    def load_state_dict(self, state): object.__setattr__(self, 'top', state['top'])

torch.set_num_threads(1)
torch.manual_seed(int.from_bytes(os.urandom(4), 'little')) # the start of a resumed run must not matter ...
if not os.path.isdir(out): torch.manual_seed(0)            # ... that of a new one is fixed
data = toy('classes', n=200, held=64)
D = Precond(MLP(16, 32, 2, n_classes=5, dropout=.1), .5)
print('ready', flush=True)
done = fit(D, data.train, Moving(), steps=%d, batch_size=16, seed=1, ema=.97, held=data.held, out=out, log_every=7,
           ckpt_every=3, baselines=False, task=Task(cond_drop=.2),
           optim=Optim(schedule='cosine', warmup=5, weight_decay=.01))
print('\\n'.join(done.notes), flush=True)
""" % STEPS
ENV = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}

def start(out, slow=0., kill_at=-1):
    return subprocess.Popen([sys.executable, '-c', RUN, str(out), str(slow), str(kill_at)], env=ENV,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def finish(out, **kwargs):
    p = start(out, **kwargs)
    printed, wrong = p.communicate(timeout=300)
    assert p.returncode == 0, wrong[-2000:]
    return printed

def result(out):
    "Everything the run left, comparable to the bit."
    tensors, tree = flatten(load_ckpt(out).tensors)
    return {k: (str(v.dtype), tuple(v.shape), v.contiguous().reshape(-1).view(torch.uint8).tolist() if v.numel()
                else []) for k, v in tensors.items()}, tree, (Path(out)/'log.jsonl').read_bytes()

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp('whole')/'run'
    finish(out)
    return result(out)

def same(out, whole):
    mine = result(out)
    assert mine[1] == whole[1] and mine[0].keys() == whole[0].keys()
    assert not (off := [k for k in whole[0] if mine[0][k] != whole[0][k]]), f'not the same bits: {off}'
    assert mine[2] == whole[2], 'another log'

def test_two_processes_agree(whole, tmp_path):
    finish(tmp_path/'run')
    same(tmp_path/'run', whole)

def test_killed_at_random_steps(whole, tmp_path):
    "kill -9 in the middle of three steps drawn from a seed, one after the other."
    out, at = tmp_path/'run', sorted(torch.randperm(STEPS - 6, generator=rng(0, 'kill at step'))[:3].add(4).tolist())
    for s in at:
        p = start(out, kill_at=s)
        p.communicate(timeout=300)
        assert p.returncode == -signal.SIGKILL
    assert f'resumed after step {at[-1] // 3 * 3}' in finish(out)
    same(out, whole)

def test_killed_at_random_moments(whole, tmp_path):
    "kill -9 from outside, whatever the process is doing: computing, writing a checkpoint, starting."
    out, killed = tmp_path/'run', 0
    delays = (.05 + .9 * torch.rand(4, generator=rng(0, 'kill after'))).tolist()
    finish_first = start(out, slow=.02)
    finish_first.stdout.readline()
    # before the first checkpoint a run begins anew
    while not (out.exists() and steps_in(out)) and finish_first.poll() is None: time.sleep(.01)
    p = finish_first
    for d in delays:
        time.sleep(d)
        p.kill()
        p.communicate(timeout=300)
        killed += p.returncode == -signal.SIGKILL
        p = start(out, slow=.02)
        p.stdout.readline()
    p.communicate(timeout=300)
    assert p.returncode == 0 and killed >= 1
    same(out, whole)

def test_sigterm_finishes_the_step(whole, tmp_path):
    out = tmp_path/'run'
    p = start(out, slow=.05)
    while not (out.exists() and steps_in(out)): time.sleep(.01)
    p.send_signal(signal.SIGTERM)
    printed, wrong = p.communicate(timeout=300)
    assert p.returncode == 0 and 'SIGTERM: stopped after step' in printed, (printed, wrong[-1000:])
    last = steps_in(out)[-1]
    assert f'stopped after step {last}, saved' in printed and last < STEPS
    finish(out)
    same(out, whole)

@pytest.mark.parametrize('harm', ['truncated', 'flipped', 'json torn', 'tensors gone'])
def test_harmed_files(whole, tmp_path, harm):
    out = tmp_path/'run'
    p = start(out, kill_at=31)
    p.communicate(timeout=300)
    head = max(out.glob('step-*.json'))
    data = out/json.loads(head.read_text())['file']
    raw = data.read_bytes()
    if harm == 'truncated': data.write_bytes(raw[:len(raw)//3])
    if harm == 'flipped': data.write_bytes(raw[:-7] + bytes([raw[-7] ^ 16]) + raw[-6:])
    if harm == 'json torn': head.write_text(head.read_text()[:100])
    if harm == 'tensors gone': data.unlink()
    printed = finish(out)
    assert 'resumed after step 27' in printed and 'step-000000030' in printed
    same(out, whole)

@pytest.mark.skipif(sys.platform == 'win32', reason='no limits on file sizes')
def test_full_disk(whole, tmp_path):
    "The run ends with one line and leaves the last good checkpoint; with room again it goes on."
    out = tmp_path/'run'
    p = start(out, kill_at=20)
    p.communicate(timeout=300)
    before = {q.name: q.read_bytes() for q in out.glob('step-*')}
    limited = 'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n' + RUN
    r = subprocess.run([sys.executable, '-c', limited, str(out), '0', '-1'], env=ENV, capture_output=True, text=True,
                       timeout=300)
    assert (r.returncode == 1 and 'LabError' in r.stderr.splitlines()[-1]
            and 'the last good checkpoint, of step 18, is intact' in r.stderr.splitlines()[-1])
    assert {q.name: q.read_bytes() for q in out.glob('step-*')} == before and not list(out.glob('.step-*'))
    finish(out)
    same(out, whole)

"Two gloo processes are one process with the same batch; checkpoints, skipped steps and signals agree among them."
import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from book import ROOT
from edm_lab.training.checkpoint import load_ckpt

RUN = """
import json, os, sys, time, torch
from edm_lab.core import write_whole
from edm_lab.data.synthetic import toy
from edm_lab.training.ema import EMA
from edm_lab.training.distributed import Engine
from edm_lab.diffusion.sigma_dist import LogNormal
from edm_lab.nets.mlp import MLP
from edm_lab.diffusion.precond import Precond
from edm_lab.training.step import Optim, Task
from edm_lab.training.loop import train

torch.set_num_threads(1)
out, options = sys.argv[1], json.loads(sys.argv[2])
engine = Engine(device='cpu', accumulate=options.get('accumulate', 1))
torch.manual_seed(engine.rank)                                     # processes start apart; rank 0 is right
data = toy('classes', n=200)
rows = data.train if 'bad' not in options else data.train[:]
if 'bad' in options: rows.x0[options['bad']] = float('nan')
dtype = getattr(torch, options.get('dtype', 'float32'))
D = Precond(MLP(16, 48, 2, n_classes=5), .5).to(dtype)
ema = EMA(D, .9)
records, ranks = [], []
for r in train(D, rows.to(dtype=dtype), LogNormal(), steps=options.get('steps', 12), batch_size=24, seed=2, ema=ema,
               engine=engine, out=options.get('out'), ckpt_every=5, optim=Optim(warmup=3),
               task=Task(cond_drop=options.get('drop', .2))):
    records.append(r.row() | dict(where=r.where, n=len(r.losses.loss), sigma=r.losses.sigma.tolist(), notes=r.notes))
    if r.step == options.get('until'): break
weights = torch.cat([p.detach().double().flatten() for p in D.parameters()])
apart = engine.accelerator.gather(weights[None]) if engine.world > 1 else weights[None]
gap = float((apart - apart[0]).abs().max())
result = dict(world=engine.world, records=records, weights=weights.tolist(), apart=gap)
if engine.main: write_whole(out, json.dumps(result))
engine.close()

def threads(where='/proc/self/task'):
    names = []
    for task in os.listdir(where) if os.path.isdir(where) else []:
        try: names.append(open(f'{where}/{task}/comm').read().strip())
        except OSError: pass                                           # it has just ended
    return names
end = time.monotonic() + 20
while any('gloo' in name for name in threads()):                       # a joined thread may be listed a moment longer
    assert time.monotonic() < end, f'threads of a process group that is closed: {threads()}'
    time.sleep(.05)
"""

def sockets():
    try:
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            return s.getsockname()[1]
    except OSError: return None

pytestmark = pytest.mark.skipif(sockets() is None or not torch.distributed.is_gloo_available(),
                                reason='sockets are forbidden here, or torch has no gloo')

def run(tmp_path, processes, name, **options):
    script, out = tmp_path/'run.py', tmp_path/f'{name}.json'
    script.write_text(RUN)
    head = [sys.executable] if processes == 1 else [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node',
                                                    str(processes), '--master_addr', '127.0.0.1', '--master_port',
                                                    str(sockets())]
    r = subprocess.run([*head, str(script), str(out), json.dumps(options)],
                       env=os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}, capture_output=True,
                       text=True, timeout=300)
    assert r.returncode == 0, r.stderr[-3000:]
    got = json.loads(out.read_text())
    assert got['world'] == processes and got['apart'] == 0, 'the processes have different weights'
    return got

def losses(got): return torch.tensor([r['loss'] for r in got['records']], dtype=torch.float64)
def gap(a, b): return (torch.tensor(a['weights']) - torch.tensor(b['weights'])).abs().max().item()

def test_two_processes_are_one(tmp_path):
    one, two = run(tmp_path, 1, 'one'), run(tmp_path, 2, 'two')
    assert (losses(one) - losses(two)).abs().max() < 1e-6
    assert [r['sigma'] for r in one['records']] == [r['sigma'] for r in two['records']] and two['records'][0]['n'] == 24
    fine = [run(tmp_path, n, f'fine{n}', dtype='float64', accumulate=a) for n, a in ((1, 1), (2, 1), (2, 3))]
    for other in fine[1:]: assert (losses(fine[0]) - losses(other)).abs().max() < 1e-12 and gap(fine[0], other) < 1e-10

def test_resume_with_two_and_with_one(tmp_path):
    whole = run(tmp_path, 2, 'whole', out=str(tmp_path/'whole'))
    run(tmp_path, 2, 'cut', out=str(tmp_path/'cut'), until=7)
    assert load_ckpt(tmp_path/'cut').step == 7
    rest = run(tmp_path, 2, 'rest', out=str(tmp_path/'cut'))
    assert rest['weights'] == whole['weights']
    assert [r['loss'] for r in rest['records']] == [r['loss'] for r in whole['records'][7:]]
    run(tmp_path, 2, 'cut2', out=str(tmp_path/'cut2'), until=7)
    alone = run(tmp_path, 1, 'alone', out=str(tmp_path/'cut2'))
    assert 'equal up to rounding only: processes 1 (was 2)' in alone['records'][0]['notes'][0]
    assert (losses(alone) - losses(whole)[7:]).abs().max() < 1e-6

def test_a_bad_row_on_one_process_skips_the_step_on_both(tmp_path):
    one, two = (run(tmp_path, n, f'bad{n}', bad=17) for n in (1, 2))
    assert [r['nonfinite'] for r in one['records']] == [r['nonfinite'] for r in two['records']]
    assert two['records'][-1]['nonfinite'] >= 1
    assert gap(one, two) < 1e-4 and all(torch.tensor(two['weights']).isfinite())

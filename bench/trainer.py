"""The trainer against a bare loop with the same work, against the Bayes loss, and one process against two.

    python bench/trainer.py                  # all of it, into results/trainer.json; some minutes on one core
    python bench/trainer.py --only overhead  # overhead, bayes or ddp; the rest of an existing file is kept
"""
import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from itertools import count, islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import edm_lab
import torch  # noqa: E402

from edm_lab.core import rng, write_whole  # noqa: E402
from edm_lab.data.rows import Rows, batch  # noqa: E402
from edm_lab.training.ema import EMA  # noqa: E402
from edm_lab.training.distributed import Engine  # noqa: E402
from edm_lab.diffusion.sigma_dist import LogNormal  # noqa: E402
from edm_lab.diffusion.loss import denoising_loss  # noqa: E402
from edm_lab.nets.mlp import MLP  # noqa: E402
from edm_lab.diffusion.precond import Precond  # noqa: E402
from edm_lab.oracles.test_problems import problem  # noqa: E402
from edm_lab.training.step import Optim  # noqa: E402
from edm_lab.training.loop import train  # noqa: E402

HERE = Path(__file__).parent
SIGMA_DIST = LogNormal()
# width, depth, steps, batch, learning rate, decay of the average
RUNS = dict(A=(128, 3, 2000, 512, 3e-3, .995), B=(256, 3, 6000, 512, 2e-3, .998))


def subject(width, d=16, depth=3):
    torch.manual_seed(0)
    return Precond(MLP(d, width, depth), .5)


def bare(D, rows, size):
    "The same work without a trainer: batch, noise, loss, gradient, clip, rate, AdamW, average."
    o, ema = Optim(), EMA(D)
    opt = o.make(D)
    params = list(D.parameters())
    for s in count():
        loss = denoising_loss(D, batch(rows, size, 0, s).x0, SIGMA_DIST, gen=rng(0, "step", s)).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, o.clip)
        for g in opt.param_groups: g["lr"] = o.lr_at(s, 10**6)
        opt.step()
        opt.zero_grad(set_to_none=True)
        ema.update()
        yield float(loss.detach()), float(norm)


def overhead(size=512, width=256, block=20, pairs=24):
    "CPU time of the trainer over that of the bare loop, in alternating blocks of steps; median of the ratios."
    rows = Rows(problem("B").sample(20_000, rng(0, "rows")).float())
    D, E = subject(width), subject(width)
    ours = train(D, rows, SIGMA_DIST, steps=10**6, batch_size=size, ema=EMA(D), engine=Engine(device="cpu"))
    loops = [ours, bare(E, rows, size)]
    def clock(loop):
        t = time.process_time()
        for _ in islice(loop, block): pass
        return time.process_time() - t
    for loop in loops: clock(loop)                                        # warm up
    times = [[clock(loop) for loop in (loops if i % 2 else loops[::-1])][::1 if i % 2 else -1] for i in range(pairs)]
    ours.close()
    ratios = sorted(a / b for a, b in times)
    return dict(ratio=statistics.median(ratios), quartiles=[ratios[pairs // 4], ratios[3 * pairs // 4]],
                ms_a_step_bare=1e3 * statistics.median(b for _, b in times) / block,
                weights=sum(p.numel() for p in D.parameters()), batch=size)


@torch.no_grad()
def excess(D, O, bins=20, n=8192, seed=1):
    "E|D - D*|^2 over the Bayes loss on fresh data, in bins of equal mass from the 1st to the 99th percentile of sigma."
    edges, out = torch.linspace(.01, .99, bins + 1, dtype=torch.float64), []
    for i in range(bins):
        x0 = O.sample(n, rng(seed, "x0", i)).double()
        s = SIGMA_DIST.icdf(edges[i] + (edges[i + 1] - edges[i]) * torch.rand(n, generator=rng(seed, "sigma", i),
                                                                              dtype=torch.float64))
        x = x0 + s[:, None] * torch.randn(x0.shape, generator=rng(seed, "eps", i), dtype=torch.float64)
        c_out2 = s**2 * .25 / (s**2 + .25)
        off = (D(x.float(), s.float()).double() - O(x, s)).square().mean(1) / c_out2 # EDM's weight, as in training
        bayes = torch.cat([O.posterior_var(a, b) for a, b in zip(x.split(1024), s.split(1024))]) / c_out2
        out.append(dict(sigma=[float(SIGMA_DIST.icdf(edges[i])), float(SIGMA_DIST.icdf(edges[i + 1]))],
                        excess=float(off.mean() / bayes.mean()), bayes=float(bayes.mean())))
    return out


def bayes(name):
    "Train an MLP on fresh samples of a mixture; the excess of its average in every bin."
    width, depth, steps, size, lr, decay = RUNS[name]
    O = problem(name)
    D = subject(width, len(O.parts[0].mean), depth)
    ema, began = EMA(D, decay), time.process_time()
    def fresh(step, rank, world): return (Rows(O.sample(size, rng(0, "x0", s)).float()) for s in count(step))
    for r in train(D, fresh, SIGMA_DIST, steps=steps, batch_size=size,
                   optim=Optim(lr=lr, schedule="cosine", warmup=200), ema=ema, engine=Engine(device="cpu")):
        if r.step % 500 == 0: print(f"{name}: step {r.step} of {steps}, loss {r.loss:.3f}", flush=True)
    rows = excess(ema.D, O)
    return dict(worst=max(r["excess"] for r in rows), bins=rows, seconds=time.process_time() - began, width=width,
                depth=depth, steps=steps, batch=size, lr=lr, ema=decay)


def losses_of(steps=20, size=64):
    "Losses of a short run, by as many processes as there are."
    D = subject(64)
    rows = Rows(problem("B").sample(2000, rng(0, "rows")).float())
    return [r.loss for r in train(D, rows, SIGMA_DIST, steps=steps, batch_size=size, engine=Engine(device="cpu"))]


def ddp():
    "Largest difference of the losses of two gloo processes and of one."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as where:
        cmd = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1",
               "--master_port", str(port), __file__, "--worker", where]
        subprocess.run(cmd, check=True, timeout=300)
        two = json.loads((Path(where) / "losses.json").read_text())
    assert two["world"] == 2
    one = losses_of()
    return dict(difference=max(abs(a - b) for a, b in zip(one, two["losses"], strict=True)), losses=one)


def git(*a): return subprocess.run(["git", "-C", str(HERE), *a], capture_output=True, text=True).stdout.strip()


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--only", default="", help="overhead, bayes or ddp")
    ap.add_argument("--out", default=str(HERE / "results" / "trainer.json"))
    ap.add_argument("--worker", default="", help=argparse.SUPPRESS)
    a = ap.parse_args()
    torch.set_num_threads(1)
    if a.worker:
        losses, e = losses_of(), Engine(device="cpu")
        if e.main: write_whole(Path(a.worker) / "losses.json", json.dumps(dict(losses=losses, world=e.world)))
        e.close()
        return
    path = Path(a.out)
    done = json.loads(path.read_text()) if path.exists() and a.only else {}
    detail = done.setdefault("detail", {})
    if a.only in ("", "overhead"):
        detail["overhead"] = overhead()
        done["overhead_ratio"] = detail["overhead"]["ratio"]
    if a.only in ("", "ddp"):
        detail["ddp"] = ddp()
        done["ddp_loss_difference"] = detail["ddp"]["difference"]
    if a.only in ("", "bayes"):
        for name in RUNS:
            detail.setdefault("bayes", {})[name] = bayes(name)
            done.setdefault("bayes_excess", {})[name] = detail["bayes"][name]["worst"]
            write_whole(path, json.dumps(done, indent=1))
    versions = {"python": platform.python_version(),
                "edm_lab": edm_lab.__version__}
    versions |= {p: metadata.version(p) for p in ("torch", "accelerate", "safetensors")}
    done |= dict(machine=f"{platform.machine()}, {os.cpu_count()} shared cores, 1 thread",
                 commit=git("rev-parse", "HEAD"), versions=versions)
    write_whole(path, json.dumps(done, indent=1))
    print(json.dumps({k: done.get(k) for k in ("overhead_ratio", "bayes_excess", "ddp_loss_difference")}))
    print(path)


if __name__ == "__main__": main()

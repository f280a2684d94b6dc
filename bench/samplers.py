"""Every sampler on the same problems, the same start noise and the same budget of calls, peers and ours in one run:
errors, sliced W2, overhead a call.

    python bench/samplers.py                 # all of it, into results/samplers.json
    python bench/samplers.py --only edm_lab  # names that contain a word; the rest of an existing file is kept
    python bench/samplers.py --resume        # keep the errors of an interrupted run; overheads are always timed anew
"""
import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
import warnings
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path

import edm_lab
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
import peers  # noqa: E402
from edm_lab.diffusion import loss, precond  # noqa: E402
from edm_lab.samplers import single_step as sampler, stochastic as sde, multistep as solvers  # noqa: E402
from edm_lab.core import rng, write_whole  # noqa: E402
from edm_lab.diffusion.sigma_dist import LogNormal  # noqa: E402
from edm_lab.oracles.test_problems import problem, reference_solution, rel_rms, sliced_w2  # noqa: E402
from edm_lab.oracles.test_problems import spiral, start_noise  # noqa: E402

HERE = Path(__file__).parent
BUDGETS = (4, 6, 8, 10, 12, 16, 20, 35, 64)
SIZES = dict(A=2048, B=2048, C=2048, D=2048, E=512)
RHOS = {"rho 5": 5., "rho 7": 7., "rho 10": 10., "log-uniform": math.inf}
# the peers that are tried on four grids
VARIED = ("k-d heun", "k-d dpmpp_2m", "k-d dpmpp_3m_sde eta=0", "az vAB(4)", "az zEAB(3)", "az zEAB(4)")


class Counted:
    "A denoiser that counts its calls."
    def __init__(self, D): self.D, self.calls, self.sigma_data = D, 0, D.sigma_data
    def __call__(self, x, sigma, cond=None):
        self.calls += 1
        return self.D(x, sigma)


class Net(torch.nn.Module):
    "The denoiser of problem D: three hidden layers, the noise level as one more input."
    def __init__(self, width=96):
        super().__init__()
        sizes = (3, width, width, width, 2)
        self.f = torch.nn.Sequential(*[m for a, b in zip(sizes, sizes[1:])
                                       for m in (torch.nn.Linear(a, b), torch.nn.SiLU())][:-1])
    def forward(self, x, c_noise, cond=None): return self.f(torch.cat([x, c_noise[:, None].to(x)], 1))


def trained_spiral(steps=3000, seed=0):
    "Problem D: an MLP trained on the 2-D spiral, in float64 for the comparison of solvers."
    torch.manual_seed(seed)
    D = precond.Precond(Net(), .5)
    opt = torch.optim.Adam(D.parameters(), 2e-3)
    lr = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps)
    for i in range(steps):
        gen = rng(seed, "spiral", i)
        L = loss.denoising_loss(D, spiral(256, gen).float(), LogNormal(), gen=gen).mean()
        opt.zero_grad()
        L.backward()
        opt.step()
        lr.step()
    return D.double().eval().requires_grad_(False)


def problems():
    "Name -> (denoiser, distribution for sliced W2 or None, start, reference end points)."
    out = {}
    for name, n in SIZES.items():
        D = trained_spiral() if name == "D" else problem(name)
        x_T = 80 * torch.randn(n, 2, dtype=torch.float64,
                               generator=torch.Generator().manual_seed(1)) if name == "D" else start_noise(D, n)
        ref = reference_solution(D, x_T)
        out[name] = (D, D if name in "ABC" else ref, x_T, ref)
    return out


def ours():
    "Our samplers: name -> f(D, x, nfe), deterministic and stochastic."
    @lru_cache(maxsize=None)
    def made(make, rho, nfe): return make(peers.grid(nfe, rho)) # once per schedule
    def table(make, rho, D, x, nfe): return sampler.final(solvers.multistep(D, x, made(make, rho, nfe)))
    default = lru_cache(maxsize=None)(solvers.default_table)
    def two(f, D, x, nfe): return sampler.final(f(D, x, peers.grid((nfe + 1) // 2)))
    makes = {"euler": partial(solvers.eab, order=1), "eab(2)": partial(solvers.eab, order=2), "eab(3)": solvers.eab,
             "eab(4)": partial(solvers.eab, order=4), "dpmpp(2)": solvers.dpmpp,
             "dpmpp(3)": partial(solvers.dpmpp, order=3), "lms(4)": solvers.lms,
             "unipc(2) eps": partial(solvers.unipc, order=2), "unipc(3) eps": solvers.unipc,
             "unipc(3) x0": partial(solvers.unipc, of="x0"), "angle(2)": solvers.angle,
             "angle(3)": partial(solvers.angle, order=3)}
    fixed = {f"edm_lab {k}": partial(table, m, 7.) for k, m in makes.items()}
    fixed |= {f"edm_lab {k} rho 10": partial(table, makes[k], 10.) for k in ("eab(3)", "eab(4)", "unipc(3) eps")}
    fixed |= {"edm_lab heun": partial(two, sampler.heun), "edm_lab dpm2": partial(two, solvers.dpm2),
              "edm_lab default": lambda D, x, nfe: sampler.final(solvers.multistep(D, x, default(nfe)))}
    run = lambda f, D, x, nfe: sampler.final(f(D, x, peers.grid(nfe)))
    noisy = {"edm_lab churn": partial(two, sampler.churn), "edm_lab ancestral": partial(run, sde.ancestral),
             "edm_lab sde_dpmpp(2)": partial(run, sde.sde_dpmpp),
             "edm_lab sde_dpmpp(3)": partial(run, partial(sde.sde_dpmpp, order=3))}
    return fixed, noisy


def fitted(name, D, nfe, results):
    """The solver fitted to this denoiser on 256 trajectories of another seed: A, B and C from bench/fit_targets.py,
    D and E fitted here and kept beside the results."""
    from edm_lab.samplers.fitted import Fitted, fit_schedule
    if name in "ABC":
        targets = json.loads((HERE / "results" / "fit_targets.json").read_text())
        return Fitted.from_dict(targets["runs"][name][str(nfe)]["fitted"])
    f = results / "fits" / f"{name}_{nfe}.json"
    if not f.exists():
        with torch.enable_grad():
            fit = fit_schedule(D, torch.zeros(1, 2 if name == "D" else 64, dtype=torch.float64), nfe, limit=120.)
        f.parent.mkdir(parents=True, exist_ok=True)
        fit.save(f)
    return Fitted.load(f)


def quality(name, f, P, done):
    "Errors and sliced W2 of one sampler at every budget on every problem."
    done["failed"].pop(name, None)
    for p, (D, sigma_dist, x_T, ref) in P.items():
        for nfe in BUDGETS:
            if name == "edm_lab fitted" and p in "DE" and nfe not in (6, 10, 20): continue     # a minute or two each
            counted = Counted(D)
            try: x = f(p, counted, x_T.clone(), nfe)
            except Exception as e:
                done["failed"].setdefault(name, {})[f"{p} {nfe}"] = f"{type(e).__name__}: {e}"[:200]
                continue
            assert counted.calls <= nfe, f"{name} used {counted.calls} calls of {nfe}"
            done["rms"].setdefault(p, {}).setdefault(name, {})[str(nfe)] = rel_rms(x, ref)
            done["sliced_w2"].setdefault(p, {}).setdefault(name, {})[str(nfe)] = sliced_w2(x, sigma_dist)


def overhead(f, D, x, calls=50, best_of=15):
    "Microseconds a call beyond a bare Euler loop with as many calls of the same network."
    def clock(g):
        out = []
        for _ in range(best_of):
            t = time.perf_counter()
            g()
            out.append(time.perf_counter() - t)
        return min(out)
    s = peers.grid(calls).tolist()
    def bare():
        y = x
        for a, b in zip(s, s[1:]): y = y + (b / a - 1) * (y - D(y, a))
    counted = Counted(D)
    f(counted, x.clone(), calls)
    return 1e6 * (clock(lambda: f(D, x.clone(), calls)) / counted.calls - clock(bare) / calls)


class Tiny:
    "A network of about 50 microseconds a call, for overheads."
    sigma_data = .5
    def __init__(self):
        torch.manual_seed(0)
        self.f = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(),
                                     torch.nn.Linear(64, 8)).requires_grad_(False)
    def __call__(self, x, sigma, cond=None): return self.f(x)


def git(*a): return subprocess.run(["git", "-C", str(HERE), *a], capture_output=True, text=True).stdout.strip()


def write(path, done):
    gm = done["geomean_rms"] = {}
    for name, row in done["rms"].get("A", {}).items():
        for nfe in row:
            v = [done["rms"].get(p, {}).get(name, {}).get(nfe) for p in "ABC"]
            if all(x is not None for x in v):
                gm.setdefault(name, {})[nfe] = math.exp(sum(math.log(max(x, 1e-300)) for x in v) / 3)
    write_whole(path, json.dumps(done, indent=1))


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--only", default="", help="names that contain this")
    ap.add_argument("--out", default=str(HERE / "results" / "samplers.json"))
    ap.add_argument("--resume", action="store_true", help="keep the errors that the file has")
    ap.add_argument("--no-fit", action="store_true", help="leave the fitted schedules out")
    a = ap.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    path = Path(a.out)
    done = json.loads(path.read_text()) if path.exists() and (a.only or a.resume) else dict(rms={}, sliced_w2={},
                                                                                            overhead_us={}, failed={})
    fixed, noisy, missing = peers.all_peers()
    for m in missing: print("left out:", m)
    mine, mine_noisy = ours()
    plain = {**fixed, **mine}
    jobs = {k: (lambda p, D, x, nfe, f=f: f(D, x, nfe)) for k, f in plain.items()}
    jobs |= {f"{k} {g}": (lambda p, D, x, nfe, f=fixed[k], r=r: f(D, x, nfe, rho=r)) for k in VARIED if k in fixed
             for g, r in RHOS.items() if r != 7.}
    if not a.no_fit: jobs["edm_lab fitted"] = lambda p, D, x, nfe: fitted(p, D.D, nfe, path.parent).run(D, x)
    jobs = {k: f for k, f in jobs.items() if a.only in k}
    P = problems()
    done["sliced_w2_reference"] = {p: sliced_w2(ref, sigma_dist) for p, (D, sigma_dist, x_T, ref) in P.items()
                                   if p in "ABC"}
    with torch.no_grad():
        for name, f in tqdm(jobs.items(), disable=None):
            if a.resume and all(len(done["rms"].get(p, {}).get(name, {}))
                                + sum(k.startswith(p) for k in done["failed"].get(name, {})) == len(BUDGETS)
                                for p in P):
                continue
            quality(name, f, P, done)
            write(path, done)
        D, x = Tiny(), 80 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        timed = {k: f for k, f in {**plain, **noisy, **mine_noisy}.items() if a.only in k}
        for name, f in tqdm(timed.items(), disable=None):
            try: done["overhead_us"][name] = round(overhead(f, D, x), 1)
            except Exception as e: done["failed"].setdefault(name, {})["overhead"] = f"{type(e).__name__}: {e}"[:200]
    versions = {"python": platform.python_version(), "edm_lab": edm_lab.__version__}
    for p in ("torch", "k-diffusion", "diffusers", "azula"):
        try: versions[p] = metadata.version(p)
        except metadata.PackageNotFoundError: versions[p] = "not installed"
    done |= dict(budgets=list(BUDGETS), samples=SIZES,
                 machine=f"{platform.machine()}, {os.cpu_count()} shared cores, 1 thread",
                 commit=git("rev-parse", "HEAD"), versions=versions, stochastic=sorted({**noisy, **mine_noisy}),
                 missing=missing)
    write(path, done)
    print(path)


if __name__ == "__main__": main()

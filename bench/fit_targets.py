"""Fit a solver to problems A, B and C at every budget and test it on 4,096 other trajectories.

    python bench/fit_targets.py [CALLS ...]     # all budgets by default; those in the results file are skipped

Each fit uses 256 trajectories of seed 77; 512 others decide when to stop; the tests start from seed 1.
One process, one thread, about a quarter of an hour.
The file holds every fitted solver, ready for `edm_lab.samplers.fitted.Fitted.from_dict`.
"""
import json, math, os, platform, subprocess, sys, time
from importlib.metadata import version
from pathlib import Path

import torch

from edm_lab.core import write_whole
from edm_lab.samplers.fitted import fit_schedule
from edm_lab.oracles.test_problems import PROBLEMS, problem, reference_solution, rel_rms, sliced_w2, start_noise
from edm_lab.samplers.single_step import final
from edm_lab.samplers.multistep import default_table, multistep

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "results" / "fit_targets.json"
# geometric mean of the RMS errors
TARGETS = {4: .13, 6: .065, 8: .045, 10: .030, 12: .020, 16: .012, 20: .0075, 35: .0025, 64: .0008}
TESTS = 4096

def commit():
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or None

def one(name, n, D, x_T, ref):
    "One fit and its test."
    f = fit_schedule(D, x_T[:1], n)
    x, default = f.run(D, x_T), final(multistep(D, x_T, default_table(n)))
    c = f.certificate
    return dict(test=rel_rms(x, ref), default=rel_rms(default, ref), sliced_w2=sliced_w2(x, D),
                sliced_w2_exact=sliced_w2(ref, D), train=c["train"], held_out=c["held_out"], certified=c["error"],
                use=c["use"], solver=c["solver"], seconds=c["seconds"], fitted=f.to_dict())

def summary(results):
    "Geometric means of the budgets that are complete."
    runs, out = results["runs"], {}
    for n in map(str, TARGETS):
        rows = [runs[p][n] for p in runs if n in runs[p]]
        if len(rows) == len(PROBLEMS):
            means = {k: math.prod(r[k] for r in rows)**(1 / len(rows))
                     for k in ("test", "train", "held_out", "default")}
            out[n] = means | dict(target=TARGETS[int(n)], met=means["test"] <= TARGETS[int(n)],
                                  seconds=sum(r["seconds"] for r in rows))
    return out

def main(budgets):
    torch.set_num_threads(1)
    results = json.loads(OUT.read_text()) if OUT.exists() else dict(runs={p: {} for p in PROBLEMS})
    results |= dict(machine=f"{platform.machine()}, {os.cpu_count()} cores, 1 used", commit=commit(),
                    versions={p: version(p) for p in ("torch", "numpy")}, tests=TESTS)
    known = {}
    for n in budgets:
        for name in PROBLEMS:
            if str(n) in results["runs"][name]: continue
            if name not in known:
                D = problem(name)
                known[name] = D, (x_T := start_noise(D, TESTS)), reference_solution(D, x_T)
            begin = time.perf_counter()
            row = results["runs"][name][str(n)] = one(name, n, *known[name])
            results["geomean"] = summary(results)
            write_whole(OUT, json.dumps(results, indent=1))
            print(f"{n:3d} {name}  test {row['test']:.5f}  train {row['train']:.5f}  held out {row['held_out']:.5f}  "
                  f"default {row['default']:.5f}  SW {row['sliced_w2']:.4f} (exact {row['sliced_w2_exact']:.4f})  "
                  f"{row['use']} {row['solver']}  {time.perf_counter() - begin:.0f} s", flush=True)
        if (g := results.get("geomean", {}).get(str(n))):
            print(f"{n:3d} geometric mean {g['test']:.5f}  target {g['target']}  {'met' if g['met'] else 'missed'}",
                  flush=True)

if __name__ == "__main__": main([int(v) for v in sys.argv[1:]] or list(TARGETS))

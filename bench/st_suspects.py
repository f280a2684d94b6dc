"""Case st: each suspect added alone to a healthy run, on the same data and budget, into results/st_suspects.json.

    python bench/st_suspects.py                        # those that the file does not have yet, one after the other
    python bench/st_suspects.py --only weight_boost clamp    # some of them, anew; two processes may share the file
    python bench/st_suspects.py --steps 3000 --out results/st_suspects_long.json
    python bench/st_suspects.py --data FOLDER          # a real tissue, anything that `read_tissue` takes
    python bench/st_suspects.py --live                 # the model checks, too: minutes a suspect
    python bench/st_suspects.py --verdicts             # no training: the log checks read the rows of the file again
"""
import argparse
import fcntl
import json
import os
import platform
import subprocess
import time
import warnings
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import torch
from tqdm import tqdm

from edm_lab.cases.st.failure import (TissueBudget, TissueSuspect, run_diagnostics, tissue_card, tissue_suspects,
                                      train_suspect)
from edm_lab.cases.st.system import tissue_config
from edm_lab import __version__
from edm_lab.core import write_whole
from edm_lab.data.anndata import read_tissue
from edm_lab.data.rows import Rows
from edm_lab.data.tissue import simulate
from edm_lab.log_checks.diagnose import diagnose
from edm_lab.diffusion.noise import Centred
from edm_lab.diffusion.precond import ZeroOutput

HERE = Path(__file__).parent


def git(*a): return subprocess.run(["git", "-C", str(HERE), *a], capture_output=True, text=True).stdout.strip()


def live(S, rows, held, s):
    "Cause and verdict of the model checks."
    from edm_lab.model_checks.examine import examine
    rows, held = (Rows(r.x0, r.cond | dict(mask=r.mask), r.mask) for r in (rows[:len(held)], held))
    r = examine(S, held, train=rows, noise=Centred(), sigma_dist=s.sigma_dist, symmetry="o2" if s.frame == "gram"
                else None, n=len(held))
    return dict(live_verdict=r.cause, live_says=r.verdict, live_seconds=r.about["seconds"])


def one(name, suspect, tissue, budget, with_live):
    "The row of one suspect."
    began, bar = time.process_time(), tqdm(total=budget.steps, desc=name, disable=None)
    if suspect is None:
        suspect = TissueSuspect("the network outputs zero, F_x = 0", tissue_config())
        _, rows, held, last = train_suspect(suspect, tissue, replace(budget, steps=1))
        S = ZeroOutput(suspect.config.sigma_data)
    else: S, rows, held, last = train_suspect(suspect, tissue, budget, lambda r: bar.update())
    bar.close()
    row = run_diagnostics(S, held)
    log = last["losses"].row()
    row |= judged(name, row, suspect.config, budget.size) | dict(change=suspect.change, control=suspect.control)
    row |= {k: log[k] for k in ("losses", "passed", "pinned")}
    row |= {k: last[k] for k in ("stage", "cap") if k in last}
    if with_live and not isinstance(S, ZeroOutput): row |= live(S, rows, held, suspect.config)
    return row | dict(cpu_seconds=round(time.process_time() - began, 1))


def judged(name, row, s, size):
    "What the log checks find in a row."
    d = diagnose(tissue_card(row, s, size, name))
    return dict(verdict=d.cause, sentence=d.verdict, findings=[f.cause for f in d.findings])


def keep(path, name, row, budget, data):
    "Put one row into the file; other processes may write to it, too."
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = json.loads(path.read_text()) if path.exists() else {}
        mine = json.loads(json.dumps(asdict(budget) | dict(data=data)))
        if done.get("budget", mine) != mine: done = {}
        versions = {"python": platform.python_version(), "torch": metadata.version("torch"), "edm_lab": __version__}
        done |= {name: row, "budget": asdict(budget) | dict(data=data), "commit": git("rev-parse", "HEAD"),
                 "machine": f"{platform.machine()}, {os.cpu_count()} shared cores, 1 thread", "versions": versions}
        write_whole(path, json.dumps(done, indent=1))
    path.with_suffix(".lock").unlink(missing_ok=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", nargs="*", help="names of suspects; they are run even if the file has them")
    ap.add_argument("--steps", type=int, default=TissueBudget().steps)
    ap.add_argument("--batch-size", type=int, default=TissueBudget().batch_size)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--data", help="a tissue; without it a simulated one")
    ap.add_argument("--live", action="store_true", help="examine the trained denoisers, too")
    ap.add_argument("--verdicts", action="store_true", help="diagnose the rows of the file anew")
    ap.add_argument("--out", default=str(HERE / "results" / "st_suspects.json"))
    a = ap.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    budget, path = TissueBudget(steps=a.steps, batch_size=a.batch_size, seed=a.seed), Path(a.out)
    data = Path(a.data).name if a.data else "simulated"
    tissue = read_tissue(a.data) if a.data else simulate(budget.cells, 1, 300, seed=a.seed)
    all_ = {"zero_output": None} | tissue_suspects(budget.steps, budget.lr)
    have = json.loads(path.read_text()) if path.exists() else {}
    if a.verdicts:
        for k in have.keys() & all_.keys():
            have[k] |= judged(k, have[k], (all_[k] or all_["healthy"]).config, budget.size)
        return print(write_whole(path, json.dumps(have, indent=1)))
    same = have.get("budget") == json.loads(json.dumps(asdict(budget) | dict(data=data)))
    for name in (a.only or [k for k in all_ if not (same and k in have)]):
        row = one(name, all_[name], tissue, budget, a.live)
        keep(path, name, row, budget, data)
        print(f"{name:14} {row['rms_to_original']:.3f} {row['rms_refit']:.3f} {row['scale_r']} kNN {row['knn10']:.3f} "
              f"(chance {row['chance']:.3f}) {row['verdict']} {row['cpu_seconds']:.0f} s", flush=True)


if __name__ == "__main__": main()

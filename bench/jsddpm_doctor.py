"""Case jsddpm: each fault of the case planted alone, in several seeds, and examined beside the trainer, into
results/jsddpm_doctor.json.

    python bench/jsddpm_doctor.py                    # what the file does not have yet; it can be stopped at any time
    python bench/jsddpm_doctor.py --only no_skip     # some of them, anew
    python bench/jsddpm_doctor.py --seeds 1 --out results/jsddpm_doctor_one.json
"""
import argparse
import json
import os
import platform
import subprocess
import time
import warnings
from collections import Counter
from dataclasses import asdict, replace
from functools import lru_cache
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from edm_lab.cases.jsddpm.data import prepare_slices, read_slices
from edm_lab.cases.jsddpm.suspect_runs import SliceBudget
from edm_lab.cases.jsddpm.planted import examine_planted, planted_faults, train_planted
from edm_lab.core import write_whole

HERE = Path(__file__).parent
BUDGET = SliceBudget(steps=240, batch_size=16, channels=(8, 16, 24), subjects=24, size=32)
GRAVE = "critical", "high", "medium"


def git(*a): return subprocess.run(["git", "-C", str(HERE), *a], capture_output=True, text=True).stdout.strip()


def cell(name, pl, p, trained, budget, train_s):
    "One planted run, examined."
    now = time.process_time()
    r = examine_planted(pl, p, trained, budget)
    return dict(run=name, planted=pl.cause, seed=budget.seed, named=r.cause,
                found=[(f.cause, f.severity, round(f.confidence, 2)) for f in r.findings],
                open=[u.question[:120] for u in r.unknowns], train_s=round(train_s, 1),
                examine_s=round(time.process_time() - now, 1))


@lru_cache(maxsize=1)
def slices(seed): return prepare_slices(read_slices(None, BUDGET.size, BUDGET.subjects, seed), seed=seed)


def work(job):
    "Some runs of one seed: those that act after training share a healthy one."
    names, seed = job
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    budget, p, every, out, shared = replace(BUDGET, seed=seed), slices(seed), planted_faults(), [], None
    for n in names:
        now = time.process_time()
        if not (every[n].after and shared):
            trained = train_planted(every["healthy" if every[n].after else n], p, budget)
        if every[n].after: shared = trained = shared or trained
        out.append(cell(n, every[n], p, trained, budget, time.process_time() - now))
    return out


def right(row):
    "The cause that was planted is named first; of a control, nothing above low is."
    return row["named"] == row["planted"] if row["planted"] != "healthy" else not any(s in GRAVE
                                                                                     for _, s, _ in row["found"])


def score(rows):
    "The figures of a list of rows."
    faults, controls = ([r for r in rows if (r["planted"] == "healthy") == k] for k in (False, True))
    def rate(some):
        runs = {n: [r for r in some if r["run"] == n] for n in planted_faults()}
        return {n: sum(map(right, v)) / len(v) for n, v in runs.items() if v}
    mean = lambda some: sum(map(right, some)) / len(some) if some else None
    named = {n: dict(Counter(r["named"] for r in faults if r["run"] == n)) for n in rate(faults)}
    return dict(top1=mean(faults), cells=len(faults), per_fault=rate(faults), controls=rate(controls),
                alarms=[dict(run=r["run"], seed=r["seed"], found=r["found"]) for r in controls if not right(r)],
                named=named, planted={n: v.cause for n, v in planted_faults().items()},
                change={n: v.change for n, v in planted_faults().items()},
                seconds=dict(train=round(sum(r["train_s"] for r in rows)),
                             examine=round(sum(r["examine_s"] for r in rows))))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", nargs="*", help="names of faults or controls; they are run even if the file has them")
    ap.add_argument("--seeds", type=int, default=5)
    ap.add_argument("--jobs", type=int, default=2, help="processes")
    ap.add_argument("--out", default=str(HERE / "results" / "jsddpm_doctor.json"))
    a = ap.parse_args()
    every, path = planted_faults(), Path(a.out)
    if odd := set(a.only or ()) - set(every):
        raise SystemExit(f"unknown: {', '.join(sorted(odd))}; known: {', '.join(every)}")
    rows = {(r["run"], r["seed"]): r for r in json.loads(path.read_text())["rows"]} if path.exists() else {}
    todo = [(n, s) for s in range(a.seeds) for n in (a.only or every) if a.only or (n, s) not in rows]
    late = lambda s: [n for n, k in todo if k == s and every[n].after]
    control = lambda n: every[n].cause == "healthy" and n != "healthy"
    jobs = [j for s in range(a.seeds) for j in (([(late(s), s)] if late(s) else [])
                                                + [([n], s) for n, k in todo if k == s and not every[n].after
                                                   and not control(n)])]
    jobs += [([n], s) for n, s in todo if control(n)] # last: least is learned from them
    about = dict(budget=asdict(BUDGET),
                 machine=f"{platform.machine()}, {os.cpu_count()} shared cores, 1 thread a process",
                 versions=dict(python=platform.python_version(), torch=metadata.version("torch")))
    with get_context("spawn").Pool(a.jobs) as pool, tqdm(total=len(todo), disable=None) as bar:
        for made in pool.imap_unordered(work, jobs):
            rows |= {(r["run"], r["seed"]): r for r in made}
            kept = [rows[n, s] for n in every for s in range(a.seeds) if (n, s) in rows]
            write_whole(path, json.dumps(score(kept) | about | dict(seeds=a.seeds, commit=git("rev-parse", "HEAD"),
                                                                    rows=kept), indent=1))
            bar.update(len(made))
            for r in made:
                print(f"{'right' if right(r) else 'WRONG'} {r['run']:14} seed {r['seed']}: planted {r['planted']}, "
                      f"named {r['named']}; {r['found'][:3]}  {r['train_s']:.0f} + {r['examine_s']:.0f} s of CPU",
                      flush=True)
    done = json.loads(path.read_text())
    print(f"top-1 {done['top1']:.1%} of {done['cells']}" if done["cells"] else "no faults",
          f"; controls {done['controls']}; {path}")


if __name__ == "__main__": main()

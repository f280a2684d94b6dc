"""The examination on planted faults: each on every kind of data that it fits, and sound runs; into results/doctor.json.

    python bench/doctor.py                                   # all of it, five seeds, two processes
    python bench/doctor.py --faults slow_ema,too_few_steps --kinds mixture --seeds 0
    python bench/doctor.py --healthy                         # the sound runs alone
    python bench/doctor.py --unseen bench/unseen_faults.py   # a file with further faults; they are scored apart

Finished cells are kept beside the result, and reused while the code is the same.
A file of unseen faults holds functions `Pipeline -> Pipeline` under `@fault(cause, kinds, trains)`, with a line of
docstring each. `trains=False`: the fault acts only after training, and shares the weights of the sound run.

    from dataclasses import replace
    from edm_lab.faults.pipeline import fault

    @fault("schedule_mismatch", ("mixture", "digits"), trains=False)
    def half_the_grid(p):
        "The sampler starts in the middle of the grid."
        return replace(p, schedule=p.schedule[9:])
"""
import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections import Counter, defaultdict
from importlib import metadata, util
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1") # before torch is loaded, here and in the workers

import torch
from tqdm import tqdm

from edm_lab.faults import registry  # noqa: F401 (importing it registers the faults)
from edm_lab.core import write_whole
from edm_lab.model_checks.examine import examine
from edm_lab.faults.pipeline import FAULTS, DATA_KINDS, fit_run, reference_config, control_runs, context_of

HERE = Path(__file__).parent
RESULT = HERE / "results" / "doctor.json"
SEEDS = 5
GRAVE = ("critical", "high", "medium")                                    # above low


def load(path):
    "The faults that a file registers, beyond those of the book."
    before = set(FAULTS)
    spec = util.spec_from_file_location("unseen_faults", path)
    spec.loader.exec_module(util.module_from_spec(spec))
    return set(FAULTS) - before


def code():
    "A hash of what a cell depends on: the modules of the library that are loaded."
    files = sorted(m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "edm_lab"
                   and getattr(m, "__file__", None))
    return hashlib.blake2b(b"".join(Path(f).read_bytes() for f in files), digest_size=8).hexdigest()


def verdict(p, t):
    "The report on a run, as a row."
    begun = time.perf_counter()
    s = vars(context_of(p, t)).copy()
    report = examine(s.pop("D"), s.pop("data"), n=384 if p.kind == "points" else 1024, **s)
    found = [(f.cause, f.severity, round(f.confidence, 3)) for f in report.findings if f.severity != "benign"]
    broke = list(report.broken)
    first = found[0][0] if found else "healthy"
    return dict(first=first, found=found, broke=broke, train_s=round(t.seconds, 2),
                examine_s=round(time.perf_counter() - begun, 2))


def work(job):
    "The rows of one job: a sound run by name, a fault that trains, or the faults that share one sound run."
    names, kind, seed, unseen = job
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if unseen and not set(names) <= set(FAULTS): load(unseen)
    if seed is None:
        p = dict(control_runs())[names[0]]
        return [dict(run=names[0], kind=p.kind, seed=p.seed, **verdict(p, fit_run(p)))]
    base = reference_config(kind, seed)
    shared = None if FAULTS[names[0]].trains else fit_run(base)
    rows = []
    for n in names:
        p = FAULTS[n].plant(base)
        rows.append(dict(run=n, kind=kind, seed=seed, **verdict(p, shared or fit_run(p))))
    return rows


def jobs(faults, kinds, seeds, with_healthy, unseen):
    "All cells, those that share a sound run together; the order spreads the kinds, so that a part is a sample."
    out = []
    for seed in range(seeds):
        for kind in kinds:
            fit = [n for n in faults if kind in FAULTS[n].kinds]
            out += [([n], kind, seed, unseen) for n in fit if FAULTS[n].trains]
            if late := [n for n in fit if not FAULTS[n].trains]: out.append((late, kind, seed, unseen))
    if with_healthy: out[:0] = [([name], None, None, unseen) for name, p in control_runs() if p.kind in kinds]
    return out


def score(rows, unseen):
    "The figures of a list of rows."
    hits, confusion, alarms, n_healthy = defaultdict(list), defaultdict(Counter), [], 0
    for r in rows:
        if r["run"] in FAULTS:
            hits[r["run"]].append(r["first"] == FAULTS[r["run"]].cause)
            confusion[r["run"]][r["first"]] += 1
        else:
            n_healthy += 1
            allowed = {"undertrained"} if r["run"].startswith("early") else set()
            if any(s in GRAVE and c not in allowed for c, s, _ in r["found"]):
                alarms.append(dict(run=r["run"], found=r["found"][:3]))
    seen = [h for n, v in hits.items() if n not in unseen for h in v]
    rate = {n: sum(v) / len(v) for n, v in hits.items()}
    return dict(top1=sum(seen) / len(seen) if seen else None, cells=len(seen),
                per_fault={n: r for n, r in rate.items() if n not in unseen},
                unseen_faults={n: r for n, r in rate.items() if n in unseen}, control_runs=n_healthy,
                false_alarms=len(alarms), alarms=alarms,
                confusion={n: dict(c.most_common()) for n, c in confusion.items()},
                planted={n: FAULTS[n].cause for n in hits},
                by_kind={k: sum(v) / len(v) for k in DATA_KINDS if (v := [r["first"] == FAULTS[r["run"]].cause
                                                                     for r in rows if r["kind"] == k
                                                                     and r["run"] in FAULTS
                                                                     and r["run"] not in unseen])},
                seconds=dict(train=round(sum(r["train_s"] for r in rows), 1),
                             examine=round(sum(r["examine_s"] for r in rows), 1)))


def git(*a): return subprocess.run(["git", "-C", str(HERE), *a], capture_output=True, text=True).stdout.strip()


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--faults", default="", help="names, comma-separated; default all")
    ap.add_argument("--kinds", default=",".join(DATA_KINDS))
    ap.add_argument("--seeds", type=int, default=SEEDS)
    ap.add_argument("--healthy", action="store_true", help="the healthy runs alone")
    ap.add_argument("--no-healthy", action="store_true", help="the faults alone")
    ap.add_argument("--unseen", default="", help="a file that registers further faults")
    ap.add_argument("--stale", action="store_true",
                    help="reuse cells of older code too: for work on the doctor, not for a result")
    ap.add_argument("--jobs", type=int, default=2, help="processes")
    ap.add_argument("--out", default=str(RESULT))
    a = ap.parse_args()
    unseen = load(a.unseen) if a.unseen else set()
    names = [n for n in FAULTS if not a.faults or n in a.faults.split(",")] if not a.healthy else []
    if lost := set(filter(None, a.faults.split(","))) - set(FAULTS): ap.error(f"no fault {', '.join(sorted(lost))}")
    key, path = code() + (hashlib.blake2b(Path(a.unseen).read_bytes(), digest_size=4).hexdigest() if a.unseen
                          else ""), Path(a.out)
    kept = path.with_suffix(".cells.jsonl")
    old = [json.loads(line) for line in kept.read_text().splitlines() if line.endswith("}")] if kept.exists() else []
    rows = {(r["run"], r["kind"], r["seed"]): r for r in old if a.stale or r["code"] in (key, code())}
    todo = jobs(names, a.kinds.split(","), a.seeds, a.healthy or not (a.faults or a.no_healthy), a.unseen)
    wanted, part = set(), []
    sorts = {n: p for n, p in control_runs()}
    for ns, kind, seed, u in todo:
        cells = [(n, kind, seed) if seed is not None else (n, sorts[n].kind, sorts[n].seed) for n in ns]
        wanted |= set(cells)
        if left := [n for n, c in zip(ns, cells) if c not in rows]: part.append((left, kind, seed, u))
    kept.parent.mkdir(parents=True, exist_ok=True)
    left = sum(len(p[0]) for p in part)
    bar = tqdm(total=len(wanted), initial=len(wanted) - left, disable=None)
    with get_context("spawn").Pool(a.jobs) as pool, open(kept, "a") as f, bar:
        for made in pool.imap_unordered(work, part):
            for r in made:
                rows[r["run"], r["kind"], r["seed"]] = r
                f.write(json.dumps(r | dict(code=key if r["run"] in unseen else code())) + "\n")
            f.flush()
            bar.update(len(made))
    done = score([rows[c] for c in sorted(wanted, key=str)], unseen)
    done |= dict(seeds=a.seeds, stale=a.stale, machine=f"{platform.machine()}, {os.cpu_count()} shared cores, 1 "
                 f"thread a process", commit=git("rev-parse", "HEAD"),
                 versions=dict(python=platform.python_version(), torch=metadata.version("torch")))
    write_whole(path, json.dumps(done, indent=1))
    top = "none" if done["top1"] is None else f"{done['top1']:.1%} of {done['cells']}"
    print(f"top-1 {top}; worst {sorted(done['per_fault'].items(), key=lambda kv: kv[1])[:5]}; {done['false_alarms']} "
          f"false alarms in {done['control_runs']} healthy runs")
    print(path)


if __name__ == "__main__": main()

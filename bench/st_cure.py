"""Case st: what cures the collapse, and coordinates from a reference. Into results/st_cure.json, row by row.

    python bench/st_cure.py --bdtnp FOLDER             # all rows that the file does not have yet
    python bench/st_cure.py --seeds 3 --bdtnp FOLDER   # more seeds
    python bench/st_cure.py --only residual slide      # some of them
"""
import argparse
import json
import os
import platform
import subprocess
import time
import warnings
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from edm_lab.cases.st.cure import cures, score_cure, train_cure
from edm_lab.cases.st.data import baseline_scores, prepare_tissue, score_held
from edm_lab.cases.st.failure import TissueBudget
from edm_lab.cases.st.reference import train_placer
from edm_lab.core import write_whole
from edm_lab.data.anndata import read_bdtnp
from edm_lab.data.tissue import simulate

HERE = Path(__file__).parent
WIDE = dict(BDTNP=64, simulated=32)                                       # features of a cell
HELD = dict(placed="cells", unseen="section") # what is held out where coordinates are predicted


def git(*a): return subprocess.run(["git", "-C", str(HERE), *a], capture_output=True, text=True).stdout.strip()


def cured(name, tissue, budget):
    "A row of the comparison."
    bar = tqdm(total=budget.steps, desc=name, disable=None)
    D, held, way = train_cure(cures()[name], tissue, budget, lambda r: bar.update())
    bar.close()
    return score_cure(D, held) | way


def placed(tissue, seed, k, how):
    "Coordinates from a reference, on held-out cells: the baselines, the lookup, the mean of eight samples, one sample."
    p = prepare_tissue(tissue, k=k, how=how, seed=seed)
    m = train_placer(p, seed=seed)
    w = m.place(p.held)
    err = ((w.coordinates - p.y[p.held])**2).mean()
    scores = baseline_scores(p) | dict(reference=score_held(p, m.base[p.held]),
                                       coordinates=score_held(p, w.coordinates),
                                       one_sample=score_held(p, m.sample(p.held, 1)))
    kept = ("knn10_recall", "spearman", "scale", "rmsd_aligned", "contact_f1", "trustworthiness", "stress1")
    rows = {k: {a: round(v[a], 4) for a in kept} for k, v in scores.items()}
    ratio = float(np.sqrt(err / (w.uncertainty**2).mean()))
    return rows | dict(lookup=m.ref.lookup, factor=round(m.factor, 3), error_over_uncertainty=round(ratio, 3))


def line(row):
    "The main numbers of a row."
    if "coordinates" in row:
        return "  ".join(f"{k} {row[k]['knn10_recall']:.3f}" for k in ("expr_knn", "reference", "coordinates",
                                                                       "one_sample"))
    return f"{row['scale_r']} kNN {row['knn10']:.3f} ({row['chance']:.3f}) turned {row['turned_knn10']:.3f}"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", nargs="*", default=[*cures(), *HELD])
    ap.add_argument("--seeds", type=int, default=1)
    ap.add_argument("--steps", type=int, default=1200)
    ap.add_argument("--bdtnp", help="folder of the BDTNP embryo")
    ap.add_argument("--tissues", nargs="*", default=["simulated", "BDTNP"])
    ap.add_argument("--out", default=str(HERE / "results" / "st_cure.json"))
    a = ap.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    path, budget = Path(a.out), TissueBudget(steps=a.steps)
    done = json.loads(path.read_text()) if path.exists() else {}
    if done.get("budget") != json.loads(json.dumps(asdict(budget))): done = {}
    tissues = {"simulated": lambda s: simulate(budget.cells, 1, 300, seed=s)}
    if a.bdtnp: tissues["BDTNP"] = lambda s: read_bdtnp(a.bdtnp)
    for seed in range(a.seeds):
        for data, make in ((k, v) for k, v in tissues.items() if k in a.tissues):
            for name in a.only:
                key = f"{data} {name} {seed}"
                if key in done or (name == "unseen" and data == "BDTNP"): continue
                began = time.process_time()
                if name in HELD: # two simulated sections: one may be unseen
                    row = placed(make(seed) if data == "BDTNP" else simulate(seed=seed), seed, WIDE[data], HELD[name])
                else: row = cured(name, make(seed), TissueBudget(steps=a.steps, seed=seed))
                done[key] = row | dict(cpu_seconds=round(time.process_time() - began, 1))
                done |= dict(budget=asdict(budget), commit=git("rev-parse", "HEAD"),
                             machine=f"{platform.machine()}, {os.cpu_count()} shared cores, 1 thread",
                             versions=dict(python=platform.python_version(), torch=metadata.version("torch")))
                write_whole(path, json.dumps(done, indent=1))
                print(f"{key:30}", line(row), f"{done[key]['cpu_seconds']:.0f} s", flush=True)


if __name__ == "__main__": main()

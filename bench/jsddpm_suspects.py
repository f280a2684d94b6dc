"""Case jsddpm: each suspect planted alone into a reference run, on the same data and budget, into
results/jsddpm_suspects.json.

    python bench/jsddpm_suspects.py                        # those the file does not have; it can be stopped at any time
    python bench/jsddpm_suspects.py --only clamp_1 no_skip # some of them, anew (with all other uses of their networks)
    python bench/jsddpm_suspects.py --steps 1200 --out results/jsddpm_suspects_long.json
    python bench/jsddpm_suspects.py --seed 1 --only healthy clamp_1 noise_10 --out results/jsddpm_suspects_seed1.json
    python bench/jsddpm_suspects.py --verdicts             # no training: today's diagnosis of the rows in the file
"""
import argparse
import json
import os
import platform
import subprocess
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import edm_lab
import torch
from tqdm import tqdm

from edm_lab.cases.jsddpm.suspect_runs import SliceBudget, run_suspect, suspect_card
from edm_lab.cases.jsddpm.suspects import slice_suspects, tiles
from edm_lab.core import write_whole
from edm_lab.data.nifti import brain_prior
from edm_lab.data.phantom import phantom_slices
from edm_lab.log_checks.diagnose import diagnose

HERE = Path(__file__).parent


def git(*a): return subprocess.run(["git", "-C", str(HERE), *a], capture_output=True, text=True).stdout.strip()


def data(budget):
    "Training tiles, of every other slice, and tiles of held-out slices that are evenly spaced in height."
    train, held = phantom_slices(budget.subjects, budget.size, budget.seed).split(.75, budget.seed)
    prior, order = brain_prior(train), held.z.argsort()
    return (tiles(train[::2].rows(prior)),
            tiles(held[order[torch.linspace(0, len(held) - 1, budget.held).round().long()]].rows(prior)))


def diagnosed(name, row, suspect):
    "The diagnosis of a row."
    d = diagnose(suspect_card(row, suspect, name))
    return dict(verdict=d.cause, sentence=d.verdict, findings=[f.cause for f in d.findings])


def keep(path, rows, budget):
    "Put rows into the file."
    done = json.loads(path.read_text()) if path.exists() else {}
    about = json.loads(json.dumps(asdict(budget)))
    if done.get("budget", about) != about:
        raise SystemExit(f"{path} holds runs of another budget: name another file by --out")
    versions = {"python": platform.python_version(), "torch": metadata.version("torch"), "edm_lab": edm_lab.__version__}
    done |= rows | {"budget": about, "commit": git("rev-parse", "HEAD"),
                    "machine": f"{platform.machine()}, {os.cpu_count()} shared cores, 1 thread", "versions": versions}
    write_whole(path, json.dumps(done, indent=1))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", nargs="*",
                    help="names of suspects that are trained; they are run even if the file has them")
    ap.add_argument("--steps", type=int, default=SliceBudget().steps)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--verdicts", action="store_true", help="diagnose the rows of the file anew")
    ap.add_argument("--out", default=str(HERE / "results" / "jsddpm_suspects.json"))
    a = ap.parse_args()
    torch.set_num_threads(1)
    budget, path, every = SliceBudget(steps=a.steps, seed=a.seed), Path(a.out), slice_suspects()
    have = json.loads(path.read_text()) if path.exists() else {}
    if a.verdicts:
        return print(write_whole(path, json.dumps({k: v | diagnosed(k, v, every[k]) if k in every else v
                                                   for k, v in have.items()}, indent=1)))
    todo = a.only or [k for k, v in every.items() if not v.of
                      and not {k, *(n for n, o in every.items() if o.of == k)} <= have.keys()]
    if odd := [k for k in todo if k not in every or every[k].of]:
        raise SystemExit(f"not trained: {', '.join(odd)}; known: {', '.join(k for k, v in every.items() if not v.of)}")
    if not todo: return print(f"{path} is complete")
    train, held = data(budget)
    print(f"{len(train)} training tiles, {len(held)} held out", flush=True)
    for name in todo:
        began, wall, rows = time.process_time(), time.time(), {}
        with tqdm(total=round(budget.steps * every[name].steps), desc=name, disable=None) as bar:
            for k, row in run_suspect(name, every, train, held, budget,
                                   lambda r: bar.update()): rows[k] = row | diagnosed(k, row, every[k])
        rows[name]["cpu_seconds"] = round(time.process_time() - began, 1)
        keep(path, rows, budget)
        for k, r in rows.items():
            print(f"{k:16} distance {r['distance_to_original']:.3f} worst {r['worst']:.2f}  "
                  f"{' '.join(f'{v:.3f}' for v in r['mse_eps'].values())}  all t {r['image_all']:.3f} mask "
                  f"{r['mask_all']:.3f}  {r['verdict']}", flush=True)
        print(f"   {rows[name]['cpu_seconds']:.0f} s of CPU, {time.time() - wall:.0f} s", flush=True)


if __name__ == "__main__": main()

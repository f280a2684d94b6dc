"""Case st: a network trained on discs, beside the exact oracle of an unknown frame, into results/st_theory.json.

    python bench/st_theory.py                     # the runs that the file does not have yet
    python bench/st_theory.py --only gram --steps 3000
"""
import argparse
import json
import os
import platform
import time
import warnings
from importlib import metadata
from pathlib import Path

import torch
from st_suspects import git
from tqdm import tqdm

from edm_lab.cases.st.discs import Discs, disc_curves, train_discs
from edm_lab import __version__
from edm_lab.core import write_whole

HERE = Path(__file__).parent
# name -> frame of the target, aligned loss
RUNS = dict(gram=("gram", False), o2=("o2", False), slide=("slide", False), aligned=("gram", True))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", nargs="*", choices=RUNS, help="these runs, anew")
    ap.add_argument("--steps", type=int, default=1500)
    ap.add_argument("--out", default=str(HERE / "results" / "st_theory.json"))
    a = ap.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    path = Path(a.out)
    for name in a.only or RUNS:
        done = json.loads(path.read_text()) if path.exists() else {}
        if not a.only and done.get(name, {}).get("steps") == a.steps: continue
        discs, began = Discs(frame=RUNS[name][0]), time.process_time()
        bar = tqdm(total=a.steps, desc=name, disable=None)
        D = train_discs(discs, a.steps, aligned=RUNS[name][1], callback=lambda step, loss: bar.update())
        bar.close()
        done = json.loads(path.read_text()) if path.exists() else {}
        versions = {"python": platform.python_version(), "torch": metadata.version("torch"), "edm_lab": __version__}
        done |= {name: dict(steps=a.steps, curves=disc_curves(D, discs),
                            cpu_seconds=round(time.process_time() - began, 1)), "commit": git("rev-parse", "HEAD"),
                 "machine": f"{platform.machine()}, {os.cpu_count()} shared cores, 1 thread", "versions": versions}
        write_whole(path, json.dumps(done, indent=1))
        print(name, [f"{v:.3f}" for v in done[name]["curves"]["net"]["scale_r"]],
              [f"{v:.3f}" for v in done[name]["curves"]["o2"]["scale_r"]], flush=True)


if __name__ == "__main__": main()

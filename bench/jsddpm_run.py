"""Keep the metrics of whole runs of case jsddpm, for the pages that show them: bench/results/jsddpm_run_SEED.json,
and some slices of each, samples and the real ones of the same tokens, jsddpm_run_SEED.npz.

    edm_lab run jsddpm --seed 0 --out runs/zero
    python bench/jsddpm_run.py runs/zero

Runs without the modes of brightness are kept as jsddpm_run_plain_SEED (--name jsddpm_run_plain).
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch

from edm_lab.cases.jsddpm.measures import even_heights
from edm_lab.cases.jsddpm.quality import brightness
from edm_lab.cases.jsddpm.run_training import SliceRunSize, common_tokens, open_slices
from edm_lab.core import LabError, write_whole
from edm_lab.data.nifti import find_volumes

RESULTS = Path(__file__).parent / "results"
SHOWN = list(range(18, 50, 5)) # of 64, by height
LEFT_OUT = ("eps_table", "volumes", "seconds") # a run that was resumed took longer than it says


def kept(folder, name):
    "Figures and pictures of one run on phantoms."
    options, m = (json.loads((Path(folder) / f).read_text()) for f in ("run.json", "metrics.json"))
    if options["data"] or options["quick"] or options["changes"]:
        raise LabError(folder, "another kind of run", "one on phantoms, with nothing changed")
    (v,) = find_volumes(folder)
    samples = torch.from_numpy(np.asarray(v.image)).permute(2, 1, 0).flip(1)
    held = common_tokens(open_slices(None, SliceRunSize(), options["seed"]))[1]
    real = held[even_heights(held, SliceRunSize().samples)].x[:, 0]
    m["brightness_of"] = {k: sorted(round(v, 3) for v in brightness(x[:, None]).tolist())
                          for k, x in dict(samples=samples, real=real).items()}
    m["brightness"] = {k: float(torch.tensor(v).std()) for k, v in m["brightness_of"].items()}
    path = RESULTS / f"{name}_{options['seed']}.json"
    write_whole(path, json.dumps({k: x for k, x in m.items() if k not in LEFT_OUT}, indent=1))
    images = {k: ((x[SHOWN].clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
              for k, x in dict(samples=samples, real=real).items()}
    np.savez_compressed(path.with_suffix(".npz"), **images)


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("folder", nargs="+")
    ap.add_argument("--name", default="jsddpm_run")
    a = ap.parse_args()
    for f in a.folder: kept(f, a.name)

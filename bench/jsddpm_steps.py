"""Errors of the default run of case jsddpm after equal steps: with AdamW or Muon on the matrices, with a map of the
brain or the atlas of its height, with or without modes.

Writes bench/results/jsddpm_steps.json: {ROW: {"ratio": {channel: geometric mean over ten times}, "over_mean_slice":
image in tenths of the times, "over_linear": brightness, likewise, "brightness": {samples or real: standard deviation
over slices}, "judge": ..., "within": ..., "seconds": ...}}. Beside it jsddpm_steps.npz: for each row, images (0 to 255)
of real slices, of the predictions from pure noise, and of samples.
Errors are those of held-out subjects; the rows see the same slices, batches, noise and first weights.
    python bench/jsddpm_steps.py [--steps 1000] [--seed 0]
"""
import argparse
import json
import os
import platform
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from edm_lab.cases.jsddpm.data import prepare_slices, read_slices
from edm_lab.cases.jsddpm.measures import draw_slices, slice_errors
from edm_lab.cases.jsddpm.quality import brightness, obeyed, quality, train_judge
from edm_lab.cases.jsddpm.run_training import SliceRunSize, common_tokens, run_config, train_denoiser
from edm_lab.core import rng, seed_of, write_whole

ROWS = {"AdamW, map of brain": (None, False, False), "AdamW, atlas": (None, True, False),
        "Muon, map of brain": (.01, False, False), "Muon, atlas": (.01, True, False),
        "Muon, atlas, modes": (.01, True, True)}
OUT = Path(__file__).parent / "results" / "jsddpm_steps.json"


def row(slices, size, seed, muon, atlas, modes, J):
    began, p = time.perf_counter(), prepare_slices(slices, seed=seed, atlas=atlas)
    D, _, s = train_denoiser(p, size, seed, s=run_config(muon, modes))
    _, bins = slice_errors(D, p, s, size, seed)
    samples, real = draw_slices(D, p, s, size, seed)
    a, b = common_tokens(p)
    q = quality(samples.x, a.x, b.x, seed=seed)
    geo = {c: float(torch.tensor(list(v.values())).log().mean().exp()) for c, v in bins["ratio_to_scalar"].items()}
    some = list(range(18, 50, 5))
    top = D(1e4 * torch.randn(len(some), 2, *samples.x.shape[2:], generator=rng(seed, "top")), 1e4,
            real[some].rows(p.prior).cond).detach()
    return dict(ratio=geo, ratio_to_scalar=bins["ratio_to_scalar"], over_mean_slice=bins["ratio_to_height"]["image"],
                over_linear=bins["ratio_to_linear"],
                brightness={k: float(brightness(v.x).std()) for k, v in dict(samples=samples, real=real).items()},
                within=sum(v["within"] for v in q.values()), quality=q,
                judge=dict(samples=obeyed(J, samples.x, samples.z_bin, samples.lesion),
                           real=obeyed(J, real.x, real.z_bin, real.lesion)),
                seconds=time.perf_counter() - began), torch.stack([real.x[some], top, samples.x[some]])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--steps", type=int, default=1000)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--out", default=str(OUT))
    a = ap.parse_args()
    torch.set_num_threads(1)
    size = replace(SliceRunSize(), steps=a.steps)
    slices, out = read_slices(None, size.size, size.subjects, a.seed), {}
    p = prepare_slices(slices, seed=a.seed)
    J, pictures = train_judge(p.train.x, p.train.z_bin, p.train.lesion, p.train.bins, size.judge,
                              seed=seed_of(a.seed, "judge") % 2**31), {}
    for name, settings in ROWS.items():
        out[name], pictures[name] = row(slices, size, a.seed, *settings, J)
        r = out[name]
        print(f"{name:22} image {r['ratio']['image']:.4f} mask {r['ratio']['mask']:.4f}, top over mean slice "
              f"{list(r['over_mean_slice'].values())[-1]:.3f}, brightness {r['brightness']['samples']:.3f} (real "
              f"{r['brightness']['real']:.3f}), {r['within']} of 8 within, height {r['judge']['samples']['z']:.2f} "
              f"(real {r['judge']['real']['z']:.2f}), {r['seconds']:.0f} s", flush=True)
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        about = dict(cores=os.cpu_count(), machine=platform.machine(), torch=torch.__version__, commit=commit)
        write_whole(a.out, json.dumps(dict(rows=out, steps=a.steps, seed=a.seed, about=about), indent=1))
        np.savez_compressed(Path(a.out).with_suffix(".npz"),
                            **{k: ((v[:, :, 0].clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
                               for k, v in pictures.items()})


if __name__ == "__main__": main()

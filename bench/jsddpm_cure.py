"""Case jsddpm: eps, v, x0 and F on one budget, their samples, a sweep of guidance, and a network of MONAI on the same
budget, into results/jsddpm_cure.json.

    python bench/jsddpm_cure.py                   # rows that the file does not have; it can be stopped any time
    python bench/jsddpm_cure.py --only F guidance # some of them, anew (guidance uses F, trained if not kept)
    python bench/jsddpm_cure.py --steps 3000 --out results/jsddpm_cure_long.json

The rows monai and monai_v need `pip install 'edm_lab[monai]'`. Theirs: DiffusionModelUNet, DDPMScheduler and
DDIMScheduler. Ours: all else: data, batches, times, optimiser, average. Theirs has the better of two rates.
"""
import argparse
import base64
import json
import math
import os
import platform
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import edm_lab
import torch
from tqdm import tqdm

from edm_lab.cases.jsddpm.cure import judge_samples, kinds, ratios, train_kind
from edm_lab.cases.jsddpm.data import prepare_slices, read_slices
from edm_lab.cases.jsddpm.failure import ORIGINAL_T
from edm_lab.cases.jsddpm.suspect_runs import SliceBudget
from edm_lab.cases.jsddpm.model import channel_spread
from edm_lab.cases.jsddpm.quality import train_judge
from edm_lab.cases.jsddpm.sampling import eps_table, sample_slices
from edm_lab.cases.jsddpm.system import build_system, slice_batch, slice_config
from edm_lab.core import rng, seed_of, sigma_like, write_whole
from edm_lab.training.ema import EMA
from edm_lab.samplers.schedules import ab_sigmas

HERE = Path(__file__).parent
KEPT = Path(tempfile.gettempdir()) / "jsddpm_cure" # averages, for rows that need them again
STOPS = 20, 40, 70, 100, 150, 200, 250, 300, 400, 500, 600, 700, 800, 1000, 1500, 2000, 2500, 3000
ROWS = ("F", "eps", "v", "x0", "guidance", "monai", "monai_v")


def git(*a): return subprocess.run(["git", "-C", str(HERE), *a], capture_output=True, text=True).stdout.strip()


class Watch:
    "Held-out losses at some steps; their time is not counted as training."
    def __init__(self, p, s, steps):
        self.rows, self.s, self.steps = p.rows(True)[torch.arange(0, len(p.held), 5)], s, steps
        self.curve, self.spent = [], 0.
        self.began, self.bar = time.process_time(), tqdm(total=steps, disable=None)
    def __call__(self, step, D):
        self.bar.update()
        if step not in STOPS and step != self.steps: return
        now = time.process_time()
        table = eps_table(D, self.rows, self.s, ORIGINAL_T)
        self.curve.append(dict(step=step, seconds=round(now - self.began - self.spent, 2),
                               mse_eps={c: [round(r["mse_eps"][c], 8) for r in table] for c in ("image", "mask")}))
        self.spent += time.process_time() - now
    def done(self):
        self.bar.close()
        return dict(curve=self.curve, train_seconds=self.curve[-1]["seconds"])


def pictures(x, at):
    "Six pairs, evenly spaced in the list, as bytes."
    pick = torch.linspace(len(x) // 8, len(x) - 1 - len(x) // 8, 6).round().long()
    return dict(at=at[pick].tolist(), size=list(x.shape[2:]),
                bytes=base64.b64encode(((x[pick].clamp(-1, 1) + 1) * 127.5).round().byte().numpy().tobytes()).decode())


def samples(name, draw, p, J):
    "Quality of samples with the tokens of the held-out slices."
    began, at = time.process_time(), p.held.z.argsort()
    x = draw({k: v[at] for k, v in p.rows(True).cond.items()})
    row = judge_samples(x.nan_to_num(0).clamp(-4, 4), at, p, J)
    return {name: row | dict(pictures=pictures(x, at), largest=float(x.abs().max()),
                             seconds=round(time.process_time() - began, 1))}


@contextmanager
def cut(D, at):
    "x0_hat is cut to [-at, at] inside."
    own, D.clip = D.clip, at
    try: yield D
    finally: D.clip = own


def ours(name, p, J, budget, calls):
    "A row of our own."
    s = kinds()[name]
    watch = Watch(p, s, budget.steps)
    _, D = train_kind(s, p, budget, lambda r: watch(r["step"], r["ema"].D))
    KEPT.mkdir(exist_ok=True)
    torch.save(D.state_dict(), KEPT / f"{name}-{budget.steps}.pt")
    row = watch.done() | ratios(D, p, s) | dict(weights=sum(v.numel() for v in D.parameters()))
    with cut(D, 1.): row |= samples("samples", lambda cond: sample_slices(D, cond, s, steps=calls), p, J)
    if name == "eps": row |= samples("samples_uncut", lambda cond: sample_slices(D, cond, s, steps=calls), p, J)
    return row


def guidance(p, J, budget, calls, ws=(0., 1., 1.5, 2., 4.)):
    "F, guided by the token; every third slice, as many calls a sample."
    at, s, out = p.held.z.argsort()[::3], kinds()["F"], {}
    if not (KEPT / f"F-{budget.steps}.pt").exists(): ours("F", p, J, budget, 2)
    shift, sigma_data = channel_spread(p.train.x)
    D = build_system(s, p.train.bins, budget.channels, sigma_data=sigma_data, shift=shift,
                     z_range=p.train.z_range or None)
    D.load_state_dict(torch.load(KEPT / f"F-{budget.steps}.pt", weights_only=True))
    D.eval()
    cond = {k: v[at] for k, v in p.rows(True).cond.items()}
    for w in ws:
        with cut(D, 1.): x = sample_slices(D, cond, s, steps=calls, guidance=w)
        out[f"{w:g}"] = judge_samples(x, at, p, J) | dict(pictures=pictures(x, at), spread=float(x.std(0).mean()))
    return dict(w=out, calls=calls)


class Theirs(torch.nn.Module):
    "MONAI's network as a denoiser: conditioned on an integer time, it predicts the noise, or the velocity."
    def __init__(self, net, table, kind):
        super().__init__()
        self.net, self.levels, self.kind, self.sigma_data = net, ab_sigmas(table), kind, 1.
    def output(self, xt, t, cond): return self.net(torch.cat([xt, cond["image"]], 1), t, class_labels=cond["label"])
    def forward(self, x, sigma, cond=None):
        sg = sigma_like(sigma, x).reshape(-1, 1, 1, 1).expand(len(x), 1, 1, 1)
        xt = x / (1 + sg**2).sqrt()
        out = self.output(xt, time_of(sg.flatten(), self.levels), cond)
        return x - sg * out if self.kind == "eps" else (xt - sg * out) / (1 + sg**2).sqrt()


def time_of(sigma, levels): return torch.searchsorted(levels, sigma.double() * (1 - 1e-6)).clamp_max(len(levels) - 1)


def monai_net(p, budget):
    from monai.networks.nets import DiffusionModelUNet
    with torch.random.fork_rng([]):
        torch.manual_seed(seed_of(budget.seed, "weights"))
        return DiffusionModelUNet(spatial_dims=2, in_channels=3, out_channels=2, channels=budget.channels,
                                  attention_levels=[False] * (len(budget.channels) - 1) + [True], num_res_blocks=2,
                                  num_head_channels=16, norm_num_groups=8, num_class_embeds=2 * p.train.bins + 1)


def monai_train(p, s, kind, budget, lr, callback):
    "The loop of MONAI's tutorials (add_noise, network, squared error), with our batches, AdamW, rate and average."
    from monai.networks.schedulers import DDPMScheduler
    table, p_rows, null = s.table, p.rows(), 2 * p.train.bins
    noise = DDPMScheduler(s.T, schedule="cosine", prediction_type={"eps": "epsilon", "v": "v_prediction"}[kind])
    M = Theirs(monai_net(p, budget), table, kind)
    opt = torch.optim.AdamW(M.parameters(), lr=lr, betas=(.9, .99), weight_decay=s.weight_decay)
    ema = EMA(M, s.ema, s.ema_warmup)
    for i in range(budget.steps):
        b, gen = slice_batch(p_rows, s, budget.batch_size, budget.seed, i), rng(budget.seed, "coins", i)
        t = time_of(b.sigma, M.levels)
        cond = dict(b.cond, label=torch.where(torch.rand(len(b.x0), generator=gen) < s.token_drop, null,
                                              b.cond["label"]))
        out = M.output(noise.add_noise(b.x0, b.eps, t), t, cond)
        loss = torch.nn.functional.mse_loss(out, b.eps if kind == "eps" else noise.get_velocity(b.x0, b.eps, t))
        for g in opt.param_groups:
            g["lr"] = lr * min(1., (i + 1) / 50) * (s.lr_end + (1 - s.lr_end)
                                                    * (1 + math.cos(math.pi * i / budget.steps)) / 2)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(M.parameters(), s.clip)
        opt.step()
        ema.update()
        callback(i + 1, ema.D.eval())
    return ema.D.eval()


@torch.no_grad()
def monai_samples(D, cond, s, calls, seed=0):
    "MONAI's DDIMScheduler with its defaults: x0_hat is cut to [-1, 1]."
    from monai.networks.schedulers import DDIMScheduler
    ddim = DDIMScheduler(s.T, schedule="cosine", prediction_type={"eps": "epsilon", "v": "v_prediction"}[D.kind])
    ddim.set_timesteps(calls)
    x = torch.randn(len(cond["label"]), 2, *cond["image"].shape[2:], generator=rng(seed, "samples"))
    for t in ddim.timesteps:
        out = torch.cat([D.output(x[i:i + 64], torch.full((len(x[i:i + 64]),), int(t)),
                                {k: v[i:i + 64] for k, v in cond.items()}) for i in range(0, len(x), 64)])
        x = ddim.step(out, int(t), x)[0]
    return x


def monai(p, J, budget, calls, kind="eps", rates=(1e-3, 3e-3), short=80):
    "A row of MONAI, at the better of two rates; ours has the one rate that it comes with."
    s, trial = slice_config(predicts=kind, self_cond=0.), {}
    for lr in rates:
        few = replace(budget, steps=short)
        watch = Watch(p, s, short)
        monai_train(p, s, kind, few, lr, watch)
        last = watch.done()["curve"][-1]["mse_eps"]
        trial[f"{lr:g}"] = sum(last["image"]) + sum(last["mask"])
    lr = min(rates, key=lambda v: trial[f"{v:g}"])
    watch = Watch(p, s, budget.steps)
    D = monai_train(p, s, kind, budget, lr, watch)
    about = dict(weights=sum(v.numel() for v in D.parameters()), lr=lr, trial=trial)
    drawn = samples("samples", lambda cond: monai_samples(D, cond, s, calls), p, J)
    return watch.done() | ratios(D, p, s) | about | drawn


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", nargs="*", choices=ROWS, help="rows that are made, even if the file has them")
    ap.add_argument("--steps", type=int, default=400)
    ap.add_argument("--calls", type=int, default=20, help="of the network, a sample")
    ap.add_argument("--out", default=str(HERE / "results" / "jsddpm_cure.json"))
    a = ap.parse_args()
    torch.set_num_threads(1)
    budget, path = SliceBudget(steps=a.steps, subjects=24, size=32), Path(a.out)
    p = prepare_slices(read_slices(None, budget.size, budget.subjects, budget.seed))
    J = train_judge(p.train.x, p.train.z_bin, p.train.lesion, p.train.bins)
    have = json.loads(path.read_text()) if path.exists() else {}
    about = json.loads(json.dumps(asdict(budget) | dict(calls=a.calls)))
    if have.get("budget", about) != about:
        raise SystemExit(f"{path} holds runs of another budget: name another file by --out")
    for name in a.only or [k for k in ROWS if k not in have]:
        began, wall = time.process_time(), time.time()
        if name.startswith("monai"): row = monai(p, J, budget, a.calls, "v" if name == "monai_v" else "eps")
        elif name == "guidance": row = guidance(p, J, budget, a.calls)
        else: row = ours(name, p, J, budget, a.calls)
        have = json.loads(path.read_text()) if path.exists() else {}
        about_data = dict(train=len(p.train), held=len(p.held), variance=p.variance.tolist(),
                          held_variance=p.held.x.double().var((0, 2, 3), correction=0).tolist(),
                          lesions=float(p.held.lesion.float().mean()))
        versions = {"python": platform.python_version(), "torch": metadata.version("torch"),
                    "edm_lab": metadata.version("edm_lab")}
        if name.startswith("monai") or "monai" in have: versions["monai"] = metadata.version("monai")
        have[name] = row | dict(cpu_seconds=round(time.process_time() - began, 1))
        have |= dict(budget=about, data=about_data, commit=git("rev-parse", "HEAD"), versions=versions,
                     machine=f"{platform.machine()}, {os.cpu_count()} shared cores, 1 thread")
        write_whole(path, json.dumps(have, indent=1))
        print(f"{name}: {have[name]['cpu_seconds']:.0f} s of CPU, {time.time() - wall:.0f} s", flush=True)
        if "R" in row: print("   R", {c: [round(v, 3) for v in r.values()] for c, r in row["R"].items()})
        for k in ("samples", "samples_uncut"):
            if k in row:
                print("   ", k, "outside:", [n for n, v in row[k]["quality"].items() if not v["within"]],
                      row[k]["memorisation"], row[k]["obeyed"], row[k]["obeyed_real"], row[k]["mask_right"], flush=True)


if __name__ == "__main__": main()

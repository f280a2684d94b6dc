"""Four faults that were written when the checks were frozen, and are scored apart.

    python bench/doctor.py --unseen bench/unseen_faults.py
"""
from dataclasses import replace

import torch

from edm_lab.core import randn_like
from edm_lab.faults.pipeline import CLASSES, fault
from edm_lab.diffusion.noise import Isotropic


class _FromOne:
    "A denoiser behind an interface that counts classes from one."
    def __init__(self, D, k): self.D, self.k, self.sigma_data = D, k, D.sigma_data
    def __call__(self, x, sigma, cond=None):
        if cond is not None and "label" in cond:
            label = cond["label"]
            cond = {**cond, "label": torch.where(label < self.k, (label + 1) % self.k, label)}
        return self.D(x, sigma, cond)


@fault("labels_permuted", ("digits", "classes"), trains=False)
def one_based_labels(p):
    "The service counts classes from one, training counted from zero."
    return replace(p, use=lambda D: _FromOne(D, CLASSES[p.kind]))


class _Smoothed(Isotropic):
    "Unit noise whose neighbours along the first axis are correlated, as after a blur."
    def sample(self, like, gen=None):
        eps = randn_like(like, gen).clone()
        for i in range(1, eps.shape[1]): eps[:, i] = .7 * eps[:, i - 1] + (1 - .7**2)**.5 * eps[:, i]
        return eps


@fault("correlated_noise", ("mixture", "digits", "classes", "points"))
def noise_smoothed(p):
    "The noise passes through the smoothing that is meant for the data."
    return replace(p, noise=_Smoothed())


@fault("normalisation_mismatch", ("mixture", "digits", "classes"), trains=False)
def held_out_shifted(p):
    "Held-out rows are centred on the mean of another batch of measurements."
    return replace(p, data=replace(p.data, x0=p.data.x0 + .6 * p.sigma_data))


@fault("ema_lag", ("mixture", "digits", "classes", "points"))
def ema_never_updated(p):
    "The average is made before training and its update is never called."
    return replace(p, decay=1 - 1e-12, warmup=False)

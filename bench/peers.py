"""Other libraries' samplers behind one call, `f(D, x, nfe) -> x`, with at most `nfe` calls of the denoiser.
A library that is not installed is left out, with a reason."""
import importlib.util
import math
import sys
import types
import warnings

import torch

SIGMA_MIN, SIGMA_MAX = .002, 80.
GRIDS = {"rho 5": 5., "rho 7": 7., "rho 10": 10., "log-uniform": math.inf}


def levels(n, rho=7.):
    "n falling Karras levels, float64, without the final zero; rho = inf is log-uniform."
    u = torch.linspace(0, 1, n, dtype=torch.float64) if n > 1 else torch.zeros(1, dtype=torch.float64)
    if math.isinf(rho): return SIGMA_MAX * (SIGMA_MIN / SIGMA_MAX)**u
    return (SIGMA_MAX**(1 / rho) + u * (SIGMA_MIN**(1 / rho) - SIGMA_MAX**(1 / rho)))**rho


def grid(n, rho=7.): return torch.cat([levels(n, rho), torch.zeros(1, dtype=torch.float64)])


# k-diffusion: only its sampling module is needed, without the image libraries that the package imports
def _k_sampling():
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None: raise ImportError("k-diffusion is not installed")
    pkg = types.ModuleType("k_diffusion")
    pkg.__path__ = list(spec.submodule_search_locations)
    sys.modules["k_diffusion"] = pkg
    stubs = {} if "torchvision" in sys.modules else {n: types.ModuleType(n)
                                                     for n in ("torchvision", "torchvision.transforms",
                                                               "torchvision.transforms.functional")}
    if stubs: stubs["torchvision.transforms"].functional = stubs["torchvision.transforms.functional"]
    sys.modules |= stubs
    try: return importlib.import_module("k_diffusion.sampling")
    finally:
        for n in stubs: del sys.modules[n]


def k_diffusion():
    K = _k_sampling()

    def model(D):
        def call(x, sigma, **kw): return D(x, sigma[0])
        call.inner_model = types.SimpleNamespace(sigma_min=torch.tensor(SIGMA_MIN), sigma_max=torch.tensor(SIGMA_MAX))
        return call

    def run(name, two=False, **kw):
        f = getattr(K, "sample_" + name)
        return lambda D, x, nfe, rho=7.: f(model(D), x, grid((nfe + 1) // 2 if two else nfe, rho).to(x), disable=True,
                                           **kw)

    def fast(D, x, nfe, rho=7.): return K.sample_dpm_fast(model(D), x, SIGMA_MIN, SIGMA_MAX, nfe, disable=True)
    out = {"euler": run("euler"), "heun": run("heun", True), "dpm_2": run("dpm_2", True), "lms(4)": run("lms"),
           "dpm_fast": fast, "dpmpp_2m": run("dpmpp_2m"), "dpmpp_sde eta=0": run("dpmpp_sde", True, eta=0.),
           "dpmpp_2m_sde eta=0": run("dpmpp_2m_sde", eta=0., solver_type="heun"),
           "dpmpp_3m_sde eta=0": run("dpmpp_3m_sde", eta=0.)}
    noisy = {"euler_ancestral": run("euler_ancestral"), "dpmpp_2m_sde": run("dpmpp_2m_sde"),
             "dpmpp_3m_sde": run("dpmpp_3m_sde")}
    return out, noisy


def diffusers():
    import diffusers as d
    d.utils.logging.set_verbosity_error()

    def edm(cls, **kw):
        def f(D, x, nfe, rho=7.):
            s = cls(sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, sigma_data=.5, rho=rho if math.isfinite(rho) else 7.,
                    **kw)
            s.set_timesteps(nfe)
            s.sigmas = grid(nfe, rho).float()
            for i, t in enumerate(s.timesteps):
                sig = float(s.sigmas[i])
                skip, out = .25 / (sig**2 + .25), sig * .5 / math.hypot(sig, .5)
                x = s.step((D(x, sig) - skip * x) / out, t, x).prev_sample
            return x
        return f

    def vp(cls, to_zero=True, **kw):
        def f(D, x, nfe, rho=7.):
            s = cls(**kw)
            s.set_timesteps(nfe)
            s.sigmas, s.timesteps = grid(nfe, rho).float(), torch.arange(nfe - 1, -1, -1)
            # this one cannot step to zero: its last call denoises from sigma_min
            if not to_zero: s.sigmas[-1] = s.sigmas[-2]
            x = x / math.sqrt(1 + SIGMA_MAX**2)
            for i, t in enumerate(s.timesteps):
                sig = float(s.sigmas[i])
                x_edm = x * math.sqrt(1 + sig**2)
                if i == nfe - 1 and not to_zero: return D(x_edm, sig)
                x = s.step((x_edm - D(x_edm, sig)) / sig, t, x).prev_sample
            return x
        return f
    out = {"EDMEuler": edm(d.EDMEulerScheduler), "EDMDPM-2M": edm(d.EDMDPMSolverMultistepScheduler, solver_order=2),
           "EDMDPM-3M": edm(d.EDMDPMSolverMultistepScheduler, solver_order=3),
           "UniPC-2 bh2": vp(d.UniPCMultistepScheduler, solver_order=2),
           "UniPC-3 bh2": vp(d.UniPCMultistepScheduler, solver_order=3),
           "DEIS-3": vp(d.DEISMultistepScheduler, to_zero=False, solver_order=3)}
    return out, {}


def azula():
    import azula.denoise as ad
    import azula.sample as az

    class Denoiser(ad.Denoiser):
        def __init__(self, D, rho):
            super().__init__()
            self.D, self.rho = D, rho
        def schedule(self, t):
            t = torch.as_tensor(t, dtype=torch.float64)
            s = (SIGMA_MIN * (SIGMA_MAX / SIGMA_MIN)**t if math.isinf(self.rho)
                 else (SIGMA_MIN**(1 / self.rho) + t * (SIGMA_MAX**(1 / self.rho)
                                                        - SIGMA_MIN**(1 / self.rho)))**self.rho)
            return torch.ones_like(s), s
        def forward(self, x_t, t, **kw): return ad.DiracPosterior(mean=self.D(x_t, float(self.schedule(t)[1])))

    def run(cls, two=False, **kw):
        def f(D, x, nfe, rho=7.):
            # these samplers stop at sigma_min; the last call denoises from there
            steps = (nfe - 1) // 2 if two else nfe - 1
            x = cls(Denoiser(D, rho), start=1., stop=0., steps=steps, silent=True, dtype=torch.float64, **kw)(x).to(x)
            return D(x, SIGMA_MIN)
        return f
    out = {"Euler": run(az.EulerSampler), "Heun": run(az.HeunSampler, True)}
    out |= {f"{n}({k})": run(getattr(az, n + "Sampler"), order=k) for n, k in (("zAB", 3), ("vAB", 3), ("vAB", 4),
                                                                               ("zEAB", 2), ("zEAB", 3), ("zEAB", 4),
                                                                               ("xEAB", 2), ("xEAB", 3), ("REAB", 2))}
    return out, {}


def all_peers():
    "Samplers by name (deterministic, stochastic), and the reasons for what is missing."
    fixed, noisy, missing = {}, {}, []
    for short, lib in (("k-d", k_diffusion), ("df", diffusers), ("az", azula)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                a, b = lib()
        except Exception as e: missing.append(f"{lib.__name__}: {type(e).__name__}: {e}")
        else:
            fixed |= {f"{short} {k}": v for k, v in a.items()}
            noisy |= {f"{short} {k}": v for k, v in b.items()}
    return fixed, noisy, missing

"""The lab that says why a diffusion model on scientific data fails, proves it, and cures it."""
__version__ = "0.1.0"

_HOME = {  # name -> module; loaded at first use, so that importing the package costs nothing
    "Denoiser": "core", "LabError": "core", "check_denoiser": "core",
    "Isotropic": "diffusion.noise", "Centred": "diffusion.noise", "Tree": "diffusion.noise", "LogNormal": "diffusion.sigma_dist", "LogUniform": "diffusion.sigma_dist",
    "GaussianOracle": "oracles.exact", "MixtureOracle": "oracles.exact", "DataOracle": "oracles.exact", "UnknownFrameOracle": "oracles.unknown_frame",
    "Precond": "diffusion.precond", "ZeroOutput": "diffusion.precond", "WienerDenoiser": "diffusion.precond", "denoising_loss": "diffusion.loss",
    "karras": "samplers.schedules", "vp_sigmas": "samplers.schedules", "euler": "samplers.single_step", "heun": "samplers.single_step", "churn": "samplers.single_step", "ddim": "samplers.single_step", "final": "samplers.single_step", "start": "samplers.single_step",
    "multistep": "samplers.multistep", "eab": "samplers.multistep", "unipc": "samplers.multistep", "dpmpp": "samplers.multistep", "default_table": "samplers.multistep", "sample": "samplers.multistep", "fit_schedule": "samplers.fitted", "Fitted": "samplers.fitted",
    "sde_dpmpp": "samplers.stochastic", "restart": "samplers.stochastic", "Guided": "denoisers.guidance", "AutoGuided": "denoisers.guidance", "log_likelihood": "samplers.likelihood",
    "VPDenoiser": "denoisers.prediction_type", "from_diffusers": "denoisers.prediction_type",
    "Rows": "data.rows", "load_rows": "data.rows", "toy": "data.synthetic",
    "MLP": "nets.mlp", "UNet": "nets.unet", "DiT": "nets.dit", "SetNet": "nets.sets", "TrackNet": "nets.hierarchy", "add_lora": "nets.lora",
    "EMA": "training.ema", "PowerEMA": "training.ema", "Optim": "training.step", "Task": "training.step", "Engine": "training.distributed", "Context": "model_checks.context", "model_check": "model_checks.context",
    "Card": "diagnosis.card", "load_card": "diagnosis.card", "open_run": "diagnosis.log_readers", "log_check": "diagnosis.findings", "Finding": "diagnosis.findings", "diagnose": "log_checks.diagnose", "report_html": "runs.report",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name):
    if name not in _HOME: raise AttributeError(f"module 'edm_lab' has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"edm_lab.{_HOME[name]}"), name)


def __dir__(): return sorted(__all__)

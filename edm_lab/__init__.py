"""The lab that says why a diffusion model on scientific data fails, proves it, and cures it."""
__version__ = "0.1.0"

_HOME = {  # name -> module; loaded at first use, so that importing the package costs nothing
    "Denoiser": "core", "LabError": "core", "check_denoiser": "core",
    "Isotropic": "noise", "Centred": "noise", "Tree": "noise", "LogNormal": "law", "LogUniform": "law",
    "GaussianOracle": "oracle", "MixtureOracle": "oracle", "DataOracle": "oracle", "GaugeOracle": "gauge",
    "Precond": "precond", "NullDenoiser": "precond", "WienerDenoiser": "precond", "denoising_loss": "loss",
    "karras": "schedule", "vp_sigmas": "schedule", "euler": "sampler", "heun": "sampler", "churn": "sampler", "ddim": "sampler", "final": "sampler", "start": "sampler",
    "multistep": "solvers", "eab": "solvers", "unipc": "solvers", "dpmpp": "solvers", "default_table": "solvers", "sample": "solvers", "fit_schedule": "fit", "Fitted": "fit",
    "sde_dpmpp": "sde", "restart": "sde", "Guided": "guidance", "AutoGuided": "guidance", "log_likelihood": "likelihood",
    "VPDenoiser": "bridge", "from_diffusers": "bridge",
    "Rows": "data.rows", "load_rows": "data.rows", "toy": "data.synthetic",
    "MLP": "nets.mlp", "UNet": "nets.unet", "DiT": "nets.dit", "SetNet": "nets.sets", "TrackNet": "nets.tracks", "add_lora": "nets.lora_mhc",
    "EMA": "ema", "PowerEMA": "ema", "Optim": "step", "Task": "step", "Engine": "engine", "Subject": "subject", "live": "subject",
    "Card": "card", "load_card": "card", "open_run": "logs", "check": "finding", "Finding": "finding", "diagnose": "doctor", "report_html": "report",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name):
    if name not in _HOME: raise AttributeError(f"module 'edm_lab' has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"edm_lab.{_HOME[name]}"), name)


def __dir__(): return sorted(__all__)

"""The lab that says why a diffusion model on scientific data fails, proves it, and cures it

The loss falls, the samples are garbage, and the log does not say why. edm_lab reads a log with its settings, or
the model itself. It names the cause and shows the curves that prove it.

One contract holds everything together: a denoiser is `D(x, sigma, cond=None) -> x0_hat` with an attribute
`sigma_data`. `edm_lab.examine(D, held_out)` examines a model, `edm_lab.diagnose(edm_lab.open_run(path))` reads a
log, `edm_lab.train` trains, and the samplers draw."""

__version__ = "0.2.0"

from typing import TYPE_CHECKING

_HOME = {  # module -> names; loaded at first use, so that importing the package costs nothing
    "core": "Denoiser LabError check_denoiser",
    "diffusion.noise": "Isotropic Centred Tree",
    "diffusion.sigma_dist": "LogNormal LogUniform",
    "oracles.exact": "GaussianOracle MixtureOracle DataOracle",
    "oracles.unknown_frame": "UnknownFrameOracle",
    "diffusion.precond": "Precond ZeroOutput WienerDenoiser",
    "diffusion.loss": "denoising_loss",
    "samplers.schedules": "karras vp_sigmas",
    "samplers.single_step": "euler heun churn ddim final start",
    "samplers.multistep": "multistep eab unipc dpmpp default_table sample",
    "samplers.fitted": "fit_schedule Fitted",
    "samplers.stochastic": "sde_dpmpp restart",
    "samplers.registry": "SAMPLERS draw_samples",
    "denoisers.guidance": "Guided AutoGuided",
    "samplers.likelihood": "log_likelihood",
    "denoisers.prediction_type": "VPDenoiser from_diffusers",
    "denoisers.flow": "FlowDenoiser",
    "data.rows": "Rows load_rows",
    "data.synthetic": "toy",
    "nets.mlp": "MLP",
    "nets.unet": "UNet",
    "nets.dit": "DiT",
    "nets.sets": "SetNet",
    "nets.hierarchy": "TrackNet",
    "nets.lora": "add_lora",
    "training.ema": "EMA PowerEMA",
    "training.step": "Optim Task",
    "training.distributed": "Engine",
    "model_checks.context": "Context model_check",
    "diagnosis.card": "Card load_card",
    "diagnosis.log_readers": "open_run",
    "diagnosis.findings": "log_check Finding Note Unknown",
    "log_checks.diagnose": "diagnose",
    "runs.report": "report_html",
    "model_checks.examine": "examine Report",
    "training.loop": "train",
    "plot": "draw Panel Curve",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = ["__version__", *_MODULE_OF]

if TYPE_CHECKING:  # what editors and type checkers see; tests/test_import.py holds it against _HOME
    from .core import Denoiser as Denoiser, LabError as LabError, check_denoiser as check_denoiser
    from .diffusion.noise import Isotropic as Isotropic, Centred as Centred, Tree as Tree
    from .diffusion.sigma_dist import LogNormal as LogNormal, LogUniform as LogUniform
    from .oracles.exact import (
        GaussianOracle as GaussianOracle, MixtureOracle as MixtureOracle, DataOracle as DataOracle,
    )
    from .oracles.unknown_frame import UnknownFrameOracle as UnknownFrameOracle
    from .diffusion.precond import Precond as Precond, ZeroOutput as ZeroOutput, WienerDenoiser as WienerDenoiser
    from .diffusion.loss import denoising_loss as denoising_loss
    from .samplers.schedules import karras as karras, vp_sigmas as vp_sigmas
    from .samplers.single_step import (
        euler as euler, heun as heun, churn as churn, ddim as ddim, final as final, start as start,
    )
    from .samplers.multistep import (
        multistep as multistep, eab as eab, unipc as unipc, dpmpp as dpmpp, default_table as default_table,
        sample as sample,
    )
    from .samplers.fitted import fit_schedule as fit_schedule, Fitted as Fitted
    from .samplers.stochastic import sde_dpmpp as sde_dpmpp, restart as restart
    from .samplers.registry import SAMPLERS as SAMPLERS, draw_samples as draw_samples
    from .denoisers.guidance import Guided as Guided, AutoGuided as AutoGuided
    from .samplers.likelihood import log_likelihood as log_likelihood
    from .denoisers.prediction_type import VPDenoiser as VPDenoiser, from_diffusers as from_diffusers
    from .denoisers.flow import FlowDenoiser as FlowDenoiser
    from .data.rows import Rows as Rows, load_rows as load_rows
    from .data.synthetic import toy as toy
    from .nets.mlp import MLP as MLP
    from .nets.unet import UNet as UNet
    from .nets.dit import DiT as DiT
    from .nets.sets import SetNet as SetNet
    from .nets.hierarchy import TrackNet as TrackNet
    from .nets.lora import add_lora as add_lora
    from .training.ema import EMA as EMA, PowerEMA as PowerEMA
    from .training.step import Optim as Optim, Task as Task
    from .training.distributed import Engine as Engine
    from .model_checks.context import Context as Context, model_check as model_check
    from .diagnosis.card import Card as Card, load_card as load_card
    from .diagnosis.log_readers import open_run as open_run
    from .diagnosis.findings import log_check as log_check, Finding as Finding, Note as Note, Unknown as Unknown
    from .log_checks.diagnose import diagnose as diagnose
    from .runs.report import report_html as report_html
    from .model_checks.examine import examine as examine, Report as Report
    from .training.loop import train as train
    from .plot import draw as draw, Panel as Panel, Curve as Curve


def __getattr__(name):
    if name not in _MODULE_OF: raise AttributeError(f"module 'edm_lab' has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"edm_lab.{_MODULE_OF[name]}"), name)


def __dir__():
    return sorted(__all__)

"""The lab that says why a diffusion model on scientific data fails, proves it, and cures it."""
__version__ = "0.1.0"

"""STAGE (Xu et al. 2025): anomaly inference, graded diffusion, explicit mask alignment and a mask guidance adapter."""

from fast.latent.adaptor import MGA
from fast.stage.model import STAGE
from fast.stage.sampling import STAGEOptions, ema_mask, stage_sample

__all__ = ["MGA", "STAGE", "STAGEOptions", "ema_mask", "stage_sample"]

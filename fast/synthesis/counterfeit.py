"""Counterfeits: masks filled with normal content by the path of the defects, so that no segmenter learns the path."""

from torch import Tensor

from fast.aias import AIASOptions, Guidance, aias, boundaries
from fast.synthesis.options import COUNTERFEIT_STRENGTH, Recipe
from ldm.models.diffusion.samplers import Denoise, Noise


def counterfeit_strength(recipe: Recipe) -> float:
    """How far the normal is noised, as a share of T: as far as drafts are, where defects start from those."""
    return recipe.strength if recipe.from_draft else COUNTERFEIT_STRENGTH


def renewed(
    denoise: Denoise, guidance: Guidance, noise: Noise, steps: int, strength: float, drafted: bool = False
) -> Tensor:
    """Noise the guidance's background inside its mask to t = `strength` * T and denoise it again by AIAS.

    Around the mask everything is as for a defect.

    Args:
        denoise: `denoise(x, t)` predicts the noise in x at t (B,) in 0..T-1.
        guidance: mask and background.
        noise: `noise(x)` returns standard normal noise like x.
        steps: network evaluations of the whole way from T, of which only those below t are made. With `drafted`, those
            of the way from t.
        strength: share (0..1) of T. 0 returns the background as it is.
        drafted: True where defects start from drafts.

    Returns:
        Latents (B,C,h,w).
    """
    background, schedule = guidance.background, guidance.schedule
    assert background is not None
    if strength == 0:
        return background
    start = max(1, round(strength * schedule.timesteps))
    if not drafted:
        steps = max(1, sum(t < start for t in boundaries(steps, schedule.timesteps)))
    x = schedule.q_sample(background, start, noise(background))
    options = AIASOptions(steps=min(steps, start))
    return aias(denoise, schedule, x, guidance=guidance, noise=noise, options=options, start=start)

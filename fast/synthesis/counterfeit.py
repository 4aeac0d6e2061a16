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
    """Latents (B,C,h,w) of the guidance's background, inside its mask noised to `t = strength * T` and denoised again
    by AIAS; around the mask as for a defect. 0: as it is.

    `steps`: evaluations of the whole way from T, of which those that lie below t are made; of the way from t, where
    defects start from drafts (`drafted`).
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

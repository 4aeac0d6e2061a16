"""Counterfeits: masks filled with normal content by the path of the defects, so that no segmenter learns the path."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from fast.aias import Guidance, boundaries
from ldm.models.diffusion.samplers import Denoise, Noise, network_time, posterior_step

# Of T: how far the normal latent is noised before it is denoised again. From a fifth on the shipped base leaves a patch
# that looks like a stain.
STRENGTH = 0.1


def renewed(denoise: Denoise, guidance: Guidance, *, noise: Noise, steps: int, strength: float) -> Tensor:
    """Latents (B,C,h,w) of the guidance's background, inside its mask noised to `t = strength * T` and denoised again
    by the jumps of AIAS with `steps` evaluations that lie below; around the mask as for a defect. 0: as it is."""
    background, schedule = guidance.background, guidance.schedule
    assert background is not None
    if strength == 0:
        return background
    times = list(_times(steps, schedule.timesteps, strength))
    x = schedule.q_sample(background, times[0], noise(background))
    for ts, te in pairwise(times):
        x0 = schedule.predict_x0(x, ts, denoise(x, network_time(x, ts)))
        x = posterior_step(x, x0, ts, te, schedule.posterior(ts, te), noise)
        if ts > 2 and te > 0:  # the last fine steps are plain
            x = guidance.with_background(x, te, noise)
    return x


def _times(steps: int, timesteps: int, strength: float) -> Iterator[int]:
    """`strength * T`, then the boundaries of AIAS below it, down to 0."""
    start = max(1, round(strength * timesteps))
    yield start
    yield from (t for t in boundaries(steps, timesteps) if t < start)

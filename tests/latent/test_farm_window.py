"""FARM stands in only inside its window of times, whoever samples."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fast.aias import AIASOptions, Guidance, aias, boundaries
from fast.latent.sampling import sample_latents
from ldm.errors import UserError
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.rng import PairNoise, generator

SCHEDULE = NoiseSchedule.linear()
SHAPE = (1, 4, 6, 6)


def asked(options: AIASOptions, sampler: str = "aias") -> list[int]:
    """The times at which FARM is asked while an empty latent is sampled."""
    times: list[int] = []

    def farm(x: Tensor, t: Tensor) -> Tensor:
        times.append(int(t[0]) + 1)
        return x

    guidance = Guidance(SCHEDULE, torch.ones(1, 1, 6, 6), torch.zeros(SHAPE), farm)
    noise = PairNoise([generator(1)])
    like = torch.zeros(SHAPE)
    sample_latents(lambda x, t: x, guidance, like, noise=noise, options=options, sampler=sampler)
    return times


@pytest.mark.parametrize("mode", ["replace", "steer"])
def test_aias_asks_farm_inside_its_window_alone(mode: str) -> None:
    always = asked(AIASOptions(10, farm_mode=mode))
    assert always == [t for t in boundaries(10) if t > 2] if mode == "steer" else boundaries(10)[1:-2]
    windowed = asked(AIASOptions(10, farm_mode=mode, farm_window=(252, 626)))
    assert windowed == [t for t in always if 252 < t < 626] == [501, 376]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "plms"])
def test_other_samplers_too(sampler: str) -> None:
    always = asked(AIASOptions(10), sampler)
    windowed = asked(AIASOptions(10, farm_window=(250, 750)), sampler)
    assert windowed == [t for t in always if 250 < t < 750]
    assert 0 < len(windowed) < len(always)


def test_outside_its_window_the_network_s_own_defect_stands() -> None:
    states: list[Tensor] = []
    options = AIASOptions(4, farm_window=(0, 400))
    guidance = Guidance(SCHEDULE, torch.ones(1, 1, 6, 6), None, lambda x, t: torch.full_like(x, 9.0))
    start = torch.zeros(SHAPE)
    aias(
        lambda x, t: torch.ones_like(x),
        SCHEDULE,
        start,
        guidance=guidance,
        noise=torch.zeros_like,
        options=options,
        callback=lambda i, x: states.append(x),
    )
    _, coef_x0, _ = SCHEDULE.posterior(1000, 501)
    torch.testing.assert_close(states[0], coef_x0 * SCHEDULE.predict_x0(start, 1000, torch.ones(SHAPE)))
    torch.testing.assert_close(states[1], torch.full(SHAPE, 9.0 * math.sqrt(SCHEDULE.alpha_bar(2))))


@pytest.mark.parametrize(("window", "found"), [(None, 6.0), ((300, 900), 6.0), ((300, 350), 2.0)])
def test_what_stands_where_sampling_stops(window: Any, found: float) -> None:
    """Stopped at about 400, FARM has the last word if its window holds that time."""
    defect = torch.full(SHAPE, 2.0)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return SCHEDULE.predict_eps(x, t + 1, defect)

    guidance = Guidance(SCHEDULE, torch.ones(1, 1, 6, 6), torch.zeros(SHAPE), lambda x, t: 3 * defect)
    options = AIASOptions(10, farm_window=window, stop_at=400)
    noise = PairNoise([generator(1)])
    made = aias(denoise, SCHEDULE, noise(defect), guidance=guidance, noise=noise, options=options)
    torch.testing.assert_close(made, torch.full(SHAPE, found), atol=1e-4, rtol=0)


@pytest.mark.parametrize("window", [(750, 250), (250,), "250", [1, "a"], 250])
@pytest.mark.parametrize("name", ["farm_window", "background_window"])
def test_a_window_that_is_none(name: str, window: Any) -> None:
    with pytest.raises(UserError, match=rf"aias\.{name}=.* is not \[low, high\]"):
        AIASOptions(**{name: window})

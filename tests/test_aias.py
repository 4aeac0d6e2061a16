"""AIAS against ancestral sampling, against the schedule's own arithmetic, and what guidance does when."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from fast.aias import AIASOptions, Guidance, aias, boundaries
from ldm.errors import UserError
from ldm.models.diffusion import samplers
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.rng import PairNoise, generator

SCHEDULE = NoiseSchedule.linear()
SHAPE = (2, 4, 6, 6)


def toy(x: Tensor, t: Tensor) -> Tensor:
    """A cheap network with a dependence on time and neighbours."""
    return torch.tanh(x.roll(1, -1) + t.to(x)[:, None, None, None] / 1000)


class Counted:
    """Noise by pair that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.noise = PairNoise([generator(7, i) for i in range(SHAPE[0])])

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.noise(x)


def start() -> Tensor:
    return torch.randn(SHAPE, generator=generator(1))


def half_mask() -> Tensor:
    mask = torch.zeros(SHAPE[0], 1, *SHAPE[2:])
    mask[..., :3] = 1
    return mask


# boundaries


def test_boundaries_fall_to_zero_in_as_many_steps_as_asked() -> None:
    for timesteps in (1, 2, 3, 10, 1000):
        for steps in range(1, timesteps + 1):
            times = boundaries(steps, timesteps)
            assert len(times) == steps + 1
            assert times[0] == timesteps
            assert times[-1] == 0
            assert all(a > b for a, b in itertools.pairwise(times))
            assert all(type(t) is int for t in times)
            if steps > 2:
                assert times[-3:] == [2, 1, 0]


def test_boundaries_by_hand() -> None:
    assert boundaries(1) == [1000, 0]
    assert boundaries(2) == [1000, 1, 0]
    assert boundaries(3) == [1000, 2, 1, 0]
    assert boundaries(4) == [1000, 501, 2, 1, 0]
    assert boundaries(10) == [1000, 875, 750, 626, 501, 376, 252, 127, 2, 1, 0]
    assert boundaries(1000) == list(range(1000, -1, -1))
    assert boundaries(4, timesteps=4) == [4, 3, 2, 1, 0]
    assert boundaries(2, timesteps=2) == [2, 1, 0]
    assert boundaries(1, timesteps=1) == [1, 0]


def test_boundaries_from_a_draft_fall_from_its_time() -> None:
    assert boundaries(4, start=300) == [300, 151, 2, 1, 0]
    assert boundaries(1, start=300) == [300, 0]
    assert boundaries(10, start=1000) == boundaries(10)
    with pytest.raises(UserError, match="5 steps do not fit below t=4"):
        boundaries(5, start=4)


@pytest.mark.parametrize(("steps", "word"), [(0, "raise"), (-3, "raise"), (1001, "lower"), (5000, "lower")])
def test_boundaries_refuse_steps_outside_the_schedule(steps: int, word: str) -> None:
    with pytest.raises(UserError, match=rf"aias\.steps={steps} .*{word} aias\.steps"):
        boundaries(steps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "aias.steps=0"),
        ({"steps": 2.5}, "aias.steps=2.5"),
        ({"farm_mode": "add"}, "aias.farm_mode=add is unknown"),
        ({"coefficients": "lemma"}, "aias.coefficients=lemma is unknown"),
        ({"background_window": (750, 250)}, "aias.background_window"),
        ({"background_window": (250,)}, "aias.background_window"),
    ],
)
def test_options_name_what_is_wrong(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        AIASOptions(**options)


# against ancestral sampling


def test_at_full_length_without_guidance_it_is_ddpm_step_for_step() -> None:
    ours, theirs = [], []
    aias(toy, SCHEDULE, start(), noise=Counted(), options=AIASOptions(1000), callback=lambda i, x: ours.append(x))

    def keep(x: Tensor, t: int) -> Tensor:
        theirs.append(x)
        return x

    samplers.ddpm(toy, SCHEDULE, start(), noise=Counted(), inject=keep)
    assert len(ours) == len(theirs) == 1000
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_guidance_that_guides_nothing_changes_nothing() -> None:
    plain = aias(toy, SCHEDULE, start(), noise=Counted(), options=AIASOptions(12))
    guidance = Guidance(SCHEDULE, half_mask())
    guided = aias(toy, SCHEDULE, start(), guidance=guidance, noise=Counted(), options=AIASOptions(12))
    assert torch.equal(plain, guided)


def test_a_jump_has_the_closed_form_s_mean_and_spread() -> None:
    """Two boundaries by hand: 1000 -> 2 with a network that knows x0, in float64."""
    x0 = torch.randn(SHAPE, generator=generator(2), dtype=torch.float64)
    eps = torch.randn(SHAPE, generator=generator(3), dtype=torch.float64)
    x_T = SCHEDULE.q_sample(x0, 1000, eps)

    def oracle(x: Tensor, t: Tensor) -> Tensor:
        signal, sigma = SCHEDULE.scales(t + 1, x)
        return (x - signal * x0) / sigma

    states: list[Tensor] = []
    zero = torch.zeros_like
    x = aias(oracle, SCHEDULE, x_T, noise=zero, options=AIASOptions(3), callback=lambda i, x: states.append(x))
    coef_xt, coef_x0, _ = SCHEDULE.posterior(1000, 2)
    torch.testing.assert_close(states[0], coef_xt * x_T + coef_x0 * x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(x, x0, rtol=0, atol=1e-10)

    once = iter([torch.ones_like(x_T), torch.zeros_like(x_T)])
    noisy: list[Tensor] = []
    aias(
        oracle, SCHEDULE, x_T, noise=lambda x: next(once), options=AIASOptions(3), callback=lambda i, x: noisy.append(x)
    )
    spread = torch.full_like(x_T, math.sqrt(SCHEDULE.posterior(1000, 2)[2]))
    torch.testing.assert_close(noisy[0] - states[0], spread, rtol=0, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_network_evaluations_and_noise_are_counted(steps: int) -> None:
    evaluations = 0

    def counting(x: Tensor, t: Tensor) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        assert t.dtype == torch.long
        assert t.shape == (SHAPE[0],)
        assert 0 <= int(t[0]) <= 999
        return toy(x, t)

    noise = Counted()
    aias(counting, SCHEDULE, start(), noise=noise, options=AIASOptions(steps))
    assert evaluations == steps
    assert noise.calls == steps - 1  # the step to t = 0 draws none

    noise = Counted()
    guidance = Guidance(SCHEDULE, half_mask(), start(), lambda x, t: x)
    aias(toy, SCHEDULE, start(), guidance=guidance, noise=noise, options=AIASOptions(steps))
    coarse = {1: 0, 2: 1}.get(steps, steps - 2)
    assert noise.calls == steps - 1 + 2 * coarse


def test_the_printed_coefficients_are_another_sampler() -> None:
    exact = aias(toy, SCHEDULE, start(), noise=Counted(), options=AIASOptions(10))
    printed = aias(toy, SCHEDULE, start(), noise=Counted(), options=AIASOptions(10, coefficients="printed"))
    assert not torch.allclose(exact, printed, atol=1e-2)
    single = aias(toy, SCHEDULE, start(), noise=Counted(), options=AIASOptions(1000))
    single_printed = aias(toy, SCHEDULE, start(), noise=Counted(), options=AIASOptions(1000, coefficients="printed"))
    torch.testing.assert_close(single, single_printed, rtol=1e-3, atol=1e-3)  # one step has no product to get wrong


# guidance


def test_replace_puts_farm_s_answer_at_the_jump_s_noise_level_into_the_mask() -> None:
    mask, defect, background = half_mask(), torch.full(SHAPE, 3.0), torch.full(SHAPE, -2.0)
    times: list[int] = []

    def farm(x: Tensor, t: Tensor) -> Tensor:
        times.append(int(t[0]) + 1)
        return defect

    states: list[Tensor] = []
    guidance = Guidance(SCHEDULE, mask, background, farm)
    aias(
        toy,
        SCHEDULE,
        start(),
        guidance=guidance,
        noise=torch.zeros_like,
        options=AIASOptions(5),
        callback=lambda i, x: states.append(x),
    )
    assert times == boundaries(5)[1:-2]
    for t, x in zip(boundaries(5)[1:-2], states, strict=False):
        signal = math.sqrt(SCHEDULE.alpha_bar(t))
        torch.testing.assert_close(x, signal * (mask * defect + (1 - mask) * background))


def test_steer_only_changes_what_the_network_sees() -> None:
    mask, defect = half_mask(), torch.full(SHAPE, 3.0)
    seen: list[Tensor] = []

    def spy(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return toy(x, t)

    x = start()
    states: list[Tensor] = []
    aias(
        spy,
        SCHEDULE,
        x,
        guidance=Guidance(SCHEDULE, mask, None, lambda x, t: defect),
        noise=torch.zeros_like,
        options=AIASOptions(3, farm_mode="steer"),
        callback=lambda i, x: states.append(x),
    )
    steered = mask * math.sqrt(SCHEDULE.alpha_bar(1000)) * defect + (1 - mask) * x
    torch.testing.assert_close(seen[0], steered)
    assert torch.equal(seen[1], states[0])  # the fine steps see the state itself
    coef_xt, coef_x0, _ = SCHEDULE.posterior(1000, 2)
    x0 = SCHEDULE.predict_x0(steered, 1000, toy(steered, torch.tensor([999, 999])))
    torch.testing.assert_close(states[0], coef_xt * x + coef_x0 * x0)


def test_the_window_keeps_the_background_out_elsewhere() -> None:
    background = torch.full(SHAPE, 50.0)
    states: list[Tensor] = []
    aias(
        lambda x, t: torch.ones_like(x),
        SCHEDULE,
        torch.zeros(SHAPE),
        guidance=Guidance(SCHEDULE, half_mask(), background),
        noise=torch.zeros_like,
        options=AIASOptions(4, background_window=(250, 750)),
        callback=lambda i, x: states.append(x),
    )
    assert boundaries(4) == [1000, 501, 2, 1, 0]
    known = math.sqrt(SCHEDULE.alpha_bar(501)) * background
    torch.testing.assert_close(states[0][..., 3:], known[..., 3:])
    coef_xt, coef_x0, _ = SCHEDULE.posterior(501, 2)
    x0 = SCHEDULE.predict_x0(states[0], 501, torch.ones(SHAPE))
    torch.testing.assert_close(states[1], coef_xt * states[0] + coef_x0 * x0)  # t = 2 lies outside


def test_other_samplers_get_both_down_to_t_2() -> None:
    mask, defect, background = half_mask(), torch.full(SHAPE, 3.0), torch.full(SHAPE, -2.0)
    inject = Guidance(SCHEDULE, mask, background, lambda x, t: defect).hook(torch.zeros_like)
    x = start()
    for t in (1000, 2):
        expected = math.sqrt(SCHEDULE.alpha_bar(t)) * (mask * defect + (1 - mask) * background)
        torch.testing.assert_close(inject(x, t), expected)
    assert inject(x, 1) is x
    assert inject(x, 0) is x


def test_nothing_given_is_changed() -> None:
    x, background, mask = start(), start(), half_mask()
    copies = [t.clone() for t in (x, background, mask)]
    guidance = Guidance(SCHEDULE, mask, background, lambda x, t: x)
    aias(toy, SCHEDULE, x, guidance=guidance, noise=Counted(), options=AIASOptions(5))
    assert all(torch.equal(a, b) for a, b in zip((x, background, mask), copies, strict=True))

"""Samplers against golden trajectories, a table-index transcription of the published loops, and closed forms."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ldm.errors import UserError
from ldm.models.diffusion import samplers
from ldm.models.diffusion.ddim import DDIMSampler, bind
from ldm.models.diffusion.plms import PLMSSampler
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from support.golden import golden, weigh

SCHEDULE = NoiseSchedule.linear(1000, 8.5e-4, 1.2e-2)


class Bare:
    """All that a sampler may ask of a model; every call is written down."""

    def __init__(self, apply: Callable[..., Tensor], schedule: NoiseSchedule = SCHEDULE):
        self.schedule, self.device, self.apply = schedule, torch.device("cpu"), apply
        self.calls: list[tuple[Tensor, Any]] = []

    def apply_model(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        self.calls.append((t.clone(), cond))
        return self.apply(x, t, cond)


def smooth(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    """Some noise estimate that depends on everything."""
    at = t.to(x).view(-1, 1, 1, 1) / 1000
    shift = 0.0 if cond is None else cond.mean(dim=(1, 2)).view(-1, 1, 1, 1)
    return torch.sin(x * (1 + at)) * 0.8 + 0.1 * at * x.roll(1, -1) + shift


def original(
    eps: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    x: Tensor,
    *,
    eta: float = 0.0,
    quad: bool = False,
    rule: str = "ddim",
    keep: tuple[Tensor, Tensor] | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """The published loop over table indices 0..T-1, with its float32 tables and its order of random draws."""
    bar = torch.tensor(np.cumprod(1 - SCHEDULE.betas), dtype=torch.float32)
    if quad:
        index = ((np.linspace(0, np.sqrt(1000 * 0.8), steps)) ** 2).astype(int) + 1
    else:
        index = np.asarray(list(range(0, 1000, 1000 // steps))) + 1
    alphas = bar[index]
    before = torch.tensor([bar[0].item(), *bar[index[:-1]].tolist()])
    sigmas = eta * torch.sqrt((1 - before) / (1 - alphas) * (1 - alphas / before))
    old: list[Tensor] = []

    def step(x: Tensor, e: Tensor, k: int) -> Tensor:
        x0 = (x - (1 - alphas[k]).sqrt() * e) / alphas[k].sqrt()
        direction = (1 - before[k] - sigmas[k] ** 2).sqrt() * e
        return before[k].sqrt() * x0 + direction + sigmas[k] * torch.randn(x.shape) * temperature

    for i, k in enumerate(range(len(index) - 1, -1, -1)):
        t = torch.full((len(x),), int(index[k]))
        if keep is not None:
            mask, x0 = keep
            x = (bar[index[k]].sqrt() * x0 + (1 - bar[index[k]]).sqrt() * torch.randn(x.shape)) * mask + (1 - mask) * x
        e = eps(x, t)
        if rule == "plms":
            t_next = torch.full((len(x),), int(index[max(k - 1, 0)] if len(index) > 1 else index[0]))
            if i == 0:
                used = (e + eps(step(x, e, k), t_next)) / 2
            elif i == 1:
                used = (3 * e - old[-1]) / 2
            elif i == 2:
                used = (23 * e - 16 * old[-1] + 5 * old[-2]) / 12
            else:
                used = (55 * e - 59 * old[-1] + 37 * old[-2] - 9 * old[-3]) / 24
            old.append(e)
            x = step(x, used, k)
        else:
            x = step(x, e, k)
    return x


@pytest.fixture
def x_T() -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def golden_unet() -> UNetModel:
    config, _ = golden("unet_crossattn")
    unet: UNetModel = weigh(UNetModel(**config))
    return unet


@pytest.mark.parametrize(("name", "rule"), [("ddim_20", samplers.ddim), ("plms_20", samplers.plms)])
def test_golden_trajectories(golden_unet: UNetModel, name: str, rule: Any) -> None:
    _, tensors = golden(name)
    start, context, want = tensors["x_T"], tensors["context"], tensors["samples"]
    model = Bare(lambda x, t, c: golden_unet(x, t, context=c))
    kept = start.clone()
    with torch.no_grad():
        out = rule(bind(model, context), SCHEDULE, start, steps=20)
    assert_close(out, want, rtol=1e-3, atol=1e-3)
    sampler = DDIMSampler(model) if rule is samplers.ddim else PLMSSampler(model)
    out, _ = sampler.sample(20, len(start), tuple(start.shape[1:]), context, x_T=start, verbose=False)
    assert_close(out, want, rtol=1e-3, atol=1e-3)
    assert torch.equal(start, kept)


@pytest.mark.parametrize("quad", [False, True])
@pytest.mark.parametrize(("steps", "eta"), [(20, 0.0), (20, 1.0), (10, 0.4), (30, 1.0), (7, 0.7), (1, 1.0), (250, 0.2)])
def test_ddim_draws_and_steps_as_published(x_T: Tensor, steps: int, eta: float, quad: bool) -> None:
    torch.manual_seed(5)
    want = original(smooth, steps, x_T, eta=eta, quad=quad, temperature=0.9)
    sampler = DDIMSampler(Bare(smooth))
    torch.manual_seed(5)
    out, _ = sampler.sample(
        steps, 2, (4, 8, 8), eta=eta, x_T=x_T, temperature=0.9, ddim_discretize="quad" if quad else "uniform"
    )
    assert_close(out, want, rtol=1e-3, atol=1e-4)
    after = torch.randn(3)
    torch.manual_seed(5)
    original(smooth, steps, x_T, eta=eta, quad=quad)
    assert torch.equal(after, torch.randn(3))  # a second batch under the same seed starts from the same noise too


@pytest.mark.parametrize("quad", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 4, 5, 20, 30])
def test_plms_steps_as_published(x_T: Tensor, steps: int, quad: bool) -> None:
    want = original(smooth, steps, x_T, rule="plms", quad=quad)
    discretize = "quad" if quad else "uniform"
    assert_close(samplers.plms(smooth, SCHEDULE, x_T, steps=steps, discretize=discretize), want, rtol=1e-3, atol=1e-4)
    model = Bare(smooth)
    out, _ = PLMSSampler(model).sample(steps, 2, (4, 8, 8), x_T=x_T, ddim_discretize=discretize)
    assert_close(out, want, rtol=1e-3, atol=1e-4)
    index = samplers.ddim_timesteps(steps, 1000, discretize)
    assert len(model.calls) == len(index) + 1


@pytest.mark.parametrize("rule", ["ddim", "plms"])
def test_a_mask_keeps_x0_as_published(x_T: Tensor, rule: str) -> None:
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :4] = 1
    x0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    given = x_T.clone(), mask.clone(), x0.clone()
    torch.manual_seed(6)
    want = original(smooth, 10, x_T, eta=1.0 if rule == "ddim" else 0.0, rule=rule, keep=(mask, x0))
    torch.manual_seed(6)
    sampler = DDIMSampler(Bare(smooth)) if rule == "ddim" else PLMSSampler(Bare(smooth))
    eta = {"eta": 1.0} if rule == "ddim" else {}
    out, _ = sampler.sample(10, 2, (4, 8, 8), x_T=x_T, mask=mask, x0=x0, **eta)
    assert_close(out, want, rtol=1e-3, atol=1e-4)
    assert_close((x_T, mask, x0), given, rtol=0, atol=0)
    with pytest.raises(ValueError, match="x0"):
        sampler.sample(10, 2, (4, 8, 8), x_T=x_T, mask=mask)


def test_a_kept_part_ends_at_x0() -> None:
    """With the exact noise as the estimate, the kept half comes out as x0, up to the last level's noise."""
    x0, mask = torch.full((1, 4, 8, 8), 0.7), torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1

    def exact(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return SCHEDULE.predict_eps(x, t + 1, x0)

    out, _ = DDIMSampler(Bare(exact)).sample(20, 1, (4, 8, 8), mask=mask, x0=x0)
    assert (out - x0).abs().mean() < 0.05
    assert (out - x0).abs().mean() > 0  # latent-diffusion's loop ends at t = 1, not at the clean image


def test_guidance_is_one_doubled_batch_empty_first(x_T: Tensor) -> None:
    cond, empty = torch.full((2, 3, 5), 0.3), torch.full((2, 3, 5), -0.2)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        return smooth(x, t, empty) + 7.5 * (smooth(x, t, cond) - smooth(x, t, empty))

    model = Bare(smooth)
    out, _ = DDIMSampler(model).sample(
        5, 2, (4, 8, 8), cond, x_T=x_T, unconditional_guidance_scale=7.5, unconditional_conditioning=empty
    )
    assert_close(out, original(guided, 5, x_T), rtol=1e-3, atol=1e-3)
    assert len(model.calls) == 5
    assert_close(model.calls[0][1], torch.cat([empty, cond]))
    assert model.calls[0][0].tolist() == [801] * 4
    out, _ = PLMSSampler(model).sample(
        5, 2, (4, 8, 8), cond, x_T=x_T, unconditional_guidance_scale=7.5, unconditional_conditioning=empty
    )
    assert_close(out, original(guided, 5, x_T, rule="plms"), rtol=1e-3, atol=1e-3)


def test_guidance_through_lists_and_dicts(x_T: Tensor) -> None:
    seen = []

    def record(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        seen.append(cond)
        return x

    one, zero = torch.ones(2, 3, 5), torch.zeros(2, 3, 5)
    bind(Bare(record), {"c_crossattn": [one], "c_concat": [x_T]}, 2.0, {"c_crossattn": [zero], "c_concat": [x_T]})(
        x_T, torch.zeros(2, dtype=torch.long)
    )
    assert_close(seen[0], {"c_crossattn": [torch.cat([zero, one])], "c_concat": [torch.cat([x_T, x_T])]})
    for scale, empty in ((1.0, zero), (3.0, None)):
        bind(Bare(record), one, scale, empty)(x_T, torch.zeros(2, dtype=torch.long))
        assert seen[-1] is one


def gaussian(mean: float, std: float, schedule: NoiseSchedule) -> samplers.Denoise:
    """E[eps | x_t] in closed form for data N(mean, std^2)."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        bar = float(schedule.alpha_bar(int(t[0]) + 1))
        return math.sqrt(1 - bar) * (x - math.sqrt(bar) * mean) / (bar * std**2 + 1 - bar)

    return denoise


def test_ddpm_recovers_a_gaussian() -> None:
    torch.manual_seed(0)
    mean, std = 0.6, 0.3
    x = samplers.ddpm(gaussian(mean, std, SCHEDULE), SCHEDULE, torch.randn(64, 1, 16, 16))
    assert float(x.mean()) == pytest.approx(mean, abs=0.01)
    assert float(x.std()) == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize(("eta", "steps"), [(0.0, 50), (1.0, 250), (1.0, 1000)])
def test_ddim_recovers_a_gaussian(eta: float, steps: int) -> None:
    torch.manual_seed(0)
    mean, std = -0.4, 0.5
    x = samplers.ddim(gaussian(mean, std, SCHEDULE), SCHEDULE, torch.randn(64, 1, 16, 16), steps=steps, eta=eta)
    assert float(x.mean()) == pytest.approx(mean, abs=0.02)
    assert float(x.std()) == pytest.approx(std, rel=0.04)


def test_ddpm_visits_every_time_once_and_injects_after_each_step() -> None:
    schedule = NoiseSchedule.linear(12)
    asked, injected = [], []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        asked.append(t.tolist())
        return torch.zeros_like(x)

    def inject(x: Tensor, t: int) -> Tensor:
        injected.append(t)
        return x

    start = torch.ones(2, 1, 2, 2)
    samplers.ddpm(denoise, schedule, start, inject=inject)
    assert asked == [[t, t] for t in range(11, -1, -1)]
    assert injected == list(range(11, -1, -1))
    assert torch.equal(start, torch.ones(2, 1, 2, 2))


def test_one_ddpm_step_by_hand() -> None:
    schedule = NoiseSchedule(np.array([0.2, 0.5]))  # abar = 0.8, 0.4
    x, eps, noise = torch.tensor([[[[2.0]]]]), torch.tensor([[[[0.5]]]]), torch.tensor([[[[-1.0]]]])
    x0 = (2 - math.sqrt(0.6) * 0.5) / math.sqrt(0.4)
    x1 = math.sqrt(0.8) * 0.5 / 0.6 * x0 + math.sqrt(0.5) * 0.2 / 0.6 * 2 - math.sqrt(0.5 * 0.2 / 0.6)
    want = (x1 - math.sqrt(0.2) * 0.5) / math.sqrt(0.8)  # the last step returns the estimate itself
    out = samplers.ddpm(lambda *_: eps, schedule, x, noise=lambda _: noise)
    assert out.item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_steps_out_of_range(x_T: Tensor, steps: int) -> None:
    for rule in (samplers.ddim, samplers.plms):
        with pytest.raises(UserError, match=rf"steps={steps} lies outside 1\.\.1000"):
            rule(smooth, SCHEDULE, x_T, steps=steps)  # type: ignore[operator]
    with pytest.raises(UserError, match="ddim_discretize=cubic"):
        samplers.ddim_timesteps(10, 1000, "cubic")
    with pytest.raises(UserError, match=r"eta=0\.5"):
        PLMSSampler(Bare(smooth)).sample(10, 2, (4, 8, 8), eta=0.5)


@pytest.mark.parametrize("discretize", ["uniform", "quad"])
@pytest.mark.parametrize("timesteps", [10, 30, 1000])
def test_every_number_of_steps_stays_in_the_table(timesteps: int, discretize: str) -> None:
    for steps in {1, 2, 3, 7, timesteps // 3, 37, 111, timesteps // 2 + 1, timesteps - 1, timesteps} & set(
        range(1, timesteps + 1)
    ):
        index = samplers.ddim_timesteps(steps, timesteps, discretize)
        assert index.min() >= 0
        assert index.max() <= timesteps - 1
        assert (np.diff(index) >= 0).all()
        assert len(index) >= steps
    if discretize == "uniform":
        assert samplers.ddim_timesteps(timesteps, timesteps).tolist() == list(range(timesteps))


def test_sampler_reports_its_way(x_T: Tensor) -> None:
    numbers: list[int] = []
    pictures: list[int] = []
    sampler = DDIMSampler(Bare(smooth))
    out, seen = sampler.sample(
        10, 2, (4, 8, 8), x_T=x_T, log_every_t=4, callback=numbers.append,
        img_callback=lambda x0, i: pictures.append(i),
    )  # fmt: skip
    assert numbers == pictures == list(range(10))
    # As published: the start, the first step, and where the steps still to go (9 .. 0) divide by 4.
    assert len(seen["x_inter"]) == len(seen["pred_x0"]) == 1 + 4
    assert torch.equal(seen["x_inter"][0], x_T)
    assert torch.equal(seen["x_inter"][-1], out)
    sampler.make_schedule(10, ddim_eta=0.0, verbose=False)
    assert sampler.ddim_timesteps.tolist() == list(range(1, 1000, 100))


def test_a_seed_fixes_a_sample_and_noise_may_be_given(x_T: Tensor) -> None:
    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return DDIMSampler(Bare(smooth)).sample(5, 2, (4, 8, 8), eta=1.0)[0]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    quiet = samplers.ddim(smooth, SCHEDULE, x_T, steps=5, eta=1.0, noise=torch.zeros_like)
    assert torch.equal(quiet, samplers.ddim(smooth, SCHEDULE, x_T, steps=5, eta=1.0, noise=torch.zeros_like))

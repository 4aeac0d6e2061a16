"""STAGE: its reverse chain against Eq. 2-8 by hand, the adapter, the losses, and the model on a tiny base."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fast.artifact import find_artifact, load_model
from fast.latent.adaptor import from_noise
from fast.latent.prompted import SamplingInputs
from fast.stage import MGA, STAGE, STAGEOptions, ema_mask, stage_sample
from fast.training.config import check_config, merge, resolved
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError
from ldm.models.diffusion.ddim import bind
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.models.diffusion.samplers import Noise
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.rng import PairNoise, generator
from support.batches import batch
from support.tiny import TYPES, randomize

SHORT = NoiseSchedule.linear(20, 0.01, 0.4)
SHORT_OPTIONS: dict[str, Any] = {"t_s": 4, "only_intervals": ((20, 16), (8, 6))}
MASK = torch.tensor([[[[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]]], dtype=torch.float64)
BACKGROUND = torch.randn((2, 4, 4, 4), generator=generator(1), dtype=torch.float64)


def noise_of(seed: int) -> Noise:
    source = generator(seed)
    return lambda x: torch.randn(x.shape, generator=source, dtype=x.dtype)


class Branches:
    """Two linear "networks", one for each branch, that note what they are given. Each cell's answer depends on all
    the others, as a network's does."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, Tensor, Tensor]] = []

    def branch(self, name: str, factor: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def answer(x: Tensor, t: Tensor, mask: Tensor) -> Tensor:
            assert t.shape == (len(x),)
            self.calls.append((name, int(t[0]) + 1, x.clone(), mask.clone()))
            return factor * x + 0.1 * mask + 0.2 * x.mean(dim=(2, 3), keepdim=True)

        return answer

    def sample(self, options: STAGEOptions, steps: int = 20, seed: int = 0, mask: Tensor = MASK) -> Tensor:
        aware, only = self.branch("aware", 0.9), self.branch("only", 0.7)
        mask = mask.expand(2, -1, -1, -1)
        return stage_sample(aware, only, SHORT, noise_of(seed), mask, BACKGROUND, options, steps)


def by_hand(options: STAGEOptions, times: list[int], seed: int = 0) -> np.ndarray:
    """Eq. 2-8 and Alg. 1 in numpy, single steps only, from the betas, in the order in which the noises are drawn."""
    source = generator(seed)
    draw = lambda: torch.randn(BACKGROUND.shape, generator=source, dtype=torch.float64).numpy()  # noqa: E731
    bar = np.concatenate([[1.0], np.cumprod(1 - SHORT.betas)])
    m0, b = np.broadcast_to(MASK.numpy(), (2, 1, 4, 4)), BACKGROUND.numpy()
    x = xp = draw()
    for t in times:
        beta, now, then = SHORT.betas[t - 1], bar[t], bar[t - 1]
        only = options.gd and any(low <= t <= high for high, low in options.only_intervals)
        zeta = max(0.0, (t - options.t_s) / (20 - options.t_s))
        m = zeta * (1 - m0) + m0 if options.ema and not only else m0
        state = xp if only else x
        eps = (0.7 if only else 0.9) * state + 0.1 * m + 0.2 * state.mean(axis=(2, 3), keepdims=True)
        x0 = (state - np.sqrt(1 - now) * eps) / np.sqrt(now)
        to_x0, to_xt = np.sqrt(then) * beta / (1 - now), np.sqrt(1 - beta) * (1 - then) / (1 - now)
        if options.aif:  # a mixture of two Gaussians with the same variance (Eq. 6), soft where the mask is
            clean = np.zeros_like(b) if only else b
            mean = m * (to_x0 * x0 + to_xt * state) + (1 - m) * (to_x0 * clean + to_xt * state)
        else:
            mean = to_x0 * x0 + to_xt * state
        y = mean + (np.sqrt((1 - then) / (1 - now) * beta) * draw() if t > 1 else 0)
        x = m * y + (1 - m) * (np.sqrt(then) * b + np.sqrt(1 - then) * draw())
        if options.gd:
            xp = m0 * y + (1 - m0) * (np.sqrt(then) * m0 + np.sqrt(1 - then) * draw())
    return x


SWITCHES = [{}, {"aif": False}, {"gd": False}, {"ema": False}, {"aif": False, "gd": False, "ema": False}]


@pytest.mark.parametrize("off", SWITCHES)
def test_the_chain_is_the_paper_s_by_hand(off: dict[str, bool]) -> None:
    options = STAGEOptions(**SHORT_OPTIONS, **off)
    made = Branches().sample(options)
    expected = torch.from_numpy(by_hand(options, list(range(20, 0, -1))))
    torch.testing.assert_close(made, expected, rtol=1e-10, atol=1e-10)


def test_every_switch_changes_the_picture() -> None:
    made = [Branches().sample(STAGEOptions(**SHORT_OPTIONS, **off)) for off in SWITCHES]
    inside = MASK.expand(2, 4, -1, -1) == 1
    for a, b in itertools.combinations(made, 2):
        assert (a - b)[inside].abs().max() > 1e-3


def test_without_a_soft_mask_anomaly_inference_is_what_laying_over_is() -> None:
    made = [Branches().sample(STAGEOptions(**SHORT_OPTIONS, ema=False, aif=aif)) for aif in (True, False)]
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=0)


@pytest.mark.parametrize("gd", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 20])
def test_around_the_defect_the_clean_background_stands(steps: int, gd: bool) -> None:
    mask, background = MASK.clone(), BACKGROUND.clone()
    made = Branches().sample(STAGEOptions(**SHORT_OPTIONS, gd=gd), steps)
    outside = MASK.expand(2, 4, -1, -1) == 0
    assert torch.equal(made[outside], BACKGROUND[outside])
    assert (made - BACKGROUND)[~outside].abs().min() > 1e-4
    assert torch.equal(MASK, mask)
    assert torch.equal(BACKGROUND, background)


def test_jumps_take_as_many_evaluations_as_asked_for() -> None:
    branches = Branches()
    branches.sample(STAGEOptions(**SHORT_OPTIONS), steps=5)
    assert [(name, t) for name, t, *_ in branches.calls] == [
        ("only", 20), ("aware", 14), ("only", 8), ("aware", 2), ("aware", 1),
    ]  # fmt: skip


def test_a_jump_is_the_single_steps_that_it_spans() -> None:
    """With an estimate that stands still, a few jumps or all single steps make the same, but for the noise."""

    def sample(steps: int) -> Tensor:
        def still(x: Tensor, t: Tensor, m: Tensor) -> Tensor:  # the noise in x around an x0 of 0.5
            return SHORT.predict_eps(x, t + 1, torch.full_like(x, 0.5))

        options = STAGEOptions(ema=False, gd=False)
        return stage_sample(
            still, still, SHORT, torch.zeros_like, MASK.expand(2, -1, -1, -1), BACKGROUND, options, steps
        )

    torch.testing.assert_close(sample(4), sample(20), rtol=1e-10, atol=1e-10)


def test_the_anomaly_only_state_is_noise_around_the_defect() -> None:
    """Whatever noise of the step is drawn, no signal is outside: without noise the state is zero there."""
    calls = Branches()
    stage_sample(
        calls.branch("aware", 0.9), calls.branch("only", 0.7), SHORT, torch.zeros_like,
        MASK, BACKGROUND[:1], STAGEOptions(**SHORT_OPTIONS), 20,
    )  # fmt: skip
    states = [x for name, _, x, _ in calls.calls if name == "only"]
    assert len(states) == 5 + 3
    assert all((x * (1 - MASK)).abs().max() == 0 for x in states)
    assert all((x * MASK).abs().max() > 1e-3 for x in states[1:])


def test_noise_around_the_anomaly_only_state_differs_between_channels() -> None:
    calls = Branches()
    calls.sample(STAGEOptions(**SHORT_OPTIONS))
    state = next(x for name, t, x, _ in calls.calls if name == "only" and t == 8)
    corner = state[0, :, 0, 0]
    assert (corner[:, None] - corner[None]).abs()[~torch.eye(4, dtype=torch.bool)].min() > 1e-3


def test_branches_serve_their_intervals_with_their_masks() -> None:
    calls = Branches()
    calls.sample(STAGEOptions(**SHORT_OPTIONS))
    assert [t for name, t, *_ in calls.calls if name == "only"] == [20, 19, 18, 17, 16, 8, 7, 6]
    for name, t, _, mask in calls.calls:
        expected = MASK if name == "only" or t <= 4 else MASK + (t - 4) / 16 * (1 - MASK)
        torch.testing.assert_close(mask, expected.expand(2, -1, -1, -1))


def test_the_paper_s_intervals() -> None:
    options = STAGEOptions()
    times = [t for t in range(1, 1001) if options.is_only(t)]
    assert times == [*range(300, 401), *range(800, 1001)]
    assert not any(STAGEOptions(gd=False).is_only(t) for t in times)
    assert STAGEOptions(only_intervals=((800, 1000), (300, 400))) == options


def test_the_mask_closes_in() -> None:
    mask = MASK.float().expand(3, -1, -1, -1)
    aligned = ema_mask(mask, torch.tensor([1000, 600, 200]))
    assert torch.equal(aligned[0], torch.ones(1, 4, 4))
    assert torch.equal(aligned[1], torch.where(mask[0] == 1, 1.0, 0.5))  # half of the way from 1000 to 200
    assert torch.equal(aligned[2], mask[0])
    assert torch.equal(ema_mask(mask, 7), mask)
    assert torch.equal(STAGEOptions(ema=False).aligned(mask, 1000, 1000), mask)


# the adapter


def test_the_adapter_has_the_published_size() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in MGA().parameters()) == 2_662_532


def test_the_adapter_s_answer_depends_on_the_mask_in_every_channel() -> None:
    adapter = MGA(widths=(8, 8)).eval()
    randomize(adapter, 3)
    eps, mask = torch.randn(2, 4, 6, 5, generator=generator(0)), torch.zeros(2, 1, 6, 5)
    seen: list[Tensor] = []
    adapter.blocks.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    plain = adapter(eps, mask)
    mask[:, :, 2, 2] = 0.25
    assert plain.shape == eps.shape
    assert (adapter(eps, mask) != plain).any()
    assert torch.equal(seen[1], torch.cat([eps, mask, mask, mask, mask], dim=1))


def test_a_residual_adapter_starts_with_the_network_s_own_answer() -> None:
    adapter = MGA(widths=(8,), residual=True)
    eps = torch.randn(2, 4, 6, 5, generator=generator(0))
    assert torch.equal(adapter(eps, torch.ones(2, 1, 6, 5)), eps)
    assert not torch.equal(MGA(widths=(8,))(eps, torch.ones(2, 1, 6, 5)), eps)


# the model

OWN: dict[str, Any] = {"mga": {"widths": [8, 16]}, "lr": 1e-3, "prompt_tokens": 4}


@pytest.fixture
def params(tiny_model_config: dict[str, Any], tiny_base: Path) -> dict[str, Any]:
    return {**tiny_model_config["params"], **OWN, "types": TYPES, "ckpt_path": str(tiny_base)}


@pytest.fixture
def model(params: dict[str, Any]) -> STAGE:
    return made(params)


@pytest.fixture
def hybrid(params: dict[str, Any], tmp_path: Path) -> STAGE:
    """On a base that sees the defect's place and predicts v."""
    params |= {"conditioning_key": "hybrid", "parameterization": "v"}
    params["unet_config"]["params"]["in_channels"] = 4 + 1 + 4
    base = LatentDiffusion(**{k: v for k, v in params.items() if k not in (*OWN, "types", "ckpt_path")})
    randomize(base, 1)
    save_safetensors(base.artifact()[1], tmp_path / "base.safetensors", {})
    return made({**params, "ckpt_path": str(tmp_path / "base.safetensors")})


def made(params: dict[str, Any]) -> STAGE:
    model = STAGE(**params)
    for part in (model.mga_aware, model.mga_only, model.prompts):
        if part is not None:
            randomize(part, 2)
    return model


class Constant(nn.Module):
    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, eps: Tensor, mask: Tensor) -> Tensor:
        return torch.full_like(eps, self.value)


class Passing(nn.Module):
    def forward(self, said: Tensor, mask: Tensor) -> Tensor:
        return said


def test_the_losses_by_hand(model: STAGE) -> None:
    """Adapters that always answer 0.5 and -0.25: what is left is the noises and the mask that closes in."""
    model.mga_aware, model.mga_only = Constant(0.5), Constant(-0.25)  # type: ignore[assignment]
    given = batch()
    loss, parts = model.loss(given)
    t, eps = model.draw(given, given["latent"])
    second = torch.stack([torch.randn((4, 16, 16), generator=generator(int(s), 5)) for s in given["seed"]])
    m0 = torch.nn.functional.max_pool2d(given["mask"], 4)
    zeta = ((t - 200) / 800).clamp(min=0)[:, None, None, None]
    aware = ((m0 + zeta * (1 - m0)) * (eps - 0.5)).abs().mean()
    only = (second + 0.25).abs().mean()
    torch.testing.assert_close(parts["loss_aware"], aware)
    torch.testing.assert_close(parts["loss_only"], only)
    torch.testing.assert_close(loss, 4 * aware + only)


def test_each_branch_is_fed_its_own_state(model: STAGE) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    model.model.register_forward_pre_hook(lambda m, given: seen.append((given[0].clone(), given[1])))
    given = batch()
    model.loss(given)
    x0, m0 = model.scale_factor * given["latent"], torch.nn.functional.max_pool2d(given["mask"], 4)
    t, eps = model.draw(given, x0)
    second = torch.stack([torch.randn((4, 16, 16), generator=generator(int(s), 5)) for s in given["seed"]])
    bar = torch.tensor([model.schedule.alpha_bar(int(n)) for n in t])[:, None, None, None].float()
    assert len(seen) == 2
    assert all(torch.equal(time, t - 1) for _, time in seen)
    torch.testing.assert_close(seen[0][0], bar.sqrt() * x0 + (1 - bar).sqrt() * eps)
    torch.testing.assert_close(seen[1][0], bar.sqrt() * m0 * x0 + (1 - bar).sqrt() * second)


def test_what_trains(model: STAGE) -> None:
    model.train()
    loss = model.loss(batch())[0]
    assert torch.isfinite(loss)
    loss.backward()
    own = ("mga_aware.", "mga_only.", "prompts.")
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {name.split(".")[0] + "." for name in moved} == set(own)
    assert {id(p) for p in model.trainable()} == {id(p) for n, p in model.named_parameters() if n.startswith(own)}
    assert all(p.grad is None and not p.requires_grad for n, p in model.named_parameters() if not n.startswith(own))
    assert all(m.training for part in (model.mga_aware, model.mga_only) for m in part.modules())  # type: ignore[union-attr]
    assert not any(m.training for part in (model.model, model.first_stage_model) for m in part.modules())


@pytest.mark.parametrize(
    ("off", "parts", "losses"),
    [
        ({"gd": False}, {"mga_aware", "prompts"}, {"loss_aware"}),
        ({"mga": False}, {"prompts"}, {"loss_aware", "loss_only"}),
        ({"mga": False, "gd": False, "ema": False, "aif": False}, {"prompts"}, {"loss_aware"}),
    ],
)
def test_a_part_that_is_off_is_not_there(
    params: dict[str, Any], off: dict[str, bool], parts: set[str], losses: set[str]
) -> None:
    model = made({**params, "stage": off})
    assert set(model.trainable_modules()) == parts
    assert len(model.auxiliary_modules()) == len(parts) - 1
    loss, named = model.loss(batch())
    assert set(named) == losses
    loss.backward()
    assert model.prompts.vectors.grad is not None
    assert model.prompts.vectors.grad.abs().sum() > 0


def place(model: STAGE, sampler: str = "aias", steps: int = 4, **options: Any) -> SamplingInputs:
    """A place whose network is the model's own, as the engine binds it."""
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, 2:4, 3:6], mask[1, :, 6, 1] = 1, 1
    background = torch.randn((2, 4, 8, 8), generator=generator(3))
    prompts = model.prompts(model.cond_stage_model, torch.tensor([0, 5])).detach()

    def denoise(
        x: Tensor, t: Tensor, *, weights: Tensor | None = None, mask: Tensor = mask, known: Tensor = background
    ) -> Tensor:
        return bind(model, model.with_place(prompts, mask, known))(x, t)

    noise = PairNoise([generator(1), generator(2)])
    return SamplingInputs(mask, background, prompts, background, noise, sampler, steps, denoise, options)


@torch.no_grad()
def test_a_place_is_filled(model: STAGE) -> None:
    model.eval()
    where = place(model)
    z, again = model.fill(where), model.fill(place(model))
    outside = where.mask.expand_as(z) == 0
    assert torch.equal(z, again)
    assert torch.isfinite(z).all()
    assert torch.equal(z[outside], where.background[outside])
    assert (z != where.background)[~outside].all()
    plain = model.fill(place(model, mga=False))
    assert (plain != z)[~outside].any()


@torch.no_grad()
def test_ddpm_takes_every_step_and_aias_those_it_is_given(model: STAGE) -> None:
    model.eval()
    model.schedule = SHORT
    model.stage_options = STAGEOptions(**SHORT_OPTIONS)
    calls: list[int] = []
    model.model.register_forward_pre_hook(lambda m, given: calls.append(int(given[1][0])))
    whole = model.fill(place(model, "ddpm", steps=3))
    assert calls == list(range(19, -1, -1))
    torch.testing.assert_close(model.fill(place(model, "aias", steps=20)), whole, rtol=0, atol=0)
    calls.clear()
    model.fill(place(model, "aias", steps=3))
    assert calls == [19, 1, 0]
    assert model.samplers[0] == "ddpm"


def test_a_base_that_sees_the_place_sees_nothing_around_in_the_anomaly_only_branch(hybrid: STAGE) -> None:
    seen: list[tuple[int, Tensor]] = []
    hybrid.model.diffusion_model.register_forward_pre_hook(lambda m, given: seen.append((int(given[1][0]), given[0])))
    given = batch()
    hybrid.loss(given)
    m0 = torch.nn.functional.max_pool2d(given["mask"], 4)
    aware, only = (x[:, 4:] for _, x in seen)
    assert torch.equal(aware, torch.cat([m0, (1 - m0) * hybrid.scale_factor * given["latent"]], dim=1))
    assert torch.equal(only, torch.cat([m0, torch.zeros_like(x0 := given["latent"])], dim=1))
    assert x0.abs().sum() > 0
    seen.clear()
    where = place(hybrid.eval())
    with torch.no_grad():
        hybrid.fill(where)
    assert [i for i, _ in seen] == [999, 500, 1, 0]
    for i, x in seen:
        known = torch.zeros_like(where.known) if i == 999 else where.known
        assert torch.equal(x[:, 4:], torch.cat([where.mask, known], dim=1))


@pytest.mark.parametrize("parameterization", ["v", "x0"])
def test_behind_a_base_that_predicts_something_else_that_is_corrected(hybrid: STAGE, parameterization: str) -> None:
    hybrid.parameterization = parameterization
    given = batch()
    t, eps = hybrid.draw(given, given["latent"])
    x0, m0 = hybrid.scale_factor * given["latent"], torch.nn.functional.max_pool2d(given["mask"], 4)
    second = torch.stack([torch.randn((4, 16, 16), generator=generator(int(s), 5)) for s in given["seed"]])
    bar = torch.tensor([hybrid.schedule.alpha_bar(int(n)) for n in t])[:, None, None, None].float()
    v = bar.sqrt() * second - (1 - bar).sqrt() * m0 * x0
    hybrid.mga_aware, hybrid.mga_only = Constant(0.5), Constant(0.5)  # type: ignore[assignment]
    expected = ((v if parameterization == "v" else m0 * x0) - 0.5).abs().mean()
    torch.testing.assert_close(hybrid.loss(given)[1]["loss_only"], expected)
    hybrid.mga_aware, hybrid.mga_only = Passing(), Passing()  # type: ignore[assignment]
    with torch.no_grad():
        passed, plain = hybrid.fill(place(hybrid)), hybrid.fill(place(hybrid, mga=False))
        x, t = torch.randn(2, 4, 8, 8, generator=generator(5)), torch.tensor([600, 20])
        said = hybrid.network(x, t, hybrid.with_place(place(hybrid).prompts, x[:, :1], x))
        eps = hybrid.apply_model(x, t, hybrid.with_place(place(hybrid).prompts, x[:, :1], x))
    torch.testing.assert_close(passed, plain, rtol=1e-3, atol=1e-3)
    found = from_noise(hybrid.schedule, parameterization, x, t + 1, eps)
    torch.testing.assert_close(found, said, rtol=1e-4, atol=1e-4)


def test_an_artifact_comes_back(model: STAGE, params: dict[str, Any], tmp_path: Path) -> None:
    name, tensors = model.artifact()
    assert name == "stage"
    assert {key.split(".")[0] for key in tensors} == {"mga_aware", "mga_only", "prompts"}
    assert "mga_only.blocks.0.1.running_var" in tensors
    config = {"model": {"target": "fast.stage.STAGE", "params": params}}
    metadata = {"step": "2", "config": json.dumps(config), "split": "s", **model.artifact_metadata()}
    save_safetensors(tensors, tmp_path / "stage-2.safetensors", metadata)
    back = load_model(find_artifact(tmp_path, name="stage"))
    assert isinstance(back, STAGE)
    model.eval()
    torch.testing.assert_close(back.loss(batch())[0], model.loss(batch())[0], rtol=0, atol=0)
    with torch.no_grad():
        assert torch.equal(back.fill(place(back)), model.fill(place(model)))


@torch.no_grad()
def test_the_sample_grid_keeps_the_surroundings(model: STAGE) -> None:
    rows, given = model.eval().log_images(batch(), steps=3), batch()
    outside = given["mask"].expand(-1, 3, -1, -1) == 0
    assert torch.equal(rows["synthetic"][outside], rows["real"][outside])
    assert (rows["synthetic"] - rows["real"])[~outside].abs().max() > 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mga": {"width": 3}}, "unknown config key width for model.params.mga"),
        ({"mga": {"widths": [0]}}, r"widths=\[0\] must be whole numbers"),
        ({"stage": {"steps": 3}}, "unknown config key steps for model.params.stage"),
        ({"stage": {"aif": 1}}, r"stage\.aif=1 is no switch"),
        ({"stage": {"t_s": -1}}, r"stage\.t_s=-1"),
        ({"stage": {"t_s": 1000}}, r"stage\.t_s=1000 is not below timesteps=1000"),
        ({"stage": {"only_intervals": [[1000, 800, 3]]}}, r"stage\.only_intervals"),
        ({"lambda_aware": 0, "lambda_only": 0}, "lambda_aware=0, lambda_only=0"),
    ],
)
def test_a_recipe_s_slips_are_named(params: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        STAGE(**{**params, **change})


def test_what_was_not_trained_cannot_be_switched_on(params: dict[str, Any]) -> None:
    model = made({**params, "stage": {"gd": False}})
    with pytest.raises(UserError, match=r"stage\.gd=true, but this model was trained without it"):
        model.fill(place(model, gd=True))


@pytest.mark.parametrize("name", ["stage", "full/stage"])
def test_the_recipes_are_whole(name: str) -> None:
    config = resolved(merge([f"configs/methods/{name}.yaml"]))
    check_config(config)
    assert config["model"]["target"] == "fast.stage.STAGE"

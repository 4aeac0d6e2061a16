"""The schedule against the original's tables and against single posterior steps composed one after another."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from ldm.errors import UserError
from ldm.models.diffusion.schedule import NoiseSchedule
from support.golden import golden

BETAS = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
PAIRS = [
    (1000, 2), (1000, 0), (1000, 999), (1000, 500), (889, 778), (500, 1), (335, 2), (127, 2), (23, 2), (3, 1), (2, 1),
    (2, 0), (1, 0),
]  # fmt: skip


@pytest.fixture(scope="module")
def schedule() -> NoiseSchedule:
    return NoiseSchedule.linear(1000, 8.5e-4, 1.2e-2)


def composed(betas: np.ndarray, start: int, end: int) -> tuple[float, float, float]:
    """x_te = a x_ts + b x0 + sqrt(v) noise, by taking the steps start -> start-1 -> ... -> end one by one."""
    bar = [1.0]
    for beta in betas:
        bar.append(bar[-1] * (1 - beta))
    a, b, v = 1.0, 0.0, 0.0
    for t in range(start, end, -1):
        beta = betas[t - 1]
        on_x = math.sqrt(1 - beta) * (1 - bar[t - 1]) / (1 - bar[t])
        on_x0 = math.sqrt(bar[t - 1]) * beta / (1 - bar[t])
        variance = beta * (1 - bar[t - 1]) / (1 - bar[t])
        a, b, v = on_x * a, on_x * b + on_x0, on_x**2 * v + variance
    return a, b, v


@pytest.mark.parametrize(("start", "end"), PAIRS)
def test_a_jump_is_the_composition_of_single_steps(schedule: NoiseSchedule, start: int, end: int) -> None:
    assert schedule.posterior(start, end) == pytest.approx(composed(BETAS, start, end), rel=1e-10, abs=1e-12)


def test_jumps_of_other_schedules_compose_too() -> None:
    rng = np.random.default_rng(0)
    betas = rng.uniform(1e-4, 0.2, 60)
    made = NoiseSchedule(betas)
    for start in range(1, 61):
        for end in range(start):
            assert made.posterior(start, end) == pytest.approx(composed(betas, start, end), rel=1e-10, abs=1e-12)


def test_two_jumps_are_one(schedule: NoiseSchedule) -> None:
    a1, b1, v1 = schedule.posterior(900, 400)
    a2, b2, v2 = schedule.posterior(400, 30)
    want = (a2 * a1, a2 * b1 + b2, a2 * a2 * v1 + v2)
    assert schedule.posterior(900, 30) == pytest.approx(want, rel=1e-10)


def test_a_jump_keeps_the_marginal(schedule: NoiseSchedule) -> None:
    """q(x_te) with the true x0 again has mean sqrt(abar) x0 and variance 1 - abar."""
    for start, end in PAIRS:
        bar, bar_end = schedule.alpha_bar(start), schedule.alpha_bar(end)
        a, b, v = schedule.posterior(start, end)
        assert a * math.sqrt(bar) + b == pytest.approx(math.sqrt(bar_end), rel=1e-10)
        assert a * a * (1 - bar) + v == pytest.approx(1 - bar_end, rel=1e-9, abs=1e-12)


def test_a_jump_to_clean_returns_x0(schedule: NoiseSchedule) -> None:
    for start in (1, 2, 500, 1000):
        assert schedule.posterior(start, 0) == pytest.approx((0.0, 1.0, 0.0), abs=1e-12)


@pytest.mark.parametrize(
    ("start", "x0", "variance"),
    [
        (23, (0.91789, 0.91788), (0.00157, 0.00691)),
        (127, (0.98861, 0.98770), (0.00169, 0.04994)),
        (335, (0.99720, 0.98105), (0.00170, 0.20684)),
        (1000, (0.99914, 0.36810), (0.00170, 0.95886)),
    ],
)
def test_the_printed_lemma_differs_as_published(
    schedule: NoiseSchedule, start: int, x0: tuple[float, float], variance: tuple[float, float]
) -> None:
    right, printed = schedule.posterior(start, 2), schedule.posterior_printed(start, 2)
    assert printed[0] == pytest.approx(right[0], rel=1e-10)  # only the other two are wrong
    assert (right[1], printed[1]) == pytest.approx(x0, abs=5e-6)
    assert (right[2], printed[2]) == pytest.approx(variance, abs=5e-6)
    assert printed[2] > 4 * right[2]


def test_the_printed_lemma_is_right_for_one_step(schedule: NoiseSchedule) -> None:
    for start in (1, 2, 500, 1000):
        assert schedule.posterior_printed(start, start - 1) == pytest.approx(
            schedule.posterior(start, start - 1), rel=1e-9, abs=1e-12
        )


def test_tables_are_the_original_ones(schedule: NoiseSchedule) -> None:
    _, published = golden("schedule_linear_1000")
    tables = schedule.tables()
    assert set(tables) <= set(published)
    for name, table in tables.items():
        want = published[name]
        assert_close(torch.tensor(table).to(want.dtype), want, rtol=1e-6, atol=1e-9)


def test_tables_follow_from_betas() -> None:
    made = NoiseSchedule(BETAS)
    tables = {k: torch.tensor(v) for k, v in made.tables(v_posterior=0.25).items()}
    bar = torch.cumprod(1 - torch.tensor(BETAS), 0)
    prev = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    beta = torch.tensor(BETAS)
    assert_close(tables["alphas_cumprod_prev"], prev)
    assert_close(tables["posterior_variance"], 0.75 * beta * (1 - prev) / (1 - bar) + 0.25 * beta)
    assert_close(tables["posterior_mean_coef1"] + 0, beta * prev.sqrt() / (1 - bar))
    assert_close(tables["posterior_mean_coef2"], (1 - prev) * (1 - beta).sqrt() / (1 - bar))
    assert_close(tables["sqrt_recipm1_alphas_cumprod"], ((1 - bar) / bar).sqrt())
    assert made.tables()["posterior_log_variance_clipped"][0] == pytest.approx(math.log(1e-20))
    for t in (1, 2, 700):  # the table's one-step posterior is the closed form's
        _, x0, variance = made.posterior(t, t - 1)
        assert float(tables["posterior_mean_coef1"][t - 1]) == pytest.approx(x0, rel=1e-9)
        assert made.tables()["posterior_variance"][t - 1] == pytest.approx(variance, rel=1e-9, abs=1e-15)


def test_alpha_bar_is_one_when_clean(schedule: NoiseSchedule) -> None:
    assert schedule.alpha_bar(0) == 1.0
    assert schedule.alpha_bar(1) == pytest.approx(1 - 0.00085, rel=1e-12)
    assert schedule.alpha_bar(1000) == pytest.approx(math.exp(np.log1p(-BETAS).sum()), rel=1e-10)
    t = torch.tensor([[0, 1], [1000, 3]])
    many = schedule.alpha_bar(t)
    assert isinstance(many, torch.Tensor)
    assert many.dtype == torch.float64
    assert_close(many, torch.tensor([[schedule.alpha_bar(int(i)) for i in row] for row in t], dtype=torch.float64))


def test_noising_and_back(schedule: NoiseSchedule) -> None:
    torch.manual_seed(0)
    x0, noise = torch.randn(3, 4, 2, 2, dtype=torch.float64), torch.randn(3, 4, 2, 2, dtype=torch.float64)
    kept = x0.clone(), noise.clone()
    t = torch.tensor([1, 500, 1000])
    x = schedule.q_sample(x0, t, noise)
    for i, step in enumerate(t.tolist()):
        bar = math.exp(np.log1p(-BETAS[:step]).sum())
        assert_close(x[i], math.sqrt(bar) * x0[i] + math.sqrt(1 - bar) * noise[i])
        assert_close(schedule.q_sample(x0[i : i + 1], step, noise[i : i + 1])[0], x[i])
    assert_close(schedule.predict_x0(x, t, noise), x0)
    assert_close(schedule.predict_eps(x, t, x0), noise)
    assert_close(schedule.q_sample(x0, 0, noise), x0)
    assert_close((x0, noise), kept)
    half = schedule.q_sample(x0.bfloat16(), t, noise.bfloat16())
    assert half.dtype == torch.bfloat16


def test_named_schedules() -> None:
    start, end, steps = 1e-3, 0.2, 50
    made = {name: NoiseSchedule.named(name, steps, start, end) for name in ("linear", "cosine", "sqrt_linear", "sqrt")}
    ramp = torch.linspace(start, end, steps, dtype=torch.float64).numpy()
    np.testing.assert_allclose(made["sqrt_linear"].betas, ramp, rtol=1e-12)
    np.testing.assert_allclose(made["sqrt"].betas, ramp**0.5, rtol=1e-12)
    roots = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).numpy()
    np.testing.assert_allclose(made["linear"].betas, roots**2, rtol=1e-12)
    bar = [math.cos((i / steps + 8e-3) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
    for t in range(1, steps):  # the last beta is clipped at 0.999
        assert made["cosine"].alpha_bar(t) == pytest.approx(bar[t] / bar[0], rel=1e-10)
    assert made["cosine"].betas[-1] == 0.999
    assert all(s.timesteps == steps for s in made.values())


def test_what_cannot_be_is_refused(schedule: NoiseSchedule) -> None:
    with pytest.raises(UserError, match="beta_schedule=cubic"):
        NoiseSchedule.named("cubic", 10)
    for betas in ([], [0.1, 0.0], [0.1, 1.5], [[0.1]], [0.1, float("nan")]):
        with pytest.raises(UserError, match="betas"):
            NoiseSchedule(np.array(betas))
    for start, end in ((5, 5), (5, 6)):
        with pytest.raises(ValueError, match="goes down"):
            schedule.posterior(start, end)
        with pytest.raises(ValueError, match="goes down"):
            schedule.posterior_printed(start, end)
    for t in (-1, 1001):
        with pytest.raises(ValueError, match=r"0\.\.1000"):
            schedule.alpha_bar(t)
    with pytest.raises(ValueError, match=r"0\.\.1000"):
        schedule.posterior(1001, 5)

"""FARM: any size, a sample's answer its own, a mask that is felt."""

import pytest
import torch

from fast.farm import FARM
from ldm.rng import generator
from support.tiny import randomize


@pytest.fixture(scope="module")
def farm() -> FARM:
    model = FARM(base_width=16).eval()
    randomize(model, 4)
    return model


def inputs(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = generator(5, height, width)
    x = torch.randn(count, 4, height, width, generator=source)
    mask = (torch.rand(count, 1, height, width, generator=source) > 0.7).float()
    return x, mask, torch.randint(0, 1000, (count,), generator=source)


@pytest.mark.parametrize(
    ("height", "width"), [(32, 32), (16, 64), (33, 31), (7, 5), (4, 4), (3, 3), (2, 1), (1, 1), (1, 9)]
)
@torch.no_grad()
def test_any_size(farm: FARM, height: int, width: int) -> None:
    x, mask, t = inputs(2, height, width)
    out = farm(x, mask, t)
    assert out.shape == x.shape
    assert out.isfinite().all()


@pytest.mark.parametrize("size", [8, 9])
@torch.no_grad()
def test_a_sample_s_answer_does_not_depend_on_its_batch(farm: FARM, size: int) -> None:
    x, mask, t = inputs(5, size, size)
    together = farm(x, mask, t)
    for i in range(5):
        torch.testing.assert_close(farm(x[i : i + 1], mask[i : i + 1], t[i : i + 1])[0], together[i])
    farm.train()
    torch.testing.assert_close(farm(x, mask, t), together)
    farm.eval()
    torch.testing.assert_close(farm(x.flip(0), mask.flip(0), t.flip(0)).flip(0), together)


def test_the_published_size_has_one_to_two_million_parameters() -> None:
    count = sum(p.numel() for p in FARM().parameters())
    assert 1_000_000 < count < 2_000_000


@torch.no_grad()
def test_time_and_mask_are_felt(farm: FARM) -> None:
    x, mask, _ = inputs(1, 8, 8)
    first, last = (farm(x, mask, torch.tensor([t])) for t in (0, 999))
    assert not torch.allclose(first, last, atol=1e-3)
    assert not torch.allclose(first, farm(x, 1 - mask, torch.tensor([0])), atol=1e-3)


@torch.no_grad()
def test_a_single_masked_cell_reaches_every_level(farm: FARM) -> None:
    x, _, t = inputs(1, 9, 9)
    levels: dict[str, torch.Tensor] = {}
    for name in ("dec3", "dec2", "dec1", "out"):
        getattr(farm, name).register_forward_pre_hook(lambda m, given, name=name: levels.update({name: given[0]}))
    for cell in (0, 40, 80):
        mask = torch.zeros(1, 1, 9, 9)
        mask.view(-1)[cell] = 1
        without, before = farm(x, torch.zeros_like(mask), t), dict(levels)
        changed = (farm(x, mask, t) - without).abs().amax(dim=1).view(-1)
        assert changed[cell] > 1e-4
        row, column = divmod(cell, 9)
        gated = (levels["dec3"] - before["dec3"])[0, :, row // 4, column // 4]
        assert gated.abs().max() > 1e-4
        for name, shrink in (("dec2", 2), ("dec1", 1), ("out", 1)):
            beside = levels[name][0, -1]  # the mask rides along as the last channel
            assert beside[row // shrink, column // shrink] == 1
            assert set(beside.unique().tolist()) == {0.0, 1.0}


@torch.no_grad()
def test_integer_masks_serve_as_well(farm: FARM) -> None:
    x, mask, t = inputs(1, 8, 8)
    assert torch.equal(farm(x, mask.bool(), t), farm(x, mask, t))


def test_the_skip_path_starts_closed_and_works_inside_the_mask() -> None:
    """`skip=False` is the paper's network; with it the difference is s(t) * x inside the mask and nothing outside."""
    torch.manual_seed(0)
    open_, plain = FARM(base_width=8), FARM(base_width=8, skip=False)
    plain.load_state_dict({k: v for k, v in open_.state_dict().items() if not k.startswith("skip")})
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([0, 999])
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:5, 3:6] = 1
    torch.testing.assert_close(open_(x, mask, t), plain(x, mask, t), rtol=0, atol=0)
    assert open_.skip is not None
    open_.skip.bias.data[:] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = mask * x * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]
    torch.testing.assert_close(open_(x, mask, t) - plain(x, mask, t), expected, rtol=1e-5, atol=1e-6)


def test_the_prompt_counts_once_it_has_weights() -> None:
    """With a prompt's width FARM starts as without one, then tells prompts apart; the paper's has no such path."""
    torch.manual_seed(0)
    farm = FARM(base_width=8, context_dim=6)
    x, t, mask = torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), torch.ones(2, 1, 8, 8)
    prompt = torch.randn(2, 5, 6)
    torch.testing.assert_close(farm(x, mask, t, prompt), farm(x, mask, t), rtol=0, atol=0)
    randomize(farm, 3)
    assert not torch.allclose(farm(x, mask, t, prompt), farm(x, mask, t, prompt.flip(0)))
    assert FARM(base_width=8).words is None


@torch.no_grad()
def test_one_that_sees_the_picture_answers_by_it() -> None:
    farm = FARM(base_width=16, sees_known=True).eval()
    randomize(farm, 4)
    x, mask, t = inputs(2, 8, 8)
    known = torch.randn(2, 4, 8, 8, generator=generator(6))
    assert not torch.equal(farm(x, mask, t, None, known), farm(x, mask, t, None, known + 1))
    with pytest.raises(ValueError, match="give known"):
        farm(x, mask, t)

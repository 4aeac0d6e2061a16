"""Reuse of the inner blocks' features: what runs when, and that the outer blocks see everything new."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ldm.models.diffusion.wrapper import DiffusionWrapper
from ldm.modules.diffusionmodules.openaimodel import DeepFeatures, UNetModel
from support.tiny import randomize

OPTIONS: dict[str, Any] = {
    "image_size": 8, "in_channels": 4, "model_channels": 32, "out_channels": 4, "num_res_blocks": 1,
    "attention_resolutions": [1, 2, 4], "channel_mult": [1, 2, 1], "num_heads": 2, "use_spatial_transformer": True,
    "context_dim": 12,
}  # fmt: skip
DEPTH = 6  # input blocks of such a network, and as many output blocks


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


PROMPT = noise(2, 5, 12, seed=9)
STEPS = [(noise(2, 4, 8, 8, seed=i), torch.tensor([900 - 100 * i, 800 - 100 * i])) for i in range(7)]


@pytest.fixture(scope="module")
def unet() -> UNetModel:
    unet = UNetModel(**OPTIONS).eval().requires_grad_(False)
    randomize(unet, 0)
    assert len(unet.input_blocks) == len(unet.output_blocks) == DEPTH
    return unet


def runs(parts: list[nn.Module], unet: UNetModel, deep: DeepFeatures) -> list[list[int]]:
    """For each part of the network the numbers of the evaluations at which it ran."""
    seen: list[list[int]] = [[] for _ in parts]
    now = 0
    hooks = [m.register_forward_hook(lambda *_, own=own: own.append(now)) for m, own in zip(parts, seen, strict=True)]
    for x, t in STEPS:
        unet(x, t, context=PROMPT, deep=deep)
        now += 1
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("outer", range(1, DEPTH + 1))
def test_every_evaluation_afresh_is_the_plain_network(unet: UNetModel, outer: int) -> None:
    deep = DeepFeatures(1, outer)
    for x, t in STEPS:
        assert torch.equal(unet(x, t, context=PROMPT, deep=deep), unet(x, t, context=PROMPT))


@pytest.mark.parametrize(("every", "expected"), [(1, [*range(7)]), (2, [0, 2, 4, 6]), (3, [0, 3, 6]), (9, [0])])
def test_inner_blocks_run_when_it_is_their_turn_and_outer_ones_always(
    unet: UNetModel, every: int, expected: list[int]
) -> None:
    inner = [unet.middle_block, *unet.input_blocks[2:], *unet.output_blocks[:-2]]
    outer = [*unet.input_blocks[:2], *unet.output_blocks[-2:], unet.time_embed, unet.out]
    seen = runs([*inner, *outer], unet, DeepFeatures(every, 2))
    assert seen == [expected] * len(inner) + [[*range(7)]] * len(outer)


@pytest.mark.parametrize("outer", range(1, DEPTH + 1))
def test_the_kept_features_meet_the_new_input(unet: UNetModel, outer: int) -> None:
    """Against the plain network with the last evaluation's features put in by force where they belong."""
    (x, t), (x2, t2) = STEPS[:2]
    joint = unet.output_blocks[-outer]
    taken: list[Tensor] = []
    hook = joint.register_forward_pre_hook(lambda m, given: taken.append(given[0]))
    unet(x, t, context=PROMPT)
    unet(x2, t2, context=PROMPT)
    hook.remove()
    skip = unet.input_blocks[outer - 1]
    widths: list[int] = []
    hook = skip.register_forward_hook(lambda m, given, out: widths.append(out.shape[1]))
    unet(x, t, context=PROMPT)
    hook.remove()
    deep_width = taken[0].shape[1] - widths[0]
    forced = torch.cat([taken[0][:, :deep_width], taken[1][:, deep_width:]], dim=1)
    hook = joint.register_forward_pre_hook(lambda m, given: (forced, *given[1:]))
    expected = unet(x2, t2, context=PROMPT)
    hook.remove()

    deep = DeepFeatures(2, outer)
    unet(x, t, context=PROMPT, deep=deep)
    made = unet(x2, t2, context=PROMPT, deep=deep)
    assert torch.equal(made, expected)
    assert not torch.allclose(made, unet(x2, t2, context=PROMPT), atol=1e-3), "reuse should be seen"
    other = DeepFeatures(2, outer)
    unet(x, t, context=PROMPT, deep=other)
    assert not torch.allclose(made, unet(STEPS[2][0], t2, context=PROMPT, deep=other), atol=1e-3), "x should be seen"


@pytest.mark.parametrize("outer", range(1, DEPTH + 1))
def test_an_unchanged_input_has_an_unchanged_answer(unet: UNetModel, outer: int) -> None:
    x, t = STEPS[0]
    deep = DeepFeatures(3, outer)
    answers = [unet(x, t, context=PROMPT, deep=deep) for _ in range(4)]
    assert all(torch.equal(a, unet(x, t, context=PROMPT)) for a in answers)


def test_trajectories_do_not_mix(unet: UNetModel) -> None:
    (x, t), (x2, t2) = STEPS[:2]
    one, other = DeepFeatures(2), DeepFeatures(2)
    alone = DeepFeatures(2)
    expected = [unet(x, t, context=PROMPT, deep=alone), unet(x2, t, context=PROMPT, deep=alone)]
    first = unet(x, t, context=PROMPT, deep=one)
    unet(x2, t2, context=PROMPT, deep=other)
    second = unet(x2, t, context=PROMPT, deep=one)
    assert torch.equal(first, expected[0])
    assert torch.equal(second, expected[1])


def test_the_shallow_blocks_are_those_at_full_size(unet: UNetModel) -> None:
    """The default place to cut: all that is kept lies at fewer cells."""
    sizes: list[int] = []
    for block in [*unet.input_blocks, *unet.output_blocks]:
        block.register_forward_hook(lambda m, given, out: sizes.append(given[0].shape[-1]))
    unet(*STEPS[0], context=PROMPT)
    assert unet.shallow == 2
    assert sizes[: unet.shallow] == sizes[-unet.shallow :] == [8, 8]


@pytest.mark.parametrize("options", [{"use_spatial_transformer": False, "context_dim": None}, {"channel_mult": [1]}])
def test_other_networks(options: dict[str, Any]) -> None:
    network = UNetModel(**OPTIONS | options).eval().requires_grad_(False)
    randomize(network, 0)
    for outer in range(1, len(network.input_blocks) + 1):
        assert runs([network.middle_block], network, DeepFeatures(2, outer)) == [[0, 2, 4, 6]]


def test_the_wrapper_hands_it_on(unet: UNetModel) -> None:
    wrapper = DiffusionWrapper({"target": "torch.nn.Identity"}, "crossattn")
    wrapper.diffusion_model = unet
    deep, own = DeepFeatures(2), DeepFeatures(2)
    for x, t in STEPS[:3]:
        assert torch.equal(wrapper(x, t, c_crossattn=[PROMPT], deep=deep), unet(x, t, context=PROMPT, deep=own))

"""The engine: what is prepared once, what each saving costs in grey levels, and what it never does."""

import copy
import gc
import math
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fast.synthesis.prepared
import fast.synthesis.recipe
import fast.synthesis.synthesizer
import ldm.modules.packed
from fast.aias import AIASOptions, Guidance, aias, boundaries
from fast.artifact import find_artifact, load_model
from fast.model import FAST
from fast.synthesis.denoiser import tile_size
from fast.synthesis.engine import BACKGROUNDS, Engine, GivenUp
from fast.synthesis.recent import Recent
from fast.synthesis.synthesizer import Synthesizer
from ldm.errors import UserError
from ldm.models.diffusion.conditioning import PromptCache
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.modules.packed import can_pack, has_int8
from ldm.rng import PairNoise, generator
from support.images import SIDE, mask, picture
from support.synthesis import plain_recipe
from support.tiny import TYPES

# Grey levels of 255 inside the mask that a picture may lie from float32's after five steps: (mean, largest). The tiny
# network answers with noise, its pictures spread by about 90 levels; a trained one's spread less and so differ less.
WITHIN = {"bf16": (3, 30), "int8": (5, 50)}
needs_int8 = pytest.mark.skipif(not has_int8(), reason="this CPU has no 8-bit dot products")


def one(engine: Engine, seed: int = 1, key: Any = None, side: int = SIDE) -> np.ndarray:
    return engine.generate([picture(seed, side, side)], [mask(side, side)], [seed % len(TYPES)], [seed], [key])[0]


@pytest.fixture(scope="module")
def trained(tiny_artifact: Path) -> FAST:
    return load_model(find_artifact(tiny_artifact))


@pytest.fixture
def model(trained: FAST) -> FAST:
    """For one engine, which takes it over."""
    return copy.deepcopy(trained)


@pytest.fixture(scope="module")
def synthesizer(trained: FAST) -> Synthesizer:
    """Shared: what a test sets in it, it sets in a `variant`."""
    return Synthesizer(copy.deepcopy(trained), plain_recipe(SIDE, steps=3))


@pytest.fixture(scope="module")
def engine(synthesizer: Synthesizer) -> Engine:
    return synthesizer.engine


def variant(engine: Engine, **recipe: Any) -> Engine:
    """The same networks under another recipe, as far as that is asked only when a picture is made."""
    other = copy.copy(engine)
    other.recipe = replace(engine.recipe, **recipe)
    other.backgrounds = Recent(BACKGROUNDS)
    return other


def calls(module: nn.Module) -> list[tuple[int, ...]]:
    """Shapes of a module's first argument, call by call from now on."""
    shapes: list[tuple[int, ...]] = []
    module.register_forward_pre_hook(lambda m, given: shapes.append(tuple(given[0].shape)))
    return shapes


# prepared once


def test_each_type_s_prompt_is_encoded_once_and_alone(model: FAST) -> None:
    encoder: Any = model.cond_stage_model
    expected = [model.prompts(encoder, torch.tensor([i])) for i in range(len(TYPES))]
    encoded: list[int] = []
    own = encoder.encode_embeddings

    def counted(rows: Tensor) -> Tensor:
        encoded.append(len(rows))
        return own(rows)

    encoder.encode_embeddings = counted
    engine = Engine(model, plain_recipe(SIDE, steps=2))
    for seed in range(len(TYPES)):
        one(engine, seed)
    assert encoded == [1] * (len(TYPES) + 1), "that of no words too"
    assert all(map(torch.equal, engine.prepared.prompts, expected))


def test_the_text_encoder_is_let_go(model: FAST) -> None:
    weights = [weakref.ref(p) for p in model.cond_stage_model.parameters()]
    assert weights
    engine = Engine(model, plain_recipe(SIDE, steps=2))
    gc.collect()
    assert [ref() for ref in weights] == [None] * len(weights)
    assert isinstance(engine.model.cond_stage_model, nn.Identity)


def test_the_prompt_s_keys_are_projected_once(engine: Engine) -> None:
    projections = [m for name, m in engine.unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    seen = [calls(m) for m in projections]
    assert len(seen) == 2 * 4
    one(engine)
    assert seen == [[]] * len(seen)


def test_another_type_is_another_picture(engine: Engine) -> None:
    made = [engine.generate([picture(1)], [mask()], [kind], [1])[0] for kind in (0, 1, 0)]
    assert (made[0] != made[1]).any()
    assert (made[0] == made[2]).all()


def test_a_mixed_batch_has_each_pair_s_own_prompt(engine: Engine) -> None:
    normals, masks = [picture(1)] * 3, [mask()] * 3
    mixed = engine.generate(normals, masks, [0, 3, 5], [1, 1, 1])
    for row, kind in zip(mixed, [0, 3, 5], strict=True):
        alone = engine.generate(normals[:1], masks[:1], [kind], [1])[0]
        assert abs(alone.astype(int) - row).max() <= 1
    assert abs(mixed[0].astype(int) - mixed[1]).max() > 1


# normals that come again


def test_a_known_normal_is_not_encoded_again(engine: Engine) -> None:
    engine = variant(engine)
    encoded = calls(engine.model.first_stage_model.encoder)
    first = one(engine, 1, "a")
    assert (one(engine, 1, "a") == first).all()
    assert len(encoded) == 1
    one(engine, 2, "b")
    one(engine, 1, "a")
    assert len(encoded) == 2
    assert (one(engine, 1, None) == first).all(), "kept or not, the picture is the same"
    assert (one(engine, 1, None) == first).all()
    assert len(encoded) == 4


def test_a_batch_of_known_and_unknown_normals(engine: Engine) -> None:
    engine = variant(engine)
    normals = [picture(i) for i in range(3)]

    def filled(numbers: Sequence[int]) -> list[np.ndarray]:
        chosen = [normals[i] for i in numbers]
        return engine.generate(chosen, [mask()] * 3, [0] * 3, [5, 6, 7], [f"normal {i}" for i in numbers])

    encoded = calls(engine.model.first_stage_model.encoder)
    before = filled([0, 1, 1])
    after = filled([0, 1, 2])
    assert len(encoded) == 2
    assert all((a == b).all() for a, b in zip(before[:2], after[:2], strict=True))
    again = filled([2, 0, 1])
    assert len(encoded) == 2
    assert abs(again[0].astype(int) - filled([2, 2, 2])[0]).max() <= 1


def test_what_is_kept_of_normals_is_bounded(engine: Engine) -> None:
    engine = variant(engine, steps=1)
    size = 4 * 8 * 8 * 4  # bytes of a latent
    engine.backgrounds = Recent(2 * size)
    normals = [picture(i) for i in range(4)]
    engine.generate(normals, [mask()] * 4, [0] * 4, [1, 2, 3, 4], [*"abcd"])
    kept = engine.backgrounds.all_of("cd")
    assert kept is not None
    assert sum(row.untyped_storage().nbytes() for row in kept) == 2 * size
    assert [engine.backgrounds.all_of(key) for key in "ab"] == [None, None]
    engine.backgrounds = Recent(size - 1)
    one(engine, 1, "e")
    assert engine.backgrounds.all_of("e") is None


# precision


def check_against_float32(engine: Engine, plain: Engine) -> None:
    mean, largest = WITHIN[engine.recipe.precision]
    where = mask(64, 64) == 1
    for seed, use_farm in enumerate((True, False, True, False)):
        same, ours = (variant(e, steps=5, use_farm=use_farm) for e in (plain, engine))
        exact, made = (one(e, seed, side=64)[where].astype(int) for e in (same, ours))
        assert 0 < abs(exact - made).mean() < mean
        assert abs(exact - made).max() < largest
        assert exact.std() > 10 * mean, "pictures with little in them would prove nothing"
    assert (one(ours, seed, side=64)[where] == made).all()


def test_bfloat16_stays_near_float32(model: FAST, engine: Engine) -> None:
    check_against_float32(Engine(model, plain_recipe(64, precision="bf16")), engine)


@needs_int8
def test_8_bits_stay_near_float32(model: FAST, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldm.modules.packed, "USES", 1)  # the tiny network is too narrow for them otherwise
    check_against_float32(Engine(model, plain_recipe(64, precision="int8")), engine)
    eight = {"Int8Conv2d", "Int8Linear"}
    assert eight <= {type(m).__name__ for m in model.model.modules()}
    for part in (model.first_stage_model, model.farm):
        assert not eight & {type(m).__name__ for m in part.modules()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_packing_changes_no_picture(model: FAST, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_pack(torch.bfloat16):
        pytest.skip("this CPU has no packed kernels for bfloat16")
    plain = copy.deepcopy(model)
    with monkeypatch.context() as patch:
        patch.setattr(fast.synthesis.prepared, "can_pack", lambda dtype: False)
        unpacked = Engine(plain, plain_recipe(SIDE, steps=3, precision=precision))
    packed = Engine(model, plain_recipe(SIDE, steps=3, precision=precision))
    assert any(type(m).__name__ == "PackedConv2d" for m in packed.unet.modules())
    assert not any(type(m).__name__ == "PackedConv2d" for m in unpacked.unet.modules())
    difference = abs(one(unpacked).astype(int) - one(packed))
    assert difference.max() <= (0 if precision == "bf16" else 1)


def test_bfloat16_halves_what_is_held(model: FAST) -> None:
    engine = Engine(model, plain_recipe(SIDE, precision="bf16"))
    for part in (engine.unet, engine.model.first_stage_model, engine.model.farm):
        assert {p.dtype for p in part.parameters()} == {torch.bfloat16}


def test_precisions_that_cannot_be(model: FAST, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--precision fp64 is unknown; use fp32, bf16, int8"):
        Engine(model, plain_recipe(SIDE, precision="fp64"))
    monkeypatch.setattr(fast.synthesis.recipe, "has_int8", lambda: True)
    with pytest.raises(UserError, match="--compile is for one size of window"):
        Engine(model, plain_recipe(SIDE, precision="int8", compiled=True))
    with pytest.raises(UserError, match="--precision int8 needs a CPU"):
        Engine(model, plain_recipe(SIDE, precision="int8"), "cuda")
    monkeypatch.setattr(fast.synthesis.recipe, "has_int8", lambda: False)
    with pytest.raises(UserError, match=r"--precision int8 needs a CPU with 8-bit dot products .*; use bf16"):
        Engine(model, plain_recipe(SIDE, precision="int8"))
    assert not isinstance(model.cond_stage_model, nn.Identity), "what is refused is left as it was"


@pytest.mark.parametrize("precision", ["fp32", "bf16", pytest.param("int8", marks=needs_int8)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_overflow_are_told_with_the_precision(
    model: FAST, precision: str, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ldm.modules.packed, "USES", 1)
    with torch.no_grad():
        model.model.diffusion_model.time_embed[0].bias.fill_(bad)
    engine = Engine(model, plain_recipe(SIDE, steps=3, precision=precision))
    with pytest.raises(UserError, match=f"no numbers at --precision {precision}; try fp32"):
        one(engine)


# fewer evaluations


@pytest.mark.parametrize(
    ("steps", "stop_at"), [(1, 0), (1, 2), (2, 0), (2, 1), (5, 0), (5, 1), (5, 2), (5, 999), (10, 300), (50, 2)]
)
def test_no_evaluation_at_times_up_to_stop_at(engine: Engine, steps: int, stop_at: int) -> None:
    evaluated: list[int] = []
    engine.model.model.register_forward_pre_hook(lambda m, given: evaluated.append(int(given[1][0]) + 1))
    one(variant(engine, steps=steps, stop_at=stop_at))
    assert evaluated == [t for t in boundaries(steps) if t > stop_at]


def test_a_recipe_sets_the_steps_and_the_stop(model: FAST) -> None:
    engine = Engine(model, plain_recipe(SIDE, steps=50, stop_at=2))
    evaluations = calls(engine.model.model)
    one(engine)
    assert len(evaluations) == 48


@pytest.mark.parametrize("stop_at", [2, 400])
def test_what_is_known_stands_where_it_stops(stop_at: int) -> None:
    """A network that knows the defect: then nothing is left to do, and FARM's last word counts where it replaces."""
    schedule = NoiseSchedule.linear()
    defect, where = torch.full((1, 4, 6, 6), 2.0), torch.zeros(1, 1, 6, 6)
    where[..., :3] = 1
    noise = PairNoise([generator(1)])
    start, background = noise(defect), noise(defect)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return schedule.predict_eps(x, t + 1, defect)

    def farm(x: Tensor, t: Tensor) -> Tensor:
        return 3 * defect

    for mode, reconstruct, found in [("replace", None, 2), ("steer", farm, 2), ("replace", farm, 6)]:
        guidance = Guidance(schedule, where, background, reconstruct)
        options = AIASOptions(steps=10, farm_mode=mode, stop_at=stop_at)
        made = aias(denoise, schedule, start, guidance=guidance, noise=noise, options=options)
        assert torch.equal(made[..., 3:], background[..., 3:])
        torch.testing.assert_close(made[..., :3], torch.full((1, 4, 6, 3), float(found)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("reuse", "inner"), [(1, 6), (2, 3), (3, 2), (10, 1)])
def test_reuse_saves_inner_blocks_alone(engine: Engine, reuse: int, inner: int) -> None:
    engine = variant(engine, steps=6, reuse=reuse)
    parts = (engine.model.model, engine.unet.middle_block, engine.unet.input_blocks[0])
    everything, middle, stem = map(calls, parts)
    first = one(engine)
    assert (len(everything), len(middle), len(stem)) == (6, inner, 6)
    assert (one(engine) == first).all(), "nothing is left of the last trajectory"
    assert len(middle) == 2 * inner


# tiles


@pytest.mark.parametrize(("max_window", "side"), [(32, 32), (39, 32), (24, 24), (16, 16)])
@pytest.mark.parametrize("reuse", [1, 2])
def test_no_part_sees_more_than_a_tile(synthesizer: Synthesizer, max_window: int, side: int, reuse: int) -> None:
    synthesizer = copy.copy(synthesizer)
    engine = variant(synthesizer.engine, size=None, steps=2, max_window=max_window, reuse=reuse)
    synthesizer.engine = engine
    unet, middle = calls(engine.unet), calls(engine.unet.middle_block)
    encoder, decoder = calls(engine.model.first_stage_model.encoder), calls(engine.model.first_stage_model.decoder)
    normal, where = picture(1, 40, 53), mask(40, 53)
    made = synthesizer.fill(normal, where, 0, 3)
    assert made.shape == normal.shape
    assert (made[where == 0] == normal[where == 0]).all()
    assert (made[where == 1] != normal[where == 1]).any()
    for seen, limit in ((unet, side // 4), (decoder, side // 4), (encoder, side)):
        assert {shape[-2:] for shape in seen} <= {(limit, limit)}
    assert len(decoder) == len(encoder) == len(unet) / 2 > 1
    assert len(middle) == len(unet) // reuse


def test_each_tile_reuses_its_own_features(engine: Engine) -> None:
    """At the first evaluation every tile is new, at the second none."""
    events: list[str] = []
    engine.unet.register_forward_pre_hook(lambda *_: events.append("tile"))
    engine.unet.middle_block.register_forward_pre_hook(lambda *_: events.append("inner"))
    one(variant(engine, steps=2, max_window=16, reuse=2))
    assert events == ["tile", "inner"] * 9 + ["tile"] * 9


def test_a_tile_as_large_as_the_window_is_the_window(engine: Engine) -> None:
    made = [one(variant(engine, max_window=side)) for side in (32, 1024, 16)]
    assert (made[0] == made[1]).all()
    assert (made[0] != made[2]).any()


def test_a_tile_is_a_multiple_of_the_stride_and_at_least_that(engine: Engine) -> None:
    assert (engine.prepared.factor, engine.stride) == (4, 8)
    for max_window, side, overlap in [(1, 8, 0), (16, 16, 8), (31, 24, 8), (100, 96, 24), (1024, 1024, 256)]:
        assert tile_size(max_window, 8) == {"tile": side, "overlap": overlap}
        assert tile_size(max_window, 8, 4) == {"tile": side // 4, "overlap": overlap // 4}


def test_stopping_ends_a_picture_at_the_next_evaluation(engine: Engine) -> None:
    engine.stopping = True
    with pytest.raises(GivenUp):
        one(engine)
    engine.stopping = False
    assert one(engine).shape == (SIDE, SIDE, 3)


# noise


def test_a_row_s_noise_is_its_generator_s_alone() -> None:
    """Whatever the batch it is in, and however many draws are made ahead."""
    x = torch.empty(3, 4, 3, 5)  # of these few numbers, how many are drawn at a time shows
    together = PairNoise([generator(i) for i in (5, 6, 7)])
    draws = [together(x) for _ in range(20)]
    for row, seed in enumerate((5, 6, 7)):
        alone = PairNoise([generator(seed)])
        own = generator(seed)
        chunks = [torch.randn(8, 4, 3, 5, generator=own) for _ in range(3)]
        for draw, expected in zip(draws, torch.cat(chunks), strict=False):
            assert torch.equal(draw[row], expected)
            assert torch.equal(alone(x[:1])[0], expected)
    assert len({d.numpy().tobytes() for d in draws}) == 20


def test_noise_has_the_type_of_what_it_is_for() -> None:
    x = torch.empty(2, 4, 3, 3)
    whole, half = PairNoise([generator(1), generator(2)]), PairNoise([generator(1), generator(2)])
    for _ in range(10):
        made = half(x.bfloat16())
        assert made.dtype == torch.bfloat16
        assert torch.equal(made, whole(x).bfloat16())


# on another device than the model's own


def test_what_is_sampled_lies_on_the_engine_s_device_alone(model: FAST, monkeypatch: pytest.MonkeyPatch) -> None:
    """On "meta", which computes shapes and refuses tensors of two devices in one operation, as CUDA does. The prompts
    that the model keeps come back on the device that Lightning believes it to be on: the CPU."""
    monkeypatch.setitem(fast.synthesis.synthesizer.WINDOWS_PER_BATCH, "meta", 4)
    monkeypatch.setattr(PromptCache, "get", lambda _, texts, run, device: torch.zeros(run(texts).shape).to(device))
    made: list[Tensor] = []
    engine = Synthesizer(model, plain_recipe(SIDE, steps=3, scale=2.0), "meta").engine

    def pictures(z: Tensor) -> list[np.ndarray]:
        made.append(engine.prepared.decode(z))
        return [np.zeros((SIDE, SIDE, 3), np.uint8)] * len(z)

    monkeypatch.setattr(engine, "_images", pictures)
    one(engine)
    engine.counterfeit([picture(1, SIDE, SIDE)], [mask(SIDE, SIDE)], [1])
    assert {(z.device.type, z.shape[-2:]) for z in made} == {("meta", (SIDE, SIDE))}

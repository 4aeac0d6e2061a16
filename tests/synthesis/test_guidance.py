"""Classifier-free guidance: what it computes in every sampler, where its scale comes from, what its trainings drop."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fast.aias import AIASOptions, Guidance
from fast.anomalydiffusion.model import AnomalyDiffusion
from fast.artifact import find_artifact
from fast.bench.protocol import parse
from fast.data.tensors import latent_mask, to_image, to_tensor
from fast.generators import create
from fast.latent.prompted import PromptedDiffusion
from fast.latent.sampling import sample_latents
from fast.model import FAST
from fast.synthesis.denoiser import WindowDenoiser
from fast.synthesis.engine import Engine
from fast.synthesis.recipe import recipe_for
from ldm.checkpoint import read_metadata, read_state_dict, save_safetensors
from ldm.errors import UserError
from ldm.rng import PairNoise
from support.images import mask, picture
from support.synthesis import arguments, manifest, plain_recipe, synthesize, whole_set
from support.tiny import SIZE, TYPES, randomize

SIDE, SCALE = 32, 2.5
Build = Callable[..., PromptedDiffusion]


@pytest.fixture
def build(tiny_fast_config: dict[str, Any]) -> Build:
    """A tiny model of 12 times, random throughout: `hybrid` sees words, place and pooled prompt as the mini base."""

    def make(cls: type[PromptedDiffusion] = FAST, hybrid: bool = False, **more: Any) -> PromptedDiffusion:
        params = {**tiny_fast_config["params"], "timesteps": 12, "linear_end": 0.6, "types": TYPES, **more}
        if cls is not FAST:
            params = {k: v for k, v in params.items() if k not in ("farm", "aias")}
        if hybrid:
            unet = params["unet_config"]["params"] | {"in_channels": 4 + 4 + 4, "pooled_context": True}
            params |= {"conditioning_key": "hybrid", "mask_detail": 2, "parameterization": "v"}
            params["unet_config"] = {**params["unet_config"], "params": unet}
        torch.manual_seed(0)
        model = cls(**params)
        for number, part in enumerate((model.model, model.first_stage_model, model.cond_stage_model)):
            randomize(part, number)
        for number, part in enumerate(model.trainable_modules().values()):
            randomize(part, 7 + number)
        return model.eval()

    return make


def prompts_of(model: PromptedDiffusion, kind: int) -> tuple[Tensor, Tensor]:
    """A type's prompt and the empty one."""
    with torch.no_grad():
        words = model.prompts(model.cond_stage_model, torch.tensor([kind]))
        return words, model.cond_stage_model([""])


@pytest.mark.parametrize("sampler", ["aias", "ddpm", "ddim", "plms"])
@pytest.mark.parametrize("hybrid", [False, True])
@torch.no_grad()
def test_in_every_sampler_it_combines_the_answers_of_two_calls(build: Build, sampler: str, hybrid: bool) -> None:
    model = build(hybrid=hybrid)
    words, empty = prompts_of(model, 1)
    normal, pixels = to_tensor(picture(1))[None], torch.from_numpy(mask())[None, None]
    background = model.scale_factor * model.first_stage_mean(normal)
    where, shown = latent_mask(pixels, (8, 8)), model.detailed_mask(pixels, (8, 8))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        with_words, without = (model.apply_model(x, t, model.with_place(p, shown, background)) for p in (words, empty))
        return without + SCALE * (with_words - without)

    def farm(x: Tensor, t: Tensor) -> Tensor:
        return model.farm(x, where, t, words, None)

    assert isinstance(model, FAST)
    noise = PairNoise([torch.Generator().manual_seed(5)])
    guidance, options = Guidance(model.schedule, where, background, farm), AIASOptions(4)
    z = sample_latents(denoise, guidance, background, noise=noise, options=options, sampler=sampler)
    expected = to_image(model.decode_first_stage(z)[0]).astype(int)

    def made(scale: float) -> np.ndarray:
        engine = Engine(copy.deepcopy(model), plain_recipe(SIDE, sampler, 4, scale=scale))
        return engine.generate([picture(1)], [mask()], [1], [5])[0].astype(int)

    assert abs(made(SCALE) - expected).max() <= 1
    assert abs(made(1.0) - expected).max() > 20


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize(
    ("reuse", "max_window", "form"), [(1, 512, None), (2, 512, "scores"), (1, 24, "map"), (2, 24, "scores")]
)
@torch.no_grad()
def test_with_tiles_and_reuse_and_weights_too(
    build: Build, hybrid: bool, reuse: int, max_window: int, form: str | None
) -> None:
    """Against the same denoiser without guidance, once under the words and once under none."""
    engine = Engine(build(hybrid=hybrid), plain_recipe(SIDE, reuse=reuse, max_window=max_window, scale=SCALE))
    prepared, recipe = engine.prepared, engine.recipe
    source = torch.Generator().manual_seed(3)
    shown = torch.randint(2, (2, 4 if hybrid else 1, 8, 8), generator=source).float()
    known = torch.randn(2, 4, 8, 8, generator=source)
    _, context = prepared.context([1, 4], shown[:, :1])
    columns = prepared.columns[[1, 4]]
    guided = WindowDenoiser(prepared, recipe, context, columns, shown, known, SCALE)
    with_words = WindowDenoiser(prepared, recipe, context, columns, shown, known, scale=1)
    without = WindowDenoiser(
        prepared, recipe, prepared.empty_context(2), torch.zeros_like(columns), shown, known, scale=1
    )
    for t in (11, 6, 2):
        x, when = torch.randn(2, 4, 8, 8, generator=source), torch.full((2,), t)
        how: dict[str, Any] = (
            {} if form is None else {"form": form, "weights": 0.5 + torch.rand(2, 1, 8, 8, generator=source)}
        )
        how |= {"known": torch.zeros_like(known)} if t == 6 else {}  # as STAGE's second branch does
        e1, e0 = with_words(x, when, **how), without(x, when, **how)
        assert_close(guided(x, when, **how), e0 + SCALE * (e1 - e0), atol=1e-4, rtol=1e-4)
        assert (e1 - e0).abs().max() > 0.01


@pytest.mark.parametrize("reweight", [None, "code", "paper"])
def test_prompts_that_depend_on_masks_are_guided_too(build: Build, reweight: str | None) -> None:
    def made(scale: float) -> np.ndarray:
        model = build(AnomalyDiffusion, location="small", reweight=reweight)
        engine = Engine(model, plain_recipe(SIDE, "ddim", 3, scale=scale))
        return engine.generate([picture(1)], [mask()], [1], [5])[0].astype(int)

    one, again, more = made(1.0), made(1.0), made(SCALE)
    assert (one == again).all()
    assert abs(one - more).max() > 5


# where the scale comes from


def altered(artifact: Path, out: Path, drop: str | None = "0.125", **params: Any) -> Path:
    """A copy of the artifact with other `model.params` and another recorded share of dropped prompts."""
    source = artifact / "checkpoints" / "fast-7.safetensors"
    metadata = read_metadata(source)
    config = json.loads(metadata["config"])
    config["model"]["params"] |= params
    metadata["config"] = json.dumps(config)
    metadata.pop("drop_prompt")
    metadata |= {} if drop is None else {"drop_prompt": drop}
    save_safetensors(read_state_dict(source), out / "fast-7.safetensors", metadata)
    return out


def test_scale_1_changes_no_byte(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / name for name in ("plain", "one", "two")]
    for out, flags in zip(outs, ([], ["--scale", "1"], ["--scale", "2"]), strict=True):
        assert synthesize(arguments(drawn_root, tiny_artifact, out, "--count", "2", *flags)) == 0
    assert "warning" not in capsys.readouterr().out
    plain, one, two = map(whole_set, outs)
    assert plain == one
    assert plain["image/000000.png"] != two["image/000000.png"]
    assert plain["mask/000000.png"] == two["mask/000000.png"]
    assert [row["scale"] for out in outs for row in manifest(out)] == [1.0, 1.0, 1.0, 1.0, 2.0, 2.0]


def test_weights_may_recommend_a_scale(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = altered(tiny_artifact, tmp_path, scale=3)
    assert recipe_for(find_artifact(weights)).scale == 3.0
    assert recipe_for(find_artifact(weights), scale=1).scale == 1.0
    assert recipe_for(find_artifact(tiny_artifact)).scale == 1.0
    assert synthesize(arguments(drawn_root, weights, tmp_path / "out", "--count", "1")) == 0
    assert manifest(tmp_path / "out")[0]["scale"] == 3.0
    for wrong, says in ((-1, "model.params.scale=-1 is no guidance scale"), ("x", "scale=x must be of type float")):
        with pytest.raises(UserError, match=says):
            recipe_for(find_artifact(altered(tiny_artifact, tmp_path, scale=wrong)))


def test_weights_that_saw_no_empty_prompt_are_told_of(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = altered(tiny_artifact, tmp_path, drop=None)
    argv = arguments(drawn_root, weights, tmp_path / "out", "--count", "1")
    assert synthesize([*argv, "--scale", "2"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert told == [
        "warning: fast-7.safetensors was trained without dropped prompts (model.params.drop_prompt), so what --scale 2 "
        "does to it is chance"
    ]
    assert synthesize(arguments(drawn_root, weights, tmp_path / "other", "--count", "1")) == 0
    assert "warning" not in capsys.readouterr().out
    with pytest.warns(UserWarning, match="without dropped prompts"):
        create("fast", weights=weights, scale=2)


def test_as_an_option_of_a_generator(tiny_artifact: Path, drawn_root: Path) -> None:
    image, where = picture(3, SIZE, SIZE), mask(SIZE, SIZE)

    def made(**options: Any) -> np.ndarray:
        generator = create("fast", weights=tiny_artifact, steps=2, **options)
        assert generator.settings()["scale"] == options.get("scale", 1.0)
        return generator.synthesize(image, where, np.random.default_rng(1))[0]

    plain, one, three = made(), made(scale=1.0), made(scale=3.0)
    assert (plain == one).all()
    assert (plain != three).any()
    assert (plain == three)[where == 0].all()


@pytest.mark.parametrize("bad", ["-1", "nan", "inf"])
def test_scales_that_mean_nothing(
    bad: str, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = arguments(drawn_root, tiny_artifact, tmp_path / "out")
    assert synthesize([*argv, "--scale", bad]) == 2
    line = f"error: --scale={float(bad)} is no guidance scale; give a number from 0, 1 for no guidance\n"
    assert capsys.readouterr().err == line
    assert synthesize([*argv, f"method.scale={bad}"]) == 2
    assert "scale=" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="is no guidance scale"):
        create("fast", weights=tiny_artifact, scale=float(bad))
    with pytest.raises(UserError, match=r"model\.params\.scale=.* is no guidance scale"):
        FAST(types=TYPES, scale=float(bad), unet_config={}, first_stage_config={}, cond_stage_config={})


def test_methods_without_a_base_refuse_it(drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--data_root", str(drawn_root / "wood"), "--sample_name", str(tmp_path / "out"), "--scale", "2"]
    assert synthesize([*argv, "--method", "cutpaste"]) == 2
    assert "--scale is not for cutpaste; its own options are method.key=value" in capsys.readouterr().err


def test_a_protocol_s_entry_may_name_it() -> None:
    def entry(**more: Any) -> Any:
        return parse({"name": "p", "title": "p", "entries": [{"label": "a", **more}]}, "p.yaml").entries[0]

    assert entry(method="fast", scale=2).scale == 2
    assert entry(method="stage", scale=0).scale == 0
    with pytest.raises(UserError, match="sampler, steps, scale, flags and windows are for fast"):
        entry(method="cutpaste", scale=1.0)
    for wrong in (-0.5, float("inf")):
        with pytest.raises(UserError, match=r"scale=(-0.5|inf) "):
            entry(method="fast", scale=wrong)


# what trainings drop


def test_a_share_of_the_training_samples_gets_the_empty_prompt(build: Build) -> None:
    model = build(drop_prompt=0.25)
    batch = {"type": torch.arange(400) % len(TYPES), "seed": torch.arange(400)}
    words, empty = model.prompts(model.cond_stage_model, batch["type"]), model.empty_prompt(1)
    assert torch.equal(model.conditioning(batch), words), "none in evaluation"
    model.train()
    found = model.conditioning(batch)
    dropped = (found == empty).flatten(1).all(dim=1)
    assert 70 < int(dropped.sum()) < 130
    assert torch.equal(found[~dropped], words[~dropped])
    assert torch.equal(model.conditioning({k: v[100:] for k, v in batch.items()}), found[100:]), "by the seeds alone"
    assert model.artifact_metadata()["drop_prompt"] == "0.25"
    model.drop_prompt = 0.0
    assert torch.equal(model.conditioning(batch), words)

"""The command that trains the shipped base: all of it at a toy's size, stopped and gone on with; what it refuses."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fast.artifact import find_artifact, load_model
from fast.cli import train_base
from fast.data.images import read_image
from fast.generators import create
from fast.pretraining import loop, samples, stages
from fast.pretraining.captions import Captions
from fast.pretraining.drawing import DrawingRecipe, Sheet, draw_sheet, masks_of
from fast.pretraining.graphs import replayed
from fast.pretraining.loop import Interrupted
from fast.pretraining.parts import join_file
from fast.pretraining.settings import Settings
from fast.pretraining.stages import Pretraining
from fast.runtime import project
from fast.runtime.command import run_cli
from ldm.checkpoint import read_metadata, read_state_dict
from ldm.errors import UserError
from support.paths import ROOT

SIDE = 64


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recipes of toy networks, in the place of the project's."""
    recipes = tmp_path / "toy" / "configs" / "mini"
    recipes.mkdir(parents=True)
    for name in ("base", "autoencoder", "farm"):
        recipe: Any = OmegaConf.load(ROOT / "configs/mini" / f"{name}.yaml")
        params = recipe.model.params
        if name == "farm":
            params.farm.base_width = 8
        else:
            first = params if name == "autoencoder" else params.first_stage_config.params
            first.ddconfig.update(widths=[8, 8], blocks=1)
        if name == "base":
            small = {"model_channels": 32, "channel_mult": [1, 1], "attention_resolutions": [2], "context_dim": 16}
            params.unet_config.params.update(small)
            params.cond_stage_config.params.update(n_embed=16, n_layer=1)
        OmegaConf.save(recipe, recipes / f"{name}.yaml")
    monkeypatch.setattr(project, "PROJECT", tmp_path / "toy")
    monkeypatch.setattr(
        loop, "time", SimpleNamespace(monotonic=itertools.count(0, 0.5).__next__)
    )  # a step: half a second
    monkeypatch.setattr(samples, "write_samples", partial(samples.write_samples, scales=(1.0, 2.0), sheets=1))
    return tmp_path


class Alone:
    """Draws in this process, a sheet whenever one is asked for."""

    drawn: list[int]

    def __init__(self, recipe: DrawingRecipe, first: int = 0, workers: int | None = None):
        self.recipe, self.next = recipe, first

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextmanager
    def taken(self, limit: int, wait: bool = False) -> Iterator[list[tuple[int, Sheet]]]:
        self.next += 1
        type(self).drawn.append(self.next - 1)
        yield [(self.next - 1, draw_sheet(self.next - 1, self.recipe))]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """No processes; the numbers of the sheets that were drawn."""
    Alone.drawn = []
    monkeypatch.setattr(stages, "Drawing", Alone)
    return Alone.drawn


def flags(folder: Path, *more: object) -> list[str]:
    given = ["--out", folder / "out", "--ship", folder / "ship", "--device", "cpu", "--minutes", 0.2, "--size", SIDE]
    given += ["--batch_size", 4, "--sheets", 4, "--first_sheets", 2, "--workers", 1, "--precision", "32", *more]
    return [str(flag) for flag in given]


def settings(folder: Path, **more: Any) -> Settings:
    given: dict[str, Any] = {
        "out": folder / "out", "ship": folder / "ship", "minutes": 0.2, "device": torch.device("cpu"), "batch": 4,
        "recipe": DrawingRecipe(size=SIDE), "recipes": folder / "toy/configs/mini", "window": 32, "bf16": False,
        "capacity": 3, "first_capacity": 2, "first_sheets": 2,
    }  # fmt: skip
    return Settings(**{**given, **more})


def test_one_command_ships_weights_that_fill_masks_by_words(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(train_base.main, flags(toy, "--parts", 0.05)) == 0
    said = capsys.readouterr().out
    assert "2 sheets drawn" in said
    for stage in ("first_stage", "base", "farm"):
        assert f"{stage}: step " in said
    ship = toy / "ship"
    base, metadata = read_state_dict(ship / "base.safetensors"), read_metadata(ship / "base.safetensors")
    assert metadata == {"step": "16", "windows": str(13 * 4 + 3 * 1)}  # in 0.64 of 12 seconds; the last of whole images
    assert {str(v.dtype) for k, v in base.items() if k.startswith("model.")} == {"torch.bfloat16"}
    artifact = find_artifact(ship)
    assert artifact.open_types
    assert artifact.drop_prompt == 0.125
    model = load_model(artifact)
    assert (model.model.conditioning_key, model.mask_detail) == ("hybrid", 4)
    sheet = draw_sheet(0, DrawingRecipe(size=SIDE))
    mask = masks_of(sheet)[0]
    method = create("fast", weights=ship, types=["leather/scratch", "part/hole"], steps=2, scale=2.0)
    made, _ = method.synthesize(sheet.images[0], mask, np.random.default_rng(0), "part/hole")
    assert (made[mask == 0] == sheet.images[0][mask == 0]).all()
    assert (made[mask == 1] != sheet.images[0][mask == 1]).any()
    image = read_image(toy / "out/samples.png")
    assert image.shape[0] == 8 * 128  # a row for each of a sheet's types
    assert image.shape[1] == 110 + (3 + 2) * (128 + 4)
    for path in ship.glob("*.safetensors"):
        assert join_file(ship / "parts" / f"{path.name}.json", toy / "again").read_bytes() == path.read_bytes()


def test_what_was_stopped_goes_on_with_new_sheets_and_is_not_done_twice(toy: Path, alone: list[int]) -> None:
    stopped: list[str] = []

    class Stopped(Pretraining):
        def _windows(self, *given: Any) -> dict[str, Any]:
            self.deadline.stopping = self.seen > 8
            return super()._windows(*given)

    with pytest.raises(Interrupted, match="of base; run the same command to go on"):
        Stopped(settings(toy), report=stopped.append).run()
    out = toy / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "base.train.safetensors", "first_stage.safetensors", "first_stage.train.safetensors", "sheets.json"
    ]  # fmt: skip
    first_stage, before = (out / "first_stage.safetensors").read_bytes(), list(alone)
    seen = int(read_metadata(out / "base.train.safetensors")["windows"])
    assert seen == 16
    assert json.loads((out / "sheets.json").read_text()) == {"next": max(before) + 1}
    Pretraining(settings(toy), report=stopped.append).run()
    assert (out / "first_stage.safetensors").read_bytes() == first_stage
    assert min(alone[len(before) :]) == max(before) + 1
    base = (toy / "ship/base.safetensors").read_bytes()
    assert int(read_metadata(toy / "ship/base.safetensors")["windows"]) > seen
    Pretraining(settings(toy), report=stopped.append).run()
    assert (toy / "ship/base.safetensors").read_bytes() == base
    assert len(list((toy / "ship").glob("fast-*.safetensors"))) == 1


def test_the_first_stage_gives_standard_latents(toy: Path, alone: list[int]) -> None:
    run = Pretraining(settings(toy), report=lambda _: None)
    run.drawing = Alone(run.settings.recipe)  # type: ignore[assignment]
    pool = run._filled()
    model = run.train_first_stage(pool, 0.2)
    assert pool.images is not None
    images = torch.from_numpy(pool.images[:, 0].numpy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = model.encode(images).mean
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(8), atol=0.01, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(8), atol=0.01, rtol=0)


def test_one_batch_in_eight_and_the_last_ones_are_of_whole_images(toy: Path, alone: list[int]) -> None:
    run = Pretraining(settings(toy), report=lambda _: None)
    run.drawing = Alone(run.settings.recipe)  # type: ignore[assignment]
    pool = run._filled()
    pool.encode(lambda images: torch.nn.functional.avg_pool2d(images, 4), 3)
    run.pool = pool
    shapes = [tuple(run._windows(None, step, 0.5)["mask"].shape) for step in range(16)]
    assert [i for i, shape in enumerate(shapes) if shape == (1, 1, SIDE, SIDE)] == [7, 15]
    assert set(shapes) == {(1, 1, SIDE, SIDE), (4, 1, 32, 32)}
    assert run.seen == 14 * 4 + 2
    assert {tuple(run._windows(None, step, 0.95)["mask"].shape) for step in range(8)} == {(1, 1, SIDE, SIDE)}


def test_a_start_brings_first_stage_and_weights_but_not_the_schedule(toy: Path, alone: list[int]) -> None:
    Pretraining(settings(toy), report=lambda _: None).run()
    start = toy / "ship/base.safetensors"
    again = settings(
        toy, out=toy / "second", ship=toy / "again", start=start, overrides=["model.params.linear_end=0.03"]
    )
    run = Pretraining(again, report=lambda _: None)
    fresh, old = run._new_base().state_dict(), read_state_dict(start)
    assert any(name == "betas" for name in old)
    for name, tensor in old.items():
        same = torch.equal(fresh[name].float(), tensor.float())
        assert same == name.startswith(("model.", "first_stage_model.", "cond_stage_model.")), name
    run.run()
    made = read_state_dict(toy / "again/base.safetensors")
    first = [n for n in old if n.startswith("first_stage_model.")]
    assert first
    assert all(torch.equal(made[n], old[n]) for n in first)
    assert not (toy / "second/first_stage.safetensors").exists()
    assert any(not torch.equal(made[n], old[n]) for n in old if n.startswith("model."))


def test_a_start_from_another_network_is_refused(toy: Path, alone: list[int]) -> None:
    Pretraining(settings(toy), report=lambda _: None).run()
    other = settings(
        toy, start=toy / "ship/base.safetensors", overrides=["model.params.unet_config.params.model_channels=64"]
    )
    with pytest.raises(UserError, match="is of another network than the recipe; leave it out"):
        Pretraining(other, report=lambda _: None)._new_base()


@pytest.mark.gpu
@pytest.mark.parametrize("fuse", [False, True])
def test_replayed_as_a_graph_the_gradients_are_the_same(toy: Path, alone: list[int], fuse: bool) -> None:
    run = Pretraining(settings(toy, device=torch.device("cuda")), report=lambda _: None)
    run.drawing = Alone(run.settings.recipe)  # type: ignore[assignment]
    model = run._new_base()
    run.use(run._filled(), model.first_stage_model)  # type: ignore[arg-type]
    batch = run._windows(Captions(model.cond_stage_model.tokenizer, run.device), 0, 0.0)  # type: ignore[union-attr, arg-type]

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(5)
        model.zero_grad()
        model.loss(batch)[0].backward()
        return [p.grad.clone() for p in model.model.parameters() if p.grad is not None]

    plain = gradients()
    with replayed(model.model.diffusion_model, [lambda: model.loss(batch)[0]], False, fuse, pytest.fail):
        torch.testing.assert_close(gradients(), plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--minutes", "0"], "--minutes 0.0 must be above 0"),
        (["--minutes", "nan"], "--minutes nan must be above 0"),
        (["--batch_size", "-3"], "--batch_size -3 must be above 0"),
        (["--size", "100"], "--size 100 is no multiple of 64; take 256"),
        (["--parts", "0"], "--parts 0.0 must be above 0"),
        (["--seed", "-1"], "--seed -1 must not be negative"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--photos", "nowhere"], "nowhere"),
        (["model.params.lr"], "model.params.lr is neither a flag nor an override"),
        (["--only", "base"], "--only"),
        (["--start", "nowhere.safetensors"], "--start nowhere.safetensors is no file; name a base.safetensors"),
    ],
)
def test_slips_are_one_line(toy: Path, given: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(train_base.main, flags(toy, *given)) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert says in line
    assert line.count("\n") == 1
    assert not (toy / "ship").exists()


def test_a_file_is_no_place_to_ship_to(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (toy / "ship").write_text("")
    assert run_cli(train_base.main, flags(toy)) == 2
    assert "is a file; name a folder" in capsys.readouterr().err
    assert not (toy / "out").exists()

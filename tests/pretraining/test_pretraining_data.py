"""What the base is trained on: sheets by number, windows of the pool against plain slices, words; parts of files."""

import json
from collections import Counter
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fast.cli import join_parts
from fast.data.words import prompt_text
from fast.pretraining.captions import PARTS, SHARES, SYNONYMS, Captions
from fast.pretraining.drawing import (
    DEFECTS,
    MATERIALS,
    POINTS,
    TYPES,
    Drawing,
    DrawingRecipe,
    Sheet,
    draw_sheet,
    masks_of,
)
from fast.pretraining.parts import join_file, split_file
from fast.pretraining.pool import SheetPool
from fast.procedural.defects import defects_of
from fast.procedural.traits import HELD_APART, TRAITS
from fast.runtime.command import run_cli
from ldm.errors import UserError
from ldm.modules.encoders.modules import Tokenizer

SIDE = 64
CPU = torch.device("cpu")
RECIPE = DrawingRecipe(size=SIDE, seed=3, materials=("leather", "painted", "mesh"))


# sheets


def test_sheets_of_processes_are_those_of_their_numbers_and_memory_is_used_again() -> None:
    recipe, count = DrawingRecipe(size=64), 5
    got: dict[int, Sheet] = {}
    with Drawing(recipe, first=3, workers=1, ahead=2) as drawing:
        while len(got) < count:
            with drawing.taken(2, wait=True) as found:
                got |= {number: deepcopy(sheet) for number, sheet in found}
    assert sorted(got) == list(range(3, 3 + len(got)))
    for number, sheet in got.items():
        own = draw_sheet(number, recipe)
        assert (sheet.material, sheet.types) == (own.material, own.types)
        for name in ("images", "masks", "points"):
            assert np.array_equal(getattr(sheet, name), getattr(own, name)), name


@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_sheet_depends_on_its_recipe_and_number_alone(number: int) -> None:
    first, again = draw_sheet(number, RECIPE), draw_sheet(number, RECIPE)
    for name in ("material", "images", "masks", "points", "types"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert first.material == RECIPE.materials[number % 3]
    other = draw_sheet(number, DrawingRecipe(size=SIDE, seed=4, materials=RECIPE.materials))
    assert not np.array_equal(first.images[0], other.images[0])
    assert not np.array_equal(first.images[0], draw_sheet(number + 3, RECIPE).images[0])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_defect_is_drawn_alone_inside_its_mask(number: int) -> None:
    sheet = draw_sheet(number, RECIPE)
    masks = masks_of(sheet)
    assert sheet.images.shape == (1 + DEFECTS, SIDE, SIDE, 3)
    assert masks.shape == (DEFECTS, SIDE, SIDE)
    assert sheet.points.shape == (DEFECTS, POINTS, 2)
    assert len(set(sheet.types)) == DEFECTS
    assert set(sheet.types) <= {str(kind) for kind in defects_of(sheet.material)}
    for image, mask, points in zip(sheet.images[1:], masks, sheet.points, strict=True):
        assert (image[mask == 0] == sheet.images[0][mask == 0]).all()
        assert (image[mask == 1] != sheet.images[0][mask == 1]).any()
        assert mask[points[:, 0], points[:, 1]].all()


def test_some_sheets_are_grey_throughout() -> None:
    spreads = [np.ptp(draw_sheet(n, RECIPE).images.astype(int), axis=-1) for n in range(0, 30, 3)]
    grey = [spread.max() == 0 for spread in spreads]
    assert 0 < sum(grey) < 6
    assert all(spread.mean() > 2 for spread, is_grey in zip(spreads, grey, strict=True) if not is_grey)


def test_every_material_has_as_many_types_as_a_sheet_holds_and_all_types_are_trained_on() -> None:
    assert all(len(defects_of(material)) >= DEFECTS for material in TRAITS)
    assert set(TYPES) == {str(kind) for material in MATERIALS for kind in defects_of(material)}
    assert not set(MATERIALS) & set(HELD_APART)
    assert set(TYPES) == set(SYNONYMS)


def test_photographs_are_drawn_on_as_what_they_show(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shape in (("wood_planks", (90, 120, 3)), ("anything", (50, 70, 3)), ("marble_floor", (90, 90, 3))):
        image = cv2.GaussianBlur(rng.integers(0, 256, shape, np.uint8), (0, 0), 2)
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    recipe = DrawingRecipe(size=SIDE, photos=str(tmp_path), photo_share=1.0)
    files = recipe.photo_files()
    assert [path.stem for path in files] == ["anything", "wood_planks"], "held-out materials are left out"
    sheets = [draw_sheet(number, recipe, files) for number in range(6)]
    assert {sheet.material for sheet in sheets} == {"wood", "concrete"}
    assert all(sheet.images.shape == (1 + DEFECTS, SIDE, SIDE, 3) for sheet in sheets)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images of surfaces; name another folder or leave it out"):
        DrawingRecipe(photos=str(tmp_path / "empty")).photo_files()


# the pool


def made_up(number: int, types: list[str]) -> Sheet:
    """A sheet whose pixels tell where they are: red the row, green the column, blue the sheet and the defect."""
    rng = np.random.default_rng(number)
    images = np.empty((1 + DEFECTS, SIDE, SIDE, 3), np.uint8)
    images[..., 0], images[..., 1] = 4 * np.arange(SIDE)[:, None], 4 * np.arange(SIDE)
    images[..., 2] = 9 * number + np.arange(1 + DEFECTS)[:, None, None]
    masks = np.zeros((DEFECTS, SIDE, SIDE), np.uint8)
    for mask in masks:
        y, x = rng.integers(0, SIDE - 12, 2)
        mask[y : y + int(rng.integers(1, 12)), x : x + int(rng.integers(1, 12))] = 1
    points = np.stack([np.argwhere(mask)[rng.integers(int(mask.sum()), size=POINTS)] for mask in masks])
    return Sheet(MATERIALS[number % 5], images, np.packbits(masks, axis=-1), points.astype(np.int16), types)


def quarter(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, 4)


SHEETS = [made_up(n, [TYPES[0]] * 5 + [TYPES[3], TYPES[7], TYPES[20] if n % 2 else TYPES[3]]) for n in range(12)]


def check_windows(batch: dict[str, Tensor], side: int, sheets: range) -> None:
    names = sorted(TRAITS)
    bytes_of = lambda x: ((x + 1) * 127.5).double().numpy()  # noqa: E731
    for i in range(len(batch["mask"])):
        latent, normal = bytes_of(batch["latent"][i]), bytes_of(batch["normal_latent"][i])
        row, col = (round((plane.min() - 6) / 4) for plane in latent[:2])  # the mean of four rows from row on
        sheet, defect = divmod(round(latent[2].mean()), 9)
        assert sheet in sheets
        rows = 4 * (row + np.arange(side)).reshape(-1, 4).mean(1)
        np.testing.assert_allclose(latent[0], np.repeat(rows[:, None], side // 4, 1), atol=0.2)
        np.testing.assert_allclose(normal[:2], latent[:2], atol=1e-6)
        assert round(normal[2].mean()) == 9 * sheet
        window = masks_of(SHEETS[sheet])[defect - 1][row : row + side, col : col + side]
        assert np.array_equal(batch["mask"][i, 0].numpy(), window)
        assert window.any()
        assert TYPES[int(batch["type"][i])] == SHEETS[sheet].types[defect - 1]
        assert names[int(batch["material"][i])] == SHEETS[sheet].material


@pytest.mark.parametrize("side", [16, 32, 64])
def test_windows_are_plain_slices_with_some_of_the_defect(side: int) -> None:
    torch.manual_seed(0)
    pool = SheetPool(12, SIDE, CPU)
    pool.add(SHEETS[:5])
    pool.add(SHEETS[5:9])
    pool.encode(quarter, 12)
    batch = pool.windows(200, side)
    assert batch["latent"].shape == batch["normal_latent"].shape == (200, 3, side // 4, side // 4)
    assert batch["mask"].shape == (200, 1, side, side)
    check_windows(batch, side, range(9))


def test_new_sheets_take_the_place_of_the_oldest() -> None:
    torch.manual_seed(0)
    pool = SheetPool(4, SIDE, CPU)
    pool.add(SHEETS[:3])
    pool.add(SHEETS[3:6])
    assert (pool.count, pool.added) == (4, 6)
    blue = pool.images[:, 0, 0, 0, 2] if pool.images is not None else torch.empty(0)
    assert sorted((blue // 9).tolist()) == [2, 3, 4, 5]
    pool.encode(quarter, 5)
    assert pool.images is None
    check_windows(pool.windows(100, 32), 32, range(2, 6))
    pool.add(SHEETS[6:7])
    pool.add(SHEETS[7:9])
    assert pool.count == 5
    assert pool.latents is not None
    kept = ((pool.latents[:, 0, 2].float().mean((1, 2)) + 1) * 127.5 / 9).round().int()
    assert kept.tolist() == [7, 8, 2, 3, 6]  # in place of 4 and 5, the first two of what was encoded
    check_windows(pool.windows(100, 32), 32, range(2, 9))


def test_a_pool_of_latents_may_be_smaller_than_that_of_images() -> None:
    pool = SheetPool(9, SIDE, CPU)
    pool.add(SHEETS[:9])
    pool.encode(quarter, 3)
    assert (pool.capacity, pool.count) == (3, 3)
    check_windows(pool.windows(50, 16), 16, range(9))


def test_rare_types_come_as_often_as_common_ones() -> None:
    torch.manual_seed(0)
    pool = SheetPool(12, SIDE, CPU)
    pool.add(SHEETS)
    pool.encode(quarter, 12)
    counts = Counter(pool.windows(4000, 16)["type"].tolist())
    assert set(counts) == {0, 3, 7, 20}
    assert all(abs(count - 1000) < 130 for count in counts.values())


def test_crops_are_turned_windows_mostly_with_a_defect() -> None:
    torch.manual_seed(0)
    pool = SheetPool(1, SIDE, CPU)
    sheet = made_up(0, SHEETS[0].types)
    for image, mask in zip(sheet.images[1:], masks_of(sheet), strict=True):
        image[..., 2] = 255 * mask
    sheet.images[0, ..., 2] = 0
    pool.add([sheet])
    crops = pool.crops(400, 16)
    assert crops.shape == (400, 3, 16, 16)
    assert crops.min() >= -1
    assert crops.max() <= 1
    marked = (crops[:, 2] > 0).flatten(1).any(1)
    assert 0.65 < float(marked.float().mean()) < 0.9
    steps = (crops[:, 0].diff(dim=1).flatten(1).mean(1) * 127.5).round()  # of the row along the first axis
    assert set(steps.tolist()) == {4.0, -4.0, 0.0}


# words


def test_captions_say_the_defect_in_several_ways_or_nothing() -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer("configs/mini/tokenizer", 24, 1709)
    captions = Captions(tokenizer, CPU)
    materials = sorted(TRAITS)
    material, kind, count = materials.index("leather"), TYPES.index("scratch"), 4000
    ids = captions.ids(torch.full((count,), material), torch.full((count,), kind))
    said = Counter(tuple(row) for row in ids.tolist())
    ways = {
        "empty": [""], "material": [prompt_text("leather", "scratch")], "word": ["scratch"],
        "part": [prompt_text(part, "scratch") for part in PARTS], "synonym": list(SYNONYMS["scratch"]),
    }  # fmt: skip
    counts = {way: [said.pop(tuple(tokenizer([text])[0].tolist()), 0) for text in texts] for way, texts in ways.items()}
    assert not said, "nothing else is said"
    assert all(min(found) > 0 for found in counts.values())
    expected = dict(zip(("material", "word", "part", "synonym"), SHARES, strict=True))
    assert sum(counts["empty"]) / count == pytest.approx(0.125, abs=0.02)
    for way, share in expected.items():
        assert sum(counts[way]) / count == pytest.approx(0.875 * share, abs=0.025), way


def test_each_sample_has_its_own_words_and_none_are_dropped_where_none_shall_be() -> None:
    tokenizer = Tokenizer("configs/mini/tokenizer", 24, 1709)
    captions = Captions(tokenizer, CPU, dropped=0.0)
    types = torch.arange(len(TYPES)).repeat(20)
    ids = captions.ids(torch.zeros_like(types), types)
    material = sorted(TRAITS)[0]
    for row, kind in zip(ids, types.tolist(), strict=True):
        word = TYPES[kind]
        texts = [word, prompt_text(material, word), *SYNONYMS[word], *(prompt_text(part, word) for part in PARTS)]
        assert any(torch.equal(row, tokenizer([text])[0]) for text in texts)


# parts of files


def test_a_file_comes_back_from_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, parts = tmp_path / "base.safetensors", tmp_path / "parts"
    whole.write_bytes(np.random.default_rng(0).bytes(2500))
    written = split_file(whole, parts, 1000)
    assert [p.name for p in written] == [f"base.safetensors.{n}" for n in ("00", "01", "02", "json")]
    assert [p.stat().st_size for p in written[:3]] == [1000, 1000, 500]
    about = written[-1]
    assert join_file(about, tmp_path / "there").read_bytes() == whole.read_bytes()
    before = whole.read_bytes()
    whole.unlink()
    assert run_cli(join_parts.main, [str(about)]) == 0
    assert whole.read_bytes() == before, "beside the folder of the parts"
    assert capsys.readouterr().out.strip() == str(whole)


def test_damaged_parts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, parts = tmp_path / "base.safetensors", tmp_path / "parts"
    whole.write_bytes(bytes(range(250)))
    first, second, _, about = split_file(whole, parts, 100)
    whole.unlink()

    def refused(says: str) -> None:
        assert run_cli(join_parts.main, [str(about)]) == 2
        line = capsys.readouterr().err
        assert says in line
        assert line.count("\n") == 1
        assert not whole.exists()

    second.write_bytes(bytes(100))
    refused("are damaged: not the file's SHA-256; copy them again")
    second.unlink()
    refused("lacks base.safetensors.01; copy all parts there")
    for wrong in ("{", "{}", json.dumps({"parts": 0, "sha256": "x"})):
        about.write_text(wrong)
        refused("does not say what its parts are; give the .json that lies beside them")
    assert run_cli(join_parts.main, [str(first)]) == 2

"""The pool of drawn and photographed surfaces: what is in it, and that it can be gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import fast.data.pool as pool_module
from fast.data.drawn.traits import HELD_APART
from fast.data.pool import PoolRecipe, draw_shard, encode_pool, fill_pool, read_shard
from fast.data.pool_data import PoolData, caption
from fast.data.sampler import Ticket
from ldm.errors import UserError

RECIPE = PoolRecipe(size=64, seed=3, materials=("leather", "painted", "mesh"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "NORMALS", 3)
    monkeypatch.setattr(pool_module, "DEFECTS", 2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("wood_planks", "anything"):
        picture = cv2.GaussianBlur(rng.integers(0, 256, (90, 120, 3), np.uint8), (0, 0), 2)
        cv2.imwrite(str(folder / f"{name}.png"), picture)
    return folder


def fill(folder: Path, shards: int, recipe: PoolRecipe = RECIPE) -> None:
    for number in range(shards):
        pool_module._store(number, recipe, folder, [])


def test_a_shard_depends_on_its_recipe_and_number_alone(small: None) -> None:
    first, again, other = (draw_shard(n, RECIPE) for n in (0, 0, 1))
    assert np.array_equal(first.defects, again.defects)
    assert first.names == again.names
    assert not np.array_equal(first.normals, other.normals)


def test_outside_the_masks_a_defect_is_its_normal(small: None, photos: Path) -> None:
    shard = draw_shard(0, PoolRecipe(size=64, photos=str(photos), share=0.5), sorted(photos.iterdir()))
    assert len(shard.normals) == 3
    assert len(shard.defects) == len(shard.masks) == len(shard.owner) == len(shard.names) == 6
    for picture, mask, owner in zip(shard.defects, shard.masks, shard.owner, strict=True):
        normal = shard.normals[owner]
        assert mask.any()
        assert np.array_equal(picture[mask == 0], normal[mask == 0])
        assert (picture != normal).any()


def test_held_apart_materials_are_in_no_pool() -> None:
    assert not set(PoolRecipe().materials) & set(HELD_APART)
    assert len(PoolRecipe().materials) >= 20


def test_a_photograph_passes_for_what_its_name_says(photos: Path) -> None:
    rng = np.random.default_rng(0)
    picture, material = pool_module._photo(photos / "wood_planks.png", 64, rng)
    assert picture.shape == (64, 64, 3)
    assert material == "wood"


def test_filling_goes_on_where_it_stopped_and_refuses_another_pool(small: None, tmp_path: Path) -> None:
    fill(tmp_path, 1)
    before = (tmp_path / "pool-00000.safetensors").stat().st_mtime_ns
    told: list[tuple[int, int]] = []
    fill_pool(tmp_path, 1, RECIPE, workers=1, progress=lambda *n: told.append(n))
    assert (tmp_path / "pool-00000.safetensors").stat().st_mtime_ns == before
    assert told == []
    with pytest.raises(UserError, match="another recipe"):
        fill_pool(tmp_path, 1, PoolRecipe(size=64, seed=4), workers=1)
    with pytest.raises(UserError, match="holds no pictures"):
        fill_pool(tmp_path, 1, PoolRecipe(photos=str(tmp_path)), workers=1)


def test_a_stored_shard_comes_back(small: None, tmp_path: Path) -> None:
    fill(tmp_path, 1)
    stored, drawn = read_shard(tmp_path / "pool-00000.safetensors"), draw_shard(0, RECIPE)
    for name in ("normals", "defects", "masks", "owner"):
        assert np.array_equal(getattr(stored, name), getattr(drawn, name)), name
    assert stored.names == [tuple(pair) for pair in drawn.names]


def halved(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(images, 4)


def test_latents_follow_their_shards_and_are_made_anew_for_another_first_stage(small: None, tmp_path: Path) -> None:
    fill(tmp_path, 2)
    with pytest.raises(UserError, match="was not encoded"):
        PoolData(str(tmp_path))
    encode_pool(tmp_path, halved, "a")
    data = PoolData(str(tmp_path), batch_size=2)
    shards = [read_shard(p) for p in sorted(tmp_path.glob("pool-*"))]
    row: dict[str, Any] = data.rows[Ticket(8, 5)]  # type: ignore[assignment, index]
    picture = torch.from_numpy(shards[1].defects[2]).permute(2, 0, 1)[None].float() / 127.5 - 1
    twin = torch.from_numpy(shards[1].normals[shards[1].owner[2]]).permute(2, 0, 1)[None].float() / 127.5 - 1
    assert torch.allclose(row["latent"], halved(picture)[0], atol=1e-3)
    assert torch.allclose(row["normal_latent"], halved(twin)[0], atol=1e-3)
    assert np.array_equal(row["mask"][0].numpy(), shards[1].masks[2])
    assert data.types[row["type"]] == f"surface/{shards[1].names[2][1]}"
    encode_pool(tmp_path, lambda x: 0 * halved(x), "b")
    assert not PoolData(str(tmp_path)).rows[Ticket(8, 5)]["latent"].any()  # type: ignore[index]


def test_crops_are_windows_of_the_pictures(small: None, tmp_path: Path) -> None:
    fill(tmp_path, 1)
    rows = PoolData(str(tmp_path), crop=32).rows
    first, again = rows[Ticket(1, 9)]["image"], rows[Ticket(1, 9)]["image"]  # type: ignore[index]
    assert first.shape == (3, 32, 32)
    assert torch.equal(first, again)
    assert first.min() >= -1
    assert first.max() <= 1
    assert not torch.equal(first, rows[Ticket(1, 10)]["image"])  # type: ignore[index]


def test_captions_name_the_defect_always_and_the_material_often() -> None:
    said = [caption("ceramic_tile", "rust", np.random.default_rng(i)) for i in range(300)]
    assert all(text.endswith("rust") for text in said)
    assert 100 < said.count("ceramic tile rust") < 200
    assert 40 < said.count("rust") < 110


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scripts/train_base\.py"):
        PoolData(str(tmp_path))

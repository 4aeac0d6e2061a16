"""The data module and the order in which a run sees its samples."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fast.data.module import DefectData
from fast.data.sampler import SampleIndex, StepSampler
from ldm.errors import UserError
from ldm.util import get_obj_from_str
from support.paths import ROOT


def tickets(world: int, batch: int, steps: int = 6, start: int = 0) -> list[list[SampleIndex]]:
    """The global batch of each step."""
    ranks = [StepSampler([[0, 1], [2], [3, 4, 5]], batch, steps, 7, r, world, lambda: start) for r in range(world)]
    return [[t for part in parts for t in part] for parts in zip(*ranks, strict=True)]


def test_ranks_share_one_order() -> None:
    assert tickets(2, 3) == tickets(1, 6) == tickets(3, 2)
    assert tickets(1, 6, start=4) == tickets(1, 6)[4:]
    assert tickets(1, 6, steps=9)[:6] == tickets(1, 6)


def test_types_take_turns() -> None:
    flat = [t for batch in tickets(1, 6, steps=30) for t in batch]
    count = Counter(t.sample for t in flat)
    assert count[2] == 60  # the lone sample of its type is seen as often as all of another type
    assert count[0] + count[1] == count[3] + count[4] + count[5] == 60
    assert len({t.seed for t in flat}) == len(flat)


class Encoder:
    """Stands for a model: counts what it encodes; its latent is the image, four times smaller."""

    device = torch.device("cpu")
    trainer = SimpleNamespace(is_global_zero=True)

    def __init__(self) -> None:
        self.first_stage_model = torch.nn.Linear(1, 1)
        self.images = 0

    def first_stage_mean(self, image: torch.Tensor) -> torch.Tensor:
        self.images += len(image)
        return torch.nn.functional.avg_pool2d(image, 4)


def make(root: Path, **options: Any) -> DefectData:
    return DefectData(str(root), size=32, **{"use": "defects", **options})


def test_latents_are_encoded_once(drawn_root: Path, tmp_path: Path) -> None:
    options = {"views": 3, "augment": {"flips": True, "zoom": 0.7}, "cache_folder": str(tmp_path)}
    first, again, model = make(drawn_root, **options), make(drawn_root, **options), Encoder()
    latents = first.latents(model)
    assert (model.images, len(latents), latents.latents.shape) == (24, 8, (24, 3, 8, 8))
    torch.testing.assert_close(again.latents(model).latents, latents.latents, rtol=0, atol=0)
    assert first.latents(model) is latents
    assert model.images == 24
    assert latents.masks.flatten(1).any(dim=1).all()  # no view loses its defect
    item = latents[SampleIndex(3, 11)]
    assert set(item) == {"latent", "mask", "seed", "caption", "type", "category"}
    make(drawn_root, **{**options, "views": 2}).latents(model)
    assert model.images == 24 + 16


def test_narrowing(drawn_root: Path) -> None:
    assert len(make(drawn_root).types) == 8
    assert make(drawn_root, category="wood").types == [f"wood/{k}" for k in ("crack", "hole", "scratch", "stain")]
    assert make(drawn_root, anomaly="hole").types == ["leather/hole", "wood/hole"]
    assert make(drawn_root / "wood").types == make(drawn_root, category="wood").types
    one = make(drawn_root / "wood" / "test" / "hole")
    assert one.types == ["wood/hole"]
    assert one.describe() == ["  wood/hole: 1 to train, 2 held out"]


def test_splits(drawn_root: Path, tmp_path: Path) -> None:
    third, everything = make(drawn_root), make(drawn_root, split="all")
    assert (len(third.pictures), len(third.held_out)) == (8, 16)
    assert (len(everything.pictures), everything.split_hash) == (24, "all")
    assert third.split is not None
    third.split.save(tmp_path / "split.json")
    same = make(drawn_root, split=str(tmp_path / "split.json"))
    assert same.split_hash == third.split_hash
    assert same.pictures.samples == third.pictures.samples


def test_use(drawn_root: Path) -> None:
    normals = make(drawn_root, use="normals")
    assert (len(normals.pictures), normals.types) == (6, [])
    assert len(make(drawn_root, use="both").pictures) == 6 + 8
    with pytest.raises(UserError, match="no data: give --mvtec_path"):
        DefectData()
    with pytest.raises(UserError, match="cached latents"):
        normals.latent_std()


def test_examples_are_fixed_and_spread_over_the_types(drawn_root: Path) -> None:
    data = make(drawn_root)
    batch = data.examples(8)
    assert sorted(batch["type"].tolist()) == list(range(8))
    torch.testing.assert_close(batch["image"], data.examples(8)["image"], rtol=0, atol=0)


def test_windows_first_and_whole_pictures_after(drawn_root: Path) -> None:
    """`crop` holds for the share `crop_until` of the steps."""
    data = make(drawn_root, crop=16, crop_until=0.5, cache=False, batch_size=2)
    steps = list(StepSampler([[0, 1]], 2, 6, seed=0, whole_from=3))
    assert [[t.whole for t in batch] for batch in steps] == [[False] * 2] * 3 + [[True] * 2] * 3
    assert data.pictures[SampleIndex(0, 5)]["image"].shape == (3, 16, 16)
    assert data.pictures[SampleIndex(0, 5, whole=True)]["mask"].shape == (1, 32, 32)
    with pytest.raises(UserError, match="crop_until=2"):
        make(drawn_root, crop_until=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"augment": {"flips": True}},
            r"augment has no effect \(flips=True\).* set data.params.views=16 or cache=false",
        ),
        ({"augment": {"zoom": 0.5}}, r"augment has no effect \(zoom=0.5\)"),
        ({"crop": 16}, r"crop=16 .* set data.params.cache=false, or leave crop out"),
        ({"crop": 16, "views": 4}, r"crop=16 .* set data.params.cache=false"),
        ({"crop_until": 0.5, "cache": False}, r"crop_until=0.5 needs a crop; give data.params.crop"),
        ({"views": 2, "cache": False}, r"views=2 .* leave views out, or set cache=true"),
        (
            {"split_seed": 1, "split": "all"},
            r"split_seed=1 is of a split that is drawn, third, and split=all is none; leave",
        ),
        ({"split_seed": 1, "use": "normals"}, r"split_seed=1 .* of normals none is; leave it out"),
    ],
)
def test_an_option_without_effect_is_refused_before_a_file_is_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(Path("no such folder"), **options)


def test_what_has_an_effect_or_is_the_default_is_taken(drawn_root: Path) -> None:
    make(drawn_root, augment={}, views=1, crop_until=1.0, crop=None, split_seed=0, split="all")
    make(drawn_root, augment={"flips": False, "zoom": 1}, views=1)
    make(drawn_root, augment={"flips": True}, cache=False)
    assert make(drawn_root, split_seed=5).split_hash != make(drawn_root).split_hash


RECIPES = [*sorted(ROOT.glob("configs/**/*.yaml")), ROOT / "benchmarks/mini.yaml"]


@pytest.mark.parametrize("path", [p for p in RECIPES if "\ndata:" in p.read_text()], ids=lambda p: p.stem)
def test_no_recipe_gives_an_option_without_effect(path: Path) -> None:
    """The data of every recipe that has some gets as far as its folder."""
    given = yaml.safe_load(path.read_text())["data"]
    data = get_obj_from_str(given["target"])
    with pytest.raises(UserError, match="no such folder"):
        data(path="no such folder", **given["params"])


def test_native_windows_keep_the_scale_and_hold_the_defect(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (90, 300, 3), dtype=np.uint8), np.zeros((90, 300), np.uint8)
    mask[70:74, 250:260] = 255
    for folder, array in (("defects/dent", image), ("masks/dent", mask), ("normal", image)):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    data = DefectData(path=str(tmp_path), split="all", size=64, native=True)
    defect = next(i for i, s in enumerate(data.pictures.samples) if s.mask is not None)
    seen = set()
    for seed in (None, *range(30)):
        window, own = data.pictures.view(defect, seed)
        assert window.shape == (64, 64, 3)
        assert own.any()
        top, left = next(
            (y, x) for y in range(27) for x in range(237) if (image[y : y + 64, x : x + 64] == window).all()
        )
        assert (own == mask[top : top + 64, left : left + 64] // 255).all()
        seen.add((top, left))
    assert len(seen) > 20
    tall = DefectData(path=str(tmp_path), split="all", size=128, native=True).pictures.view(defect, 3)[0]
    assert any(
        (tall == np.pad(image, ((0, 38), (0, 0), (0, 0)), "symmetric")[:, x : x + 128]).all() for x in range(173)
    )
    with pytest.raises(UserError, match="zoom"):
        DefectData(path=str(tmp_path), split="all", size=64, native=True, augment={"zoom": 0.5})

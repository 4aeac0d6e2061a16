"""Measures of synthetic pictures against pictures whose answer is known: nothing done, a paste, a copy, a blend."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fast.bench.copies import DefectGallery
from fast.bench.pictures import VISIBLE, appearance, measures, seam, visibility
from fast.data.images import write_image, write_mask
from fast.segmentation.data import SegmentationSample
from ldm.errors import UserError

SIDE = 96


def grain(seed: int, level: float = 120.0, noise: float = 6.0, sigma: float = 1.0) -> np.ndarray:
    """Grey (SIDE,SIDE,3) with a grain of about that standard deviation."""
    rng = np.random.default_rng(seed)
    waves = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), sigma)
    return np.repeat(np.clip(level + noise * waves / waves.std(), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def blob(top: int = 30, left: int = 40, side: int = 20) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(mask, (left + side // 2, top + side // 2), (side // 2, side // 3), 20, 0, 360, 1, -1)
    return mask


def put(normal: np.ndarray, mask: np.ndarray, shift: float) -> np.ndarray:
    image = normal.astype(np.float64)
    image[mask != 0] += shift
    return np.clip(image, 0, 255).astype(np.uint8)


def test_nothing_changed_is_invisible_and_a_dark_spot_is_not() -> None:
    normal, mask = grain(0), blob()
    assert visibility(normal, normal, mask) == 0
    faint, clear = (visibility(normal, put(normal, mask, -change), mask) for change in (2, 40))
    assert faint < 1
    assert clear > 5


def test_visibility_is_relative_to_the_grain() -> None:
    quiet, rough = grain(0, noise=3), grain(0, noise=12)
    mask = blob()
    near = [visibility(normal, put(normal, mask, -12), mask) for normal in (quiet, rough)]
    assert near[0] == pytest.approx(4 * near[1], rel=0.2)


def test_the_same_grain_in_another_order_is_no_defect_but_a_smooth_patch_is() -> None:
    normal, mask = grain(0), blob(10, 10, 70)
    other = np.where(mask[..., None] != 0, grain(1), normal)
    smooth = np.where(mask[..., None] != 0, np.uint8(120), normal)
    assert np.abs(other.astype(int) - normal)[mask != 0].mean() > 5
    assert visibility(normal, other, mask) < VISIBLE < visibility(normal, smooth, mask)


def test_a_stain_of_colour_is_seen_at_equal_luminance() -> None:
    normal, mask = grain(0), blob()
    image = normal.astype(float)
    image[mask != 0] += (39, -20, 0)  # 0.299 * 39 = 0.587 * 20
    assert visibility(normal, image.clip(0, 255).astype(np.uint8), mask) > 3


def test_a_pasted_square_has_a_seam_and_an_untouched_picture_none() -> None:
    image, mask = grain(0, noise=3), np.zeros((SIDE, SIDE), np.uint8)
    mask[30:60, 30:60] = 1
    assert seam(image, mask) == pytest.approx(1, abs=0.1)
    assert seam(put(image, mask, 40), mask) == pytest.approx((40 + 1) / (seam_step(image) + 1), rel=0.1)


def seam_step(image: np.ndarray) -> float:
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean())


def test_a_smooth_defect_has_no_seam_however_strong() -> None:
    image, mask = grain(0, noise=3), np.zeros((SIDE, SIDE), np.uint8)
    mask[30:60, 30:60] = 1
    soft = image + 60 * cv2.GaussianBlur(mask.astype(np.float64), (0, 0), 5)[..., None]
    assert seam(soft.clip(0, 255).astype(np.uint8), mask) == pytest.approx(1, abs=0.25)


def test_of_a_soft_edge_that_was_filled_the_worse_border_counts() -> None:
    """A square whose edge fades out leaves no seam at its mask; one cut beyond its mask has its seam there."""
    mask, filled = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    mask[15:25, 15:25] = filled[12:28, 12:28] = 1
    cut = np.full((40, 40, 3), 100, np.uint8)
    cut[filled > 0] = 60
    assert seam(cut, mask) == pytest.approx(1)
    assert seam(cut, mask, filled) == seam(cut, filled) == pytest.approx(41)
    assert seam(np.full_like(cut, 100), mask, filled) == pytest.approx(1)


def test_seam_worked_by_hand() -> None:
    row = np.array([10, 20, 20, 50, 54, 60], np.uint8)  # the border lies between 20 and 50
    image = np.repeat(np.repeat(row[None, :, None], 3, axis=2), 4, axis=0)
    mask = np.repeat(np.array([[0, 0, 0, 1, 1, 1]]), 4, axis=0)
    assert seam(image, mask) == pytest.approx((30 + 1) / ((0 + 4) / 2 + 1))
    assert seam(image, np.ones_like(mask)) is None


def spotted(seed: int, mask: np.ndarray) -> np.ndarray:
    """A defect with a texture of its own, on a ground of its own."""
    return np.where(mask[..., None] != 0, grain(seed + 100, 90, 20, 1.5), grain(seed))


def copied(
    source: np.ndarray, mask: np.ndarray, shift: tuple[int, int], turn: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The defect pasted elsewhere on another ground, turned, darker and paler."""
    part, own = (np.rot90(np.roll(x, shift, (0, 1)), turn) for x in (source, mask))
    pale = (part * 0.7 + 10).astype(np.uint8)
    return np.where(own[..., None] != 0, pale, grain(77)), own


@pytest.mark.parametrize(("side", "turn"), [(20, 0), (20, 1), (20, 3), (70, 0)])
def test_a_copy_pasted_elsewhere_is_found(side: int, turn: int) -> None:
    gallery, mask = DefectGallery(), blob(12, 12, side)
    for owner, seed in enumerate((1, 2, 3)):
        gallery.add(spotted(seed, mask), mask, owner)
    image, own = copied(spotted(2, mask), mask, (8, 5), turn)
    likeness, owner = gallery.nearest(image, own) or (0, -1)
    assert owner == 1
    assert likeness > 0.95
    fresh, _ = gallery.nearest(spotted(9, mask), mask) or (1, -1)
    assert fresh < 0.8


def test_a_copy_with_another_mask_around_it_is_found() -> None:
    gallery, mask = DefectGallery(), blob()
    gallery.add(spotted(1, mask), mask, 0)
    wide = cv2.dilate(mask, np.ones((5, 5), np.uint8))
    wide = np.roll(wide, (1, -1), (0, 1))  # and its box is off by a pixel
    assert (gallery.nearest(spotted(1, mask), mask & wide) or (0, 0))[0] > 0.95
    image = np.where(mask[..., None] != 0, spotted(1, mask), grain(50))
    tight = cv2.erode(mask, np.ones((3, 3), np.uint8))
    assert (gallery.nearest(image, tight) or (0, 0))[0] > 0.95


def test_what_cannot_be_compared() -> None:
    gallery, mask = DefectGallery(), blob()
    assert gallery.nearest(grain(0), mask) is None  # with nothing
    gallery.add(spotted(1, mask), mask, 0)
    assert gallery.nearest(spotted(1, mask), mask, but=0) is None
    assert gallery.nearest(grain(0), blob(side=4)) is None  # a few pixels
    even = np.full_like(grain(0), 90)
    assert gallery.nearest(even, mask) == (0, 0)  # nothing shows
    line = np.zeros_like(mask)
    line[10:80, 10:12] = 1
    assert gallery.nearest(grain(0), line) == (0, 0)  # another shape


def test_appearance_is_told_against_the_ground_around() -> None:
    mask = blob()
    found = appearance(put(np.full((SIDE, SIDE, 3), 100, np.uint8), mask, -30), mask)
    np.testing.assert_allclose(found[:4], [-30, 0, -30, -30], atol=1e-6)


def output(folder: Path, rows: list[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]]) -> Path:
    """A synthesis output of (type, image, mask, normal)."""
    lines = []
    for i, (kind, image, mask, normal) in enumerate(rows):
        names = {part: f"{part}/{i:06d}.png" for part in ("image", "mask")}
        write_image(folder / names["image"], image)
        write_mask(folder / names["mask"], mask)
        if normal is not None:
            write_image(folder / f"normal/{i}.png", normal)
        source = None if normal is None else str(folder / f"normal/{i}.png")
        lines.append(json.dumps({"index": i, **names, "type": kind, "normal_source": source}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def real(kind: str = "tile/pit", seeds: tuple[int, ...] = (1, 2, 3, 4)) -> list[SegmentationSample]:
    mask = blob()
    return [SegmentationSample(spotted(seed, mask), mask, kind) for seed in seeds]


def test_measures_of_an_output_by_type(tmp_path: Path) -> None:
    mask, normal = blob(), grain(60)
    rows = [
        ("tile/pit", *copied(spotted(2, mask), mask, (20, -10)), grain(77)),
        ("tile/pit", put(normal, mask, -50), mask, normal),
        ("tile/scratch", normal, mask, normal),  # nothing done
    ]
    result = measures(output(tmp_path / "out", rows), real())
    pit, scratch = result["types"]["tile/pit"], result["types"]["tile/scratch"]
    assert result["pairs"] == 3
    assert (pit["empty"], scratch["empty"], result["empty"]) == (0, 1, pytest.approx(1 / 3))
    assert result["outside"] == 0
    assert pit["copied"] == pytest.approx(0.5)
    assert (scratch["likeness"], scratch["copied"], scratch["set_distance"]) == (None, None, None)
    assert result["real"]["copied"] == 0
    assert scratch["seam"] == pytest.approx(1, abs=0.15)


def test_set_distance_is_least_for_the_real_defects_themselves(tmp_path: Path) -> None:
    mask = blob()
    same = [("tile/pit", pair.image, mask, None) for pair in real()]
    bright = [("tile/pit", put(grain(5), mask, 80), mask, None) for _ in range(2)]
    near = measures(output(tmp_path / "same", same), real())
    far = measures(output(tmp_path / "far", bright), real())
    assert near["set_distance"] == pytest.approx(0, abs=1e-9)
    assert near["copied"] == 1
    assert far["set_distance"] > 3 * near["real"]["set_distance"] > 0


def test_without_a_normal_what_needs_one_is_none(tmp_path: Path) -> None:
    result = measures(output(tmp_path / "out", [("tile/pit", spotted(8, blob()), blob(), None)]), real())
    assert [result[k] for k in ("visibility", "empty", "outside")] == [None] * 3
    assert result["seam"] > 0
    assert result["likeness"] is not None


def test_change_outside_the_mask_is_counted(tmp_path: Path) -> None:
    normal, mask = grain(0), blob()
    image = normal + np.uint8(3)
    result = measures(output(tmp_path / "out", [("tile/pit", image, mask, normal)]), real())
    assert result["outside"] == pytest.approx(3)


def test_pictures_of_several_sizes_and_a_limit(tmp_path: Path) -> None:
    mask = blob()
    small = spotted(5, mask)[:64, 20:90], mask[:64, 20:90]
    rows: list[Any] = [("tile/pit", *small, None), ("tile/pit", spotted(6, mask), mask, None)]
    out = output(tmp_path / "out", rows * 3)
    assert measures(out, real())["pairs"] == 6
    assert measures(out, real(), limit=4)["pairs"] == 4


def test_real_defects_are_brought_to_the_size_of_the_output(tmp_path: Path) -> None:
    mask = blob(10, 10, 60)
    large = [
        SegmentationSample(cv2.resize(spotted(s, mask), (288, 288), interpolation=cv2.INTER_CUBIC),
                 cv2.resize(mask, (288, 288), interpolation=cv2.INTER_NEAREST), "tile/pit")
        for s in (1, 2)
    ]  # fmt: skip
    result = measures(output(tmp_path / "out", [("tile/pit", spotted(2, mask), mask, None)]), large)
    assert result["copied"] == 1


def test_bad_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no manifest"):
        measures(tmp_path, real())
    (tmp_path / "manifest.jsonl").write_text('{"image": "x"}\n')
    with pytest.raises(UserError, match="damaged or empty"):
        measures(tmp_path, real())
    out = output(tmp_path / "out", [("tile/pit", grain(0), blob(), None)])
    with pytest.raises(UserError, match="limit=0"):
        measures(out, real(), limit=0)

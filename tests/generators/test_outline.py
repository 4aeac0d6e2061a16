"""Pairs are outlined as real defects are: what lies beyond a mask comes along, and drawn masks end where those do."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fast.data.images import read_image, read_mask, resize_image, write_image, write_mask
from fast.data.layouts import open_dataset
from fast.generators import create
from fast.generators.cutouts import Cutout, cut_out
from fast.generators.outline import FADES, FURTHEST, HIGHEST, Outline, outline_of, outlined, with_fringe
from fast.generators.transplant import Transplant
from ldm.errors import UserError
from support.synthesis import manifest, synthesize, whole_set

SIDE, RADIUS, LEVEL, DEPTH = 128, 9, 150, 80


def distance(at: tuple[int, int]) -> np.ndarray:
    """Px of every pixel from the middle of a spot."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.hypot(rows - at[0], columns - at[1])


def spot(seed: int, width: float) -> tuple[np.ndarray, np.ndarray]:
    """A dark spot annotated where it is fully dark, which gives way to the plate over `width` px, evenly."""
    rng = np.random.default_rng(seed)
    apart = distance((int(rng.integers(50, 78)), int(rng.integers(50, 78))))
    share = np.clip(1 - (apart - RADIUS) / max(width, 1e-3), 0, 1)
    image = LEVEL - DEPTH * share + rng.normal(0, 1.5, apart.shape)
    return np.rint(image)[..., None].repeat(3, 2).astype(np.uint8), (apart <= RADIUS).astype(np.uint8)


def parts(root: Path, width: float) -> Path:
    for number in range(5):
        image, mask = spot(number, width)
        write_image(root / "defects" / "spot" / f"{number}.png", image)
        write_mask(root / "masks" / "spot" / f"{number}.png", mask)
    write_image(root / "normal" / "0.png", plate(9))
    return root


def plate(seed: int) -> np.ndarray:
    flat = LEVEL + np.random.default_rng(seed).normal(0, 1.5, (SIDE, SIDE, 1))
    return np.rint(flat).astype(np.uint8).repeat(3, 2)


def cutouts(root: Path) -> list[Cutout]:
    return [cutout for sample in open_dataset(root).defects for cutout in cut_out(sample, None)]


def ring(mask: np.ndarray, number: int) -> np.ndarray:
    """The pixels that lie between `number` and `number` + 1 px outside a mask."""
    apart = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    return (apart > number) & (apart <= number + 1)


@pytest.mark.parametrize(("width", "fringe"), [(0, 0), (3, 3), (6, 6), (40, FURTHEST)])
def test_the_fringe_reaches_to_where_a_tenth_of_the_contrast_is_left(tmp_path: Path, width: float, fringe: int) -> None:
    """A ramp of `width` px falls below a tenth within its last pixel, and has less than that in the ring after it."""
    assert outline_of(cutouts(parts(tmp_path, width))).fringe == pytest.approx(fringe, abs=1 if width else 0)


def test_nothing_is_told_of_what_does_not_differ_from_its_ground(tmp_path: Path) -> None:
    mask = (distance((64, 64)) <= RADIUS).astype(np.uint8)
    write_image(tmp_path / "defects" / "spot" / "0.png", plate(1))
    write_mask(tmp_path / "masks" / "spot" / "0.png", mask)
    write_image(tmp_path / "normal" / "0.png", plate(2))
    assert outline_of(cutouts(tmp_path)).fringe == 0
    assert outline_of([]) == outline_of(cutouts(tmp_path)) == Outline(0, None)
    assert not outline_of([]).soft


def test_of_a_defect_of_a_few_pixels_nothing_is_told_and_it_stays_sharp(tmp_path: Path) -> None:
    for number in range(3):
        image, mask = plate(number), np.zeros((SIDE, SIDE), np.uint8)
        mask[50:54, 60:64] = 1
        image[mask > 0] = 20
        write_image(tmp_path / "defects" / "dot" / f"{number}.png", image)
        write_mask(tmp_path / "masks" / "dot" / f"{number}.png", mask)
    write_image(tmp_path / "normal" / "0.png", plate(9))
    method = create("transplant", defects=str(tmp_path), split="all", on_object="off", scale=[1, 1], turn=0)
    assert isinstance(method, Transplant)
    assert list(method.outlines.values()) == [Outline(0, None)]
    made = method.pair(plate(4), None, np.random.default_rng(0))
    assert made.filled is None
    assert (made.image[made.mask > 0] < 40).all()


def test_each_part_of_a_drawn_mask_is_outlined_by_itself() -> None:
    """A soft stain beside a sharp hole: the stain loses its faint rings, the hole nothing."""
    normal, apart = plate(3), distance((40, 40))
    change, hole = 60 * np.clip(1 - (apart - 12) / 8, 0, 1), np.zeros((SIDE, SIDE), np.uint8)
    hole[90:97, 90:97] = 1
    change[hole > 0] = 60
    image = np.clip(normal - np.rint(change)[..., None], 0, 255).astype(np.uint8)
    marked = outlined(normal, image, (change > 0).astype(np.uint8), 0.5)
    assert (marked[hole > 0] == 1).all()
    assert float(np.sqrt((marked & (1 - hole)).sum() / np.pi)) == pytest.approx(16, abs=1.2)


def test_a_moved_defect_ends_beyond_its_mask_as_the_real_one_does(tmp_path: Path) -> None:
    """Around the pair's mask there is the real defects' contrast; a piece cut at its annotation has none there."""
    root = parts(tmp_path, 5)
    still = {"defects": str(root), "split": "all", "on_object": "off", "scale": [1, 1], "turn": 0}
    soft, cut = create("transplant", **still), create("transplant", **still, fringe=0)
    assert isinstance(soft, Transplant)
    assert soft.settings()["fringe"][f"{root.name}/spot"] in (4, 5)
    real = [float(np.mean([LEVEL - spot(s, 5)[0][ring(spot(s, 5)[1], n)].mean() for s in range(5)])) for n in range(4)]
    for method, share in ((soft, 1.0), (cut, 0.0)):
        for seed in range(4):
            image = plate(seed)
            made = method.pair(image, None, np.random.default_rng(seed))
            shows = [LEVEL - float(made.image[ring(made.mask, number)].mean()) for number in range(4)]
            assert shows == pytest.approx([share * value for value in real], abs=6)
            filled = made.mask if made.filled is None else made.filled
            assert ((made.image != image).any(2) <= (filled > 0)).all()
            assert (filled >= made.mask).all()
            assert made.mask.sum() == spot(0, 5)[1].sum()  # what people outline stays what they outlined
            again = method.synthesize(image, None, np.random.default_rng(seed))
            assert (again[0] == made.image).all()
            assert (again[1] == made.mask).all()
    assert made.filled is None


def test_what_is_filled_is_the_mask_its_fringe_and_a_few_pixels_to_fade() -> None:
    mask = (distance((64, 64)) <= RADIUS).astype(np.uint8)
    filled = with_fringe(mask, 3)
    assert (filled == (distance((64, 64)) <= RADIUS + 3 + FADES)).mean() > 0.998
    assert (with_fringe(mask, 0) == mask).all()


def test_a_neighbour_does_not_come_along_unmarked(tmp_path: Path) -> None:
    """A second defect near a soft one: its pixels are no ground, and not part of the piece."""
    for number in range(3):
        image, mask = spot(number, 5)
        y, x = (int(v) for v in np.argwhere(mask).mean(0).round())
        image[y - 4 : y + 4, x + 22 : x + 30] = 255
        mask[y - 4 : y + 4, x + 22 : x + 30] = 1
        write_image(tmp_path / "defects" / "spot" / f"{number}.png", image)
        write_mask(tmp_path / "masks" / "spot" / f"{number}.png", mask)
    write_image(tmp_path / "normal" / "0.png", plate(9))
    found = cutouts(tmp_path)
    assert len(found) == 6
    assert any((cutout.image[cutout.clean == 0] == 255).any() for cutout in found)
    dark = [c for c in found if c.image[c.mask > 0].mean() < LEVEL]
    assert not any((c.image[(c.clean & with_fringe(c.mask, FURTHEST)) > 0] == 255).any() for c in dark)
    assert outline_of(dark).fringe in (4, 5)


@pytest.mark.parametrize("size", [None, 64])
def test_a_set_of_moved_defects_says_what_was_filled(tmp_path: Path, size: int | None) -> None:
    """`mask_asked/` holds the mask with its fringe, outside of which the picture is the normal one to the byte."""
    root, out = parts(tmp_path / "parts", 4), tmp_path / "out"
    argv = ["--method", "transplant", "--data_root", str(root), "--split", "all", "--sample_name", str(out)]
    argv += ["--count", "3", *(["--size", str(size)] if size else [])]
    assert synthesize(argv) == 0
    for row in manifest(out):
        mask, filled = (read_mask(out / row[kind]) for kind in ("mask", "mask_asked"))
        image, normal = read_image(out / row["image"]), read_image(Path(row["normal_source"]))
        normal = resize_image(normal, size) if size else normal
        assert (filled >= mask).all()
        assert filled.sum() > 1.3 * mask.sum()
        assert (image[filled == 0] == normal[filled == 0]).all()
        assert (image[(filled > 0) & (mask == 0)] != normal[(filled > 0) & (mask == 0)]).any()
        assert row["defect_pixels"] == mask.sum()
    before = whole_set(out)
    next((out / "mask_asked").iterdir()).unlink()  # a pair that lacks one of its files is made again
    assert synthesize(argv) == 0
    assert len(list((out / "mask_asked").iterdir())) == 3
    assert whole_set(out) == before


def annotated_at(root: Path, level: float) -> Path:
    """Spots that give way to the plate over 6 px, annotated where `level` of their contrast is left."""
    for number in range(5):
        image, mask = spot(number, 6)
        y, x = np.argwhere(mask).mean(0).round()
        apart = distance((int(y), int(x)))
        write_image(root / "defects" / "spot" / f"{number}.png", image)
        write_mask(root / "masks" / "spot" / f"{number}.png", (apart <= RADIUS + 6 * (1 - level)).astype(np.uint8))
    write_image(root / "normal" / "0.png", plate(9))
    return root


@pytest.mark.parametrize("level", [0.2, 0.5])
def test_a_drawn_mask_ends_at_the_share_of_the_contrast_where_real_ones_do(tmp_path: Path, level: float) -> None:
    found = outline_of(cutouts(annotated_at(tmp_path, level))).level
    assert found == pytest.approx(level, abs=0.12)
    normal, apart = plate(5), distance((60, 70))
    change = DEPTH / 2 * np.clip(1 - (apart - 14) / 6, 0, 1)  # half as strong, larger, as soft
    image = np.clip(normal - np.rint(change)[..., None], 0, 255).astype(np.uint8)
    marked = outlined(normal, image, (change > 0).astype(np.uint8), found)
    radius = float(np.sqrt(marked.sum() / np.pi))
    assert radius == pytest.approx(14 + 6 * (1 - level), abs=1.2)


@pytest.mark.parametrize(("margin", "soft"), [(6, True), (0, False)])
def test_a_loose_outline_gives_way_to_the_new_ground_a_sharp_one_does_not(
    tmp_path: Path, margin: int, soft: bool
) -> None:
    """Sharp spots on a rough plate. Annotated with a margin of plate, its texture fades out at the border, into that of
    the new plate; annotated exactly, the defect's own edge stays as sharp as it is."""
    for number in range(5):
        image, at = spot(number, 0)
        y, x = np.argwhere(at).mean(0).round()
        texture = 25 * cv2.GaussianBlur(np.random.default_rng(number).normal(0, 3, (SIDE, SIDE)), (0, 0), 1.5)
        image = np.clip(image + texture[..., None], 0, 255).astype(np.uint8)
        write_image(tmp_path / "defects" / "spot" / f"{number}.png", image)
        mask = (distance((int(y), int(x))) <= RADIUS + margin).astype(np.uint8)
        write_mask(tmp_path / "masks" / "spot" / f"{number}.png", mask)
    write_image(tmp_path / "normal" / "0.png", plate(9))
    method = create("transplant", defects=str(tmp_path), split="all", on_object="off", scale=[1, 1], turn=0)
    assert isinstance(method, Transplant)
    (outline,) = method.outlines.values()
    assert outline.soft is soft
    steps = []
    for seed in range(4):
        made = method.pair(plate(seed), None, np.random.default_rng(seed))
        assert made.filled is None
        change = np.abs(made.image.astype(float) - plate(seed)).mean(2)
        depth = cv2.distanceTransform(made.mask, cv2.DIST_L2, 5)
        inner = change[(depth > 3) & (depth <= 5)].mean()
        steps.append(change[(depth > 0) & (depth <= 1)].mean() / inner)
    assert bool(np.mean(steps) < 0.6) is soft


def test_thin_and_sharp_changes_keep_their_masks() -> None:
    normal, line = plate(1), np.zeros((SIDE, SIDE), np.uint8)
    cv2.line(line, (20, 30), (100, 90), 1, 1)
    block = np.zeros_like(line)
    block[40:60, 20:50] = 1
    for mask in (line, block):
        image = np.where(mask[..., None] > 0, normal - 60, normal).astype(np.uint8)
        assert (outlined(normal, image, mask, HIGHEST) == mask).all()
    soft = np.where(line[..., None] > 0, normal - 2, normal).astype(np.uint8)
    assert outlined(normal, soft, line, 0.5).any()


@pytest.mark.parametrize("fringe", [-1, FURTHEST + 1])
def test_a_fringe_out_of_range_is_refused(fringe: int) -> None:
    with pytest.raises(UserError, match=f"fringe={fringe} is out of range; give 0 to {FURTHEST} px, or leave it out"):
        create("transplant", fringe=fringe)

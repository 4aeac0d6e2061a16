"""Transplant: real defects of the training side, set into normal pictures."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import cv2
import numpy as np
import pytest
from PIL import Image

from fast.data.content import Copies
from fast.data.images import read_image, read_mask, write_image, write_mask
from fast.data.layouts import check, open_dataset
from fast.data.split import Split, make_split
from fast.generators import create
from fast.generators.cutouts import Cutout, cut_out, keeps_place
from fast.generators.moved import warped
from fast.generators.seam import fitted
from fast.generators.surroundings import surroundings_of
from fast.generators.transplant import Transplant
from fast.segmentation.data import from_output
from ldm.errors import UserError
from support.synthesis import leftovers, manifest, synthesize, whole_set

SIDE = 96


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key or 0)


def plate(level: int, seed: int, colour: bool = False) -> np.ndarray:
    image = level + rng(seed).normal(0, 1.5, (SIDE, SIDE, 3 if colour else 1))
    return np.clip(image, 0, 255).astype(np.uint8).repeat(1 if colour else 3, axis=2)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six dark spots (half as bright as the plate), anywhere, and six notches at the top border. Levels differ."""
    root = tmp_path_factory.mktemp("data") / "parts"
    for number in range(4):
        write_image(root / "normal" / f"{number}.png", plate(90 + 30 * number, number))
    for number in range(6):
        for kind in ("spot", "notch"):
            image, mask = plate(100 + 20 * number, 10 + number), np.zeros((SIDE, SIDE), np.uint8)
            at = (int(rng(number, 1).integers(20, 76)), int(rng(number, 2).integers(20, 76)))
            if kind == "spot":
                cv2.circle(mask, at, 6, 1, -1)
            else:
                mask[:8, at[0] : at[0] + 12] = 1
            image[mask > 0] //= 2
            write_image(root / "defects" / kind / f"{number}.png", image)
            write_mask(root / "masks" / kind / f"{number}.png", mask)
    return root


@pytest.fixture(scope="module")
def made(parts: Path) -> Transplant:
    generator = create("transplant", defects=str(parts), split="all", on_object="off")
    assert isinstance(generator, Transplant)
    return generator


def test_pairs_are_a_function_of_the_generator_and_change_nothing_outside(made: Transplant) -> None:
    image = plate(140, 99)
    before, seen = image.copy(), set()
    for seed in range(8):
        one, two = (made.synthesize(image, None, rng(seed), "parts/spot" if seed % 2 else None) for _ in range(2))
        assert all((a == b).all() for a, b in zip(one, two, strict=True))
        assert (image == before).all()
        assert one[1].dtype == np.uint8
        assert set(np.unique(one[1])) == {0, 1}
        assert (one[0][one[1] == 0] == image[one[1] == 0]).all()
        assert (one[0] == one[0][..., :1]).all()  # a grey picture stays grey
        seen.add(tuple(np.argwhere(one[1]).mean(0).round()))
    assert len(seen) == 8


@pytest.mark.parametrize("blend", ["poisson", "feather"])
@pytest.mark.parametrize("level", [80, 200])
def test_a_defect_takes_the_light_of_its_new_ground(parts: Path, blend: str, level: int) -> None:
    """A spot half as bright as its own plate is half as bright as the next one, however bright that is."""
    made = create("transplant", defects=str(parts), split="all", on_object="off", blend=blend, scale=[1, 1])
    for seed in range(4):
        image, mask = made.synthesize(plate(level, seed), None, rng(seed), "parts/spot")
        core = cv2.erode(mask, np.ones((5, 5), np.uint8))
        assert image[core > 0].mean() == pytest.approx(level / 2, rel=0.12)


def test_a_step_of_light_is_followed_by_poisson() -> None:
    """A flat piece on ground that brightens from left to right: the membrane brightens with it, one factor does not."""
    piece, mask = np.full((40, 60, 3), 100, np.uint8), np.zeros((40, 60), np.uint8)
    mask[12:28, 12:48] = 1
    ground = np.repeat(np.linspace(80, 160, 60)[None, :, None], 40, 0).repeat(3, 2).astype(np.uint8)
    errors = {}
    for how in ("poisson", "feather"):
        image = fitted(piece, ground, mask, np.ones_like(mask), rng(), how)
        assert (image[mask == 0] == ground[mask == 0]).all()
        errors[how] = np.abs(image.astype(float) - ground)[mask > 0].mean()
    assert errors["poisson"] < 6
    assert errors["feather"] > 2 * errors["poisson"]


def test_a_clean_piece_on_noisy_ground_gets_its_noise() -> None:
    piece, mask = np.full((60, 60, 3), 120, np.uint8), np.zeros((60, 60), np.uint8)
    mask[20:40, 20:40] = 1
    ground = np.clip(120 + rng(7).normal(0, 5, (60, 60, 1)), 0, 255).astype(np.uint8).repeat(3, 2)
    image = fitted(piece, ground, mask, np.ones_like(mask), rng(1), "poisson")
    inner = image[24:36, 24:36, 0].astype(float)
    assert inner.std() == pytest.approx(5, rel=0.3)


def test_sizes_and_turns(parts: Path) -> None:
    still = create("transplant", defects=str(parts), split="all", on_object="off", scale=[1, 1], turn=0)
    twice = create("transplant", defects=str(parts), split="all", on_object="off", scale=[2, 2], turn=0)
    area = int(cv2.circle(np.zeros((40, 40), np.uint8), (20, 20), 6, 1, -1).sum())
    for seed in range(3):
        assert still.synthesize(plate(150, 1), None, rng(seed), "parts/spot")[1].sum() == area
        assert twice.synthesize(plate(150, 1), None, rng(seed), "parts/spot")[1].sum() == pytest.approx(
            4 * area, rel=0.1
        )


def test_what_a_border_cuts_off_stays_at_it(made: Transplant) -> None:
    for seed in range(6):
        _, mask = made.synthesize(plate(150, seed), None, rng(seed), "parts/notch")
        assert mask[0].any()
        assert not mask[20:].any()


@pytest.fixture(scope="module")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Transplant:
    """Stripes from border to border, twice as bright as their plate: two along the top, one below the middle, one
    along the right; and one that fills three quarters of its picture."""
    root = tmp_path_factory.mktemp("data") / "parts"
    write_image(root / "normal" / "0.png", plate(90, 0))
    boxes = {"top": np.s_[:10], "lower": np.s_[60:72], "side": np.s_[:, 84:], "whole": np.s_[:72], "tilted": np.s_[:9]}
    for number, (name, box) in enumerate(boxes.items()):
        image, mask = plate(80, number), np.zeros((SIDE, SIDE), np.uint8)
        mask[box] = 1
        image[mask > 0] *= 2
        write_image(root / "defects" / "stripe" / f"{name}.png", image)
        write_mask(root / "masks" / "stripe" / f"{name}.png", mask)
    generator = create("transplant", defects=str(root), split="all", on_object="off")
    assert isinstance(generator, Transplant)
    return generator


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE, 130), (150, 70), (40, 400), (300, 50)])
def test_what_goes_from_border_to_border_does_so_in_a_picture_of_another_size(
    striped: Transplant, shape: tuple[int, int]
) -> None:
    image = np.clip(100 + rng(3).normal(0, 1.5, (*shape, 1)), 0, 255).astype(np.uint8).repeat(3, 2)
    seen = set()
    for seed in range(24):
        found = striped.pair(image, None, rng(seed), "parts/stripe")
        name = Path(found.origin["defect_source"]).stem
        seen.add(name)
        rows, cols = found.mask.any(axis=1), found.mask.any(axis=0)
        assert (rows if name == "side" else cols).all()
        assert name != "side" or cols[0] != cols[-1]  # at either side, mirrored
        assert name not in ("top", "tilted") or (rows[0] and not rows[shape[0] // 2])
        thick = {"top": 10, "lower": 12, "side": 12, "tilted": 9}[name]
        assert 0.75 * thick <= found.mask.sum() / shape[name != "side"] <= 1.35 * thick
        inner = cv2.erode(found.mask, np.ones((5, 5), np.uint8)) > 0
        assert found.image[inner].mean() > 150  # twice its ground
    assert seen == {"top", "lower", "side", "tilted"}  # what fills its picture is no piece of it


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (20, 400), (300, 50)])
def test_a_broad_stripe_leaves_ground_beside_it(shape: tuple[int, int], tmp_path: Path) -> None:
    """What is half as high as its own picture may be higher than the next one."""
    image, mask = plate(80, 1), np.zeros((SIDE, SIDE), np.uint8)
    mask[: SIDE // 2] = 1
    image[mask > 0] *= 2
    write_image(tmp_path / "parts" / "defects" / "stripe" / "0.png", image)
    write_mask(tmp_path / "parts" / "masks" / "stripe" / "0.png", mask)
    made = Transplant(str(tmp_path / "parts"), split="all", on_object="off")
    for seed in range(4):
        found = made.pair(np.full((*shape, 3), 100, np.uint8), None, rng(seed)).mask
        assert found.any(axis=0).all()
        assert 0.1 <= found.mean() <= 0.61


def test_a_stripe_lies_at_the_border_of_the_object(striped: Transplant) -> None:
    region = np.zeros((SIDE, SIDE), np.uint8)
    region[30:80, 20:60] = 1
    for seed in range(16):
        found = striped.pair(plate(100, 1), None, rng(seed), "parts/stripe", region)
        name = Path(found.origin["defect_source"]).stem
        assert not found.mask[region == 0].any()
        assert (found.mask[30:80].any(axis=1) if name == "side" else found.mask[:, 20:60].any(axis=0)).all()
        assert name not in ("top", "tilted") or found.mask[30].any()


def test_a_hairline_made_much_smaller_stays_a_hairline() -> None:
    image, line = np.full((300, 400, 3), 120, np.uint8), np.zeros((300, 400), np.uint8)
    for row in range(100, 120):
        line[:] = 0
        line[row] = 1
        assert warped(image, [line], 0, (0.2, 0.2))[1].sum() <= 80


def line_and_square() -> np.ndarray:
    line = np.zeros((90, 120), np.uint8)
    cv2.polylines(line, [np.array([[5, 9], [60, 31], [70, 80], [110, 84]])], False, 1)
    cv2.rectangle(line, (57, 28), (66, 36), 1, -1)
    return line


HAIRLINES = {
    "line that starts from a square": line_and_square(),
    "row": np.ones((1, 100), np.uint8),
    "band at the border": np.pad(np.ones((2, 100), np.uint8), ((0, 30), (0, 0))),
    "line of three pixels": np.pad(np.ones((3, 90), np.uint8), 20),
}


@pytest.mark.parametrize("scale", [0.3, 0.6, 0.8, 1.0, 1.25, 2.0])
@pytest.mark.parametrize("degrees", [0.0, 7.0, 45.0, 100.0])
@pytest.mark.parametrize("line", HAIRLINES.values(), ids=HAIRLINES)
def test_a_hairline_does_not_fall_apart(line: np.ndarray, scale: float, degrees: float) -> None:
    _, found = warped(np.full((*line.shape, 3), 120, np.uint8), [line], degrees, (scale, scale))
    assert cv2.connectedComponents(found, connectivity=8)[0] == 2
    assert 0.7 * min(scale, scale**2) <= found.sum() / line.sum() <= 1.7 * max(scale, scale**2)


@pytest.mark.parametrize("scale", [0.3, 0.4, 0.8, 0.9])
@pytest.mark.parametrize("degrees", [0.0, 90.0, 180.0])
def test_no_hairline_beside_a_square_is_lost(scale: float, degrees: float) -> None:
    """A row may lie between those that are left of it, and nothing comes apart by that."""
    for row in range(62, 90):
        for first in (50, 60):  # from the square on, and by itself
            line = np.zeros((150, 200), np.uint8)
            line[60:90, 20:50] = 1
            line[row, first:180] = 1
            _, found = warped(np.full((150, 200, 3), 120, np.uint8), [line], degrees, (scale, scale))
            along = found.any(axis=0 if degrees != 90 else 1)
            assert abs(np.ptp(np.flatnonzero(along)) + 1 - 160 * scale) <= 2
            assert cv2.connectedComponents(found, connectivity=8)[0] <= (2 if first == 50 else 3)


@pytest.mark.parametrize(("first", "told"), [(0, 1), (60, 0)])
def test_a_type_that_only_fills_its_pictures_is_told(first: int, told: int, tmp_path: Path) -> None:
    for number in range(2):
        image, mask = plate(80, number), np.zeros((SIDE, SIDE), np.uint8)
        mask[number * first :, number * first :] = 1
        write_image(tmp_path / "parts" / "defects" / "stain" / f"{number}.png", image)
        write_mask(tmp_path / "parts" / "masks" / "stain" / f"{number}.png", mask)
    doubts = Transplant(str(tmp_path / "parts"), split="all").doubts
    assert [line.startswith("every defect of parts/stain covers most of its picture") for line in doubts] == [
        True
    ] * told


def test_a_mask_of_very_many_dots_is_moved() -> None:
    dots = np.zeros((514, 514), np.uint8)
    dots[::2, ::2] = 1  # more than 16 bits can number
    assert (warped(np.zeros((514, 514, 3), np.uint8), [dots], 0, (1, 1))[1] == dots).all()


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1)])
def test_a_piece_of_one_row_or_column_is_moved(shape: tuple[int, int]) -> None:
    image, mask = warped(np.full((*shape, 3), 77, np.uint8), [np.ones(shape, np.uint8)], 0, (1.1, 1.1))
    assert (image == 77).all()
    assert mask.any()


def test_stripes_spread_over_the_height_keep_no_place(tmp_path: Path) -> None:
    """Their middle is the picture's from left to right, wherever they lie."""
    for number in range(10):
        image, mask = plate(80, number), np.zeros((SIDE, SIDE), np.uint8)
        mask[5 + 8 * number : 9 + 8 * number] = 1
        write_image(tmp_path / "parts" / "defects" / "streak" / f"{number}.png", image // (1 + mask[..., None]))
        write_mask(tmp_path / "parts" / "masks" / "streak" / f"{number}.png", mask)
    made = create("transplant", defects=str(tmp_path / "parts"), split="all", on_object="off")
    assert isinstance(made, Transplant)
    assert made.near == {"parts/streak": False}


def test_settings_tell_which_pictures_show_one_part(parts: Path) -> None:
    found = open_dataset(str(parts))
    joined = replace(
        found, defects=[replace(s, group="one" if "/0" in str(s.image) else s.group) for s in found.defects]
    )
    ones, others = Transplant(on_object="off"), Transplant(on_object="off")
    ones.fit(found)
    others.fit(joined)
    assert ones.settings()["defects_sha256"] == others.settings()["defects_sha256"]
    assert ones.settings() != others.settings()


def test_masks_in_several_files_are_cut_out_together(parts: Path, tmp_path: Path) -> None:
    """As in MVTec LOCO, where a picture's mask is a folder of parts."""
    copytree(parts, tmp_path / "parts")
    for number in range(6):
        file = tmp_path / "parts" / "masks" / "spot" / f"{number}.png"
        mask = read_mask(file)
        file.unlink()
        left = np.zeros_like(mask)
        left[:, : SIDE // 2] = 1
        for part, own in enumerate((mask & left, mask & (1 - left))):
            write_mask(file.with_suffix("") / f"{part}.png", own)
    whole, split = (create("transplant", defects=str(d), split="all") for d in (parts, tmp_path / "parts"))
    assert isinstance(whole, Transplant)
    assert isinstance(split, Transplant)
    areas = [sorted(int(c.mask.sum()) for c in made.cutouts["parts/spot"]) for made in (whole, split)]
    assert areas[0] == areas[1]
    assert whole.content != split.content


def test_every_part_counts_once(parts: Path) -> None:
    """Of a type with many pictures of one part, and one picture of another, both are drawn alike."""
    made = create("transplant", defects=str(parts), split="all", on_object="off")
    assert isinstance(made, Transplant)
    own = made.cutouts["parts/spot"]
    made.cutouts["parts/spot"] = [replace(c, group="one" if c is own[0] else "other") for c in own]
    drawn = [made.origin(rng(seed), "parts/spot")["defect_source"] for seed in range(200)]
    assert drawn.count(str(own[0].source)) == pytest.approx(100, abs=25)
    assert len(set(drawn)) == len(own)


def test_defects_lie_on_the_object(made: Transplant) -> None:
    region = np.zeros((SIDE, SIDE), np.uint8)
    region[30:80, 50:90] = 255
    for seed in range(8):
        _, mask = made.synthesize(plate(150, seed), None, rng(seed), "parts/spot", region=region)
        assert mask.any()
        assert not mask[region == 0].any()
        assert mask.sum() > 50  # moved, not cut away


def test_a_type_that_keeps_to_a_place_is_found(parts: Path) -> None:
    def cutouts(places: list[tuple[float, float]], groups: int = 99) -> list[Cutout]:
        some = np.ones((4, 4), np.uint8)
        return [
            Cutout(
                Path("a"),
                "a/b",
                str(i % groups),
                some,
                some,
                some,
                place,
                0.5 + 0.02 * i,
                (False,) * 4,
                False,
                0.01,
                some,
                surroundings_of(np.dstack([some] * 3), some, (0, 0, 4, 4)),
            )
            for i, place in enumerate(places)
        ]

    spread = [(float(y), float(x)) for y, x in np.random.default_rng(0).uniform(0, 1, (12, 2))]
    band = [(0.5 + 0.1 * y, x) for y, x in spread]
    assert keeps_place(cutouts(band))
    rim = [Cutout(**{**c.__dict__, "rim": 0.02}) for c in cutouts(spread)]
    assert keeps_place(rim)
    anywhere = [Cutout(**{**c.__dict__, "rim": c.place[0]}) for c in cutouts(spread)]
    assert not keeps_place(anywhere)
    assert not keeps_place(rim[:4])  # too few to tell
    assert not keeps_place(cutouts(band, groups=3))  # many pictures of three parts are three

    near = create("transplant", defects=str(parts), split="all", on_object="off", turn=0)
    assert isinstance(near, Transplant)
    near.near["parts/spot"] = True
    for seed in range(6):
        source = Path(near.origin(rng(seed), "parts/spot")["defect_source"])
        own = np.argwhere(read_mask(parts / "masks" / "spot" / source.name)).mean(0)
        y, x = np.argwhere(near.synthesize(plate(150, 1), None, rng(seed), "parts/spot")[1]).mean(0)
        assert abs(y - own[0]) < 0.25 * SIDE
        assert min(abs(x - own[1]), abs(SIDE - 1 - x - own[1])) < 0.25 * SIDE  # mirrored with the defect


def test_cutouts(parts: Path, tmp_path: Path) -> None:
    spots = [s for s in open_dataset(parts).defects if s.anomaly == "spot"]
    (one,) = cut_out(spots[0], None)
    assert (one.kind, one.source, one.touches) == ("parts/spot", spots[0].image, (False,) * 4)
    assert spots[0].mask is not None
    whole = read_mask(spots[0].mask)
    y, x = np.argwhere(whole).mean(0)
    assert one.mask.sum() == whole.sum()
    assert one.place == pytest.approx(((y + 0.5) / SIDE, (x + 0.5) / SIDE))
    # Two defects far apart are two; a picture full of one serves only where nothing else is there.
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[5:9, 5:9] = mask[60:70, 60:70] = 1
    write_image(tmp_path / "defects" / "a" / "0.png", plate(90, 0))
    write_mask(tmp_path / "masks" / "a" / "0.png", mask)
    write_image(tmp_path / "defects" / "a" / "1.png", plate(90, 0))
    write_mask(tmp_path / "masks" / "a" / "1.png", np.ones((SIDE, SIDE), np.uint8))
    write_image(tmp_path / "normal" / "0.png", plate(90, 0))
    index = open_dataset(tmp_path)
    assert len(cut_out(index.defects[0], None)) == 2
    made = create("transplant", on_object="off")
    made.fit(index)
    for seed in range(5):
        assert made.synthesize(plate(150, 1), None, rng(seed))[1].sum() < 400


def test_fit_uses_the_training_side_alone(parts: Path) -> None:
    index = check(open_dataset(parts)).usable
    split = make_split(index)
    for generator in (create("transplant", on_object="off"), create("transplant", defects=str(parts))):
        if not isinstance(generator, Transplant) or not generator.cutouts:
            with pytest.raises(UserError, match=r"transplant has no defects yet; give defects=FOLDER \(--defects\)"):
                generator.synthesize(plate(100, 0), None, rng())
            generator.fit(parts)
        assert isinstance(generator, Transplant)
        used = {c.source.relative_to(parts).as_posix() for found in generator.cutouts.values() for c in found}
        assert used == set(split.train)
        assert generator.settings()["split"] == split.hash
    with pytest.raises(UserError, match="no defect of type 'parts/dent'; it has parts/notch, parts/spot"):
        generator.synthesize(plate(100, 0), None, rng(), "parts/dent")


# --- the command ---


def command(parts: Path, out: Path, *more: str) -> list[str]:
    given = ["--method", "transplant", "--data_root", str(parts), "--sample_name", str(out), "--count", "6"]
    return [*given, *more]


def test_the_command(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = make_split(check(open_dataset(parts)).usable, 0.5, 3)
    split.save(tmp_path / "split.json")
    argv = ["--split", str(tmp_path / "split.json")]
    assert synthesize(command(parts, tmp_path / "a", *argv)) == 0
    rows = manifest(tmp_path / "a")
    assert {r["type"] for r in rows} == {"parts/spot", "parts/notch"}
    assert leftovers(tmp_path / "a") == []
    for row in rows:
        assert Path(row["defect_source"]).relative_to(parts).as_posix() in split.train
        assert Path(row["defect_source"]).parent.name == row["type"].split("/")[1]
        assert row["options"]["split"] == split.hash
        mask, normal = read_mask(tmp_path / "a" / row["mask"]), read_image(row["normal_source"])
        assert (read_image(tmp_path / "a" / row["image"])[mask == 0] == normal[mask == 0]).all()
    # A pair that was made of something that tests are done on is left out.
    kept, left = from_output(tmp_path / "a", Copies([Path(rows[0]["defect_source"])]))
    assert left == sum(r["defect_source"] == rows[0]["defect_source"] for r in rows)
    assert len(kept) == 6 - left
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert synthesize(command(parts, tmp_path / "b", *argv, "--batch_size", "1")) == 0
    assert whole_set(tmp_path / "a") == whole_set(tmp_path / "b")


def test_pictures_are_resized_after_the_defect_is_in(parts: Path, tmp_path: Path) -> None:
    """Defects keep their size against the part: at half the size they are half as large."""
    argv = ["--anomaly_name", "spot", "--split", "all", "method.scale=[1,1]", "method.turn=0", "--on_object", "off"]
    areas = []
    for size in ("48", "96"):
        assert synthesize(command(parts, tmp_path / size, *argv, "--size", size)) == 0
        rows = manifest(tmp_path / size)
        areas.append([int(read_mask(tmp_path / size / r["mask"]).sum()) for r in rows])
        assert [r["defect_pixels"] for r in rows] == areas[-1]
    assert all(0.2 < small / large < 0.45 for small, large in zip(*areas, strict=True))


def test_normals_beside_the_dataset(parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert synthesize(command(parts / "normal", out, "--defects", str(parts), "--anomaly_name", "spot,notch")) == 0
    assert {r["type"] for r in manifest(out)} == {"parts/spot", "parts/notch"}


def test_bad_defects_are_left_out_with_a_note(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "parts"
    copytree(parts, root)
    (root / "defects" / "spot" / "3.png").write_bytes(b"no picture")
    assert synthesize(command(root, tmp_path / "one", "--split", "all")) == 0
    command_line = f"scripts/prepare_data.py {root} lists what is wrong"
    said = capsys.readouterr().out.splitlines()
    assert f"note: of {root} 1 bad file is left out, defects/spot/3.png; {command_line}" in said
    (root / "masks" / "notch" / "0.png").unlink()
    write_mask(root / "masks" / "notch" / "2.png", np.zeros((SIDE, SIDE), np.uint8))
    assert synthesize(command(root, tmp_path / "three", "--split", "all")) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"note: of {root} 3 bad files are left out, defects/notch/0.png the first; {command_line}" in said
    used = {Path(r["defect_source"]).relative_to(root).as_posix() for r in manifest(tmp_path / "three")}
    assert not used & {"defects/spot/3.png", "defects/notch/0.png", "defects/notch/2.png"}


def test_depths_of_the_defects_that_differ_are_told(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "parts"
    copytree(parts, root)
    for number, file in enumerate(sorted((root / "defects" / "spot").glob("*.png"))):
        values = read_image(file)[:, :, 0].astype(np.uint16) * 4
        values[0, 0] = 4095 if number else 1000
        Image.fromarray(values).save(file)
    assert synthesize(command(root, tmp_path / "out", "--split", "all")) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "--bits" in line]
    assert said.startswith(
        f"note: in {root} 16-bit pictures of parts are by their values 1 of 10 bits (defects/spot/0.png)"
    )


def test_bad_input(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Split(["defects/spot/9.png"], [], 0, 0.5)
    other.save(tmp_path / "other.json")
    (tmp_path / "normals").mkdir()
    write_image(tmp_path / "normals" / "0.png", plate(90, 0))
    for more, says in (
        (["--anomaly_name", "dent"], "--anomaly_name dent: transplant knows parts/notch, parts/spot"),
        (["--split", str(tmp_path / "gone.json")], "cannot read the split"),
        (["--split", str(tmp_path / "other.json")], "the split does not know 12 of 12 defects"),
        (["--defects", str(tmp_path / "gone")], "gone is not there; check the path"),
        (["--defects", str(tmp_path / "normals")], "no usable defect with a mask"),
        (["--mask_path", str(parts / "masks")], "transplant draws its own masks; leave --mask_path and --masks out"),
        (["method.blend=glue"], "blend='glue' is unknown; use one of poisson, feather"),
        (["method.split=all"], "method.split is set by --split; use that"),
        (["method.turn=200"], "turn=200 is out of range"),
        (["--material", "metal"], "--material is for --method procedural, not transplant"),
        (["--pt_path", "x"], "--pt_path is not for transplant"),
    ):
        assert synthesize(command(parts, tmp_path / "out", *more)) == 2
        line = capsys.readouterr().err
        assert says in line, line
        assert line.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_a_speck_beside_a_type_s_defects_is_a_slip_of_the_brush(tmp_path: Path) -> None:
    """Three large defects, a speck by itself in a picture and one beside a large defect: no pair is made of specks."""
    for number in range(4):
        image, mask = plate(120, number), np.zeros((SIDE, SIDE), np.uint8)
        if number:
            mask[20:60, 20:60] = 1
        if number < 2:
            mask[80:82, 80:82] = 1
        image[mask > 0] //= 2
        write_image(tmp_path / "defects" / "area" / f"{number}.png", image)
        write_mask(tmp_path / "masks" / "area" / f"{number}.png", mask)
    write_image(tmp_path / "normal" / "0.png", plate(120, 9))
    method = create("transplant", on_object="off")
    assert isinstance(method, Transplant)
    method.fit(open_dataset(tmp_path))
    (kind,) = method.types
    assert sorted(c.source.name for c in method.cutouts[kind]) == ["1.png", "2.png", "3.png"]
    assert sorted(sample.image.name for sample in method.samples) == ["1.png", "2.png", "3.png"]
    assert min(method.synthesize(plate(120, 9), None, rng(seed))[1].sum() for seed in range(8)) > 500

"""The drawn dataset: pictures, defects, and the folder they are written to."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fast.cli import draw_dataset as draw_dataset_command
from fast.procedural import DEFECTS, MATERIALS, defects_of, draw_dataset, draw_defect, draw_surface
from fast.procedural.defects import DRAWABLE, LARGE
from fast.procedural.traits import KINDS, TRAITS, Traits
from fast.runtime.command import run_cli
from ldm.errors import UserError

SIZE = 96
FEW = ("scratch", "crack", "hole")
SMALL = {
    "materials": ("leather", "wood"),
    "normals": 2,
    "test_normals": 1,
    "defects_per_type": 1,
    "size": 64,
    "defects": FEW,
}
# Three materials for each type, from as many families as it occurs on.
OCCURS = {d: [m for m in MATERIALS if d in defects_of(m)] for d in DEFECTS}
# Those that are drawn by name alone may come on any.
OCCURS |= {d: ["rolled_metal", "leather", "concrete"] for d in DRAWABLE if d not in DEFECTS}
SAMPLE = [(m, d) for d, ms in OCCURS.items() for m in ms[:: max(1, (len(ms) - 1) // 2)][:3]]


def rng_for(*parts: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


def read_all(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.png")}


@pytest.mark.parametrize("material", MATERIALS)
def test_a_surface_is_a_textured_picture_that_its_generator_alone_decides(material: str) -> None:
    first, again, other = (draw_surface(material, np.random.default_rng(s), SIZE) for s in (3, 3, 4))
    assert first.shape == (SIZE, SIZE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.std() > 5
    assert 35 < first.mean() < 225


@pytest.fixture(scope="module")
def surfaces() -> dict[str, NDArray[np.uint8]]:
    return {m: draw_surface(m, rng_for(m), SIZE) for m in {m for m, _ in SAMPLE}}


@pytest.mark.parametrize(("material", "defect"), SAMPLE)
def test_a_defect_shows_inside_its_mask_and_touches_nothing_outside(
    material: str, defect: str, surfaces: dict[str, NDArray[np.uint8]]
) -> None:
    image, shares = surfaces[material], []
    before = image.copy()
    for i in range(2):
        drawn, mask = draw_defect(image, material, defect, rng_for(material, defect, i))
        assert np.array_equal(image, before)
        assert drawn.dtype == mask.dtype == np.uint8
        assert mask.shape == image.shape[:2]
        assert set(np.unique(mask)) == {0, 1}
        assert np.array_equal(drawn[mask == 0], image[mask == 0])
        change = np.abs(drawn.astype(float) - image)[mask > 0]
        assert change.mean() >= (7 if defect in LARGE else 12)
        shares.append((change.max(1) >= 3).mean())
    assert np.mean(shares) >= 0.7
    again, mask_again = draw_defect(image, material, defect, rng_for(material, defect, 1))
    assert np.array_equal(again, drawn)
    assert np.array_equal(mask_again, mask)


@pytest.mark.parametrize("defect", DRAWABLE)
@pytest.mark.parametrize("level", [0, 255])
def test_a_defect_shows_on_ground_that_can_get_no_darker_or_lighter(defect: str, level: int) -> None:
    image = np.full((64, 90, 3), level, np.uint8)
    drawn, mask = draw_defect(image, OCCURS[defect][0], defect, rng_for(defect, level))
    assert mask.shape == (64, 90)
    assert np.abs(drawn.astype(float) - image)[mask > 0].mean() >= (7 if defect in LARGE else 12)


def test_materials_have_the_defects_of_their_kind() -> None:
    assert len(DEFECTS) >= 17
    assert all(OCCURS.values())
    for material in TRAITS:
        types = defects_of(material)
        assert len(types) >= 8
        assert list(types) == [d for d in DEFECTS if d in types]
    assert "rust" in defects_of("cast_metal")
    assert not {"rust", "chip", "dent"} & set(defects_of("fabric"))
    assert not {"fray", "tear", "thread"} & set(defects_of("glass"))
    assert "missing" in defects_of("perforated_metal")
    assert "missing" not in defects_of("leather")


@pytest.mark.parametrize("kind", KINDS)
def test_traits_stand_in_for_the_name_of_a_material(kind: str) -> None:
    """A surface the project has no name for is described by its traits, and drawn on by them."""
    image = draw_surface("wood", rng_for("traits"), 64)
    own = Traits(kind, (200, 190, 180), 0.5, 0.2, 0.4, 0.3)
    for defect in defects_of(own)[:3]:
        drawn, mask = draw_defect(image, own, defect, rng_for(kind, defect))
        assert np.array_equal(drawn[mask == 0], image[mask == 0])
        assert mask.any()
    named = next(m for m in TRAITS if TRAITS[m].kind == kind)
    pair = [draw_defect(image, m, "hole", rng_for(kind)) for m in (named, TRAITS[named])]
    assert np.array_equal(pair[0][0], pair[1][0])


def test_traits_of_an_unknown_kind_are_refused() -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    with pytest.raises(UserError, match="unknown kind of material 'jelly'; choose from metal"):
        draw_defect(image, Traits("jelly", (9, 9, 9), 0.1, 0.1, 0.1, 0.1), "hole", rng_for())


def test_a_dent_is_lit_from_the_side_the_picture_is_lit_from() -> None:
    """Where the lamp stands on the other side, the light and the dark flank of a dent change places."""
    ramp = np.linspace(90, 170, 128)
    leans = []
    for levels in (ramp, ramp[::-1]):
        image = np.repeat(np.tile(levels, (128, 1))[..., None], 3, axis=2).astype(np.uint8)
        for seed in range(8):
            drawn, mask = draw_defect(image, "rubber", "dent", np.random.default_rng(seed))
            y, x = np.nonzero(mask)
            change = (drawn.astype(float) - image).mean(2)[y, x]
            leans.append(float(((change - change.mean()) * (x - x.mean())).sum()))
    from_right, from_left = np.array(leans[:8]), np.array(leans[8:])
    assert np.mean(from_right * from_left < 0) >= 0.8


def test_defects_repeat_and_vary_in_size() -> None:
    image = draw_surface("leather", np.random.default_rng(0), 128)
    masks = [draw_defect(image, "leather", "hole", np.random.default_rng(s))[1] for s in [5, 5, *range(10)]]
    assert np.array_equal(masks[0], masks[1])
    areas = [int(m.sum()) for m in masks[2:]]
    assert max(areas) > 4 * min(areas)


@pytest.mark.parametrize(
    ("material", "defect"), [("cheese", "hole"), ("leather", "melancholy")], ids=["unknown material", "unknown defect"]
)
def test_unknown_names_are_refused_with_the_known_ones(material: str, defect: str) -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    with pytest.raises(UserError, match=r"unknown .*choose from .*(leather|scratch)"):
        draw_defect(image, material, defect, np.random.default_rng(0))


def test_surface_refuses_unknown_material_and_tiny_size() -> None:
    with pytest.raises(UserError, match="unknown material 'cheese'"):
        draw_surface("cheese", np.random.default_rng(0))
    with pytest.raises(UserError, match="size is 8; it must be 32 or more"):
        draw_surface("wood", np.random.default_rng(0), 8)


def test_dataset_has_the_layout_and_counts_change_no_picture(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    few = draw_dataset(tmp_path / "few", **SMALL, progress=lambda *step: seen.append(step))  # type: ignore[arg-type]
    assert few == tmp_path / "few"
    names = set(read_all(few))
    expected = {"train/good/000.png", "train/good/001.png", "test/good/000.png"}
    expected |= {f"test/{d}/000.png" for d in FEW} | {f"ground_truth/{d}/000_mask.png" for d in FEW}
    assert names == {f"{m}/{p}" for m in ("leather", "wood") for p in expected}
    assert [s[:2] for s in seen] == [(i + 1, 12) for i in range(12)]
    assert not list(tmp_path.glob("*.part"))
    mask = cv2.imread(str(few / "wood/ground_truth/crack/000_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.shape == (64, 64)
    assert set(np.unique(mask)) == {0, 255}

    counts = {"normals": 1, "test_normals": 0, "defects_per_type": 2}
    more = draw_dataset(tmp_path / "more", **{**SMALL, **counts, "materials": ("wood",)})  # type: ignore[arg-type]
    shared = read_all(few).keys() & read_all(more).keys()
    assert len(shared) == 1 + 2 * len(FEW)
    assert all(read_all(few)[name] == read_all(more)[name] for name in shared)


def test_a_material_gets_the_types_that_occur_on_it_unless_some_are_named(tmp_path: Path) -> None:
    root = draw_dataset(tmp_path / "set", materials=("glass",), normals=0, test_normals=0, defects_per_type=1, size=32)
    assert sorted(p.name for p in (root / "glass/test").iterdir()) == sorted(defects_of("glass"))
    # A folder drawn when a material had other types is still known as drawn, and drawn anew.
    draw_dataset(root, **{**SMALL, "materials": ("glass",)})  # type: ignore[arg-type]
    assert sorted(p.name for p in (root / "glass/ground_truth").iterdir()) == sorted(FEW)


def test_rerun_does_nothing_until_something_is_missing_or_asked_differently(tmp_path: Path) -> None:
    root, one = tmp_path / "set", {**SMALL, "materials": ("wood",)}
    draw_dataset(root, **one)  # type: ignore[arg-type]
    drawn = read_all(root)
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob("*.png")}
    draw_dataset(root, **one, progress=lambda *_: pytest.fail("drew again"))  # type: ignore[arg-type]
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*.png")} == stamps

    (root / "wood/train/good/001.png").unlink()
    draw_dataset(root, **one)  # type: ignore[arg-type]
    assert read_all(root) == drawn

    draw_dataset(root, **one, seed=1)  # type: ignore[arg-type]
    assert read_all(root).keys() == drawn.keys()
    assert read_all(root) != drawn


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match=r"not drawn, such as mine.txt"):
        draw_dataset(tmp_path / "set", **SMALL)  # type: ignore[arg-type]
    assert (tmp_path / "set" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"materials": ("cheese",)}, "unknown material 'cheese'"),
        ({"materials": ()}, "no materials"),
        ({"defects": ("melancholy",)}, "unknown defect 'melancholy'; choose from scratch"),
        ({"defects": ("hole", "hole")}, "defects hole, hole name one twice"),
        ({"materials": ("wood", "wood")}, "name each once"),
        ({"normals": -1}, "normals is -1"),
        ({"size": 8}, "size is 8"),
        ({"seed": -2}, "seed is -2"),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        draw_dataset(tmp_path / "set", **{**SMALL, **change})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_script_prints_the_folder_or_one_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "set")
    counts = ["--normals", "1", "--test-normals", "0", "--defects", "0", "--size", "64"]
    assert run_cli(draw_dataset_command.main, ["--out", out, *counts, "--materials", "fabric"]) == 0
    assert capsys.readouterr().out.strip() == out
    assert (tmp_path / "set/fabric/train/good/000.png").is_file()
    assert run_cli(draw_dataset_command.main, ["--out", out, "--materials", "cheese"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: unknown material 'cheese'")


@pytest.mark.parametrize("material", MATERIALS)
def test_pictures_of_one_product_share_their_colours(material: str) -> None:
    """Mean chroma varies less between pictures with the same dye than between pictures of their own."""

    def spread(shared: bool) -> float:
        pictures = [
            draw_surface(material, np.random.default_rng(i), 64, np.random.default_rng(7) if shared else None)
            for i in range(8)
        ]
        assert len({p.tobytes() for p in pictures}) == 8
        means = np.array([p.reshape(-1, 3).mean(0) for p in pictures])
        return float((means / means.sum(1, keepdims=True)).std(0).sum())

    assert spread(shared=True) < 0.7 * spread(shared=False)


def test_products_take_turns(tmp_path: Path) -> None:
    one = draw_dataset(tmp_path / "one", materials=("wood",), normals=2, test_normals=0, defects_per_type=0, size=32)
    two = draw_dataset(
        tmp_path / "two", materials=("wood",), normals=2, test_normals=0, defects_per_type=0, size=32, products=1
    )
    names = ["wood/train/good/000.png", "wood/train/good/001.png"]
    assert all((one / n).read_bytes() != (two / n).read_bytes() for n in names)

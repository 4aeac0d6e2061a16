"""Procedural: defects drawn into photographs of any size, material and camera."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fast.data.images import read_image, read_mask, write_image, write_mask
from fast.generators import create
from fast.generators.looks import looks_notes
from fast.generators.names import SYNONYMS, USUAL, drawn_as
from fast.procedural import draw_surface
from fast.procedural.defects import DRAWABLE, FOLLOWERS
from fast.procedural.drawing import draw_onto
from fast.procedural.photo import look_at, traits_of
from fast.procedural.traits import FAMILIES, TRAITS
from ldm.errors import UserError
from support.synthesis import leftovers, manifest, synthesize, whole_set


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key or 0)


def surface(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A shaded, faintly noisy plate in colour."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    level = 110 + 40 * (1 - y) + 12 * (1 - x)
    noise = rng(seed, height).normal(0, 2.0, (height, width, 3))
    return np.clip(level[..., None] * np.array([1, 0.9, 0.8]) + noise, 0, 255).astype(np.uint8)


def grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image.mean(2).astype(np.uint8)[..., None], 3, axis=2)


# --- what a photograph says ---


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_the_lamp_is_on_the_side_to_which_the_object_brightens(dx: int, dy: int) -> None:
    y, x = np.mgrid[-1:1:128j, -1:1:160j]
    image = np.repeat((120 + 60 * (dx * x + dy * y))[..., None], 3, 2).astype(np.uint8)
    light = look_at(image).light
    assert np.hypot(*light) == pytest.approx(1)
    assert light[0] * dx + light[1] * dy > 0.95


def test_the_lamp_is_read_from_the_object_alone() -> None:
    """A bright object in the corner of dark ground is not lit from that corner."""
    image, region = np.zeros((128, 128, 3), np.uint8), np.zeros((128, 128), np.uint8)
    region[70:120, 70:120] = 1
    image[70:120, 70:120] = np.linspace(200, 120, 50).astype(np.uint8)[None, :, None]
    assert look_at(image, region).light[0] < -0.9


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_noise_is_measured(sigma: float) -> None:
    image = np.clip(120 + rng(1).normal(0, sigma, (200, 200, 1)), 0, 255)
    found = look_at(np.repeat(np.rint(image), 3, 2).astype(np.uint8)).noise
    assert found == pytest.approx(sigma, rel=0.25)


def test_a_softer_picture_is_told_from_a_sharp_one() -> None:
    board = (np.indices((160, 160)).sum(0) // 40 % 2 * 120 + 60).astype(np.float32)
    blurs = [look_at(np.repeat(cv2.GaussianBlur(board, (0, 0), s)[..., None], 3, 2).astype(np.uint8)).blur
             for s in (0.4, 1.2, 2.2)]  # fmt: skip
    assert blurs[0] < 0.7 < blurs[1] < blurs[2]
    assert blurs[1] == pytest.approx(1.2, abs=0.4)


def test_the_grain_and_the_camera_are_read() -> None:
    lines = np.repeat(rng(3).integers(80, 160, (96, 1, 1)), 96, axis=1).repeat(3, 2).astype(np.uint8)
    photo = look_at(lines)
    assert photo.grained
    assert abs(np.sin(photo.grain)) < 0.1  # along x
    assert photo.grey
    assert not look_at(surface(96, 96)).grey
    assert traits_of(lines).kind == "metal"
    assert traits_of(np.full((64, 64, 3), (220, 40, 30), np.uint8)).kind == "polymer"


# --- pairs ---


@pytest.mark.parametrize("word", DRAWABLE)
def test_every_type_shows_inside_its_mask_and_nowhere_else(word: str) -> None:
    image = surface(150, 220)
    before, made = image.copy(), create("procedural", on_object="off")
    for seed in range(2):
        pair = made.synthesize(image, None, rng(seed, len(word)), word)
        again = made.synthesize(image, None, rng(seed, len(word)), f"plate/{word}")
        assert (image == before).all()
        assert all((one == two).all() for one, two in zip(pair, again, strict=True))
        change = np.abs(pair[0].astype(int) - image).max(2)
        assert pair[1].dtype == np.uint8
        assert set(np.unique(pair[1])) == {0, 1}
        assert (change[pair[1] == 0] == 0).all()
        assert (change[pair[1] > 0] >= 3).mean() > 0.8
        assert change[pair[1] > 0].mean() > 8
        other = made.synthesize(image, None, rng(seed + 9, len(word)), word)
        assert (other[1] != pair[1]).any()


@pytest.mark.parametrize("word", ["scratch", "crack", "stain", "rust", "contamination", "burn"])
def test_a_grey_picture_stays_exactly_grey(word: str) -> None:
    image = grey(surface(120, 130))
    made, mask = create("procedural", on_object="off").synthesize(image, None, rng(4), word)
    assert mask.any()
    assert (made == made[..., :1]).all()
    given = np.zeros((120, 130), np.uint8)
    given[30:60, 40:90] = 1
    if word in FOLLOWERS:
        made, _ = create("procedural").synthesize(image, given, rng(4), word)
        assert (made == made[..., :1]).all()


def test_a_coloured_picture_gets_colour() -> None:
    made, mask = create("procedural", on_object="off").synthesize(surface(160, 160), None, rng(2), "rust")
    spread = made.max(2).astype(int) - made.min(2)
    assert spread[mask > 0].mean() > 40


def test_defects_lie_on_the_object_and_end_at_its_outline() -> None:
    image = np.full((200, 260, 3), 20, np.uint8)
    y, x = np.mgrid[:200, :260]
    region = (np.hypot(x - 130, y - 100) < 70).astype(np.uint8)
    image[region > 0] = surface(200, 260)[region > 0]
    made = create("procedural")
    for seed in range(12):
        for given in (region, None):  # None: the estimate finds the same disc
            _, mask = made.synthesize(image, None, rng(seed), "crack", region=given)
            grown = cv2.dilate(region, np.ones((9, 9), np.uint8))
            assert not (mask & (1 - (region if given is not None else grown))).any()
            assert mask.any()


def test_sizes_follow_the_object_and_stay_within_what_a_large_picture_can_show() -> None:
    made, sides = create("procedural", on_object="off"), []
    big = cv2.resize(surface(150, 200), (1600, 1200), interpolation=cv2.INTER_LINEAR)
    for seed in range(5):
        _, mask = made.synthesize(big, None, rng(seed), "scratch")
        _, _, width, height = cv2.boundingRect(mask)
        sides.append(max(width, height))
    assert max(sides) <= 1024
    assert min(sides) >= 15
    region = np.zeros((1200, 1600), np.uint8)
    region[100:190, 200:1200] = 1  # a strip of 90 px: nothing on it is longer than that
    for seed in range(3):
        _, mask = made.synthesize(big, None, rng(seed), "hole", region=region)
        assert max(cv2.boundingRect(mask)[2:]) <= 90


@pytest.mark.parametrize("shape", [(32, 32), (40, 300), (301, 33), (65, 65)])
def test_odd_sizes(shape: tuple[int, int]) -> None:
    made = create("procedural", on_object="off")
    for word in ("crack", "hole", "stain"):
        image, mask = made.synthesize(surface(*shape), None, rng(1), word)
        assert image.shape == (*shape, 3)
        assert mask.any()


@pytest.mark.parametrize("level", [0, 255])
def test_ground_that_can_get_no_darker_or_lighter(level: int) -> None:
    image = np.full((90, 110, 3), level, np.uint8)
    made, mask = create("procedural", on_object="off").synthesize(image, None, rng(level), "crack")
    assert (np.abs(made.astype(int) - image).max(2)[mask > 0] >= 3).mean() > 0.8


@pytest.mark.parametrize("word", FOLLOWERS)
def test_a_given_mask_is_filled(word: str) -> None:
    image, mask = surface(128, 128), np.zeros((128, 128), np.uint8)
    cv2.ellipse(mask, (50, 60), (26, 14), 20, 0, 360, 255, -1)
    cv2.line(mask, (80, 20), (120, 100), 255, 3)
    mask[5, 5] = 255  # a speck
    made, found = create("procedural").synthesize(image, mask, rng(3), word)
    assert not (found & (mask == 0)).any()
    assert (made[found == 0] == image[found == 0]).all()
    # A crack is a line in whatever it is given; the others fill it.
    assert found.sum() > (0.15 if word == "crack" else 0.5) * (mask > 0).sum()
    assert word == "crack" or found[60, 50] | found[60, 44] | found[56, 50]


def test_types_with_a_shape_of_their_own_refuse_a_mask() -> None:
    mask = np.ones((64, 64), np.uint8)
    with pytest.raises(UserError, match="thread has a shape of its own and cannot fill a given mask; leave the masks"):
        create("procedural").synthesize(surface(64, 64), mask, rng(), "thread")
    _, found = create("procedural").synthesize(surface(64, 64), mask, rng(), "cut")  # scratch can, tear cannot
    assert found.any()


def test_materials_by_name_by_family_and_unknown() -> None:
    image = surface(120, 120)
    for name in ("leather", "hide", "cloth", "metal"):
        assert create("procedural", material=name, on_object="off").synthesize(image, None, rng(), "hole")[1].any()
    assert "rust" not in create("procedural", material="cloth").words
    assert tuple(create("procedural").words) == USUAL
    assert all(TRAITS[material].kind == family for family, material in FAMILIES.items())
    with pytest.raises(UserError, match=r"unknown material 'tin'; choose from .* or a family: metal"):
        create("procedural", material="tin")


def test_words() -> None:
    made = create("procedural", looks={"kratzer": ["scratch"], "delle": "dent"}, on_object="off")
    one, two = (made.synthesize(surface(96, 96), None, rng(8), w)[0] for w in ("kratzer", "scratch"))
    assert (one == two).all()
    assert made.settings()["looks"] == {"kratzer": ["scratch"], "delle": ["dent"]}
    assert all(set(types) <= set(DRAWABLE) for types in SYNONYMS.values())
    assert not set(SYNONYMS) & set(DRAWABLE)
    with pytest.raises(UserError, match=r"cannot draw 'riss'; name one of scratch.*method.looks.riss=\[scratch\]"):
        made.synthesize(surface(64, 64), None, rng(), "riss")
    with pytest.raises(UserError, match=r"say how it looks: 'method.looks=\{xqz 7: \[scratch\]\}'$"):
        made.check_word("part/xqz 7")
    with pytest.raises(UserError, match=r"looks=5 must say types by name"):
        create("procedural", looks=5)
    with pytest.raises(UserError, match=r"looks.a=\['b'\] must be a list of types"):
        create("procedural", looks={"a": ["b"]})
    with pytest.raises(UserError, match="32 px or more a side, not 20 x 40"):
        made.synthesize(surface(40, 20), None, rng(), "scratch")


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("scratch", ("scratch",)),
        ("Scratches", ("scratch",)),
        ("scratch_head", ("scratch",)),
        ("metal_contamination", ("contamination",)),
        ("broken_large", ("break", "chip", "crack")),
        ("poke-insulation", ("hole",)),
        ("oil stains 2", ("oil", "stain")),
        ("dusts", ("contamination",)),
        ("grease", ("oil", "contamination")),
        ("missing", ("missing",)),
        ("missing_hole", ()),
        ("no_crack", ()),
        ("rust-free", ()),
        ("pin_hole", ("pit",)),
        ("Blow-holes", ("hole", "pit")),
        ("ScratchHead", ("scratch",)),
        ("cavities", ("hole", "pit")),
        ("edge", ("break", "chip")),
        ("chip_around_edge_and_corner", ("chip",)),
        ("cut_inner_insulation", ()),
        ("same_colour_spot", ("stain",)),
        ("thread_side", ()),
        ("damaged_case", ()),
        ("combined", ()),
        ("scrach", ()),
        ("glass", ()),
        ("07", ()),
    ],
)
def test_names_are_drawn_as_the_words_in_them(name: str, types: tuple[str, ...]) -> None:
    assert drawn_as(name) == types


def test_how_to_say_otherwise_is_said_as_a_shell_takes_it() -> None:
    (note,) = looks_notes(["part/deep scratches"], {}, "method.looks.{name}=[scratch]")
    assert note == (
        "note: deep scratches is drawn as scratch; if it looks otherwise, say how: "
        "'method.looks={deep scratches: [scratch]}'"
    )


def test_a_longer_name_is_drawn_as_its_word() -> None:
    made = create("procedural", on_object="off")
    one, two = (made.synthesize(surface(96, 96), None, rng(8), w)[0] for w in ("nut/scratch_head", "scratch"))
    assert (one == two).all()


def test_a_change_is_as_sharp_as_the_photograph() -> None:
    """The same crack in a sharp and in a blurred picture: the second's edges are softer."""
    plate = draw_surface("plastic", rng(3), 160)
    slopes = []
    for sigma in (0.0, 2.0):
        image = cv2.GaussianBlur(plate, (0, 0), sigma) if sigma else plate
        photo = look_at(image)
        drawn, _ = draw_onto(image, traits_of(image), "hole", rng(5), photo)
        change = (drawn.astype(np.float32) - image).mean(2)
        slopes.append(np.abs(np.diff(change, axis=1)).max() / np.abs(change).max())
    assert slopes[1] < 0.8 * slopes[0]


# --- the command ---


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for number in range(3):
        write_image(tmp_path / "parts" / "normal" / f"{number}.png", surface(90, 120 + 10 * number, number))
    return tmp_path / "parts" / "normal"


def command(root: Path, out: Path, *more: str) -> list[str]:
    given = ["--method", "procedural", "--data_root", str(root), "--sample_name", str(out)]
    return [*given, "--count", "6", *more]


def test_the_command(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["--anomaly_name", "scratch,crack, dent", "--material", "metal"]
    assert synthesize(command(parts, tmp_path / "a", *argv)) == 0
    rows = manifest(tmp_path / "a")
    assert {r["type"] for r in rows} <= {"/scratch", "/crack", "/dent"}
    assert len({r["type"] for r in rows}) > 1
    assert leftovers(tmp_path / "a") == []
    for row in rows:
        assert (row["mask_kind"], row["options"]["material"], row["options"]["on_object"]) == ("own", "metal", "auto")
        mask = read_mask(tmp_path / "a" / row["mask"])
        made, normal = read_image(tmp_path / "a" / row["image"]), read_image(row["normal_source"])
        assert mask.any()
        assert (made[mask == 0] == normal[mask == 0]).all()
    # Pair i depends on the seed and i alone: neither on the processes nor on the number in flight.
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert synthesize(command(parts, tmp_path / "b", *argv, "--batch_size", "1")) == 0
    assert whole_set(tmp_path / "a") == whole_set(tmp_path / "b")


def test_what_a_name_of_the_trade_is_drawn_as_is_told(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--method", "procedural", "--data_root", str(parts), "--on_object", "off", "--count", "1"]
    names = ["--anomaly_name", "part/colour,part/scratch,part/pore"]
    note = "note: {}; if it looks otherwise, say how: method.looks.{}=[scratch]"
    for number, (own, told) in enumerate([
        ([], note.format("colour is drawn as stain or fade; pore is drawn as pit", "colour")),
        (["method.looks.colour=[oil]"], note.format("pore is drawn as pit", "pore")),
        (["method.looks.colour=[oil]", "method.looks.pore=[hole]"], None),
    ]):  # fmt: skip
        assert synthesize([*argv, *names, "--sample_name", str(tmp_path / str(number)), *own]) == 0
        assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")] == [told][
            : bool(told)
        ]


def test_without_a_name_it_makes_what_the_material_has(parts: Path, tmp_path: Path) -> None:
    assert synthesize(command(parts, tmp_path / "out", "--material", "cloth", "--size", "64")) == 0
    rows = manifest(tmp_path / "out")
    assert {r["type"][1:] for r in rows} <= set(create("procedural", material="cloth").words)
    assert read_image(tmp_path / "out" / rows[0]["image"]).shape == (64, 64, 3)


def test_masks_and_regions(parts: Path, tmp_path: Path) -> None:
    mask = np.zeros((90, 120), np.uint8)
    mask[20:50, 30:80] = 1
    write_mask(tmp_path / "masks" / "stain" / "m.png", mask)
    command_a = command(parts, tmp_path / "a", "--mask_path", str(tmp_path / "masks"), "--size", "96")
    assert synthesize(command_a) == 0
    assert {(r["type"], r["mask_kind"]) for r in manifest(tmp_path / "a")} == {("/stain", "given")}
    left = np.zeros((90, 120), np.uint8)
    left[:, :60] = 1
    for number in range(3):
        write_mask(tmp_path / "regions" / f"{number}.png", left)
    for number, where in enumerate((tmp_path / "regions", tmp_path / "regions" / "0.png")):
        out = tmp_path / f"r{number}"
        assert synthesize(command(parts, out, "--on_object", str(where), "--anomaly_name", "crack")) == 0
        for row in manifest(out):
            found = read_mask(out / row["mask"])
            assert not found[:, found.shape[1] // 2 + 1 :].any()


def test_bad_input(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, says in (
        (["--anomaly_name", "scratch,blob"], "procedural cannot draw 'blob'; name one of scratch, crack"),
        (["--anomaly_name", "scratch,"], "names nothing between two commas"),
        (["--material", "tin"], "unknown material 'tin'; choose from"),
        (["method.material=metal"], "method.material is set by --material; use that"),
        (
            ["--preview", str(tmp_path / "p.png")],
            "--preview shows masks that are there before the picture, and procedural brings its own",
        ),
        (["--on_object", "autoo"], "'autoo' is unknown; use one of"),
        (["--on_object", "nowhere/r.png"], "nowhere/r.png"),
        (["method.window=[0.9,0.2]"], "window=[0.9, 0.2] is no range"),
        (
            ["--defects", "x"],
            "--defects is for --method transplant, not procedural, or for --keep or --split; leave it out",
        ),
        (["--steps", "5"], "--steps is not for procedural"),
    ):
        assert synthesize(command(parts, tmp_path / "out", *more)) == 2
        line = capsys.readouterr().err
        assert says in line
        assert line.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_settings_tell_runs_apart() -> None:
    def settings(**options: Any) -> dict[str, Any]:
        return create("procedural", **options).settings()

    assert settings() == settings()
    assert settings() != settings(material="wood")
    assert settings() != settings(window=[0.2, 0.5])
    assert settings() != settings(on_object="off")


@pytest.mark.parametrize(
    ("change", "sign", "word"), [("darker", -1, "stain"), ("darker", -1, "scratch"), ("brighter", 1, "scratch")]
)
def test_only_one_sign_of_change_is_kept(change: str, sign: int, word: str) -> None:
    image, method = surface(160, 200), create("procedural", on_object="off", change=change)
    for seed in range(3):
        made, mask = method.synthesize(image, None, rng(seed), word)
        signed = sign * (made.astype(int) - image)
        assert signed.min() >= 0
        assert signed[mask > 0].mean() > 0
        assert not signed[mask == 0].any()
    given = np.zeros(image.shape[:2], np.uint8)
    given[60:90, 60:120] = 1
    made, mask = method.synthesize(image, given, rng(1), word)
    assert (sign * (made.astype(int) - image)).min() >= 0
    assert mask[given == 0].sum() == 0 < mask.sum()


def test_change_is_one_of_three() -> None:
    assert create("procedural", change="darker").settings() != create("procedural").settings()
    with pytest.raises(UserError, match=r"change=darkest is unknown; use one of any, darker, brighter"):
        create("procedural", change="darkest")

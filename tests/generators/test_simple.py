"""CutPaste, DRAEM and GLASS: what they paste, where, and from which textures."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from fast.data.images import write_image, write_mask
from fast.generators import create
from fast.generators import textures as textures_module
from fast.generators.blend import blend, change, changed_pair
from fast.generators.cutpaste import CutPaste, rectangle, turned
from fast.generators.draem import DRAEM
from fast.generators.glass import GLASS, combine, glass_mask
from fast.generators.textures import DRAEM_OPERATIONS, GLASS_OPERATIONS, Textures, augment_draem, augment_glass
from ldm.errors import UserError
from support.paths import ROOT

Rng = np.random.Generator
METHODS = ("cutpaste", "draem", "glass")


def rng(*key: int) -> Rng:
    return np.random.default_rng(key or 0)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return rng(seed, height, width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def unlike(height: int, width: int) -> np.ndarray:
    """A picture in which no two pixels are alike: a pixel's number in its three bytes."""
    number = np.arange(height * width).reshape(height, width)
    return np.stack([number // 65536, number // 256 % 256, number % 256], -1).astype(np.uint8)


def place_of(pixels: np.ndarray, width: int) -> np.ndarray:
    """(row, column) in `unlike` of pixels (n,3)."""
    number = pixels.astype(int) @ [65536, 256, 1]
    return np.stack([number // width, number % width], -1)


@pytest.fixture(autouse=True)
def small_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textures_module, "SIDES", (64, 128))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four textures of one colour each, some below a subfolder; the first is 20 x 40 with its middle half white."""
    root = tmp_path_factory.mktemp("textures")
    first = np.zeros((20, 40, 3), np.uint8)
    first[:, 10:30] = 255
    write_image(root / "a.png", first)
    for number, level in enumerate((60, 120, 180)):
        write_image(root / "dotted" / f"{number}.png", np.full((30, 30, 3), level, np.uint8))
    (root / "readme.txt").write_text("no image")
    return root


# --- what the three share ---


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(64, 64), (40, 70)])
def test_pair(name: str, shape: tuple[int, int], given: bool) -> None:
    generator = create(name)
    for seed in range(3):
        image = noise(*shape, seed)
        mask = np.zeros(shape, np.uint8) if given else None
        if mask is not None:
            mask[5:20, 30:33] = 255
        before = image.copy(), None if mask is None else mask.copy()
        made, where = generator.synthesize(image, mask, rng(seed))
        again, where_again = generator.synthesize(image, mask, rng(seed))
        assert made.dtype == where.dtype == np.uint8
        assert made.shape == image.shape
        assert where.shape == shape
        assert set(np.unique(where)) == {0, 1}
        assert (made[where == 0] == image[where == 0]).all()
        assert (made[where == 1] != image[where == 1]).any()
        assert (made == again).all()
        assert (where == where_again).all()
        assert (image == before[0]).all()
        if mask is not None:
            assert (where == (mask > 0)).all()
            assert (mask == before[1]).all()


@pytest.mark.parametrize("name", METHODS)
def test_grey_picture_stays_grey(name: str) -> None:
    image = np.repeat(noise(64, 64)[..., :1], 3, axis=2)
    generator = create(name)
    for seed in range(4):
        made, _ = generator.synthesize(image, None, rng(seed))
        assert (made == made[..., :1]).all()


@pytest.mark.parametrize("method", [DRAEM, GLASS])
def test_grey_picture_gets_colours_as_published(method: Any) -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    generator = method(keep_grey=False)
    made = [generator.synthesize(image, None, rng(seed))[0] for seed in range(6)]
    assert any((m != m[..., :1]).any() for m in made)


@pytest.mark.parametrize("name", METHODS)
def test_bad_masks(name: str) -> None:
    generator = create(name)
    with pytest.raises(UserError, match="mask is empty"):
        generator.synthesize(noise(40, 40), np.zeros((40, 40)), rng())
    with pytest.raises(UserError, match="same size"):
        generator.synthesize(noise(40, 40), np.ones((40, 41)), rng())


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("cutpaste", {"variant": "3way"}, "variant"),
        ("cutpaste", {"area": [0.2, 0.1]}, "area"),
        ("cutpaste", {"jitter": 2}, "jitter"),
        ("draem", {"textures": "/nowhere"}, "/nowhere"),
        ("draem", {"beta": [0.1, 1.1]}, "beta"),
        ("draem", {"min_change": -1}, "min_change"),
        ("glass", {"foreground": "brightest"}, "brightest"),
        ("glass", {"beta_deviation": -1}, "beta_deviation"),
        ("glass", {"opacity": 1}, "opacity"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        create(name, **options)


@pytest.mark.parametrize("name", METHODS)
def test_recipe_holds_the_defaults(name: str) -> None:
    recipe = OmegaConf.load(ROOT / "configs" / "methods" / f"{name}.yaml")
    assert recipe.method.name == name
    params = OmegaConf.to_container(recipe.method.params)
    told, plain = create(name, **params).settings(), create(name).settings()
    assert set(params) == set(plain)
    for key, value in plain.items():
        assert told[key] == (pytest.approx(value, rel=1e-4) if isinstance(value, list) else value)


def test_blend_by_hand() -> None:
    image, other = noise(8, 9, 1), noise(8, 9, 2)
    mask = (noise(8, 9, 3)[..., 0] > 128) * 7
    expected = image.astype(np.float64)
    inside = mask > 0
    expected[inside] = 0.7 * image[inside].astype(np.float64) + 0.3 * other[inside].astype(np.float64)
    assert (blend(image, other, mask, 0.3) == np.round(expected)).all()


def test_pairs_that_change_too_little_are_redrawn() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    mask = np.eye(4, dtype=np.uint8)
    changes = iter([1, 2, 5, 9])

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return blend(image, np.full_like(image, 100 + next(changes)), mask, 1), mask

    assert change(image, changed_pair(draw, image, 4)) == 5
    changes = iter([3, 9])
    assert change(image, changed_pair(draw, image, 0)) == 3
    changes = iter([1, 2, 3, 2] * 5)
    assert change(image, changed_pair(draw, image, 4)) == 3  # out of reach: the best
    assert next(changes, None) is None


# --- CutPaste ---


def test_patch_sizes() -> None:
    image, areas, aspects = noise(200, 200), [], []
    generator, source = CutPaste(variant="patch"), rng(1)
    for _ in range(300):
        _, mask = generator.synthesize(image, None, source)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert mask.sum() == height * width  # a full rectangle
        areas.append(mask.mean())
        aspects.append(width / height)
    assert 0.0195 < min(areas) < 0.025
    assert 0.145 < max(areas) < 0.152
    assert np.mean(areas) == pytest.approx(0.085, abs=0.006)
    assert 0.29 < min(aspects) < 0.35
    assert 2.9 < max(aspects) < 3.45
    assert np.mean(np.array(aspects) > 1) == pytest.approx(0.5, abs=0.09)  # log-uniform: as often upright as lying


def test_rectangle_keeps_its_area_where_its_aspect_does_not_fit() -> None:
    assert rectangle((100, 100), 0.04, 4) == (10, 40)
    assert rectangle((20, 400), 0.1, 0.25) == (20, 40)
    assert rectangle((400, 20), 0.1, 4) == (40, 20)
    assert rectangle((1, 1), 0.02, 1) == (1, 1)


def test_patch_is_a_piece_of_the_picture() -> None:
    image = unlike(80, 90)
    made, mask = CutPaste(variant="patch", jitter=0, min_change=0).synthesize(image, None, rng(3))
    shift = place_of(made[mask == 1], 90) - np.argwhere(mask)
    assert (shift == shift[0]).all()
    assert shift[0].any()


def test_given_mask_is_the_shape_that_is_cut() -> None:
    image, mask = unlike(80, 90), np.zeros((80, 90), np.uint8)
    cv2.circle(mask, (20, 30), 9, 1, -1)
    mask[70:75, 60:] = 1
    made, where = CutPaste(jitter=0).synthesize(image, mask, rng(4))
    assert (where == mask).all()
    count, parts = cv2.connectedComponents(mask)
    assert count == 3
    shifts = [place_of(made[parts == p], 90) - np.argwhere(parts == p) for p in (1, 2)]
    assert all((shift == shift[0]).all() for shift in shifts)
    assert (shifts[0][0] != shifts[1][0]).any()


def test_jitter_stays_within_its_limits() -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    levels = []
    for seed in range(60):
        made, mask = CutPaste(min_change=0).synthesize(image, None, rng(seed))
        levels.append(int(made[mask == 1].max()))
    assert 90 <= min(levels) < 93  # an even grey answers to brightness alone
    assert 107 < max(levels) <= 110


@pytest.mark.parametrize(("side", "scale"), [(256, 1), (512, 2)])
def test_scar_sizes(side: int, scale: int) -> None:
    image, sizes = noise(side, side), []
    generator = CutPaste(variant="scar", scar_turn=0)
    for seed in range(150):
        _, mask = generator.synthesize(image, None, rng(seed))
        sizes.append((np.ptp(np.flatnonzero(mask.any(0))) + 1, np.ptp(np.flatnonzero(mask.any(1))) + 1))
    (width, length), (widest, longest) = np.min(sizes, 0) / scale, np.max(sizes, 0) / scale
    assert 2 <= width < 3
    assert 15 < widest <= 16
    assert 10 <= length < 11
    assert 24 < longest <= 25


def test_turned_scar_keeps_its_area_and_its_pixels() -> None:
    piece = np.full((25, 9, 3), 200, np.uint8)
    piece[:, 4] = 50
    for degrees in (-45, -20, 10, 45):
        canvas, cover = turned(piece, degrees)
        assert float(cover.sum()) == pytest.approx(225, rel=0.06)
        assert canvas[cover == 1].min() >= 50  # no black of the canvas in it
        (_, _), (one, two), _ = cv2.minAreaRect(np.argwhere(cover)[:, ::-1].astype(np.float32))
        assert sorted((one + 1, two + 1)) == pytest.approx([9, 25], abs=1.5)
    assert turned(np.zeros((1, 1, 3), np.uint8), 45)[1].sum() >= 1


def test_union_is_either() -> None:
    image = noise(128, 128)
    sizes = [CutPaste().synthesize(image, None, rng(seed))[1].mean() for seed in range(80)]
    assert np.mean(np.array(sizes) < 0.015) == pytest.approx(0.5, abs=0.15)


def test_cutpaste_prefers_what_shows() -> None:
    image = np.full((96, 96, 3), 100, np.uint8)
    image[:, 48:] = 160
    for seed in range(20):
        made, mask = CutPaste(jitter=0, min_change=10).synthesize(image, None, rng(seed))
        assert np.abs(made[mask == 1].astype(int) - image[mask == 1]).mean() >= 10
    blind = [CutPaste(jitter=0, min_change=0).synthesize(image, None, rng(seed)) for seed in range(20)]
    assert any((made == image).all() for made, _ in blind)


# --- DRAEM ---


@pytest.mark.parametrize("beta", [0.0, 0.35, 0.8])
def test_draem_blend(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    texture = noise(48, 64, 9)
    monkeypatch.setattr(Textures, "draw", lambda self, shape, rng, resize="stretch": texture)
    monkeypatch.setattr("fast.generators.draem.augment_draem", lambda texture, rng: texture)
    image = noise(48, 64)
    made, mask = DRAEM(beta=[beta, beta]).synthesize(image, None, rng(2))
    m = mask[..., None].astype(np.float64)
    expected = (1 - m) * image + m * ((1 - beta) * texture.astype(np.float64) + beta * image.astype(np.float64))
    assert np.abs(made - expected).max() <= 0.5 + 1e-9


def test_draem_beta_is_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fast.generators.draem.augment_draem", lambda texture, rng: np.full_like(texture, 200))
    image, mask = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8))
    generator = DRAEM(min_change=0)
    beta = 1 - np.array([generator.synthesize(image, mask, rng(s))[0].max() for s in range(300)]) / 200
    assert beta.min() >= 0
    assert beta.max() <= 0.8 + 0.003
    assert np.quantile(beta, [0.25, 0.5, 0.75]) == pytest.approx([0.2, 0.4, 0.6], abs=0.07)


def test_no_own_mask_in_a_picture_of_one_pixel() -> None:
    with pytest.raises(UserError, match="give a mask"):
        DRAEM().synthesize(noise(1, 1), None, rng())


# --- GLASS ---


def test_glass_mask_algebra() -> None:
    first, second = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 0, 1]], np.uint8)
    assert combine(first, second, 0.9).tolist() == [[0, 1, 1, 1]]
    assert combine(first, second, 0.5).tolist() == [[0, 0, 0, 1]]
    assert combine(first, second, 0.1).tolist() == [[0, 0, 1, 1]]


def test_glass_shares_of_the_three_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accepted shares by the facts sheet's figures: union 37 %, intersection 28 %, single 35 %."""
    draws: list[float] = []

    def watched(first: np.ndarray, second: np.ndarray, draw: float) -> np.ndarray:
        draws.append(draw)
        return combine(first, second, draw)

    monkeypatch.setattr("fast.generators.glass.combine", watched)
    place, source, kinds = np.ones((64, 64), np.uint8), rng(8), []
    for _ in range(500):
        assert glass_mask(place, source).any()
        kinds.append(int(draws[-1] * 3))
    single, both, either = np.bincount(kinds, minlength=3) / 500
    assert either == pytest.approx(0.37, abs=0.06)
    assert both == pytest.approx(0.28, abs=0.06)
    assert single == pytest.approx(0.35, abs=0.06)


def test_glass_stays_on_the_object(tmp_path: Path) -> None:
    region = np.zeros((32, 32), np.uint8)
    region[8:24, 4:14] = 1
    write_mask(tmp_path / "part.png", region)
    generator = GLASS(foreground=str(tmp_path / "part.png"))
    image = noise(64, 64)
    for seed in range(8):
        _, mask = generator.synthesize(image, None, rng(seed))
        assert mask.any()
        assert not mask[np.kron(region, np.ones((2, 2))) == 0].any()
    given = np.zeros((64, 64), np.uint8)
    given[:4] = 1  # off the object: the caller's word counts
    assert (generator.synthesize(image, given, rng())[1] == given).all()
    with pytest.raises(UserError, match="one mask file"):
        GLASS(foreground=str(tmp_path))


def test_glass_finds_the_object_by_rule() -> None:
    image = np.full((64, 64, 3), 20, np.uint8)
    image[16:48, 16:48] = 220
    for seed in range(5):
        _, mask = GLASS(foreground="otsu").synthesize(image, None, rng(seed))
        assert mask[14:50, 14:50].sum() == mask.sum() > 0  # the rule smooths the outline by a pixel or two


def test_glass_beta_is_normal_and_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fast.generators.glass.augment_glass", lambda texture, rng: np.full_like(texture, 200))
    image, mask = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8))
    generator = GLASS(min_change=0)
    beta = 1 - np.array([generator.synthesize(image, mask, rng(s))[0].max() for s in range(300)]) / 200
    assert beta.mean() == pytest.approx(0.5, abs=0.02)
    assert beta.std() == pytest.approx(0.1, abs=0.015)
    wide = GLASS(beta_deviation=9)
    ends = {int(wide.synthesize(image, mask, rng(s))[0].max()) for s in range(20)}
    assert ends == {40, 160}
    # beta is the normal picture's share: of black, with a texture of 200, 0.7 of 200 are left.
    assert (GLASS(beta_mean=0.3, beta_deviation=0).synthesize(image, mask, rng(0))[0] == 140).all()


# --- textures ---


def test_drawn_textures_do_not_depend_on_order_or_thread() -> None:
    forward, backward = Textures(), Textures()
    numbers = [0, 1, 7, 30]
    with ThreadPoolExecutor(4) as threads:
        one = list(threads.map(lambda n: forward.picture(n, 64), numbers))
    textures_module._drawing.cache_clear()
    two = [backward.picture(n, 64) for n in reversed(numbers)][::-1]
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert all(a.std() > 2 for a in one)
    one[0][:] = 0  # the set's own copy is not the caller's
    assert (forward.picture(0, 64) == two[0]).all()


def test_texture_folder(folder: Path) -> None:
    textures = Textures(str(folder))
    assert len(textures) == 4
    assert [int(textures.picture(n).max()) for n in range(4)] == [255, 60, 120, 180]
    drawn = {int(textures.draw((16, 24), rng(seed)).max()) for seed in range(30)}
    assert drawn == {255, 60, 120, 180}


def test_resize_rules(folder: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Textures(str(folder)).picture(0))
    textures = Textures(str(tmp_path))
    stretched, cropped = textures.draw((20, 20), rng()), textures.draw((20, 20), rng(), "crop")
    assert stretched.shape == cropped.shape == (20, 20, 3)
    assert (stretched[:, :4] == 0).all()
    assert (stretched[:, 6:14] == 255).all()
    assert (cropped == 255).all()  # the middle half, aspect kept
    assert textures.draw((10, 37), rng(), "crop").shape == (10, 37, 3)
    with pytest.raises(UserError, match="stretch or crop"):
        textures.draw((8, 8), rng(), "tile")


def test_texture_settings(folder: Path, tmp_path: Path) -> None:
    told = Textures(str(folder)).settings()
    assert told["path"] == str(folder)
    assert told["files"] == 4
    write_image(tmp_path / "a.png", np.zeros((20, 40, 3), np.uint8))
    one = Textures(str(tmp_path)).settings()["sha256"]
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    assert one != Textures(str(tmp_path)).settings()["sha256"] != told["sha256"]
    assert DRAEM().settings()["textures"]["path"] is None


def test_texture_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder of textures"):
        Textures(str(tmp_path / "missing"))
    with pytest.raises(UserError, match="no image"):
        Textures(str(tmp_path))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(UserError, match=r"broken\.jpg"):
        Textures(str(tmp_path)).draw((8, 8), rng())


@pytest.mark.parametrize("operations", [DRAEM_OPERATIONS, GLASS_OPERATIONS])
def test_operations(operations: tuple[Any, ...]) -> None:
    image = textures_module.hue(Textures().picture(3, 64), 0.1)
    before = image.copy()
    for operation in operations:
        made = [operation(image, rng(seed)) for seed in range(6)]
        assert all(m.shape == image.shape and m.dtype == np.uint8 for m in made)
        assert any((m != image).any() for m in made), operation.__name__
        assert (operation(image, rng(1)) == made[1]).all()
        assert not any(np.shares_memory(m, image) for m in made)
    assert (image == before).all()


@pytest.mark.parametrize(
    ("augment", "name"), [(augment_draem, "DRAEM_OPERATIONS"), (augment_glass, "GLASS_OPERATIONS")]
)
def test_three_different_operations_in_the_order_drawn(
    augment: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def mark(number: int) -> Any:
        return lambda image, rng: done.append(number) or image

    count = len(getattr(textures_module, name))
    assert count == (10 if name.startswith("DRAEM") else 9)
    monkeypatch.setattr(textures_module, name, tuple(mark(n) for n in range(count)))
    orders = set()
    for seed in range(200):
        done.clear()
        augment(np.zeros((2, 2, 3), np.uint8), rng(seed))
        assert len(done) == len(set(done)) == 3
        orders.add(tuple(done))
    assert {n for order in orders for n in order} == set(range(count))
    assert any(order[0] > order[1] for order in orders)


def test_colour_operations_by_hand() -> None:
    pixel = np.array([[[200, 100, 50]]], np.uint8)
    assert textures_module.brightness(pixel, 0.5).ravel().tolist() == [100, 50, 25]
    assert textures_module.hue(pixel, 1 / 3).ravel().tolist() == [50, 200, 100]
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert textures_module.saturation(pixel, 0).ravel().tolist() == [grey] * 3
    two = np.array([[[100] * 3, [200] * 3]], np.uint8)
    assert textures_module.contrast(two, 0.5)[0, :, 0].tolist() == [125, 175]

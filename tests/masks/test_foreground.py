"""Where the object is: objects that contrast either way are found, surfaces are taken whole, files are obeyed."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fast.data.images import write_mask
from fast.masks import foreground as module
from fast.masks.foreground import REALNET_RULES, Ground, foreground, read_region, rule_of
from fast.procedural import draw_surface
from ldm.errors import UserError


def screw(side: int) -> np.ndarray:
    """A slanting shaft with a thread and a head."""
    mask = np.zeros((side, side), np.uint8)

    def at(x: float, y: float) -> tuple[int, int]:
        return int(x * side), int(y * side)

    cv2.rectangle(mask, at(0.2, 0.46), at(0.8, 0.54), 1, -1)
    cv2.ellipse(mask, at(0.2, 0.5), at(0.05, 0.11), 0, 0, 360, 1, -1)
    for x in np.linspace(0.35, 0.76, 12):
        cv2.line(mask, at(x, 0.445), at(x + 0.02, 0.555), 1, max(1, side // 128))
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), 30, 1)
    return np.asarray(cv2.warpAffine(mask, turn, (side, side), flags=cv2.INTER_NEAREST))


def nut(side: int) -> np.ndarray:
    """A hexagon with a hole in it."""
    mask, angle = np.zeros((side, side), np.uint8), np.arange(6) * np.pi / 3 + 0.2
    corners = side * (0.5 + 0.36 * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    cv2.fillPoly(mask, [corners.astype(np.int32)], 1)
    cv2.circle(mask, (side // 2, side // 2), round(0.15 * side), 0, -1)
    return mask


def photo(mask: np.ndarray, ground: tuple[int, ...], body: tuple[int, ...], slope: float = 0) -> np.ndarray:
    """An object of colour `body`, shaded and grainy, on a noisy ground whose light falls off by `slope`."""
    side, rng = mask.shape[0], np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j][..., None]
    behind = np.array(ground) + slope * (x + 0.6 * y) + rng.normal(0, 3, (side, side, 1))
    front = np.array(body) + 15 * np.sin(9 * x + 5 * y) + rng.normal(0, 5, (side, side, 1))
    soft = cv2.GaussianBlur(mask.astype(float), (0, 0), 0.7)[..., None]
    return np.clip(behind * (1 - soft) + front * soft, 0, 255).astype(np.uint8)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("shape", [screw, nut])
@pytest.mark.parametrize(
    ("ground", "body", "slope"),
    [
        ((205, 205, 208), (70, 68, 66), 0.0),
        ((25, 25, 28), (165, 165, 160), 0.0),
        ((180, 180, 185), (90, 86, 80), 30.0),
        ((120, 130, 120), (150, 110, 60), 0.0),
    ],
    ids=["dark", "bright", "sloped light", "colour"],
)
def test_an_object_is_found_however_it_contrasts(
    shape: object, ground: tuple[int, ...], body: tuple[int, ...], slope: float
) -> None:
    truth = shape(256)  # type: ignore[operator]
    found = foreground(photo(truth, ground, body, slope))
    assert found.dtype == np.uint8
    assert iou(found, truth) > 0.9


def test_the_hole_of_a_nut_is_background_and_a_gleam_is_not() -> None:
    truth = nut(256)
    image = photo(truth, (200, 200, 200), (80, 80, 80))
    cv2.circle(image, (185, 150), 3, (200, 200, 200), -1)
    found = foreground(image)
    assert found[128, 128] == 0
    assert truth[150, 185] == found[150, 185] == 1


def test_any_size_and_form() -> None:
    truth = cv2.copyMakeBorder(screw(400), 0, 0, 150, 90, cv2.BORDER_CONSTANT, value=0)
    square = photo(screw(400), (205, 205, 208), (70, 68, 66))
    wide = cv2.copyMakeBorder(square, 0, 0, 150, 90, cv2.BORDER_REPLICATE)
    assert iou(foreground(wide), truth) > 0.9
    assert foreground(np.zeros((9, 5, 3), np.uint8)).tolist() == [[1] * 5] * 9


@pytest.mark.parametrize(
    "material", ["brushed_metal", "wood", "carpet", "fabric", "leather", "ceramic_tile", "marble", "perforated_metal"]
)
def test_a_surface_is_taken_whole(material: str) -> None:
    assert foreground(draw_surface(material, np.random.default_rng(4), 128)).all()


def test_light_that_falls_off_is_no_object() -> None:
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    lit = 200 - 90 * (x**2 + y**2) + np.random.default_rng(0).normal(0, 3, x.shape)
    assert foreground(np.repeat(lit.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)).all()


def test_rules_by_hand() -> None:
    image = np.full((256, 256, 3), 30, np.uint8)
    image[60:120, 80:200] = 220
    truth = (image[..., 0] > 100).astype(np.uint8)
    image[10, 10] = image[90, 90] = 125  # specks, which the opening and the closing remove
    assert (foreground(image, "otsu") == truth).all()
    assert (foreground(image, "otsu_dark") == 1 - truth).all()
    assert (foreground(image, "triangle") == truth).all()
    assert foreground(image, "none").all()
    assert (foreground(image, "realnet:pill") == truth).all()
    assert (foreground(image, "realnet:screw") == 1 - truth).all()
    assert foreground(image, "realnet:wood").all()


def test_realnet_has_a_rule_for_every_category() -> None:
    assert len(REALNET_RULES) == 15 + 3
    assert (rule_of("realnet:01").close, rule_of("realnet:01").open) == (15, 6)
    for name in ("realnet:anvil", "bright"):
        with pytest.raises(UserError, match=name.partition(":")[0]):
            rule_of(name)


def test_regions_from_files(tmp_path: Path) -> None:
    left, right = np.zeros((4, 8), np.uint8), np.zeros((4, 8), np.uint8)
    left[:, :4], right[:, 4:] = 1, 1
    write_mask(tmp_path / "all.png", left)
    write_mask(tmp_path / "each" / "one.png", left)
    write_mask(tmp_path / "each" / "two_mask.png", right)
    assert (read_region(tmp_path / "all.png", None, (4, 8)) == left).all()
    assert (read_region(tmp_path / "each", "normals/two.jpg", (8, 16)) == right.repeat(2, 0).repeat(2, 1)).all()
    with pytest.raises(UserError, match=r"no region for three\.jpg; add three\.png"):
        read_region(tmp_path / "each", "three.jpg", (4, 8))
    with pytest.raises(UserError, match="the picture has no file"):
        read_region(tmp_path / "each", None, (4, 8))
    write_mask(tmp_path / "none.png", left * 0)
    with pytest.raises(UserError, match="the region is empty"):
        read_region(tmp_path / "none.png", None, (4, 8))


def test_an_image_is_estimated_once_as_long_as_its_answer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, own = [], module.foreground
    monkeypatch.setattr(module, "foreground", lambda image, rule: (asked.append(image.shape), own(image, rule))[1])
    images = [np.full((31, 27 + k, 3), 40, np.uint8) for k in range(3)]
    for k, image in enumerate(images):
        image[8:20, 5:18] = 200 + k
    right = [own(image, "otsu") for image in images]
    ground = Ground("otsu")
    for _ in range(2):
        for image, wanted in zip(images, right, strict=True):
            found = ground.of(image)
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == np.uint8
            found[:] = 7  # who gets it may write into it
    assert len(asked) == 3
    ground.of(images[0] + 1)  # other pixels
    assert len(asked) == 4
    monkeypatch.setattr(module, "KEPT", np.packbits(right[0]).nbytes)  # room for the first alone
    small, before = Ground("otsu"), len(asked)
    for image in (images[0], images[0], images[1], images[0]):
        np.testing.assert_array_equal(small.of(image), own(image, "otsu"))
    assert len(asked) == before + 3
    assert small._bytes <= module.KEPT

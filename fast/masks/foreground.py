"""Where the object is in a picture: an estimate by a rule, or a file that says it."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fast.data.images import list_images, read_mask, resize_image, resize_mask
from ldm.checkpoint import file_hash
from ldm.errors import UserError

RULES = ("none", "auto", "otsu", "otsu_dark", "triangle")
REFERENCE = 256  # side in px that the sizes below are given for
SQUARE = 6  # side in px of the closing's and the opening's square, at 256 px

# What a picture must show to have a background, by `_Scene`; found on the drawn materials and on real tiles.
RING = 0.03  # width of the border that is looked at, as a share of the shorter side
PLAIN = 2.5  # Lab units: a background is not taken to be plainer than this
CONTRAST = 3.0  # how much farther than the border's own spread the object's colour lies from the border's
STEP = 0.6  # how much of the difference between object and background lies within a few px of the outline
APART = 1.8  # how much larger the object's share is inside the picture than on the border
ON_BORDER = 0.4  # largest share of the border that the object covers
SMALLEST = 0.01  # of the picture
AGREEMENT = 0.7  # overlap (IoU) of the object before and after specks go and gaps are filled
PARTS = 8


@dataclass(frozen=True)
class Rule:
    """A threshold and the sides of the squares of its closing and its opening, px at 256 px."""

    threshold: str
    close: int = SQUARE
    open: int = SQUARE


# RealNet (Zhang et al. 2024), its released loader: a rule for each category of MVTec-AD and BTAD.
REALNET_RULES: dict[str, Rule] = {
    **dict.fromkeys(("carpet", "leather", "tile", "wood", "cable", "transistor", "02"), Rule("none")),
    **dict.fromkeys(("bottle", "capsule", "grid", "screw", "zipper"), Rule("otsu_dark")),
    **dict.fromkeys(("hazelnut", "metal_nut", "toothbrush"), Rule("triangle")),
    "pill": Rule("otsu"),
    **dict.fromkeys(("01", "03"), Rule("otsu", 15, 6)),
}


def rule_of(name: str) -> Rule:
    """`none`, `auto`, `otsu` (bright is object), `otsu_dark`, `triangle` (bright), or `realnet:CATEGORY`: the rule that
    RealNet has for a category. Raises `UserError`."""
    if name in RULES:
        return Rule(name)
    start, _, category = name.partition(":")
    if start != "realnet":
        raise UserError(f"foreground rule {name!r} is unknown; use one of {', '.join(RULES)} or realnet:CATEGORY")
    if category not in REALNET_RULES:
        raise UserError(f"realnet has no foreground rule for {category!r}; it has {', '.join(sorted(REALNET_RULES))}")
    return REALNET_RULES[category]


def foreground(image: np.ndarray, rule: str = "auto") -> np.ndarray:
    """Where the object is: image (H,W,3) uint8 to (H,W) uint8 in {0,1}; all ones where the rule finds nothing.

    `auto` finds an object that differs from the border's colour, brighter or darker, and takes the whole picture of a
    surface or texture; the others threshold the grey picture and are closed and opened. Raises `UserError` (`rule_of`).
    """
    chosen = rule_of(rule)
    if chosen.threshold == "none":
        return np.ones(image.shape[:2], np.uint8)
    found = _auto(image) if chosen.threshold == "auto" else _thresholded(image, chosen)
    return found if found.any() else np.ones(image.shape[:2], np.uint8)


def _thresholded(image: np.ndarray, rule: Rule) -> np.ndarray:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    method = cv2.THRESH_TRIANGLE if rule.threshold == "triangle" else cv2.THRESH_OTSU
    above = cv2.THRESH_BINARY_INV if rule.threshold == "otsu_dark" else cv2.THRESH_BINARY
    _, found = cv2.threshold(grey, 0, 1, method | above)
    scale = min(grey.shape) / REFERENCE
    return _opened(_closed(np.asarray(found, np.uint8), rule.close * scale), rule.open * scale)


def _square(side: float) -> np.ndarray:
    return np.ones((max(1, round(side)),) * 2, np.uint8)


def _anchors(side: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """Anchors of a square there and back. Of an even side it has no centre, and using one twice moves the mask."""
    length = max(1, round(side))
    return (length // 2,) * 2, (length - 1 - length // 2,) * 2


def _closed(mask: np.ndarray, side: float) -> np.ndarray:
    there, back = _anchors(side)
    return np.asarray(cv2.erode(cv2.dilate(mask, _square(side), anchor=there), _square(side), anchor=back), np.uint8)


def _opened(mask: np.ndarray, side: float) -> np.ndarray:
    there, back = _anchors(side)
    return np.asarray(cv2.dilate(cv2.erode(mask, _square(side), anchor=there), _square(side), anchor=back), np.uint8)


def _auto(image: np.ndarray) -> np.ndarray:
    """The object, (H,W) in {0,1}, or nothing where the picture has no background."""
    height, width = image.shape[:2]
    scale = min(1.0, REFERENCE / min(height, width))
    small = resize_image(image, (max(1, round(height * scale)), max(1, round(width * scale))))
    if min(small.shape[:2]) < 16:
        return np.zeros((height, width), np.uint8)
    scene = _Scene(small)
    if not scene.has_background():
        return np.zeros((height, width), np.uint8)
    # Between pixels of the small picture the outline runs smoothly.
    grown = cv2.resize(scene.object.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return (grown > 0.5).astype(np.uint8)


class _Scene:
    """A picture (h,w,3) taken apart into what resembles its border and the rest, `object` (h,w) in {0,1}.

    `far` (h,w): distance in Lab to the border's colour, which may slope, in units of the border's own spread.
    """

    def __init__(self, image: np.ndarray):
        soft = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32) / 255
        lab = cv2.cvtColor(soft, cv2.COLOR_RGB2LAB)
        self.shape = image.shape[:2]
        band = max(2, round(RING * min(self.shape)))
        self.ring = np.ones(self.shape, bool)
        self.ring[band:-band, band:-band] = False
        distance, own = self._from_border(lab)
        self.spread = max(PLAIN, float(np.quantile(distance[self.ring][own], 0.9)))
        self.far = distance / self.spread
        # On a logarithmic scale an object's pale and strong parts count alike.
        level = np.log1p(self.far)
        grey = np.clip(level / max(float(level.max()), 1e-6) * 255, 0, 255).astype(np.uint8)
        threshold, _ = cv2.threshold(grey, 0, 1, cv2.THRESH_OTSU)
        self.cut = float(np.expm1((threshold + 0.5) / 255 * level.max()))
        self.raw = (self.far > max(self.cut, 1.0)).astype(np.uint8)
        self.object = self._solid(self._trimmed(self.raw))

    def _from_border(self, lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances (h,w) to a plane of colour through the border, and which of its pixels (k,) the plane explains."""
        height, width = self.shape
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        terms = np.stack([np.ones_like(x), x, y], axis=-1)
        at, colour = terms[self.ring], lab[self.ring]
        away = np.linalg.norm(colour - np.median(colour, axis=0), axis=1)
        for _ in range(4):
            # The farther part may be an object that reaches the border.
            own = away <= max(np.quantile(away, 0.7), PLAIN)
            plane = np.linalg.lstsq(at[own], colour[own], rcond=None)[0]
            away = np.linalg.norm(colour - at @ plane, axis=1)
        distance = np.linalg.norm(lab - terms @ plane, axis=2)
        return distance, own

    def _trimmed(self, found: np.ndarray) -> np.ndarray:
        """Without the soft rim in which an outline fades: pixels near it that are far weaker than their neighbours."""
        rim = (found == 1) & (cv2.erode(found, _square(5)) == 0)
        weak = self.far < 0.45 * cv2.dilate(self.far, _square(5))
        return np.where(rim & weak, np.uint8(0), found)

    def _solid(self, found: np.ndarray) -> np.ndarray:
        """Without specks; gaps filled unless they are wide and show the background, as the hole of a nut does."""
        scale = min(self.shape) / REFERENCE
        opened = _opened(_closed(found, SQUARE * scale / 2), SQUARE * scale / 2)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
        area = stats[:, cv2.CC_STAT_AREA]
        if count < 2:
            return opened
        big = area >= max(0.1 * area[1:].max(), SMALLEST * found.size / 4)
        big[0] = False
        kept = big[labels].astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - kept, connectivity=4)
        for i in range(1, count):
            left, top, wide, high, size = stats[i]
            outside = left == 0 or top == 0 or left + wide == self.shape[1] or top + high == self.shape[0]
            inside = labels == i
            if not outside and (size < 0.02 * kept.sum() or np.median(self.far[inside]) > 1):
                kept[inside] = 1
        return kept

    def has_background(self) -> bool:
        """An object stands out, with an outline, in few parts, mostly away from the border. All else is a surface."""
        found = self.object.astype(bool)
        border = float(found[self.ring].mean())
        if not SMALLEST < found.mean() < 1 or border > ON_BORDER or found[~self.ring].mean() < APART * border:
            return False
        agreement = (self.raw & self.object).sum() / (self.raw | self.object).sum()
        if agreement < AGREEMENT or cv2.connectedComponents(self.object)[0] - 1 > PARTS:
            return False
        inner, outer = float(np.median(self.far[found])), float(np.median(self.far[~found]))
        return inner > CONTRAST and self._step() > STEP * (inner - outer)

    def _step(self) -> float:
        """How much farther from the border's colour it is just inside the outline than just outside. On a surface that
        only brightens towards its middle there is no step."""
        reach = _square(2 * max(2, round(3 * min(self.shape) / REFERENCE)) + 1)
        within = (self.object == 1) & (cv2.erode(self.object, reach) == 0)
        around = (self.object == 0) & (cv2.dilate(self.object, reach) == 1)
        return float(self.far[within].mean() - self.far[around].mean())


def read_region(path: str | Path, image: str | Path | None, size: tuple[int, int]) -> np.ndarray:
    """Where the object is, from a file, (H,W) uint8 in {0,1} at `size`: a mask for all pictures, or a folder with one
    for each, under the picture's name without its ending. Raises `UserError`, also for a region that is empty."""
    path = Path(path)
    file = path
    if path.is_dir():
        if image is None:
            raise UserError(f"{path} holds a region for each picture, but the picture has no file; give one mask file")
        stem = Path(image).stem
        found = [p for p in list_images(path) if p.stem in (stem, f"{stem}_mask")]
        if not found:
            raise UserError(f"{path} holds no region for {Path(image).name}; add {stem}.png")
        file = found[0]
    region = resize_mask(read_mask(file), size)
    if not region.any():
        raise UserError(f"{file}: the region is empty; the object must be white")
    return region


class Ground:
    """Where the object is in any picture: by a rule of `foreground`, or by one mask file that holds for all of them.

    Raises `UserError` for an unknown rule and a file that is no mask.
    """

    def __init__(self, rule: str):
        self.rule, self.mask = rule, None
        if rule in RULES or not Path(rule).exists():
            rule_of(rule)
        else:
            read_region(rule, None, (1, 1))  # says what is wrong with it
            self.mask = read_mask(rule)

    def of(self, image: np.ndarray) -> np.ndarray:
        """Of a picture (H,W,3), (H,W) uint8 in {0,1}."""
        if self.mask is not None:
            return resize_mask(self.mask, (image.shape[0], image.shape[1]))
        return foreground(image, self.rule)

    def settings(self) -> str:
        """The rule, or the hash of the file."""
        return self.rule if self.mask is None else file_hash(self.rule)

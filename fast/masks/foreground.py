"""Where the object is in a picture: an estimate by a rule, or a file that says it."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import cv2
import numpy as np

from fast.data.images import list_images, read_mask, resize_mask
from fast.masks.estimate import estimate
from ldm.errors import UserError
from ldm.hashing import file_hash

RULES = ("none", "auto", "otsu", "otsu_dark", "triangle")
REFERENCE = 256  # side in px that the sizes below are given for
KEPT = 64 << 20  # bytes of estimates that a `Ground` keeps, a bit for a pixel
SQUARE = 6  # side in px of the closing's and the opening's square, at 256 px


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
        raise UserError(
            f"foreground rule {name!r} is unknown; use one of none (--on_object off), {', '.join(RULES[1:])}, "
            "realnet:CATEGORY, or a region file that is there"
        )
    if category not in REALNET_RULES:
        raise UserError(f"realnet has no foreground rule for {category!r}; it has {', '.join(sorted(REALNET_RULES))}")
    return REALNET_RULES[category]


def foreground(image: np.ndarray, rule: str = "auto") -> np.ndarray:
    """Where the object is: image (H,W,3) uint8 to (H,W) uint8 in {0,1}; all ones where the rule finds nothing.

    `auto` is `fast.masks.estimate`, which takes a surface or texture whole; the others threshold the grey image and are
    closed and opened. Raises `UserError` (`rule_of`).
    """
    chosen = rule_of(rule)
    if chosen.threshold == "none":
        return np.ones(image.shape[:2], np.uint8)
    if chosen.threshold == "auto":
        return estimate(image).mask
    found = _thresholded(image, chosen)
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

    Estimates are kept by the pixels of their image, the last ones up to `KEPT` bytes: normal images serve many pairs.
    Raises `UserError` for an unknown rule and a file that is no mask.
    """

    def __init__(self, rule: str):
        self.rule, self.mask = rule, None
        self._kept: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._bytes, self._lock = 0, Lock()
        if rule in RULES or not Path(rule).exists():
            rule_of(rule)
        else:
            read_region(rule, None, (1, 1))  # says what is wrong with it
            self.mask = read_mask(rule)

    def of(self, image: np.ndarray) -> np.ndarray:
        """Of a picture (H,W,3), (H,W) uint8 in {0,1}."""
        if self.mask is not None:
            return resize_mask(self.mask, (image.shape[0], image.shape[1]))
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        with self._lock:
            if (bits := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
        if bits is not None:
            return np.unpackbits(bits, count=image.shape[0] * image.shape[1]).reshape(image.shape[:2])
        found = foreground(image, self.rule)
        self._keep(key, np.packbits(found))
        return found

    def _keep(self, key: bytes, bits: np.ndarray) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = bits
                self._bytes += bits.nbytes
            while self._bytes > KEPT:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def settings(self) -> str:
        """The rule, or the hash of the file."""
        return self.rule if self.mask is None else file_hash(self.rule)

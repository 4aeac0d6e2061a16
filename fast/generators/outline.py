"""How people outline real defects: an edge is soft, and they mark what they are sure of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from fast.generators.cutouts import Cutout

FURTHEST = 8  # px beyond the annotation that are looked at
SHOWS = 0.1  # share of a defect's contrast from which a ring around it belongs to it
CORE = 2.0  # px from the annotation's border from which on a defect has its full contrast
FADES = 2  # px beyond the fringe over which a piece gives way to its new ground
LEAST = 16  # px of a ring or of the ground that say something
HIGHEST = 0.7  # share of the contrast: above, noise decides where a border lies
LOOSE = 0.3  # share of the contrast: below, the border runs through the ground around the defect


@dataclass(frozen=True)
class Outline:
    """Of a type's annotations: `fringe`, the px beyond them in which its defects still show, 0 to `FURTHEST`; `level`,
    the share of a defect's contrast at their border, 0 to `HIGHEST`: the mean of the pixels just inside and of those
    just outside. None where it cannot be told."""

    fringe: int
    level: float | None

    @property
    def soft(self) -> bool:
        """Whether a piece may give way to its new ground at its border without losing of the defect: not where the
        annotation ends with a sharp edge."""
        return self.fringe > 0 or (self.level is not None and self.level < LOOSE)


def outline_of(cutouts: Sequence[Cutout]) -> Outline:
    """How a type's defects are outlined, in the median: the fringe are the rings of one pixel, from the first one
    outside on, that differ from the ground by `SHOWS` of the defect's own contrast. Where that cannot be told, for
    defects of a few pixels say, nothing counts as showing beyond the annotation."""
    profiles = [found for cutout in cutouts if (found := _profile(cutout)) is not None]
    rings = np.array(profiles).reshape(-1, FURTHEST + 1).T
    inner, *outer = (float(np.median(known)) if len(known := ring[~np.isnan(ring)]) else None for ring in rings)
    if inner is None or outer[0] is None:
        return Outline(0, None)
    below = [number for number, share in enumerate(outer) if share is not None and share < SHOWS]
    return Outline(below[0] if below else FURTHEST, float(np.clip((inner + outer[0]) / 2, 0, HIGHEST)))


def with_fringe(mask: np.ndarray, width: int) -> np.ndarray:
    """A mask (h,w) in {0,1}, its fringe, and the pixels over which that gives way to the ground; the mask itself where
    there is none."""
    if width == 0:
        return mask
    return (_outside(mask) <= width + FADES).astype(np.uint8)


def outlined(normal: np.ndarray, image: np.ndarray, mask: np.ndarray, level: float) -> np.ndarray:
    """Of a change's mask (H,W) what people would mark who outline defects at `level`: (H,W) in {0,1}, never empty.

    `normal`, `image`: uint8 (H,W,3), before and after the change; `mask`: not empty. Of each connected part the
    outermost rings of one pixel go whose change, in the median, is less than that share of the change further in; at
    least half of its depth stays.
    """
    own = (mask != 0).astype(np.uint8)
    depth, found = _inside(own), np.zeros_like(own)
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(own, connectivity=8)
    for part in range(1, count):
        left, top, width, height = (int(v) for v in boxes[part][:4])
        box = slice(top, top + height), slice(left, left + width)
        deep = np.where(parts[box] == part, depth[box], 0)
        change = np.abs(image[box].astype(np.float32) - normal[box]).mean(2)
        found[box] |= (deep > _faint_rings(deep, change, level)).astype(np.uint8)
    return found


def _faint_rings(depth: np.ndarray, change: np.ndarray, level: float) -> int:
    """How many of a part's outermost rings are changed by less than `level` of the change further in. `depth` (h,w): px
    from the part's border, 0 outside."""
    deepest = float(depth.max())
    full = float(np.median(change[depth > min(CORE, 0.5 * deepest)]))
    rings = 0
    while rings + 1 <= min(FURTHEST, deepest / 2):
        ring = (depth > rings) & (depth <= rings + 1)
        if not ring.any() or np.median(change[ring]) >= level * full:
            break
        rings += 1
    return rings


def _profile(cutout: Cutout) -> np.ndarray | None:
    """How much the border within a defect's mask, and each ring around it, differs from the ground beyond: shares of
    the defect's contrast, NaN where a ring has too few pixels. None for one that does not differ, or has no ground."""
    apart, depth, clean = _outside(cutout.mask), _inside(cutout.mask), cutout.clean > 0
    ground, core = (apart > FURTHEST) & clean, depth > min(CORE, 0.5 * float(depth.max()))
    if ground.sum() < LEAST:
        return None
    image = cutout.image.astype(np.float32)
    change = np.abs(image - np.median(image[ground], axis=0)).mean(2)
    usual = float(np.median(change[ground]))
    contrast = float(np.median(change[core])) - usual
    if contrast <= usual:
        return None
    rings = [(depth > 0) & (depth <= 1), *((apart > n) & (apart <= n + 1) & clean for n in range(FURTHEST))]
    return np.array([np.median(change[r]) - usual if r.sum() >= LEAST else np.nan for r in rings]) / contrast


def _outside(mask: np.ndarray) -> np.ndarray:
    """Px (h,w) from the mask, 0 in it."""
    return np.asarray(cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, 5))


def _inside(mask: np.ndarray) -> np.ndarray:
    """Px (h,w) from what lies outside the mask, 0 there; the picture's edge is no border."""
    framed = np.pad((mask != 0).astype(np.uint8), 1, mode="edge")
    return np.asarray(cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1])

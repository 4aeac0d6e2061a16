"""Where the object is, estimated: what is left of an image once its ground is known, if it has one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from fast.data.images import resize_image
from fast.masks.ground import SIDE, GroundModel, connected, disc, gradient, mean_over, shrunk, soft_ground, to_lab

FINEST, FINE = 512, 640  # px of the shorter side between which the outline is sharpened

# What tells an object on a ground from a surface. A surface varies everywhere as it does at the "outline".
STANDS_OUT = 6.5  # contrast across nearly all of the outline, as a multiple of the ground's own unevenness
SHARP = 1.8  # steepness of nearly all of the outline, as a multiple of the steepest places of the ground
EVEN = 0.3  # Lab units: no ground is taken to be more even than this
SMALLEST, LARGEST = 0.005, 0.97  # share of the image that an object covers
PARTS, GAPS = 8, 24  # most pieces of the object, and of the ground that it encloses or cuts off
HARD = (1.0, 1.4, 2.0)  # by how much the edge of a shadow may be steeper than that of a reflection; what fits best
ALONG = 3.0  # share of the border over that of the image from which it is the image's rim rather than an object
AGREEMENT = 0.8  # overlap (IoU) of the object before and after specks go and gaps are filled


@dataclass(frozen=True)
class Estimate:
    """Where the object is: `mask` (H,W) uint8 in {0,1}, all ones where the image has no ground, and then why."""

    mask: np.ndarray
    reason: str = ""

    @property
    def everything(self) -> bool:
        """Whether the whole image is taken for the object."""
        return bool(self.mask.all())


def _without_specks(found: np.ndarray) -> np.ndarray:
    """Without parts that are small, and narrow at that."""
    opened = cv2.morphologyEx(found, cv2.MORPH_OPEN, disc(1.5 * min(found.shape) / SIDE))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA]
    if count < 2:
        return opened
    big = area >= max(0.08 * area[1:].max(), 0.002 * found.size)
    big[0] = False
    return big[labels].astype(np.uint8)


def _filled(found: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """What the object encloses belongs to it, unless it is as wide as a hole; `ground` is where ground is seen."""
    contours, _ = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    solid = cv2.drawContours(np.zeros_like(found), contours, -1, 1, -1)
    gaps = solid - found
    _, labels, stats, _ = cv2.connectedComponentsWithStats(gaps, connectivity=4)
    least = 0.0008 * found.size
    kept = [i for i in np.unique(labels[(gaps == 1) & ground]) if i and stats[i, cv2.CC_STAT_AREA] > least]
    solid[np.isin(labels, kept)] = 0
    return solid


def _beside(found: np.ndarray) -> np.ndarray:
    """Ground pixels beside an object (h,w) bool."""
    return (cv2.dilate(found, disc(1)) == 1) & (found == 0)


def _away(found: np.ndarray) -> np.ndarray:
    """Ground pixels away from an object (h,w) bool."""
    return np.asarray(cv2.erode(1 - found, disc(4)) == 1)


class Finding:
    """What stands out from the ground of an image (H,W,3), `found` (h,w) in {0,1} at `SIDE` px, object or not.

    `raw` (h,w): the same before it is tidied; `sharp`: how much steeper nearly all of its outline is than the ground.
    `colour` (3,): that of the ground in Lab, where other images have told it.
    """

    def __init__(self, image: np.ndarray, colour: np.ndarray | None = None):
        lab = to_lab(shrunk(image, SIDE), 1.0)
        self.steep, self.model = gradient(lab), GroundModel(lab, colour)
        near = self.model.found & (self.model.residual < self.model.tolerance)
        best = -1.0
        for hard in HARD:
            ground = soft_ground(self.model, self.steep, hard)
            raw = (~(ground | near)).astype(np.uint8)
            found = _filled(_without_specks(raw), ground)
            # With a shadow the outline is softer, and where a shadow was thought to go on into the object, it is too,
            # or pieces are left.
            sharp = self._sharp(found)
            fit = sharp * float(found.mean()) ** 0.5
            if fit > best:
                best, self.raw, self.found, self.sharp = fit, raw, found, sharp

    @cached_property
    def agreement(self) -> float:
        """Overlap (IoU) of what stands out with itself once it is tidied: low for a texture."""
        return float((self.raw & self.found).sum() / max(int((self.raw | self.found).sum()), 1))

    def _sharp(self, found: np.ndarray) -> float:
        """Steepness of nearly all of an object's outline over that of the ground's steepest places."""
        outline, plain = _beside(found), _away(found)
        if not outline.any() or not plain.any():
            return 0.0
        return float(np.quantile(self.steep[outline], 0.2)) / max(float(np.quantile(self.steep[plain], 0.9)), EVEN)

    def stands_out(self) -> float:
        """Contrast across the outline over the ground's unevenness, both in Lab and over a few px."""
        lab, ground = self.model.lab, self.found == 0
        sides = [mean_over(lab, cv2.erode(part, disc(1)) == 1, 2.0) for part in (self.found, 1 - self.found)]
        contrast = np.linalg.norm(sides[0] - sides[1], axis=2)[_beside(self.found)]
        # Shadows are a smaller part of a ground than its evenness.
        uneven = np.linalg.norm(mean_over(lab, ground, 2.0) - mean_over(lab, ground, 10.0), axis=2)[_away(self.found)]
        return float(np.quantile(contrast, 0.2)) / max(float(np.quantile(uneven, 0.75)), EVEN)

    def why_not(self, leniency: float = 1.0) -> str:
        """Why what stands out is no object on a ground; empty where it is one. Thresholds are divided by `leniency`."""
        covered = float(self.found.mean())
        if not SMALLEST <= covered <= LARGEST or not self.sharp:
            return "nothing stands out"
        parts, gaps = (cv2.connectedComponents(m, connectivity=4)[0] - 1 for m in (self.found, 1 - self.found))
        if parts > PARTS or gaps > GAPS or self.agreement < AGREEMENT / leniency:
            return "what stands out is a pattern"
        if float(self.found[self.model.ring].mean()) > ALONG * covered:
            return "what stands out lies along the border"
        if self.stands_out() < STANDS_OUT / leniency or self.sharp < SHARP / leniency:
            return "the border is as uneven as the rest"
        return ""


def sharpened(image: np.ndarray, found: np.ndarray) -> np.ndarray:
    """An object (h,w) whose outline is known to a few px, to where the colour is half way from the ground.

    First the ground is let in up to the steepest place around: what is left of a shadow at its darkest. Then the
    colours of both sides within a few px decide, so that neither fall-off of light nor a dim rim of the object counts.
    """
    scale = min(found.shape) / SIDE
    lab = to_lab(image, 0.8)
    steep = gradient(lab)
    outer, inner = cv2.dilate(found, disc(3 * scale)), cv2.erode(found, disc(4 * scale))
    noise = float(np.median(steep[outer == 0])) if (outer == 0).any() else 0.0
    passable = steep < np.maximum(0.35 * cv2.dilate(steep, disc(2.5 * scale)), 2 * noise)
    passable = cv2.morphologyEx((passable & (inner == 0)).astype(np.uint8), cv2.MORPH_OPEN, disc(0.8 * scale))
    ground = connected(np.maximum(passable, 1 - outer), outer == 0)
    within = cv2.morphologyEx((~ground).astype(np.uint8), cv2.MORPH_OPEN, disc(scale))
    deep = cv2.erode(within, disc(1.5 * scale))
    unsure = (cv2.dilate(within, disc(1)) == 1) & (deep == 0)
    behind, front = mean_over(lab, within == 0, scale), mean_over(lab, deep == 1, 1.5 * scale)
    across = front - behind
    share = ((lab - behind) * across).sum(axis=2) / np.maximum((across**2).sum(axis=2), 1e-3)
    found = np.where(unsure, share > 0.5, within).astype(np.uint8)
    return np.asarray(cv2.medianBlur(found, 2 * max(1, round(scale)) + 1))


def full_size(image: np.ndarray, found: np.ndarray) -> np.ndarray:
    """An object found at a small size (h,w), at the size of its image (H,W,3) and with its outline sharpened there."""
    fine = shrunk(image, FINE)
    if min(fine.shape[:2]) < FINEST:
        scale = FINEST / min(fine.shape[:2])
        fine = resize_image(fine, (round(fine.shape[0] * scale), round(fine.shape[1] * scale)))
    mask = sharpened(fine, resized(found, fine.shape))
    return resized(mask, image.shape)


def resized(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask (h,w) at another size; between its pixels the outline runs smoothly."""
    share = cv2.resize(mask.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return (share > 0.5).astype(np.uint8)


def everything(image: np.ndarray, reason: str) -> Estimate:
    return Estimate(np.ones(image.shape[:2], np.uint8), reason)


def estimate(image: np.ndarray, leniency: float = 1.0, colour: np.ndarray | None = None) -> Estimate:
    """Find where the object is in an image, by the image alone.

    The ground is what agrees in colour with the border, whose light may fall off, and what is reached from there
    without a sharp edge in between, such as shadows and reflections. An object may be brighter or darker, touch the
    border or cross the image, and have holes.

    Args:
        image: uint8 (H,W,3).
        leniency: above 1 it lowers what an object must show.
        colour: (3,), Lab, of the ground where it is known. None: the border tells.

    Returns:
        The object. An image without a ground, such as a texture, is taken whole, and a reason says so.
    """
    if min(image.shape[:2]) < 16:
        return everything(image, "the image is too small")
    finding = Finding(image, colour)
    reason = finding.why_not(leniency)
    if reason:
        return everything(image, reason)
    mask = full_size(image, finding.found)
    return Estimate(mask) if mask.any() and not mask.all() else everything(image, "nothing stands out")

"""Where the object is, estimated: the ground is modelled from the image's border, and the object is what is left."""

from dataclasses import dataclass

import cv2
import numpy as np

from fast.data.images import resize_image

COARSE, FINE = 256, 640  # px of the shorter side at which the object is found, and at which its outline is sharpened


def disc(radius: float) -> np.ndarray:
    """A disc of a radius in px, at least 1, as a structuring element."""
    side = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def to_lab(image: np.ndarray, blur: float) -> np.ndarray:
    """RGB (h,w,3) uint8, smoothed by `blur` px, as CIE Lab (h,w,3) float32: L in 0..100."""
    soft = cv2.GaussianBlur(image, (0, 0), blur).astype(np.float32) / 255
    return np.asarray(cv2.cvtColor(soft, cv2.COLOR_RGB2LAB))


def gradient(lab: np.ndarray) -> np.ndarray:
    """How fast the colour changes (h,w), Lab units a pixel."""
    steps = [cv2.Sobel(lab, cv2.CV_32F, 1 - axis, axis, ksize=3, scale=1 / 8) for axis in (0, 1)]
    return np.sqrt(sum((s**2).sum(axis=2) for s in steps))


def _terms(shape: tuple[int, ...]) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1).astype(np.float32)


class GroundModel:
    """The ground of a small image, by a polynomial of colour over the image fitted outside the object.

    `residual` (h,w): distance in Lab to it; `tolerance`: how much of it is the ground's own; `share`: of the border
    that it explains; `found` (h,w) bool: what agrees with it and is connected with the border.
    """

    def __init__(self, lab: np.ndarray):
        self.lab, self.shape = lab, lab.shape[:2]
        self.terms = _terms(self.shape)
        band = max(3, round(0.04 * min(self.shape)))
        self.ring = np.ones(self.shape, bool)
        self.ring[band:-band, band:-band] = False
        self.own, self.tolerance, count = self._start()
        self._fit(self.ring & self.own, count)
        self.share = float(self.own[self.ring].mean())
        self._grow()

    def _fit(self, where: np.ndarray, count: int) -> None:
        terms = self.terms[..., :count]
        weights = np.linalg.lstsq(terms[where], self.lab[where], rcond=None)[0]
        self.field = terms @ weights
        self.residual = np.linalg.norm(self.lab - self.field, axis=2)

    def _start(self) -> tuple[np.ndarray, float, int]:
        """From patches all around the border, the colour that explains the most of it and is the plainest."""
        height, width = self.shape
        side = max(4, round(0.08 * min(self.shape)))
        best, kept = -1.0, (self.ring, 4.0, 1)
        for top in (0, (height - side) // 2, height - side):
            for left in (0, (width - side) // 2, width - side):
                patch = self.lab[top : top + side, left : left + side].reshape(-1, 3)
                if not self.ring[top, left] and not self.ring[top + side - 1, left + side - 1]:
                    continue
                middle = np.median(patch, axis=0)
                noise = float(np.median(np.linalg.norm(patch - middle, axis=1)))
                tolerance = max(4.0, 3 * noise)
                own, count = self.ring & (np.linalg.norm(self.lab - middle, axis=2) < 2 * tolerance), 1
                for count in (1, 3, 3, 3):
                    if own.sum() < 30:
                        break
                    self._fit(own, count)
                    own = self.ring & (self.residual < tolerance)
                score = float(own[self.ring].mean()) / (1 + noise / 6)
                if score > best + 1e-6:
                    best, kept = score, (own, tolerance, count)
        return kept

    def _grow(self) -> None:
        """From the border inwards, in three rounds that follow the light ever more closely."""
        seed = self.ring & self.own
        for count in (3, 6, 6):
            near = (self.residual < 1.5 * self.tolerance).astype(np.uint8)
            self.found = connected(near, seed)
            if self.found.sum() < 30:
                break
            self._fit(self.found, count)
            self.tolerance = float(np.clip(4.5 * np.median(self.residual[self.found]), 4, 12))
            seed = self.ring & (self.residual < self.tolerance)
        self.seed = seed


def connected(where: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Those parts of `where` (h,w) that hold a pixel of `seed` (h,w): bool."""
    _, labels = cv2.connectedComponents(where.astype(np.uint8), connectivity=4)
    kept = np.unique(labels[seed & (where != 0)])
    return np.isin(labels, kept[kept > 0])


def _soft_ground(model: GroundModel, steep: np.ndarray) -> np.ndarray:
    """The ground with its shadows and reflections (h,w) bool: reached from the border, and from what is seen of it
    through holes, without crossing a sharp edge.

    A shadow darkens and a reflection tints slowly; an object's outline is a step, by far the steepest place around.
    Gaps that are narrower than 4 px at 256 px are not passed: there an outline is only faint.
    """
    scale = min(model.shape) / COARSE
    change = model.lab - model.field
    level = np.maximum(model.field[..., 0], 20)
    like = (change[..., 0] < 15) & (change[..., 0] > -0.75 * level) & (np.linalg.norm(change[..., 1:], axis=2) < 22)
    limit = max(5 * float(np.median(steep[model.found])), 1.6)
    beside = 0.35 * cv2.dilate(steep, disc(4 * scale))
    passable = (like & (steep < np.maximum(limit, np.minimum(beside, 3 * limit)))) | (model.residual < model.tolerance)
    reach = disc(2 * scale)
    core = cv2.erode(passable.astype(np.uint8), reach)
    core = connected(core, model.seed | _through_holes(model, steep, core)).astype(np.uint8)
    return cv2.dilate(core, reach).astype(bool) & passable


def _through_holes(model: GroundModel, steep: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Where ground is seen inside the object (h,w) bool: spots that are wide, and as plain and as coloured as it is."""
    plain = steep < 3 * float(np.median(steep[model.found])) + 0.4
    like = ((model.residual < model.tolerance) & plain).astype(np.uint8)
    wide = cv2.morphologyEx(like, cv2.MORPH_OPEN, disc(3 * min(model.shape) / COARSE))
    return (wide == 1) & (core == 1)


def _without_specks(found: np.ndarray) -> np.ndarray:
    """Without parts that are small, and narrow at that."""
    opened = cv2.morphologyEx(found, cv2.MORPH_OPEN, disc(1.5 * min(found.shape) / COARSE))
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


@dataclass(frozen=True)
class Coarse:
    """An object found in a small image, and what it was found by."""

    model: GroundModel
    steep: np.ndarray
    raw: np.ndarray
    found: np.ndarray


def find(image: np.ndarray) -> Coarse:
    """The object of a small image (h,w,3), whether it is one or not."""
    lab = to_lab(image, 1.0)
    steep, model = gradient(lab), GroundModel(lab)
    ground = _soft_ground(model, steep)
    raw = (~(ground | (model.found & (model.residual < model.tolerance)))).astype(np.uint8)
    found = _filled(_without_specks(raw), ground)
    return Coarse(model, steep, raw, found)


def mean_over(values: np.ndarray, where: np.ndarray, radius: float) -> np.ndarray:
    """Mean of `values` (h,w,3) over those pixels of `where` (h,w) that lie near, by a Gaussian of `radius` px."""
    weight = where.astype(np.float32)
    total = cv2.GaussianBlur(values * weight[..., None], (0, 0), radius)
    return np.asarray(total / np.maximum(cv2.GaussianBlur(weight, (0, 0), radius), 1e-6)[..., None])


def sharpened(image: np.ndarray, found: np.ndarray) -> np.ndarray:
    """An object (h,w) whose outline is known to a few px, to where the colour is half way from the ground beside it.

    First the ground is let in up to the steepest place around: what is left of a shadow at its darkest. Then the colours
    of both sides within a few px decide, so that neither fall-off of light nor a dim rim of the object counts.
    """
    scale = min(found.shape) / COARSE
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


def features(seen: Coarse) -> dict[str, float]:
    found, model = seen.found == 1, seen.model
    lab = model.lab
    edge = cv2.dilate(seen.found, disc(1)).astype(bool) & ~found
    inside, outside = (mean_over(lab, cv2.erode(part.astype(np.uint8), disc(1)) == 1, 2.0) for part in (found, ~found))
    contrast = np.linalg.norm(inside - outside, axis=2)[edge] if edge.any() else np.zeros(1)
    far = cv2.erode((~found).astype(np.uint8), disc(4)) == 1
    near = np.linalg.norm(mean_over(lab, ~found, 2.0) - mean_over(lab, ~found, 10.0), axis=2)
    rough = float(np.quantile(near[far], 0.9)) if far.any() else 99.0
    cuts = seen.steep[edge] if edge.any() else np.zeros(1)
    return {
        "area": float(found.mean()),
        "border": float(found[model.ring].mean()),
        "share": model.share,
        "parts": cv2.connectedComponents(seen.found)[0] - 1,
        "contrast20": float(np.quantile(contrast, 0.2)),
        "rough": rough,
        "steep20": float(np.quantile(cuts, 0.2)),
        "groundsteep90": float(np.quantile(seen.steep[far], 0.9)) if far.any() else 99.0,
        "agree": float((seen.raw & seen.found).sum() / max((seen.raw | seen.found).sum(), 1)),
        "tol": model.tolerance,
    }


def estimate(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    small = shrunk(image, COARSE)
    seen = find(small)
    fine = shrunk(image, FINE)
    grown = cv2.resize(seen.found.astype(np.float32), fine.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    found = sharpened(fine, (grown > 0.5).astype(np.uint8))
    if found.shape != (height, width):
        found = (cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5)
    return found.astype(np.uint8)


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """An image whose shorter side is at most `side` px."""
    scale = min(1.0, side / min(image.shape[:2]))
    return resize_image(image, (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))))

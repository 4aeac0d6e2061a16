"""The ground that an object lies on, modelled from the image's border: colour, fall-off of light, shadows."""

import cv2
import numpy as np

from fast.data.images import resize_image

SIDE = 256  # px of the shorter side that sizes below are given for, and at which an object is found

# In Lab units. Found on drawn scenes (benchmarks/object_scenes.py); see docs/methods.md for what they were tried on.
LEAST, MOST = 4.0, 8.0  # bounds of what counts as the ground's own variation
SOFT = 1.6  # change over a pixel that the soft edge of a reflection may have, or more where the ground itself varies
BRIGHTER, TINTED = 15.0, 22.0  # by how much a reflection may brighten or tint the ground
UNTINTED = 6.0  # by how much a shadow may change the colour beside darkening it
DARKER = 0.75  # share of its lightness that a shadow may take from the ground
BESIDE = 0.35  # of the steepest change around: less is the shadow beside an outline, not the outline


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """An image whose shorter side is at most `side` px."""
    scale = min(1.0, side / min(image.shape[:2]))
    return resize_image(image, (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))))


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


def _least_squares(terms: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weights (k,c) by which terms (n,k) come nearest to values (n,c); tiny ones where the terms do not suffice."""
    square = terms.T @ terms
    square += 1e-5 * len(terms) * np.eye(len(square), dtype=np.float32)
    return np.asarray(np.linalg.solve(square, terms.T @ values))


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((vectors**2).sum(axis=-1)))


class GroundModel:
    """The ground of a small image, by a polynomial of colour over the image fitted outside the object.

    `residual` (h,w): distance in Lab to it; `tolerance`: how much of it is the ground's own; `share`: of the border
    that it explains; `found` (h,w) bool: what agrees with it and is connected with the border. The border may show the
    object too; then `colour` (3,), Lab, says which part of it is ground.
    """

    def __init__(self, lab: np.ndarray, colour: np.ndarray | None = None):
        self.lab, self.shape = lab, lab.shape[:2]
        self.terms = _terms(self.shape)
        band = max(3, round(0.04 * min(self.shape)))
        self.ring = np.ones(self.shape, bool)
        self.ring[band:-band, band:-band] = False
        self.own, self.tolerance, count = self._start(colour)
        self._fit(self.own, count)
        self.share = float(self.own[self.ring].mean())
        self._grow(count)

    def _fit(self, where: np.ndarray, count: int) -> None:
        terms = self.terms[..., :count]
        self.field = terms @ _least_squares(terms[where], self.lab[where])
        self.residual = np.sqrt(((self.lab - self.field) ** 2).sum(axis=2))

    def _start(self, known: np.ndarray | None) -> tuple[np.ndarray, float, int]:
        """From patches all around the border, the colour that explains the most of it and is the plainest."""
        height, width = self.shape
        side = max(4, round(0.08 * min(self.shape)))
        colour, terms = self.lab[self.ring], self.terms[self.ring]
        best, kept = -1.0, (np.ones(len(colour), bool), LEAST, 1)
        for row in range(3):
            for column in range(3):
                if row == column == 1:
                    continue
                top, left = row * (height - side) // 2, column * (width - side) // 2
                patch = self.lab[top : top + side, left : left + side].reshape(-1, 3)
                middle = np.median(patch, axis=0)
                slope = self.terms[top : top + side, left : left + side, :3].reshape(-1, 3)
                noise = float(np.median(_length(patch - slope @ _least_squares(slope, patch))))
                tolerance = max(LEAST, 3 * noise)
                own, count = _length(colour - middle) < 2 * tolerance, 1
                for count in (1, 3, 3, 6):
                    if own.sum() < 30:
                        break
                    weights = _least_squares(terms[own][:, :count], colour[own])
                    own = _length(colour - terms[:, :count] @ weights) < tolerance
                score = float(own.mean()) / (1 + noise / 6)
                if known is not None:
                    score /= 1 + float(np.linalg.norm(middle - known)) / 10
                if score > best + 1e-6:
                    best, kept = score, (own, tolerance, count)
        own, tolerance, count = kept
        where = np.zeros(self.shape, bool)
        where[self.ring] = own
        return where, tolerance, count

    @property
    def colour(self) -> np.ndarray:
        """The ground's own (3,), Lab."""
        return np.asarray(np.median(self.field[self.found], axis=0) if self.found.any() else self.field.mean((0, 1)))

    def _grow(self, first: int) -> None:
        """From the border inwards, in three rounds that follow the light ever more closely."""
        seed = self.ring & self.own
        for count in (max(3, first), 6, 6):
            near = (self.residual < 1.5 * self.tolerance).astype(np.uint8)
            self.found = connected(near, seed)
            if self.found.sum() < 30:
                break
            self._fit(self.found, count)
            self.tolerance = float(np.clip(4.5 * np.median(self.residual[self.found]), LEAST, MOST))
            seed = self.ring & (self.residual < self.tolerance)
        self.seed = seed


def connected(where: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Those parts of `where` (h,w) that hold a pixel of `seed` (h,w): bool."""
    _, labels = cv2.connectedComponents(where.astype(np.uint8), connectivity=4)
    kept = np.unique(labels[seed & (where != 0)])
    return np.isin(labels, kept[kept > 0])


def mean_over(values: np.ndarray, where: np.ndarray, radius: float) -> np.ndarray:
    """Mean of `values` (h,w,3) over those pixels of `where` (h,w) that lie near, by a Gaussian of `radius` px."""
    weight = where.astype(np.float32)
    total = cv2.GaussianBlur(values * weight[..., None], (0, 0), radius)
    return np.asarray(total / np.maximum(cv2.GaussianBlur(weight, (0, 0), radius), 1e-6)[..., None])


def soft_ground(model: GroundModel, steep: np.ndarray, hard: float) -> np.ndarray:
    """The ground with its shadows and reflections, (h,w) bool: what is reached without crossing a sharp edge.

    It is reached from the border, and from what is seen of it through holes. A shadow darkens and a reflection tints
    slowly, while an object's outline is a step, by far the steepest place around. Gaps that are narrower than 4 px at
    256 px are not passed, for there an outline is only faint.

    Args:
        model: the ground's colour and light.
        steep: (h,w), how fast the image's colour changes, in Lab units a pixel (`gradient`).
        hard: by how much the edge of a shadow may be steeper than that of a reflection.
    """
    scale = min(model.shape) / SIDE
    change, level = model.lab - model.field, np.maximum(model.field[..., 0], 20)
    like = (change[..., 0] < BRIGHTER) & (change[..., 0] > -DARKER * level) & (_length(change[..., 1:]) < TINTED)
    # A shadow takes the same share of lightness and of colour.
    tint = model.lab[..., 1:] - model.field[..., 1:] * (model.lab[..., 0] / level)[..., None]
    shadow = (change[..., 0] < 0) & (_length(tint) < UNTINTED)
    least = max(5 * float(np.median(steep[model.found])), SOFT)
    limit = np.where(shadow, hard * least, least)
    beside = BESIDE * cv2.dilate(steep, disc(4 * scale))
    passable = (like & (steep < np.maximum(limit, np.minimum(beside, 3 * least)))) | (model.residual < model.tolerance)
    reach = disc(2 * scale)
    core = cv2.erode(passable.astype(np.uint8), reach)
    core = connected(core, model.seed | _through_holes(model, steep, core)).astype(np.uint8)
    return cv2.dilate(core, reach).astype(bool) & passable


def _through_holes(model: GroundModel, steep: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Where ground is seen inside the object (h,w) bool: spots that are wide, and as plain and as coloured as it is."""
    plain = steep < 3 * float(np.median(steep[model.found])) + 0.4
    # Without noise: glass is not quite as its ground is.
    away = _length(cv2.GaussianBlur(model.lab - model.field, (0, 0), 2.0))
    like = ((away < 0.8 * model.tolerance) & plain).astype(np.uint8)
    wide = cv2.morphologyEx(like, cv2.MORPH_OPEN, disc(3 * min(model.shape) / SIDE))
    return (wide == 1) & (core == 1)

"""Defects of a pattern: a piece of it missing, doubled, displaced, or ink where none should be."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.deposits import blob, box, covered, extent, standing_out
from fast.procedural.noise import Field, Rng, blur, smoothstep
from fast.procedural.shapes import Array, Curve, bezier, contour, dense, groove
from fast.procedural.site import Change, Painter, Site, around, over, placed, relief, tinted
from fast.procedural.traits import Colour

Mask = NDArray[np.uint8]
# Grey levels a pattern must stand out from its ground by to be told from it.
STANDS_OUT = 26.0
# Photo px a piece of a pattern must have for anyone to notice that it is gone.
LEAST_PIECE = 45
RIGID = ("board", "metal", "mineral", "glass")
# Their spots and streaks follow no pattern: one more or less is no defect.
PATTERNLESS = ("mineral", "wood", "hide")


def marks(site: Site, dark: bool) -> Mask | None:
    """Where the picture's pattern is darker (or lighter) than its ground, (h, w) of 0 and 1; None if it has none."""
    if site.traits.kind in PATTERNLESS:
        return None
    grey = blur(site.picture.mean(2), 0.5 * site.scale)
    small = cv2.resize(grey, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    wide = cv2.resize(cv2.blur(small, (31, 31)), grey.shape[::-1], interpolation=cv2.INTER_LINEAR)
    off = (wide - grey) if dark else (grey - wide)
    levels = np.clip(off + 128, 0, 255).astype(np.uint8)
    _, found = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    mask = found.astype(np.uint8)
    share = float(mask.mean())
    if not 0.01 < share < 0.5:
        return None
    if float(levels[mask > 0].mean()) - float(levels[mask == 0].mean()) < STANDS_OUT:
        return None
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8)


def _piece(site: Site, rng: Rng, pattern: Mask, centre: Array, radius: float) -> Mask | None:
    """One connected bit of the pattern near a point, cut only if it is long; None if there is none."""
    near = contour(rng, site.shape, centre, radius, 0.22, rng.uniform(1, 1.6), rng.uniform(0, np.pi)) < 0
    _, whole, stats, _ = cv2.connectedComponentsWithStats(pattern, connectivity=4)
    h, w = site.shape
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    wide, high = stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]
    long = np.maximum(wide, high) > 2 * radius
    open_ended = (left == 0) | (top == 0) | (left + wide == w) | (top + high == h)
    cut = (long | open_ended)[whole]
    kept = np.asarray(pattern * np.where(cut, near, 1), np.uint8)
    count, labels, stats, middles = cv2.connectedComponentsWithStats(kept, connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA].astype(float)
    within = np.hypot(*(middles[1:] - centre).T) < radius
    fit = np.flatnonzero((areas > LEAST_PIECE * site.scale**2) & within)
    if count < 2 or not len(fit):
        return None
    chosen = 1 + int(rng.choice(fit, p=areas[fit] / areas[fit].sum()))
    piece = np.asarray(labels == chosen, np.uint8)
    # A pad has a hole, a letter an eye: they belong to it. A ring around half the picture does not own its middle.
    filled = piece.copy()
    outlines, _ = cv2.findContours(piece, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return filled if filled.sum() < 1.7 * piece.sum() else piece


def _on(pattern: Mask, rng: Rng) -> Array:
    """A random point (x, y) of the pattern (h, w), not at the border if it can be helped."""
    h, w = pattern.shape
    rows, cols = np.nonzero(pattern[h // 8 : -h // 8, w // 8 : -w // 8])
    if not len(rows):
        return np.array([w / 2, h / 2])
    i = int(rng.integers(len(rows)))
    return np.array([cols[i] + w // 8, rows[i] + h // 8], float)


def grown(mask: Mask, px: float) -> Mask:
    size = 2 * max(round(px), 1) + 1
    return np.asarray(cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))), np.uint8)


def smooth_ground(picture: Field, free: Mask) -> Field:
    """The picture (h, w, 3) blurred from its free px (h, w) alone: near ones where there are some, else far ones."""
    h, w = free.shape
    size = (max(w // 4, 4), max(h // 4, 4))
    weight = cv2.resize(free.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    colour = cv2.resize(picture * free[..., None].astype(np.float32), size, interpolation=cv2.INTER_AREA)
    ground = np.broadcast_to(picture[free > 0].mean(0) if free.any() else picture.mean((0, 1)), colour.shape)
    for sigma in (24.0, 8.0, 2.5):
        total = blur(np.asarray(weight, np.float32), sigma)[..., None]
        here = np.asarray(cv2.GaussianBlur(colour, (0, 0), sigma), np.float32) / np.maximum(total, 1e-3)
        sure = smoothstep(0.02, 0.2, total)
        ground = ground + (here - ground) * sure
    return np.asarray(cv2.resize(ground.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR), np.float32)


def displaced_copy(picture: Field, dx: float, dy: float) -> Field:
    """The picture (h, w[, 3]) moved by (dx, dy) px, mirrored at its border."""
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    moved = cv2.warpAffine(picture, matrix, picture.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.float32)


def _ground_texture(site: Site, rng: Rng, pattern: Mask, hide: Mask) -> Field:
    """What the picture (h, w, 3) would be without its pattern in the hidden px (h, w)."""
    clear = (1 - grown(pattern, 1.5 * site.scale)).astype(np.uint8)
    base = smooth_ground(site.picture, np.asarray(clear * (1 - hide), np.uint8))
    h, w = site.shape
    rows, cols = np.nonzero(hide)
    # The grain is borrowed from where the same outline falls on free ground.
    best, least = (0, 0), 1.0
    for _ in range(24):
        dy, dx = int(rng.integers(-h // 2, h // 2)), int(rng.integers(-w // 2, w // 2))
        y, x = rows - dy, cols - dx
        inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
        if not inside.all():
            continue
        busy = 1 - float(clear[y[::7], x[::7]].mean())
        if busy < least:
            best, least = (dx, dy), busy
    if least > 0.02:
        return base + (2.0 * site.noise(rng, 1.6, 2))[..., None]
    grain = site.picture - cv2.GaussianBlur(site.picture, (0, 0), 2.5 * site.scale)
    return base + displaced_copy(np.asarray(grain, np.float32), *best)


def _bare_patch(site: Site, rng: Rng, centre: Array, radius: float) -> Change:
    """A patch where the surface's own structure ends: the material under it, a little sunken."""
    cut, middle, place = around(site, centre, 2.1 * radius + 6 * site.scale)
    s, traits = site.scale, site.traits
    if traits.kind == "cloth" and rng.random() < 0.6:
        half = (radius, max(radius * rng.uniform(0.08, 0.3), 2.5 * s))
        far = box(cut, middle, half, site.grain if site.grained else rng.choice([0.0, np.pi / 2]))
        far = far + 0.6 * s * cut.noise(rng, 3, 2)
    else:
        far = contour(rng, cut.shape, middle, radius, 0.4 * traits.rough + 0.05, rng.uniform(1, 1.8), rng.uniform(0, 3))
        far = far + traits.rough * 2 * s * cut.noise(rng, 3, 2)
    soft = (0.5 + 0.9 * (1 - traits.hard)) * s
    inside = smoothstep(soft, -soft, far)
    free = np.asarray((far > soft) & (far < 0.6 * radius + 8 * s), np.uint8)
    ground = smooth_ground(cut.picture, free)
    level = float(cut.picture.mean())
    bare = np.asarray(traits.bare, np.float32)
    # Bare stuff is lit by the same lamp as what it lies under; where yarns are gone one looks into the dark.
    bare = bare * np.float32(np.clip(level / 130, 0.55, 1.15))
    if traits.kind == "cloth":
        bare = 0.25 * bare + np.float32(rng.uniform(0.1, 0.6)) * ground
    mix = np.float32(rng.uniform(0.55, 0.9))
    wear = 0.03 * cut.noise(rng, 2.2, 3) * (0.5 + traits.rough * 2)
    new = (ground * (1 - mix) + bare * mix) * (1 + wear)[..., None]
    step = relief(cut, -np.float32(rng.uniform(1.0, 2.2) * s) * inside)
    new = new * np.clip(1 + 0.55 * step, 0.35, 1.5)[..., None]
    change = covered(inside, np.clip(new, 2, 252))
    change.solid = True
    return placed(site, place, change)


def missing(site: Site, rng: Rng) -> Change:
    """A piece of the pattern is not there: its ground goes on instead; without a pattern the surface is bare."""
    first = bool(rng.random() < 0.5)
    for dark in (first, not first, first):
        pattern = marks(site, dark)
        if pattern is None:
            continue
        centre, radius = _on(pattern, rng), extent(site, rng, 9, 50)
        cut, middle, place = around(site, centre, 2 * radius + 20 * site.scale)
        here = np.ascontiguousarray(pattern[place])
        piece = _piece(cut, rng, here, middle, radius)
        if piece is None:
            continue
        # Edges of a track are blurred by the lens: the ground must reach a little beyond them.
        hide = grown(piece, 1.6 * site.scale)
        new = _ground_texture(cut, rng, here, hide)
        alpha = blur(hide.astype(np.float32), 0.45 * site.scale)
        if float(np.abs((new - cut.picture)[piece > 0]).mean()) > 18:
            change = covered(alpha, new)
            change.solid = True
            return placed(site, place, change)
    return _bare_patch(site, rng, site.spot(rng, 0.2), extent(site, rng, 6, 52))


def _farthest(cut: Site, rng: Rng, region: Field, least: float, most: float) -> tuple[float, float]:
    """Of a few displacements between `least` and `most` px, the one that changes the region (h, w) most."""
    best, gain = (least, 0.0), -1.0
    small = cut.picture[::2, ::2].mean(2)
    weight = region[::2, ::2]
    for _ in range(6):
        theta, reach = rng.uniform(0, 2 * np.pi), rng.uniform(least, most)
        dx, dy = float(reach * np.cos(theta)), float(reach * np.sin(theta))
        moved = displaced_copy(small, dx / 2, dy / 2)
        differs = float((np.abs(moved - small) * weight).sum())
        if differs > gain:
            best, gain = (dx, dy), differs
    return best


def _shape(cut: Site, rng: Rng, middle: Array, radius: float) -> Field:
    """Signed distance in px (h, w) to a strip, a rectangle or a patch, along the grain where there is one."""
    angle = site_angle(cut, rng)
    wobble = (0.2 + cut.traits.rough) * cut.scale * cut.noise(rng, 7, 3)
    # What is rigid moves in straight-edged pieces.
    kind = rng.integers(2 if cut.traits.kind in RIGID else 3)
    if kind == 0:
        half = (radius * 1.25, max(radius * rng.uniform(0.12, 0.35), 3 * cut.scale))
        return box(cut, middle, half, angle) + wobble
    if kind == 1:
        return box(cut, middle, (radius, radius * rng.uniform(0.5, 1.0)), angle) + wobble
    return wobble + contour(rng, cut.shape, middle, radius, 0.12, rng.uniform(1, 1.8), angle)


def site_angle(site: Site, rng: Rng) -> float:
    """The direction patterns run in, or across it."""
    return float((site.grain if site.grained else 0.0) + rng.choice([0.0, np.pi / 2]))


def doubled(site: Site, rng: Rng) -> Change:
    """A piece of the picture shows twice: a double track, pick or stamp beside itself."""
    s = site.scale
    first = bool(rng.random() < 0.5)
    for dark in (first, not first, first):
        pattern = marks(site, dark)
        if pattern is None:
            continue
        centre, radius = _on(pattern, rng), extent(site, rng, 10, 48)
        cut, middle, place = around(site, centre, 2 * radius + 20 * s)
        piece = _piece(cut, rng, np.ascontiguousarray(pattern[place]), middle, radius)
        if piece is None:
            continue
        free = (1 - grown(piece, s)).astype(np.float32)
        dx, dy = _farthest(cut, rng, piece.astype(np.float32) + 0.2 * free, 4 * s, 14 * s)
        alpha = blur(displaced_copy(piece.astype(np.float32), dx, dy), 0.4 * s)
        # The original stays on top; the copy lies on the ground beside it.
        alpha = np.clip(alpha, 0, 1) * (1 - blur(piece.astype(np.float32), 0.3 * s))
        copy = displaced_copy(cut.picture, dx, dy)
        if float((np.abs(copy - cut.picture).mean(2) * alpha).sum()) > 18 * max(float(alpha.sum()), 12 * s * s):
            return placed(site, place, covered(alpha * np.float32(rng.uniform(0.85, 1)), copy))
    centre, radius = site.spot(rng, 0.18), extent(site, rng, 8, 44)
    cut, middle, place = around(site, centre, 1.8 * radius + 16 * s)
    far = _shape(cut, rng, middle, radius)
    region = smoothstep(0.6 * s, -0.6 * s, far)
    dx, dy = _farthest(cut, rng, region, 5 * s, max(1.2 * radius, 8 * s))
    copy = displaced_copy(cut.picture, dx, dy)
    return placed(site, place, _laid(cut, rng, region, far, copy))


def _laid(cut: Site, rng: Rng, region: Field, far: Field, new: Field) -> Change:
    """A moved piece in its new place, lying a little higher: one edge shines, the other throws a shadow."""
    s = cut.scale
    height = np.float32(rng.uniform(0.2, 1.2) * s)
    facing = relief(cut, height * smoothstep(1.2 * s, -1.2 * s, far))
    differs = float((np.abs(new - cut.picture).mean(2) * region).sum()) / max(float(region.sum()), 1.0)
    # What looks alike anywhere shows by its tone alone: it takes the light another way.
    least = float(np.clip(12 / max(float(new.mean()), 1.0), 0.07, 0.2))
    tone = np.float32(rng.choice([-1, 1]) * rng.uniform(1, 1.7) * least * np.clip(2 - differs / 11, 0.1, 1))
    change = covered(region, np.clip(new * (1 + tone), 0, 255))
    # A seam closes here and gapes there.
    gape = np.clip(0.6 + 0.5 * cut.noise(rng, 12, 2), 0, 1.2)
    edge = np.clip(1 + (0.8 * np.minimum(facing, 0) + 0.35 * np.maximum(facing, 0)) * gape, 0.3, 1.25)
    seam = Change(tinted(np.asarray(edge, np.float32)), np.zeros((*cut.shape, 1), np.float32))
    whole = over(change, seam)
    whole.solid = True
    return whole


def shift(site: Site, rng: Rng) -> Change:
    """A patch of the pattern sits a few px off."""
    s = site.scale
    centre, radius = site.spot(rng, 0.2), extent(site, rng, 8, 62)
    cut, middle, place = around(site, centre, 1.8 * radius + 12 * s)
    far = _shape(cut, rng, middle, radius)
    region = smoothstep(0.5 * s, -0.5 * s, far)
    dx, dy = _farthest(cut, rng, region, 2.5 * s, 8 * s)
    return placed(site, place, _laid(cut, rng, region, far, displaced_copy(cut.picture, dx, dy)))


INKS: list[Colour] = [(24, 24, 28), (28, 40, 96), (150, 30, 34), (30, 90, 60), (70, 60, 52)]
PALE_INKS: list[Colour] = [(226, 224, 216), (222, 196, 70), (190, 206, 226), (214, 120, 90)]
GLYPHS = "ABCDEFHKLMNPRSTUXYZ0123456789-/#"


def _lettering(site: Site, rng: Rng, centre: Array, tall: float) -> Field:
    """Coverage (h, w) of a short stamped code, letters `tall` px high."""
    text = "".join(rng.choice(list(GLYPHS), int(rng.integers(2, 8))))
    font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX]))
    size, stroke = tall / 22, max(round(tall / rng.uniform(6, 10)), 1)
    (wide, high), _ = cv2.getTextSize(text, font, size, stroke)
    sheet = np.zeros(site.shape, np.uint8)
    origin = (int(centre[0] - wide / 2), int(centre[1] + high / 2))
    cv2.putText(sheet, text, origin, font, size, 255, stroke, cv2.LINE_AA)
    angle = float(rng.choice([0, 0, 0, 90, 180])) + rng.normal(0, 6)
    matrix = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), angle, 1.0)
    turned = cv2.warpAffine(sheet.astype(np.float32), matrix, sheet.shape[::-1])
    return np.asarray(turned / 255, np.float32)


def _smear(cut: Site, rng: Rng, middle: Array, radius: float) -> Field:
    """Coverage (h, w) of ink dragged one way, thinning out into streaks."""
    angle = rng.uniform(0, 2 * np.pi)
    forward = np.array([np.cos(angle), np.sin(angle)])
    normal = np.array([-forward[1], forward[0]])
    bend = rng.normal(0, 0.15, 2) * radius
    ends = middle + np.outer([-1, -0.3, 0.3, 1], forward * radius) + np.outer([0, bend[0], bend[1], 0], normal)
    points, along = dense(bezier(ends))
    thick = radius * rng.uniform(0.12, 0.4)
    line = groove([Curve(points, np.full(len(points), thick), 1 - along)], cut.shape)
    # Bristle marks: noise that depends on the distance from the middle line alone.
    lanes = np.interp(np.linspace(-2, 2, 128), np.linspace(-2, 2, 24), rng.normal(0, 1, 24)).astype(np.float32)
    index = np.clip((line.side / (2 * line.width) * 0.5 + 0.5) * 127, 0, 127).astype(np.int32)
    dry = smoothstep(-0.7, 0.5, 3.0 * line.depth - 0.9 + 0.55 * lanes[index] + 0.25 * cut.noise(rng, 4, 2))
    body = smoothstep(0.8 * cut.scale, -0.8 * cut.scale, np.abs(line.side) - line.width * (0.75 + 0.25 * line.depth))
    return np.asarray(body * dry, np.float32)


def misprint(site: Site, rng: Rng) -> Change:
    """Ink where none should be: a stray code, a blot, a smear, or a pale second print of the pattern."""
    s = site.scale
    centre, radius = site.spot(rng, 0.22), extent(site, rng, 6, 54)
    cut, middle, place = around(site, centre, 2.2 * radius + 12 * s)
    kind = rng.integers(4)
    pattern = marks(site, not site.dark) if kind == 3 else None
    ink: Field
    if pattern is not None:
        near = smoothstep(2 * s, -4 * s, contour(rng, cut.shape, middle, radius, 0.15, 1.3, rng.uniform(0, 3)))
        theta, reach = rng.uniform(0, 2 * np.pi), rng.uniform(5, 20) * s
        moved = displaced_copy(pattern[place].astype(np.float32), reach * np.cos(theta), reach * np.sin(theta))
        ink = blur(moved, 0.6 * s) * near * np.float32(rng.uniform(0.5, 0.85))
    elif kind == 2:
        ink = _smear(cut, rng, middle, max(radius, 9 * s))
    elif kind == 1:
        radius = max(0.6 * radius, 4 * s)
        far = blob(cut, rng, middle, radius, 0.8)
        for _ in range(int(rng.integers(0, 7))):
            theta, reach = rng.uniform(0, 2 * np.pi), radius * rng.uniform(1.15, 2.0)
            spot = middle + reach * np.array([np.cos(theta), np.sin(theta)])
            drop = np.hypot(*(np.indices(cut.shape, np.float32)[::-1] - spot.astype(np.float32)[:, None, None]))
            far = np.minimum(far, (drop - max(radius * rng.uniform(0.04, 0.14), s)) / np.float32(radius))
        ink = smoothstep(0.8 * s / radius, -0.8 * s / radius, far)
    else:
        ink = _lettering(cut, rng, middle, min(max(0.6 * radius, 9 * s), 36 * s))
    # Stamps press unevenly, and rough ground takes ink only where it is high.
    worn = 0.84 + 0.1 * cut.noise(rng, 14, 2) + 0.09 * cut.noise(rng, 1.8, 2) * (0.5 + 3 * site.traits.rough)
    colour = standing_out(cut, rng, PALE_INKS if site.dark else INKS)
    # Some of the ground's shading shows through the layer.
    through = np.clip(cut.picture / max(float(cut.picture.mean()), 1.0), 0.4, 1.6) ** 0.5
    return placed(site, place, covered(ink * np.clip(worn, 0.35, 0.97), np.clip(colour * through, 0, 255)))


STRUCTURES: dict[str, Painter] = {
    "missing": missing,
    "doubled": doubled,
    "misprint": misprint,
    "shift": shift,
}

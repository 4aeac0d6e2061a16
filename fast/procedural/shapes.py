"""Geometry of defects: fields of distance to curves and to closed contours, and what a picture says about itself."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.noise import Field, Rng, line_noise

Array = NDArray[np.float64]


@dataclass
class Curve:
    """Points (k, 2) as x, y in px, with a half-width in px and a depth in [0, 1] for each."""

    points: Array
    width: Array
    depth: Array


@dataclass
class Groove:
    """Fields (h, w) around curves: signed distance in px (the sign tells the side), half-width, depth, normal."""

    side: Field
    width: Field
    depth: Field
    normal: tuple[Field, Field]


def dense(points: Array, step: float = 0.7) -> tuple[Array, Array]:
    """Resample a polyline to about `step` px; the points (k, 2) and their share of the length (k,)."""
    gaps = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(gaps)])
    at = np.linspace(0, along[-1], max(2, int(along[-1] / step)))
    return np.stack([np.interp(at, along, points[:, i]) for i in (0, 1)], axis=1), at / max(along[-1], 1e-9)


def bezier(ends: Array, count: int = 64) -> Array:
    """Cubic Bezier curve (count, 2) through four control points (4, 2)."""
    t = np.linspace(0, 1, count)[:, None]
    return (1 - t) ** 3 * ends[0] + 3 * (1 - t) ** 2 * t * ends[1] + 3 * (1 - t) * t**2 * ends[2] + t**3 * ends[3]


def groove(curves: list[Curve], shape: tuple[int, int]) -> Groove:
    """Attribute every px of (h, w) to the nearest point of the curves."""
    h, w = shape
    tangents = [np.gradient(c.points, axis=0) for c in curves]
    points, tangent = np.concatenate([c.points for c in curves]), np.concatenate(tangents)
    tangent /= np.maximum(np.hypot(tangent[:, 0], tangent[:, 1]), 1e-6)[:, None]
    x, y = np.rint(points).astype(int).T
    keep = np.flatnonzero((x >= 0) & (x < w) & (y >= 0) & (y < h))
    seeds = np.ones((h, w), np.uint8)
    seeds[y[keep], x[keep]] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    owner = np.zeros(int(labels.max()) + 1, np.int32)
    owner[labels[y[keep], x[keep]]] = keep
    index = owner[labels]
    widths, depths = (
        np.concatenate(v).astype(np.float32)[index] for v in ([c.width for c in curves], [c.depth for c in curves])
    )
    near_x, near_y, along_x, along_y = (v.astype(np.float32)[index] for v in (*points.T, *tangent.T))
    off_x = np.arange(w, dtype=np.float32)[None, :] - near_x
    off_y = np.arange(h, dtype=np.float32)[:, None] - near_y
    normal_x, normal_y = -along_y, along_x
    cross = off_x * normal_x + off_y * normal_y
    side = np.hypot(off_x, off_y) * np.where(cross < 0, np.float32(-1), np.float32(1))
    return Groove(np.asarray(side, np.float32), widths, depths, (normal_x, normal_y))


def groove_within(outline: Field) -> Groove:
    """A groove that fills an outline (h, w), signed distance in px, negative inside: its half-width is the outline's
    own, about the middle line. The normal points away from that line, and `side` is never negative."""
    inside = (outline < 0).astype(np.uint8)
    depth = np.asarray(np.maximum(-outline, 0), np.float32)
    # Ridges of the distance are the middle line; of a mask of one pixel's width all of it is.
    ridge = (inside > 0) & (depth >= np.asarray(cv2.dilate(depth, np.ones((3, 3), np.uint8))) - 0.6)
    y, x = np.nonzero(ridge)
    seeds = np.where(ridge, np.uint8(0), np.uint8(1))
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    owner = np.zeros(int(labels.max()) + 1, np.int32)
    owner[labels[y, x]] = np.arange(len(y))
    near = owner[labels]
    h, w = outline.shape
    off_x = np.arange(w, dtype=np.float32)[None, :] - x.astype(np.float32)[near]
    off_y = np.arange(h, dtype=np.float32)[:, None] - y.astype(np.float32)[near]
    side = np.asarray(np.hypot(off_x, off_y), np.float32)
    width = np.maximum(depth[y, x], 0.8)[near]
    # By the distance to the edge, so that the groove ends where the outline does whatever its middle line is.
    side = np.asarray(np.maximum(width + outline, 0), np.float32)
    length = np.maximum(np.hypot(off_x, off_y), 1e-3)
    return Groove(side, np.asarray(width, np.float32), np.ones((h, w), np.float32), (off_x / length, off_y / length))


def contour(
    rng: Rng, shape: tuple[int, int], centre: Array, radius: float, rough: float, stretch: float, angle: float
) -> Field:
    """Signed distance in px (h, w), about, to an irregular closed outline: negative inside."""
    h, w = shape
    x = np.arange(w, dtype=np.float32)[None, :] - np.float32(centre[0])
    y = np.arange(h, dtype=np.float32)[:, None] - np.float32(centre[1])
    c, s, thin = (np.float32(f) for f in (np.cos(angle), np.sin(angle), np.sqrt(stretch)))
    u, v = (x * c + y * s) / thin, (y * c - x * s) * thin
    turns = 512
    theta = np.linspace(0, 2 * np.pi, turns, endpoint=False)
    wave = sum(rng.normal(0, 1 / k**1.25) * np.sin(k * theta + rng.uniform(0, 2 * np.pi)) for k in range(2, 16))
    outline = (radius * np.clip(1 + rough * np.asarray(wave), 0.45, 1.8)).astype(np.float32)
    at = (np.arctan2(v, u) * np.float32(turns / (2 * np.pi))).astype(np.int32) % turns
    return np.asarray(np.hypot(u, v) - outline[at], np.float32)


def jagged_walk(rng: Rng, start: Array, heading: float, length: float, step: float, wander: float) -> Array:
    """A path (k, 2) of straight bits that turn abruptly but keep a direction."""
    count = max(3, int(length / step))
    drift = 0.35 * line_noise(rng, count, 9, 2)
    angles = heading + drift + rng.normal(0, wander, count)
    hops = step * rng.uniform(0.4, 1.6, count)
    bits = np.stack([np.cos(angles) * hops, np.sin(angles) * hops], axis=1)
    return np.concatenate([start[None], start + np.cumsum(bits, axis=0)])


def grain_direction(grey: Field) -> tuple[float, float]:
    """Angle in radians along which a picture (h, w) is streaked, and how clearly, in [0, 1]."""
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    xx, yy, xy = float((dx * dx).mean()), float((dy * dy).mean()), float((dx * dy).mean())
    clear = np.hypot(xx - yy, 2 * xy) / max(xx + yy, 1e-6)
    return 0.5 * float(np.arctan2(2 * xy, xx - yy)) + np.pi / 2, float(clear)


def light_direction(grey: Field) -> tuple[float, float]:
    """Unit vector (x, y) towards the brighter side of a picture (h, w), where its lamp most likely is."""
    h, w = grey.shape
    x, y = np.linspace(-1, 1, w), np.linspace(-1, 1, h)
    # Lamps hang above more often than not: an evenly lit picture counts as lit from the top left.
    to_x = float((grey.mean(0) * x).sum()) / w - 0.5
    to_y = float((grey.mean(1) * y).sum()) / h - 0.8
    length = max(float(np.hypot(to_x, to_y)), 1e-6)
    return to_x / length, to_y / length

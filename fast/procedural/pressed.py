"""Pressed wood and paper: chipboard, cork, cardboard. Same contract as the makers in `surfaces`."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.camera import Scene
from fast.procedural.noise import Field, Rng, blur, displaced, fractal, frame, near_grey, smoothstep, streaks
from fast.procedural.yarn import TAU, fibres


def _chips(
    rng: Rng, n: int, long: tuple[float, float], wide: tuple[float, float], layers: float
) -> tuple[NDArray[np.int32], Field]:
    """Flat pieces thrown on each other: (n, n) number of the topmost, and the direction of each in radians.

    `long`, `wide`: least and greatest length and width in px; `layers`: how often the ground is covered.
    """
    count = int(layers * (n + long[1]) ** 2 / (sum(long) / 2 * sum(wide) / 2)) + 8
    length, width = rng.uniform(*long, (count, 1)), rng.uniform(*wide, (count, 1))
    angle = rng.uniform(-np.pi, np.pi, (count, 1))
    t = np.linspace(0, 2 * np.pi, 10, endpoint=False) + 0.3
    radius = 1 + rng.normal(0, 0.09, (count, len(t)))
    x = length / 2 * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** 0.6 * radius
    y = width / 2 * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** 0.6 * radius
    c, s = np.cos(angle), np.sin(angle)
    middle = rng.uniform(-long[1] / 2, n + long[1] / 2, (2, count, 1))
    points = np.stack([x * c - y * s + middle[0], x * s + y * c + middle[1]], 2)
    owner = np.zeros((n, n), np.int32)
    for i, outline in enumerate(np.rint(points).astype(np.int32)):
        cv2.fillConvexPoly(owner, outline, i)
    return owner, np.asarray(angle[:, 0], np.float32)


WOODS = [(0.55, 0.37, 0.19), (0.62, 0.46, 0.27), (0.45, 0.28, 0.13), (0.5, 0.37, 0.23), (0.36, 0.22, 0.11)]
CORKS = [(0.42, 0.25, 0.12), (0.34, 0.19, 0.09), (0.5, 0.33, 0.18), (0.22, 0.14, 0.09)]


def chipboard(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Pressed wood: long strands (OSB), small chips (particle board) or cork granules."""
    kind = ("strands", "chips", "cork")[dye.integers(3)]
    palette = CORKS if kind == "cork" else WOODS
    base = near_grey(dye, palette, 0.13)
    z = s * rng.uniform(0.75, 1.35)
    if kind == "strands":
        owner, angle = _chips(rng, n, (35 * z, 95 * z), (6 * z, 22 * z), 3.5)
    elif kind == "chips":
        owner, angle = _chips(rng, n, (4 * z, 15 * z), (1.4 * z, 4.5 * z), 2.5)
    else:
        owner, angle = _chips(rng, n, (3 * z, 13 * z), (3 * z, 10 * z), 2.5)
    drift = [0.5 * z * fractal(rng, n, 5 * z, 3, 0.7) for _ in "xy"]
    owner = displaced(owner.astype(np.float32), drift, cv2.INTER_NEAREST).astype(np.int32)
    count = len(angle)
    edge = np.zeros((n, n), np.float32)
    edge[:, 1:] = owner[:, 1:] != owner[:, :-1]
    edge[1:] = np.maximum(edge[1:], owner[1:] != owner[:-1])
    gap = blur(edge, 0.45 * s) * smoothstep(-0.8, 1.2, fractal(rng, n, 12 * z, 3))
    u, v = frame(n, 0.0)
    c, d = np.cos(angle)[owner], np.sin(angle)[owner]
    jump = rng.uniform(0, n, (2, count)).astype(np.float32)
    along, across = u * c + v * d, v * c - u * d
    grain = streaks(rng, n, (28 if kind != "cork" else 2) * z, 0.9 * s) + 0.5 * streaks(rng, n, 60 * z, 3.5 * s)
    grain = cv2.remap(grain, along + jump[0][owner], across + jump[1][owner], cv2.INTER_LINEAR, None, cv2.BORDER_WRAP)
    tone = rng.normal(0, 1, count).astype(np.float32)[owner]
    warm = rng.normal(0, 1, (count, 1)) * np.array([0.03, -0.01, -0.09])
    tilt = rng.normal(0, 0.035 if kind == "strands" else 0.1, (2, count)).astype(np.float32)
    dust = fractal(rng, n, 1.8 * s, 3, 0.8)
    seam = 0.3 if kind == "strands" else 0.6
    contrast = {"strands": 0.13, "chips": 0.18, "cork": 0.2}[kind]
    dark = (rng.random(count) < {"strands": 0.03, "chips": 0.07, "cork": 0.12}[kind]).astype(np.float32)[owner]
    shades = np.exp(contrast * tone) * (1 + 0.1 * grain + 0.07 * dust) * (1 - 0.45 * dark) * (1 - seam * gap)
    shades *= 1 + 0.04 * fractal(rng, n, 60 * s, 3)
    albedo = base * (1 + warm).astype(np.float32)[owner] * shades[..., None]
    level = rng.uniform(0, 1, count).astype(np.float32)[owner]
    height = 0.7 * s * level + along * tilt[0][owner] + across * tilt[1][owner]
    height = blur(np.asarray(np.clip(height, -4 * s, 4 * s), np.float32), 0.3 * s) - 2 * seam * s * gap
    height += s * (0.12 * grain + 0.14 * dust)
    return Scene(np.clip(albedo, 0.006, 0.95), np.asarray(height, np.float32), 0.008, 12, None, (0.4, 0.58))


BOARDS = [(0.42, 0.27, 0.15), (0.48, 0.33, 0.2), (0.36, 0.23, 0.13), (0.4, 0.38, 0.35), (0.66, 0.64, 0.6)]
INKS = [(0.03, 0.03, 0.03), (0.03, 0.07, 0.25), (0.35, 0.03, 0.03), (0.03, 0.2, 0.08), (0.25, 0.1, 0.02)]


def _print(rng: Rng, n: int, s: float) -> Field:
    """Ink (n, n) in [0, 1]: bars, frames, arrows and letters as on a shipping box."""
    sheet = np.zeros((n, n), np.uint8)
    for _ in range(rng.integers(1, 4)):
        x, y = (int(c) for c in rng.uniform(-0.1 * n, 0.9 * n, 2))
        w, h = (int(c) for c in s * rng.uniform(40, 150, 2))
        thick = max(2, int(s * rng.uniform(1.5, 5)))
        what = rng.integers(5)
        if what == 0:
            cv2.rectangle(sheet, (x, y), (x + w, y + h), 255, thick)
        elif what == 1:
            cv2.rectangle(sheet, (x, y), (x + 3 * w, y + h // 3), 255, -1)
        elif what == 2:
            edges = x + np.cumsum(s * rng.choice([1.2, 2.4, 3.6], 40)).astype(int)
            for left, right in zip(edges[::2], edges[1::2], strict=True):
                cv2.rectangle(sheet, (int(left), y), (int(right) - 1, y + h), 255, -1)
        elif what == 3:
            arrow = np.array([[0, -2], [1.4, 0], [0.5, 0], [0.5, 2], [-0.5, 2], [-0.5, 0], [-1.4, 0]]) * w / 4
            cv2.fillPoly(sheet, [(arrow + np.array([x, y])).astype(np.int32)], 255)
        else:
            letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUX0123456789"), 8))
            cv2.putText(sheet, letters, (x, y), cv2.FONT_HERSHEY_SIMPLEX, s * rng.uniform(0.5, 1.6), 255, thick)
    if rng.random() < 0.5:
        sheet = np.ascontiguousarray(np.rot90(sheet))
    return np.asarray(sheet.astype(np.float32) / 255, np.float32)


def cardboard(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Kraft, grey or white board: fibres, cloudy stock, flutes showing through, sometimes print."""
    base = near_grey(dye, BOARDS, 0.12)
    ink = np.asarray(INKS[dye.integers(len(INKS))], np.float32)
    printed, fluted = dye.random() < 0.4, dye.random() < 0.7
    across = rng.random() < 0.5
    lean = (np.pi / 2 if across else 0.0, rng.uniform(0.7, 1.6))
    hair = np.zeros((n, n), np.float32)
    for length, width, share, gain in ((14, 0.5, 45, 0.16), (7, 0.3, 12, 0.1), (24, 0.4, 300, 0.2)):
        many = int(n * n / (share * s * s))
        drawn = fibres(rng, n, many, length * s, (0.25, 0.75, 0.4, 0.9, 0.6), max(1, round(width * s)), 1.4, lean)
        hair += gain * blur(np.asarray(np.where(drawn > 0, drawn - 0.52, 0), np.float32), 0.3 * s)
    stock, fine = fractal(rng, n, 7 * s, 4, 0.7), fractal(rng, n, 1.5 * s, 2, 0.8)
    cloud = fractal(rng, n, 60 * s, 3)
    bits = (rng.random((n, n), dtype=np.float32) < 0.0012 / s**2).astype(np.float32)
    bits = np.minimum(blur(bits, 0.4 * s) * np.float32(2.0 * s * s), 1)
    _, v = frame(n, (np.pi / 2 if across else 0.0) + rng.normal(0, 0.04))
    flute = np.sin(TAU * v / np.float32(s * rng.uniform(9, 24)) + 0.3 * fractal(rng, n, 50 * s, 2))
    flute = flute * np.float32(rng.uniform(0.3, 1.0) if fluted else 0.0)
    shades = (1 + 1.3 * hair + 0.035 * stock + 0.03 * fine + 0.035 * cloud + 0.02 * flute) * (1 - 0.4 * bits)
    albedo = base * shades[..., None]
    if printed:
        rough = [0.22 * s * fractal(rng, n, 3 * s, 3, 0.7) for _ in "xy"]
        # Ink is thin over hollow flutes, fibre tops and starved spots.
        cover = displaced(blur(_print(rng, n, s), 0.3 * s), rough)
        cover *= np.clip(0.86 + 0.08 * flute + 0.07 * stock + 0.06 * fine - 0.5 * np.maximum(hair, 0), 0, 0.97)
        albedo = albedo + cover[..., None] * (ink - albedo)
    height = s * (0.12 * stock + 0.14 * fine + 0.9 * hair + 0.45 * flute + 0.5 * cloud)
    return Scene(np.clip(albedo, 0.006, 0.95), np.asarray(height, np.float32), 0.012, 8, None, (0.42, 0.62))

"""Photographs drawn by rule, with the object's exact place: what an estimate of the object is tried on."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SHAPES = ("blob", "ellipse", "bar", "polygon", "gear", "ring", "screw", "strip", "touching", "several")
GROUNDS = ("dark", "bright", "grey", "coloured")
FINE = 2  # shapes are drawn at this multiple of the size


@dataclass(frozen=True)
class Scene:
    """An image (H,W,3) uint8, the object (H,W) uint8 in {0,1}, and what was drawn, in words."""

    image: np.ndarray
    mask: np.ndarray
    words: str


def _blob(rng: np.random.Generator, centre: np.ndarray, radius: float, waves: int, depth: float) -> np.ndarray:
    """An outline (n,2) around `centre` whose radius wavers."""
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    wave = sum(rng.normal() * np.sin(k * angle + rng.uniform(0, 6)) / k for k in range(1, waves + 1))
    along = radius * (1 + depth * wave / max(float(np.abs(wave).max()), 1e-6))
    aspect = rng.uniform(0.6, 1)
    points = np.stack([along * np.cos(angle), aspect * along * np.sin(angle)], axis=1)
    turn = rng.uniform(0, np.pi)
    return points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) + centre


def _fill(mask: np.ndarray, points: np.ndarray, value: int = 1) -> None:
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], value)


def _turned(mask: np.ndarray, degrees: float) -> np.ndarray:
    height, width = mask.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return np.asarray(cv2.warpAffine(mask, turn, (width, height), flags=cv2.INTER_NEAREST))


def _strip(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """From side to side, with edges that waver a little."""
    height, width = shape
    along = np.arange(height)
    left = width * rng.uniform(0.06, 0.35) + width * 0.01 * np.sin(along / height * rng.uniform(3, 30))
    right = width * rng.uniform(0.6, 0.94) + width * 0.01 * np.sin(along / height * rng.uniform(3, 30))
    x = np.arange(width)[None]
    return ((x >= left[:, None]) & (x < right[:, None])).astype(np.uint8)


def outline(name: str, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """The object of one of `SHAPES` in an image of `shape`: (H,W) uint8 in {0,1}."""
    height, width = shape
    if name == "strip":
        return _strip(rng, shape) if rng.random() < 0.5 else np.ascontiguousarray(_strip(rng, (width, height)).T)
    mask, side = np.zeros(shape, np.uint8), min(shape)
    centre = np.array([width, height]) / 2 + rng.uniform(-0.06, 0.06, 2) * side
    radius = side * rng.uniform(0.2, 0.4)
    if name == "touching":
        edge = [(0.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0)][int(rng.integers(4))]
        _fill(mask, _blob(rng, np.array(edge) * (width, height), 1.2 * radius, 4, 0.2))
    elif name == "several":
        for x in np.linspace(0.22, 0.78, int(rng.integers(2, 4))):
            _fill(mask, _blob(rng, np.array([x * width, centre[1]]), 0.13 * side, 3, 0.2))
    elif name in ("bar", "screw"):
        half = np.array([radius * 1.1, radius * rng.uniform(0.2, 0.5)])
        low, high = (tuple(int(v) for v in np.rint(centre + sign * half)) for sign in (-1, 1))
        cv2.rectangle(mask, low, high, 1, -1)
        if name == "screw":
            cv2.circle(mask, (low[0], round(centre[1])), round(1.6 * half[1]), 1, -1)
        mask = _turned(mask, rng.uniform(0, 180))
    elif name in ("gear", "ring"):
        angle = np.linspace(0, 2 * np.pi, 480, endpoint=False)
        teeth = np.sign(np.sin(angle * rng.integers(4, 11))) if name == "gear" else 0 * angle
        reach = radius * (1 + 0.1 * teeth)
        _fill(mask, centre + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
        cv2.circle(mask, (round(centre[0]), round(centre[1])), round(radius * rng.uniform(0.3, 0.6)), 0, -1)
    elif name == "polygon":
        angle = np.arange(6) * np.pi / 3 + rng.uniform(0, 0.8, 6)
        _fill(mask, centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    else:
        _fill(mask, _blob(rng, centre, radius, 6, 0.3 if name == "blob" else 0.0))
    return mask


def _colour(kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind in ("dark", "bright", "grey"):
        low, high = {"dark": (8, 45), "bright": (195, 245), "grey": (90, 160)}[kind]
        return rng.uniform(low, high) + rng.uniform(-5, 5, 3)
    hsv = np.array([[[rng.integers(180), rng.integers(90, 200), rng.integers(90, 220)]]], np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(float)


def _lab(colour: np.ndarray) -> np.ndarray:
    return cv2.cvtColor((colour[None, None] / 255).clip(0, 1).astype(np.float32), cv2.COLOR_RGB2LAB)[0, 0]


def _smooth(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Slow noise (H,W) of standard deviation 1."""
    coarse = cv2.resize(rng.normal(size=(cells, cells)), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (coarse - coarse.mean()) / coarse.std()


def light(rng: np.random.Generator, shape: tuple[int, int], strength: float) -> np.ndarray:
    """Light that falls off to a side and towards the corners: a factor (H,W,1), at most 1."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    turn, share = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1)
    slope = (x * np.cos(turn) + y * np.sin(turn) + 1.42) / 2.84
    return (1 - strength * (share * slope + (1 - share) * (x**2 + y**2) / 2))[..., None]


def _body(rng: np.random.Generator, mask: np.ndarray, ground: np.ndarray, tone: str) -> np.ndarray:
    """The object's surface (H,W,3): one colour or two, rounded or flat, plain, grained, striped or printed on."""
    colours: list[np.ndarray] = []
    while len(colours) < 2:
        colour = _colour(GROUNDS[int(rng.integers(4))], rng)
        if np.linalg.norm(_lab(colour) - _lab(ground)) > 20:
            colours.append(colour)
    y, x = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]] / min(mask.shape)
    half = (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) > rng.uniform(-0.3, 0.8)
    body = np.where((half if rng.random() < 0.35 else half & False)[..., None], colours[0], colours[1])
    if tone == "transparent":
        body = ground * rng.uniform(0.8, 0.9) + np.zeros_like(body)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    round_off = np.sqrt((depth / (0.12 * min(mask.shape))).clip(0, 1))[..., None]
    body = body * (1 - rng.uniform(0, 0.35) * (1 - round_off))
    if tone == "transparent":
        body = body * np.where(depth < 0.015 * min(mask.shape), 0.6, 1)[..., None]
    marks = rng.integers(4)
    if marks == 1:
        body = body * (1 + rng.uniform(0.03, 0.12) * rng.normal(size=(*mask.shape, 1)))
    elif marks == 2:
        body = (
            body
            * (1 + rng.uniform(0.05, 0.15) * np.sin(rng.uniform(40, 120) * (x + rng.uniform(-1, 1) * y)))[..., None]
        )
    elif marks == 3:
        # A print in the ground's own colour: it is part of the object.
        middle = np.argwhere(depth > 0.7 * depth.max())[0]
        print_on = np.zeros(mask.shape, np.uint8)
        size = min(mask.shape) / 500
        cv2.putText(print_on, "50", (int(middle[1]), int(middle[0])), 0, size, 1, max(1, round(2 * size)))
        body = np.where((print_on == 1)[..., None], ground, body)
    return np.asarray(body)


def _shadow(rng: np.random.Generator, mask: np.ndarray, strength: float) -> np.ndarray:
    """What a soft shadow leaves of the light: (H,W,1)."""
    side = min(mask.shape)
    dx, dy = rng.uniform(-0.05, 0.05, 2) * side
    moved = cv2.warpAffine(
        mask.astype(np.float32), np.array([[1, 0, dx], [0, 1, dy]]), mask.shape[::-1], borderMode=cv2.BORDER_REPLICATE
    )
    return (1 - strength * cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.02, 0.06) * side))[..., None]


def draw_scene(
    seed: int,
    shape: str | None = None,
    ground: str | None = None,
    size: tuple[int, int] | None = None,
    *,
    fall_off: float | None = None,
    shadow: float | None = None,
    tone: str | None = None,
) -> Scene:
    """A scene by its seed; what is not given is drawn too.

    `shape` of `SHAPES`, `ground` of `GROUNDS`, `size` (H,W), `fall_off` and `shadow`: largest share of the light that
    is lost, `tone`: "opaque" or "transparent".
    """
    rng = np.random.default_rng(seed)
    shape = shape or SHAPES[int(rng.integers(len(SHAPES)))]
    ground = ground or GROUNDS[int(rng.integers(len(GROUNDS)))]
    size = size or (int(rng.integers(240, 400)), int(rng.integers(240, 400)))
    fall_off = rng.uniform(0, 0.45) if fall_off is None else fall_off
    shadow = (rng.uniform(0, 0.55) if rng.random() < 0.7 else 0.0) if shadow is None else shadow
    clear = rng.random() < 0.1 and ground != "dark"  # of glass on black nothing would be seen
    tone = tone or ("transparent" if clear else "opaque")
    fine = outline(shape, rng, (size[0] * FINE, size[1] * FINE))
    share = cv2.resize(fine.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    mask = (share > 0.5).astype(np.uint8)
    colour = _colour(ground, rng)
    lit = light(rng, size, fall_off)
    behind = colour * (1 + rng.uniform(0, 0.015) * _smooth(rng, size, 24))[..., None] * _shadow(rng, mask, shadow)
    behind = behind + rng.uniform(0, 2.5) * rng.normal(size=(*size, 1))
    front = _body(rng, mask, colour, tone)
    blurred = cv2.GaussianBlur(share, (0, 0), rng.uniform(0.3, 1.2))[..., None]
    image = (behind * (1 - blurred) + front * blurred) * lit + rng.normal(0, rng.uniform(0.3, 2.5), (*size, 3))
    for x, y in rng.uniform(0, 1, (int(rng.integers(8)), 2)):
        cv2.circle(image, (int(x * size[1]), int(y * size[0])), 1, (120, 120, 120), -1)
    words = f"{shape}, {ground}, {tone}, fall-off {fall_off:.2f}, shadow {shadow:.2f}"
    return Scene(np.clip(np.rint(image), 0, 255).astype(np.uint8), mask, words)

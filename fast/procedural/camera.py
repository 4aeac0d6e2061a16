"""Light and camera: turns a material (albedo and height) into the picture a camera would take of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.noise import Field, Rng, blur, smoothstep, white


@dataclass
class Scene:
    """A material before it is lit.

    albedo: (n, n, 3) linear reflectance in [0, 1]; height: (n, n) in px. `gloss` and `shine` are the strength and the
    exponent of the highlight, `glow` an extra (n, n) factor on the light (anisotropic highlights), `key` the range of
    the mean brightness of the finished picture in [0, 1], `defocus` what the lens adds to the blur, in px of it.
    """

    albedo: Field
    height: Field
    gloss: float = 0.05
    shine: float = 12.0
    glow: Field | None = None
    key: tuple[float, float] = (0.4, 0.55)
    defocus: float = 0.0


def defocus(rng: Rng) -> float:
    """A blur in px as cameras on a line have it: most are sharp, one in three a little off."""
    return float(max(rng.uniform(-1.8, 0.9), 0.0))


def _slopes(height: Field) -> tuple[Field, Field]:
    # Half the usual Scharr norm would flatten the relief: 1/32 makes this a true derivative per px.
    dx = cv2.Scharr(height, cv2.CV_32F, 1, 0, scale=1 / 32)
    dy = cv2.Scharr(height, cv2.CV_32F, 0, 1, scale=1 / 32)
    return np.asarray(dx, np.float32), np.asarray(dy, np.float32)


def _lamp(rng: Rng, n: int) -> tuple[Field, Field, Field, Field]:
    """Unit vector to a near lamp for every px (three (n, n) fields) and its falloff, 1 on average."""
    azimuth, lift = rng.uniform(-np.pi, np.pi), rng.uniform(0.62, 1.05)
    reach = n * rng.uniform(1.3, 3.0)
    axis = np.arange(n, dtype=np.float32) - n / 2
    x = np.float32(reach * np.cos(azimuth) * np.cos(lift)) - axis[None, :]
    y = np.float32(reach * np.sin(azimuth) * np.cos(lift)) - axis[:, None]
    z = np.float32(reach * np.sin(lift))
    inverse = 1 / np.sqrt(x * x + y * y + z * z)
    falloff = inverse * inverse
    return x * inverse, y * inverse, z * inverse, np.asarray(falloff / falloff.mean(), np.float32)


def shade(scene: Scene, rng: Rng) -> Field:
    """Light a scene: (n, n, 3) linear radiance, not yet exposed."""
    n = scene.height.shape[0]
    dx, dy = _slopes(scene.height)
    norm = 1 / np.sqrt(dx * dx + dy * dy + 1)
    lx, ly, lz, falloff = _lamp(rng, n)
    facing = (lz - lx * dx - ly * dy) * norm
    ambient = np.float32(rng.uniform(0.3, 0.55))
    # Hollows see less of the sky than ridges do.
    cavity = np.clip(1 + (scene.height - blur(scene.height, n / 90)) * np.float32(0.12), 0.55, 1.2)
    light = (ambient * cavity + (1 - ambient) * np.maximum(facing, 0)) * falloff
    if scene.glow is not None:
        light = light * scene.glow
    picture = scene.albedo * light[..., None]
    if scene.gloss > 0:
        half = 1 / np.sqrt(lx * lx + ly * ly + (lz + 1) ** 2)
        aligned = np.maximum(((lz + 1) - lx * dx - ly * dy) * norm * half, 0)
        picture += (np.float32(scene.gloss) * falloff * aligned ** np.float32(scene.shine))[..., None]
    return np.asarray(picture, np.float32)


def _vignette(rng: Rng, size: int) -> Field:
    axis = (np.arange(size, dtype=np.float32) - size / 2) / (size / 2)
    off_x, off_y = rng.uniform(-0.15, 0.15, 2)
    r2 = (axis[None, :] - off_x) ** 2 + (axis[:, None] - off_y) ** 2
    return np.asarray(1 - np.float32(rng.uniform(0.04, 0.16)) * r2, np.float32)


def _sensor_noise(rng: Rng, picture: Field) -> Field:
    """Shot and read noise in grey levels; part of it shared by the channels, all of it a little smeared."""
    size = picture.shape[0]
    level = rng.uniform(1.2, 2.6)
    colour = np.dstack([white(rng, size, size) for _ in range(3)])
    grain = 0.8 * white(rng, size, size)[..., None] + 0.55 * blur(colour, 0.6)
    return np.asarray(level * grain * (0.45 + 0.55 * np.sqrt(np.clip(picture, 0, 1))), np.float32)


def photograph(scene: Scene, size: int, rng: Rng) -> NDArray[np.uint8]:
    """Shade, focus, expose and sample: uint8 (size, size, 3) RGB."""
    light = shade(scene, rng)
    scale = light.shape[0] / size
    light = blur(light, scale * (rng.uniform(0.3, 0.62) + scene.defocus))
    light = np.asarray(cv2.resize(light, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    cast = 1 + rng.normal(0, 0.018, 3)
    light = light * _vignette(rng, size)[..., None] * cast.astype(np.float32)
    # A meter that levelled every surface fully would photograph navy cloth as sky blue.
    key = rng.uniform(*scene.key) * float(np.clip((scene.albedo.mean() / 0.3) ** 0.2, 0.72, 1.2))
    light *= np.float32(key**2.2 / max(float(np.median(light.mean(2))), 1e-4))
    # A film-like shoulder keeps highlights from clipping hard.
    toned = np.where(light < 0.6, light, 0.6 + 0.4 * np.tanh((light - 0.6) / 0.4))
    picture = np.clip(toned, 0, 1) ** np.float32(1 / 2.2)
    contrast = np.float32(rng.uniform(0.15, 0.5))
    picture = picture + contrast * (smoothstep(0, 1, picture) - picture)
    # Cameras sharpen; without it a drawn surface looks airbrushed.
    picture += np.float32(rng.uniform(0.15, 0.5)) * (picture - cv2.GaussianBlur(picture, (0, 0), 1.0))
    levels = picture * 255 + _sensor_noise(rng, picture)
    return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)

"""What the first stage loses given back to a made window, and its change faded in from the border of the mask.

Windows are uint8 (H,W,3), masks (H,W) in {0,1}. Plain functions of their arguments.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.noise import weighted_blur

Floats = NDArray[np.float32]

SIGMA = 1.5  # pixels: of the Gaussian that likeness is taken under, SSIM's
COARSE = 2.0  # pixels: of the Gaussian under which the change of a draft is taken, at least
HALF = 0.5  # of a defect's radius: of that Gaussian inside its mask
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # SSIM's: differences below them, squared grey levels, count for nothing
NEAR = 8.0  # pixels: how far the local strength of noise, and whether a surface is still there, are looked at
WIDEST = 24.0  # pixels: the change of a soft defect fades in within these, or half its radius


def restored(normal: np.ndarray, decoded: np.ndarray, made: np.ndarray, seed: int) -> np.ndarray:
    """Give a made window (H,W,3) uint8 back the grain and noise that the first stage lost.

    The difference `normal - decoded` is added where `made` is still like `decoded`. As far as it is not, the surface
    there is another one and gets noise of the same spectrum. Where `made` is equal to `decoded`, nothing was made and
    the normal comes back byte for byte.

    Args:
        normal: the window of the normal image.
        decoded: that window encoded and decoded, and nothing else.
        made: the window with its defect, from the same decoder.
        seed: decides the noise.
    """
    lost = normal.astype(np.float32) - decoded
    like = likeness(decoded, made)[..., None]
    other = noise_like(lost, seed) * _dimmed(decoded, made)[..., None]
    # Independent of each other: their squares add up, so that neither share changes the strength of the sum.
    full = made + like * lost + np.sqrt(1 - like**2) * other
    return np.clip(np.rint(full), 0, 255).astype(np.uint8)


def varied(draft: np.ndarray, decoded: np.ndarray, made: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Change a draft (H,W,3) uint8 as far as sampling changed it, in what is coarse.

    Inside the mask, coarse means beyond half the radius of the largest circle in it, and at least `COARSE` pixels.
    Around the mask it means beyond `COARSE` pixels. A crack's edge and the surface's grain stay the draft's, while how
    dark, wide and even it is becomes new. What is finer is not the defect's: a small base leaves clouds, which a
    segmenter would learn in its place.

    Args:
        draft: the draft's window.
        decoded: that window encoded and decoded, and nothing else.
        made: what sampling made of it, from the same decoder.
        mask: (H,W), nonzero = defect.
    """
    found = _blurred(made.astype(np.float32) - decoded.astype(np.float32), COARSE)
    own = (mask != 0).astype(np.uint8)
    if own.any():
        radius = float(cv2.distanceTransform(np.pad(own, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max())
        inside, sigma = own.astype(np.float32)[..., None], max(COARSE, HALF * radius)
        found = inside * weighted_blur(found, inside, sigma) + (1 - inside) * found
    return np.clip(np.rint(draft + found), 0, 255).astype(np.uint8)


def likeness(window: np.ndarray, other: np.ndarray) -> Floats:
    """SSIM (H,W) of the grey windows about each pixel (Wang et al. 2004), below 0 cut: 1 the same, 0 nothing alike."""
    a, b = _grey(window), _grey(other)
    mean_a, mean_b = _blurred(a, SIGMA), _blurred(b, SIGMA)
    var_a, var_b = _blurred(a * a, SIGMA) - mean_a**2, _blurred(b * b, SIGMA) - mean_b**2
    shared = _blurred(a * b, SIGMA) - mean_a * mean_b
    alike = (2 * mean_a * mean_b + C1) * (2 * shared + C2)
    found = alike / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2))
    return np.clip(found, 0, 1).astype(np.float32)


def noise_like(lost: np.ndarray, seed: int) -> Floats:
    """Make noise (H,W,3) with the spectrum and the local strength of `lost`, random in phase.

    The strength is taken out before the spectrum is looked at, so that a strong edge in one place is not spread over
    the window, and put in again. The channels share their phases, so that grey noise stays grey.
    """
    strength = np.sqrt(_blurred((lost.astype(np.float32) ** 2).mean(2), NEAR))[..., None] + 1e-3
    even = np.clip(lost / strength, -3, 3)
    white = np.fft.rfft2(np.random.default_rng(seed).standard_normal(lost.shape[:2]))
    phases = white / np.maximum(np.abs(white), 1e-12)
    spectrum = np.abs(np.fft.rfft2(even, axes=(0, 1)))
    noise = np.fft.irfft2(spectrum * phases[..., None], s=lost.shape[:2], axes=(0, 1))
    return np.asarray(noise * strength, np.float32)


def faded(normal: np.ndarray, made: np.ndarray, mask: np.ndarray, blend: int) -> np.ndarray:
    """Fade the change of a made window in from the border of the mask: uint8 (H,W,3).

    Outside the mask the result is `normal`. Inside, the change is weaker towards the border. The picture's edge is no
    border. The change of a defect through which the surface still shows fades in more slowly, within `WIDEST` pixels or
    half the defect's radius, by the share in which it shows. In the middle of a defect narrower than that nothing is
    taken away.

    Args:
        normal: the normal window, or a draft in its place.
        made: the window with its defect.
        mask: (H,W), nonzero = defect.
        blend: within how many pixels of the border the change fades in. 0: it does not fade.
    """
    share = weights(normal, made, mask, blend)[..., None]
    change = made.astype(np.float32) - normal
    return np.clip(np.rint(normal + share * change), 0, 255).astype(np.uint8)


def weights(normal: np.ndarray, made: np.ndarray, mask: np.ndarray, blend: int) -> Floats:
    """How much of the change `faded` leaves at each pixel: float32 (H,W) in 0..1, 0 outside the mask."""
    own = (mask != 0).astype(np.uint8)
    if blend == 0 or own.all():
        return own.astype(np.float32)
    inside = cv2.distanceTransform(own, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # 1 for pixels at the border
    radius = _radius(own, inside)
    shows = _blurred(likeness(normal, made) * own, NEAR) / np.maximum(_blurred(own.astype(np.float32), NEAR), 1e-3)
    wide = np.minimum(radius / 2, WIDEST)
    width = np.maximum(blend + 1, shows * wide)
    width = np.minimum(width, np.maximum(radius, 1))
    x = np.clip(inside / width, 0, 1)
    return np.where(width > blend + 1, x * x * (3 - 2 * x), x).astype(np.float32)


def _radius(own: np.ndarray, inside: np.ndarray) -> Floats:
    """The largest distance from the border within each 8-connected component, at its pixels (H,W); 0 outside."""
    count, labels = cv2.connectedComponents(own, connectivity=8)
    largest = np.zeros(count, np.float32)
    np.maximum.at(largest, labels.ravel().astype(np.intp), inside.ravel())
    return np.asarray(largest[labels], np.float32)


def _dimmed(decoded: np.ndarray, made: np.ndarray) -> Floats:
    """How strong noise (H,W) is where `made` is darker: as the square root of the light, at most as it was."""
    before, after = _blurred(_grey(decoded), SIGMA), _blurred(_grey(made), SIGMA)
    return np.sqrt(np.clip((after + 1) / (before + 1), 0, 1)).astype(np.float32)


def _grey(window: np.ndarray) -> Floats:
    return np.asarray(window.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def _blurred(x: np.ndarray, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(x, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32)

"""A brief fit of the first stage's decoder to the pictures of one part; the encoder stays, so latents stay valid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from fast.masks import to_tensor
from ldm.errors import UserError
from ldm.modules.losses.contperceptual import edge_distance
from ldm.rng import seed_of

SCORED = 16  # pictures, at most, that a fit is scored on


@dataclass(frozen=True)
class FitOptions:
    """`steps`: of Adam, at a rate that falls from `lr` to nothing. `batch_size` random windows of `crop` pixels a side,
    (least, most), are seen at each. `edge_weight`: of the distance between image gradients beside L1."""

    steps: int = 300
    lr: float = 5e-4
    batch_size: int = 8
    crop: tuple[int, int] = (64, 128)
    edge_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(
                    f"fit_decoder.{name}={value} is not a whole number from 1; leave fit_decoder out for none"
                )
        if isinstance(self.lr, bool) or not isinstance(self.lr, int | float) or self.lr <= 0:
            raise UserError(f"fit_decoder.lr={self.lr} must be a number above 0")
        if not hasattr(self.crop, "__len__") or len(self.crop) != 2 or not 8 <= self.crop[0] <= self.crop[1]:
            raise UserError(f"fit_decoder.crop={self.crop} is not [least, most] in pixels, from 8; write [64, 128]")


View = Callable[[int, int | None], np.ndarray]


def fit_decoder(model: Any, count: int, view: View, options: FitOptions, seed: int) -> tuple[float, float]:
    """Fit `model.first_stage_model.decoder` in place. Returns PSNR in dB (before, after) over whole pictures.

    `view(i, seed)`: picture i < count, uint8 (H,W,3), augmented by the seed or plain for None; all of one size.
    The result depends on the weights, the pictures and `seed` alone.
    """
    decoder = model.first_stage_model.decoder
    own(decoder)
    shown = [view(i, None) for i in sorted({round(k) for k in np.linspace(0, count - 1, min(count, SCORED))})]
    before = score(model, shown)
    rng, factor = np.random.default_rng(seed), _factor(model)
    decoder.requires_grad_(True)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=options.lr, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    for step in tqdm(range(options.steps), desc="fitting the decoder", unit="step", disable=None):
        x = _windows(count, view, options, seed_of(seed, step), rng, factor).to(model.device)
        with torch.no_grad():
            z = model.first_stage_mean(x)
        with torch.enable_grad():
            y = model.first_stage_model.decode(z).float()
            loss = F.l1_loss(y, x) + options.edge_weight * edge_distance(x, y).mean()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        falling.step()
    decoder.requires_grad_(False)
    for p in decoder.parameters():
        p.grad = None
    return before, score(model, shown)


def own(decoder: nn.Module) -> None:
    """Give a decoder weights in float32 that are its own: those that are mapped from a file are not written to."""
    for p in decoder.parameters():
        p.data = p.detach().float().clone()


@torch.no_grad()
def score(model: Any, pictures: Sequence[np.ndarray]) -> float:
    """Mean PSNR in dB of pictures (H,W,3) uint8 that went through the first stage and back."""
    errors = []
    for picture in pictures:
        x = to_tensor(picture)[None].to(model.device)
        y = model.first_stage_model.decode(model.first_stage_mean(x)).float().clamp(-1, 1)
        errors.append(F.mse_loss(y, x).clamp_min(1e-10))
    return float((10 * torch.log10(4 / torch.stack(errors))).mean())


def _windows(count: int, view: View, options: FitOptions, seed: int, rng: np.random.Generator, factor: int) -> Tensor:
    """Random windows (B,3,s,s) of random pictures, one side s for all, a multiple of the first stage's factor."""
    least, most = options.crop
    side, windows = int(rng.integers(least, most + 1)), []
    for k in range(options.batch_size):
        picture = view(int(rng.integers(count)), seed_of(seed, k))
        side = min(side, *picture.shape[:2]) // factor * factor
        y, x = (int(rng.integers(length - side + 1)) for length in picture.shape[:2])
        windows.append(to_tensor(picture[y : y + side, x : x + side]))
    return torch.stack(windows)


@torch.no_grad()
def _factor(model: Any) -> int:
    return 64 // model.first_stage_mean(torch.zeros(1, 3, 64, 64, device=model.device)).shape[-1]

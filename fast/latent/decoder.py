"""A brief fit of the first stage's decoder to the pictures of one part; the encoder stays, so latents stay valid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from fast.data.tensors import to_tensor
from fast.runtime.progress import Progress
from fast.runtime.validated import STRICT, FromOne, Number, Positive, Whole
from ldm.models.autoencoder import psnr
from ldm.modules.losses.contperceptual import edge_distance
from ldm.rng import seed_of

SCORED, WATCHED = 16, 4  # pictures, at most, that a fit is scored on, and that are looked at while it goes
CHECKS, LEAST_BETWEEN, PATIENCE = 10, 10, 3  # looks at it in all, steps between two at least, looks without gain


def _least_most(crop: tuple[int, int]) -> tuple[int, int]:
    if not 8 <= crop[0] <= crop[1]:
        raise PydanticCustomError("crop", "must be [least, most] in pixels, from 8; write [64, 128]")
    return crop


@dataclass(frozen=True)
class FitOptions:
    """`steps`: of Adam, at most, at a rate that falls from `lr` to nothing. `batch_size` random windows of `crop`
    pixels a side, (least, most), are seen at each. `edge_weight`: of the distance between image gradients beside L1.

    `enough`: PSNR in dB of the pictures through the first stage at which there is no fit: what is lost then is no more
    than a camera's noise. `gain`: the fit ends where three tenths of its steps gain less, in dB; 0: never before.
    """

    __pydantic_config__ = STRICT

    steps: FromOne = 300
    lr: Positive = 5e-4
    batch_size: FromOne = 8
    crop: Annotated[tuple[Whole, Whole], AfterValidator(_least_most)] = (64, 128)
    edge_weight: Annotated[Number, Ge(0)] = 1.0
    enough: Annotated[Number, Ge(0)] = 42.0
    gain: Annotated[Number, Ge(0)] = 0.1


View = Callable[[int, int | None], np.ndarray]


def fit_decoder(model: Any, count: int, view: View, options: FitOptions, seed: int) -> tuple[float, float]:
    """Fit `model.first_stage_model.decoder` in place. Returns PSNR in dB (before, after) over whole pictures; they are
    the same where `options.enough` leaves it as it is.

    `view(i, seed)`: picture i < count, uint8 (H,W,3), augmented by the seed or plain for None; all of one size.
    The result depends on the weights, the pictures and `seed` alone.
    """
    decoder = model.first_stage_model.decoder
    own(decoder)
    shown = [view(i, None) for i in sorted({round(k) for k in np.linspace(0, count - 1, min(count, SCORED))})]
    before = score(model, shown)
    if before >= options.enough:
        return before, before
    rng, factor = np.random.default_rng(seed), _factor(model)
    decoder.requires_grad_(True)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=options.lr, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    course = _Course(model, shown[:WATCHED], options)
    with Progress(options.steps, "fitting the decoder", "step") as progress:
        for step in range(options.steps):
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
            progress.update()
            if course.ends(step + 1):
                break
    decoder.requires_grad_(False)
    for p in decoder.parameters():
        p.grad = None
    return before, score(model, shown)


class _Course:
    """Follows a fit on a few pictures: tells when it gains nothing more, and then puts the best weights back."""

    def __init__(self, model: Any, pictures: Sequence[np.ndarray], options: FitOptions):
        self.model, self.options = model, options
        self.between = max(LEAST_BETWEEN, options.steps // CHECKS)
        self.images = [to_tensor(p)[None].to(model.device) for p in pictures]
        with torch.no_grad():  # the encoder stays, and with it the latents
            self.latents = [model.first_stage_mean(x) for x in self.images]
        self.scores = [self._score()]
        self.best = self._weights()

    @torch.no_grad()
    def _score(self) -> float:
        made = [self.model.first_stage_model.decode(z) for z in self.latents]
        return float(torch.stack([psnr(x, y) for y, x in zip(made, self.images, strict=True)]).mean())

    def _weights(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in self.model.first_stage_model.decoder.state_dict().items()}

    def ends(self, done: int) -> bool:
        """Whether `done` steps are enough. Looked at ten times in all."""
        if not self.options.gain or done % self.between or done == self.options.steps:
            return False
        self.scores.append(self._score())
        if self.scores[-1] == max(self.scores):
            self.best = self._weights()
        if len(self.scores) <= PATIENCE + 1 or max(self.scores) - max(self.scores[:-PATIENCE]) >= self.options.gain:
            return False
        self.model.first_stage_model.decoder.load_state_dict(self.best)
        return True


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
        errors.append(psnr(x, model.first_stage_model.decode(model.first_stage_mean(x))))
    return float(torch.stack(errors).mean())


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

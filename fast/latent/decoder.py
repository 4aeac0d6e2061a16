"""A brief fit of the first stage's decoder to the pictures of one part; the encoder stays, so latents stay valid."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
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
POOL = 96  # views that windows are taken from, at most: reading a large picture takes longer than a step
LOOKS = 2.5  # what looking at pictures during and after a fit takes, in times of the first score
CHECKS, LEAST_BETWEEN, PATIENCE = 10, 10, 3  # looks at it in all, steps between two at least, looks without gain


def _least_most(crop: tuple[int, int]) -> tuple[int, int]:
    if not 8 <= crop[0] <= crop[1]:
        raise PydanticCustomError("crop", "must be [least, most] in pixels, from 8; write [64, 128]")
    return crop


@dataclass(frozen=True)
class FitOptions:
    """How the first stage's decoder is fitted to the pictures of one part.

    Args:
        steps: steps of Adam, at most.
        lr: learning rate at the first step. It falls to nothing at the last of `steps`.
        batch_size: random windows that are seen at each step.
        crop: (least, most), sides of these windows in pixels, from 8.
        edge_weight: weight of the distance between image gradients, beside the L1 distance.
        enough: PSNR in dB of the pictures through the first stage at which there is no fit: what is lost then is no
            more than a camera's noise.
        gain: the fit ends early where three tenths of its steps, at least 30, gain less than this, in dB. 0: it never
            ends early.
        share: share (0..1) that the fit may take of the minutes of a run that has a limit of them. It then makes as
            many steps as fit in, judged by the time that one takes.
    """

    __pydantic_config__ = STRICT

    steps: FromOne = 300
    lr: Positive = 5e-4
    batch_size: FromOne = 8
    crop: Annotated[tuple[Whole, Whole], AfterValidator(_least_most)] = (64, 128)
    edge_weight: Annotated[Number, Ge(0)] = 1.0
    enough: Annotated[Number, Ge(0)] = 42.0
    gain: Annotated[Number, Ge(0)] = 0.1
    share: Annotated[Number, Ge(0), Le(1)] = 0.2


View = Callable[[int, int | None], np.ndarray]


def fit_decoder(
    model: Any,
    count: int,
    view: View,
    options: FitOptions,
    seed: int,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[float, float]:
    """Fit `model.first_stage_model.decoder` in place.

    Args:
        model: a latent-diffusion model. Its decoder gets float32 weights of its own.
        count: number of pictures.
        view: `view(i, seed)` returns picture i < count, uint8 (H,W,3), augmented by the seed, or plain for None. All
            are of one size.
        options: steps, windows and when to stop.
        seed: decides the windows and the augmentations.
        seconds: time that all of it may take, by `clock`. None: no limit, and then the result depends on the weights,
            the pictures and `seed` alone.
        clock: a function that returns seconds.

    Returns:
        PSNR in dB (before, after) over whole pictures. They are equal where the decoder stays as it is: it is as good
        as `options.enough`, the time is too short for ten steps, or the fit made it worse, as few steps do, and was
        taken back.
    """
    start, decoder = clock(), model.first_stage_model.decoder
    own(decoder)
    decoder.to(memory_format=torch.channels_last)
    shown = [view(i, None) for i in sorted({round(k) for k in np.linspace(0, count - 1, min(count, SCORED))})]
    before = score(model, shown)
    if before >= options.enough:
        decoder.to(memory_format=torch.contiguous_format)
        return before, before
    scored = clock() - start
    decoder.requires_grad_(True)
    batches = _batches(model, _pool(count, view, seed), options, seed)
    steps = options.steps
    if seconds is not None:
        steps = min(steps, int((seconds - scored * (1 + LOOKS)) / _step_time(model, next(batches), options, clock)))
    fits = seconds is None or steps >= LEAST_BETWEEN
    unfitted = _fit(model, batches, steps, options, shown[:WATCHED]) if fits else {}
    decoder.requires_grad_(False)
    decoder.to(memory_format=torch.contiguous_format)
    for p in decoder.parameters():
        p.grad = None
    after = score(model, shown) if fits else before
    if after < before:
        decoder.load_state_dict(unfitted)
    return before, max(before, after)


def _fit(
    model: Any, batches: Iterator[Tensor], steps: int, options: FitOptions, shown: Sequence[np.ndarray]
) -> dict[str, Tensor]:
    """Returns the weights that it began with."""
    decoder = model.first_stage_model.decoder
    optimizer = torch.optim.Adam(decoder.parameters(), lr=options.lr, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    course = _Course(model, shown, options, steps)
    with Progress(steps, "fitting the decoder", "step") as progress:
        for step in range(steps):
            optimizer.zero_grad()
            _loss(model, next(batches), options).backward()
            optimizer.step()
            falling.step()
            progress.update()
            if course.ends(step + 1):
                break
    return course.first


def _loss(model: Any, x: Tensor, options: FitOptions) -> Tensor:
    """How far windows x (B,3,s,s) are from themselves through the first stage."""
    with torch.no_grad():
        z = model.first_stage_mean(x)
    with torch.enable_grad():
        y = model.first_stage_model.decode(z).float()
        return F.l1_loss(y, x) + options.edge_weight * edge_distance(x, y).mean()


def _step_time(model: Any, x: Tensor, options: FitOptions, clock: Callable[[], float]) -> float:
    """Seconds that a step takes, by the second of two on windows x (B,3,s,s); nothing is changed."""
    start = 0.0
    for _ in range(2):
        start = clock()
        _loss(model, x, options).backward()
    for p in model.first_stage_model.decoder.parameters():
        p.grad = None
    return max(clock() - start, 1e-6)


def _pool(count: int, view: View, seed: int) -> list[np.ndarray]:
    """Augmented views of random pictures, all of them where they are few."""
    rng = np.random.default_rng(seed_of(seed, 1))
    laps = -(-POOL // count) if count < POOL else 1
    order = np.concatenate([rng.permutation(count) for _ in range(laps)])[:POOL]
    return [view(int(i), seed_of(seed, 2, k)) for k, i in enumerate(order)]


def _batches(model: Any, views: Sequence[np.ndarray], options: FitOptions, seed: int) -> Iterator[Tensor]:
    """Random windows (B,3,s,s) of random views without end, one side s for a batch, a multiple of the first stage's
    factor."""
    rng, factor = np.random.default_rng(seed), _factor(model)
    least, most = options.crop
    while True:
        side, windows = int(rng.integers(least, most + 1)), []
        for _ in range(options.batch_size):
            picture = views[int(rng.integers(len(views)))]
            side = min(side, *picture.shape[:2]) // factor * factor
            y, x = (int(rng.integers(length - side + 1)) for length in picture.shape[:2])
            windows.append(to_tensor(picture[y : y + side, x : x + side]))
        yield torch.stack(windows).to(model.device)


class _Course:
    """Follows a fit on a few pictures: tells when it gains nothing more, and then puts the best weights back."""

    def __init__(self, model: Any, pictures: Sequence[np.ndarray], options: FitOptions, steps: int):
        self.model, self.options, self.steps = model, options, steps
        self.between = max(LEAST_BETWEEN, steps // CHECKS)
        self.images = [to_tensor(p)[None].to(model.device) for p in pictures]
        with torch.no_grad():  # the encoder stays, and with it the latents
            self.latents = [model.first_stage_mean(x) for x in self.images]
        self.scores = [self._score()]
        self.first = self.best = self._weights()

    @torch.no_grad()
    def _score(self) -> float:
        made = [self.model.first_stage_model.decode(z) for z in self.latents]
        return float(torch.stack([psnr(x, y) for y, x in zip(made, self.images, strict=True)]).mean())

    def _weights(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in self.model.first_stage_model.decoder.state_dict().items()}

    def ends(self, done: int) -> bool:
        """Whether `done` steps are enough. Looked at ten times in all."""
        if not self.options.gain or done % self.between or done == self.steps:
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


@torch.no_grad()
def _factor(model: Any) -> int:
    return 64 // model.first_stage_mean(torch.zeros(1, 3, 64, 64, device=model.device)).shape[-1]

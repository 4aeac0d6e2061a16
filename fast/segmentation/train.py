"""Training a segmentation network: a warm-up, a fall to zero; nothing is chosen by a score."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import nn
from torch.utils.data import DataLoader

from fast.runtime.device import settle_attention
from fast.segmentation.data import SegmentationSample, Views
from fast.segmentation.module import Batches, SegmentationModule
from fast.segmentation.prior import PRIORS, corrected, oversampling, uncorrected
from fast.segmentation.recipes import find, published
from fast.training.trainer import quiet
from ldm.errors import UserError

LOSSES = ("ce", "ce+dice", "published")
_ENDLESS = 1 << 40  # steps of a training that the clock ends


def train(
    model: nn.Module,
    pairs: Sequence[SegmentationSample],
    *,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    size: int = 256,
    crop: int | None = None,
    native: bool = False,
    loss: str | None = None,
    defect_weight: float | None = None,
    augment: str = "light",
    recipe: str = "common",
    ema: float = 0.0,
    prior: str = "drawn",
    bf16: bool = False,
    device: str | torch.device = "cpu",
    progress: Callable[[int, float, float], None] | None = None,
) -> nn.Module:
    """Train a segmentation network in place on image-mask pairs, which are drawn at random by their weights.

    Args:
        model: the network to train. One that comes wrapped in `fast.segmentation.prior.Corrected` is trained on without
            it.
        pairs: what is drawn from, each as often as its `weight` says beside the others. Labels count from 1.
        steps, minutes: optimizer steps and minutes of the clock to train for. Give one of them, or both, and what is
            reached first ends the training. A training that the clock ends is not the same twice.
        batch_size: pairs in a step, 2 or more. None: the recipe's.
        lr: learning rate, which the recipe's schedule scales. None: the recipe's own.
        seed: decides what is drawn and how it is augmented, and the network's dropout.
        size: side in pixels of the square that pictures are resized to, or with `native` of the windows that are taken.
        crop: side in pixels of the windows of the resized picture that training sees. None: all of it.
        native: take windows at the pictures' own resolution and resize nothing. Not together with `crop`.
        loss: "ce" is cross-entropy. "ce+dice" adds each picture's Dice, which does not fade when its defect gets small.
            "published" is the network's own. The main head and the auxiliary ones count alike. None: the recipe's.
        defect_weight: weight of a defect pixel in the cross-entropy of "ce" and "ce+dice", not for "published". None:
            the recipe's.
        augment: one of `fast.data.transforms.AUGMENT`.
        recipe: "common", or "published", the one that the network was published with (`fast.segmentation.recipes`).
        ema: decay, from 0 to below 1, of a running mean of the weights, which is then returned in their place. 0: no
            mean.
        prior: how common defect pixels are taken to be once all is trained. "drawn": as in what training drew. "real":
            as in the real pictures with a defect, for which the network is returned in a `Corrected`.
        bf16: compute matrix products in bfloat16.
        device: where the network is trained and left.
        progress: called as `progress(step, share, loss)` after each step, with the share (0..1) of the budget that is
            spent.

    Returns:
        The trained network in evaluation mode, on `device`.

    Raises:
        UserError: when options do not go together or lie out of range, a label has no class in the network, nothing is
            published for the network, or the loss is no longer finite.
    """
    model = uncorrected(model)
    plan = find(recipe, model)
    batch_size = plan.batch_size if batch_size is None else batch_size
    lr = plan.lr if lr is None else lr
    own = loss == "published" or (loss is None and recipe == "published")
    if own and defect_weight not in (None, 1.0):
        raise UserError(f"defect_weight={defect_weight:g} is for ce and ce+dice; leave it out with the published loss")
    defect_weight = 1.0 if own else plan.defect_weight if defect_weight is None else defect_weight
    _check(pairs, steps, minutes, batch_size, lr, loss, defect_weight, ema, prior)
    if own:
        loss = published(model).loss
    device = torch.device(device)
    settle_attention()
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    batches = Batches(Views(pairs, size, native, crop), steps or _ENDLESS, batch_size, seed, augment)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _QUIET:
        torch.manual_seed(seed)  # dropout
        module = SegmentationModule(
            model.to(device).train(), plan, lr=lr, loss=loss or plan.loss, defect_weight=defect_weight,
            classes=1 + max(pair.label for pair in pairs), steps=steps, minutes=minutes, ema=ema, bf16=bf16,
            progress=progress,
        )  # fmt: skip
        with _interruptible():
            # A generator of its own: the loader would draw a number from the global one.
            loader = DataLoader(batches, batch_size=None, generator=torch.Generator())
            _trainer(device, plan.clip).fit(module, loader)
    network = module.finish().to(device)
    return corrected(network, oversampling(batches.drawn, batches.views)) if prior == "real" else network


def _trainer(device: torch.device, clip: float | None) -> pl.Trainer:
    where: dict[str, Any] = {"accelerator": "gpu" if device.type == "cuda" else device.type, "devices": 1}
    if device.type == "cuda":
        where["devices"] = [device.index]
    return pl.Trainer(
        **where,
        max_epochs=1,
        gradient_clip_val=clip,
        plugins=[LightningEnvironment()],  # one process, whatever started this one
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


class _Quiet:
    """`quiet` for trainings side by side in threads: the first to begin silences Lightning, the last to end stops."""

    def __init__(self) -> None:
        self.lock, self.users, self.stack = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if not self.users:
                self.stack.enter_context(quiet())
            self.users += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.stack.close()


_QUIET = _Quiet()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C comes out as KeyboardInterrupt, a request to end as an exit that says so. Lightning makes SystemExit of
    the former and ignores the next ones, or fails on that outside the main thread; and of the latter a success."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except BaseException as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _check(
    pairs: Sequence[SegmentationSample],
    steps: int | None,
    minutes: float | None,
    batch_size: int,
    lr: float,
    loss: str | None,
    defect_weight: float,
    ema: float,
    prior: str,
) -> None:
    if not pairs:
        raise UserError("no pairs to train a segmenter on; give a folder that holds some")
    if any(pair.label < 1 for pair in pairs):
        raise UserError("a pair has a label below 1, which is the background's; number the types from 1")
    limits = [limit for limit in (steps, minutes) if limit is not None]
    if not limits or min(limits) <= 0:
        raise UserError(f"steps={steps}, minutes={minutes}: give one of them, above 0")
    if batch_size < 2:
        raise UserError(f"batch_size={batch_size} is below 2, which batch normalisation needs; raise it")
    if not lr > 0 or not defect_weight > 0:
        raise UserError(f"lr={lr} and defect_weight={defect_weight} must be above 0")
    if loss is not None and loss not in LOSSES:
        raise UserError(f"loss '{loss}' is unknown; use one of {', '.join(LOSSES)}")
    if not 0 <= ema < 1:
        raise UserError(f"ema={ema} lies outside 0 to below 1; 0.999 is usual")
    if prior not in PRIORS:
        raise UserError(f"prior '{prior}' is unknown; use one of {', '.join(PRIORS)}")

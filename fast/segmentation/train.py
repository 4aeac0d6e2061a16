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
    """Train `model` on pairs, drawn by their weights; returns it, in evaluation mode, on `device`.

    `steps` or `minutes`, or both: what ends first; a training by the clock is not the same twice. `size`: side of the
    square that pictures are resized to, `crop` of the windows of it that training sees (None: all of it); with
    `native` `size` is that of the windows taken at the pictures' own resolution. `recipe`: "common", or "published",
    which each network was published with; `batch_size`, `lr`, `loss` and `defect_weight` are
    the recipe's if not given. `augment`: one of `fast.data.transforms.AUGMENT`. `loss`: "ce",
    or "ce+dice", as a picture's Dice does not fade when its defect gets small, of the main head and auxiliary ones
    alike, with `defect_weight` on a defect pixel in the cross-entropy; or "published", the network's own. `ema`:
    decay of a running mean of the weights, which is then what is returned. `prior`: how common defect pixels are taken
    to be when all is trained: "drawn", as in what was drawn, or "real", as in the real pictures with a defect, see
    `fast.segmentation.prior`; the network then comes wrapped in its `Corrected`, as which it may be given too, to be
    trained on without. `bf16`: matrix products in bfloat16.
    `progress(step, share, loss)` follows each step. Raises `UserError` for options that do not go together, labels
    that the network has no class for, and a loss that is no longer finite.
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

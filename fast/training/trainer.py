"""The Lightning trainer: which devices, which precision, and none of its chatter."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fast.runtime.command import is_first_process
from fast.runtime.device import no_gpu, settle_attention
from fast.runtime.options import TrainingOptions, gpu_numbers
from fast.runtime.precision import has_bf16, settled
from fast.training.config import PRECISIONS
from ldm.errors import UserError


def settle_precision(settings: dict[str, Any], accelerator: str, flag: str = "--precision") -> None:
    """Decide `precision: auto` of `lightning.trainer`, which is the default: bfloat16 where the device computes in it.
    The run's config keeps what was decided, so that the run goes on in it on any machine. Who forces bfloat16 where it
    is slow is warned, by the name of what they gave (`flag`)."""
    device, given = ("cuda" if accelerator == "gpu" else "cpu"), str(settings.get("precision", "auto"))
    if PRECISIONS.get(given) == "auto":
        settings["precision"] = "bf16-mixed" if has_bf16(device) else "32"
    elif given.startswith("bf16"):
        settled(given, device, flag)


def computes_in_bf16(settings: Mapping[str, Any]) -> bool:
    """Whether `lightning.trainer` of a recipe asks for matrix products in bfloat16, on the device that is there."""
    asked = PRECISIONS.get(str(settings.get("precision", "auto")))
    return asked == "bf16-mixed" or (asked == "auto" and has_bf16("cuda" if torch.cuda.is_available() else "cpu"))


def say(text: str) -> None:
    """A line for the user, from the first process only."""
    if is_first_process():
        print(text, flush=True)


def devices(options: TrainingOptions, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Accelerator and devices for the trainer, from the flags or else from `lightning.trainer`."""
    settle_attention()
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    accelerator = options.accelerator or settings.get("accelerator") or "auto"
    if options.gpus is not None and options.accelerator != "cpu":
        return _gpus(options.gpus, gpu_numbers(options.gpus), available)
    if accelerator not in ("auto", "cpu", "gpu"):
        raise UserError(f"lightning.trainer.accelerator={accelerator} is unknown; use auto, cpu or gpu")
    if accelerator == "gpu" and not available:
        raise no_gpu("--accelerator ", "gpu")
    on_gpu = available > 0 and accelerator != "cpu"
    count = options.devices or settings.get("devices") or int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    if not isinstance(count, int) or count < 1 or (on_gpu and count > available):
        here = f"this machine has {available} GPUs" if on_gpu else "give the number of processes, 1 or more"
        raise UserError(f"--devices {count}: {here}")
    return {"accelerator": "gpu" if on_gpu else "cpu", "devices": count}


def _gpus(flag: str, wanted: list[int], available: int) -> dict[str, Any]:
    if not available:
        say(f"--gpus {flag}: no GPU here, training on the CPU")
        return {"accelerator": "cpu", "devices": 1}
    absent = [n for n in wanted if n >= available]
    if absent:
        raise UserError(f"--gpus {flag}: there is no GPU {absent[0]}; this machine has {available}")
    return {"accelerator": "gpu", "devices": wanted}


def strategy(where: Mapping[str, Any], settings: Mapping[str, Any], all_used: bool) -> Any:
    """Data parallel where there is more than one process. `all_used`: every weight takes part in every step."""
    if settings.get("strategy"):
        return settings["strategy"]
    count = where["devices"] if isinstance(where["devices"], int) else len(where["devices"])
    nodes = settings.get("num_nodes") or 1
    if count * nodes == 1 and int(os.environ.get("WORLD_SIZE") or 1) == 1:
        return "auto"
    if nodes == 1 and where["accelerator"] == "cpu" and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # on one machine, whatever its network is like
    # Averaged weights are buffers, which every rank computes alike.
    return DDPStrategy(broadcast_buffers=False, find_unused_parameters=not all_used)


def make_trainer(settings: dict[str, Any], where: dict[str, Any], **parts: Any) -> pl.Trainer:
    """`settings`: `lightning.trainer` of the recipe, its precision decided (`settle_precision`). Raises `UserError` for
    a value that the trainer refuses."""
    precision = str(settings["precision"])
    own = {k: v for k, v in settings.items() if k not in ("log_every_n_steps", "precision")}
    try:
        return pl.Trainer(
            **{**own, **where},
            **parts,
            precision=PRECISIONS[precision],  # type: ignore[arg-type]
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"lightning.trainer: {error}; check its values in the recipe") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and tips that Lightning gives to people who write their own training script."""
    loggers = [
        logging.getLogger(n) for n in ("pytorch_lightning", "lightning_fabric", "lightning", "torch.distributed")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

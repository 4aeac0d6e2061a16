"""Each case measures one thing and returns plain numbers: seconds, bytes, operations."""

from collections.abc import Callable
from typing import Any

from benchmarks.cases import pairs, profile, training, unet

CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "rate": unet.product,
    "unet": unet.evaluation,
    "pairs": pairs.rate,
    "original_pairs": pairs.original_rate,
    "training": training.step,
    "profile": profile.parts,
}

"""Small segmentation networks, trained on image-mask pairs: do synthetic pairs help?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fast.segmentation.networks import SEGMENTERS, build

__all__ = ["SEGMENTERS", "build"]


def __getattr__(name: str) -> Any:
    """The networks once they are asked for: who looks at their names alone does not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("fast.segmentation.networks"), name)

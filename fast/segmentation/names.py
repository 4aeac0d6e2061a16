"""The names of the segmentation networks. No heavy import here: commands refuse a misspelt one at once."""

from __future__ import annotations

from fast.runtime.options import did_you_mean
from ldm.errors import UserError

NAMES = ("bisenetv2", "fpn", "mini", "quick", "segformer", "stdc", "stdc2")


def require_name(name: str) -> None:
    """UserError where no segmenter has this name."""
    if name not in NAMES:
        raise UserError(f"segmenter '{name}' is unknown{did_you_mean(name, NAMES)}; use one of {', '.join(NAMES)}")

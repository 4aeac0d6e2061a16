"""Options of training data that others leave without an effect, which are refused."""

from __future__ import annotations

from dataclasses import asdict

from fast.data.transforms import Augment
from ldm.errors import UserError

PLAIN = Augment()


def refuse_idle_views(augment: Augment, views: int, crop: int | None, crop_until: float, cache: bool) -> None:
    """UserError for an option of `DefectData` about views of images that the others leave without an effect."""
    if cache and crop:
        raise UserError(
            f"data.params.crop={crop} is of images that are encoded anew each time, cached ones are whole; set "
            "data.params.cache=false, or leave crop out"
        )
    if cache and views == 1 and augment != PLAIN:
        given = [f"{name}={value}" for name, value in asdict(augment).items() if value != getattr(PLAIN, name)]
        raise UserError(
            f"data.params.augment has no effect ({', '.join(given)}): of each image a single view is cached, the plain "
            "one; set data.params.views=16 or cache=false, or leave augment out"
        )
    if not cache and views > 1:
        raise UserError(
            f"data.params.views={views} counts cached views, and with cache=false none is, each is drawn anew; "
            "leave views out, or set cache=true"
        )
    if not crop and crop_until != 1:
        raise UserError(f"data.params.crop_until={crop_until} needs a crop; give data.params.crop, or leave it out")


def refuse_idle_seed(seed: int, split: str, use: str) -> None:
    """UserError for a seed of a split that is not drawn."""
    if seed and (split != "third" or use == "normals"):
        why = "of normals none is" if use == "normals" else f"split={split} is none"
        raise UserError(f"data.params.split_seed={seed} is of a split that is drawn, third, and {why}; leave it out")

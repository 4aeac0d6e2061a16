"""How the shipped base is trained."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from fast.pretraining.drawing import DrawingRecipe
from ldm.errors import UserError


@dataclass
class Settings:
    """How to train.

    `out`: folder of what is under way; `ship`: of what is finished; `recipes`: of the networks' recipes; `minutes`: of
    all stages together; `batch`: windows of `window` pixels at a step, a quarter as many where whole images are seen;
    `capacity`: sheets of `DEFECTS` defects that are held at once, `first_capacity`: while they are images;
    `first_sheets`: how many the first stage begins with;
    `reuse`: a new defect comes for so many windows seen, at most; `graphs`: train the U-Net by CUDA graphs on a GPU;
    `fuse`: within those with its kernels compiled;
    `start`: a base to start from, whose first stage is taken as it is, and with FARM's
    weights beside it, FARM from those; `bf16`: mixed precision; `channels`: of the
    latents, where they are not the recipe's; `overrides`: of the base's recipe.
    """

    out: Path
    ship: Path
    minutes: float
    device: torch.device
    recipe: DrawingRecipe
    recipes: Path
    batch: int = 512
    capacity: int = 30000
    first_capacity: int = 3000
    first_sheets: int = 600
    window: int = 128
    reuse: float = 8.0
    workers: int | None = None
    start: Path | None = None
    graphs: bool = True
    fuse: bool = True
    bf16: bool = True
    channels: int | None = None
    seed: int = 0
    overrides: list[str] = field(default_factory=list)


def check_ship(folder: Path) -> None:
    """Raise `UserError` for a place to ship to that is a file."""
    if folder.is_file():
        raise UserError(f"--ship {folder} is a file; name a folder")

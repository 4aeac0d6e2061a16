"""How the shipped base is trained."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from fast.pretraining.drawing import DrawingRecipe
from ldm.errors import UserError


@dataclass
class Settings:
    """How the shipped base is trained.

    Args:
        out: folder of what is under way.
        ship: folder of what is finished.
        minutes: training time of all stages together.
        device: where the networks train.
        recipe: what the drawn sheets depend on.
        recipes: folder of the networks' recipes.
        batch: windows at a step. Of whole images, and in the first stage, there are a quarter as many.
        capacity: sheets of `DEFECTS` defects that are held at once, as latents.
        first_capacity: the same while they are images, for the first stage.
        first_sheets: sheets that the first stage begins with.
        window: side of the windows in pixels.
        reuse: windows seen for each new defect, at least. New sheets are not taken sooner.
        workers: processes that draw. None: one for each core.
        start: a base to start from. Its first stage is taken as it is, and FARM starts from weights beside it if there
            are any. None: everything starts from nothing.
        graphs: True trains the U-Net by CUDA graphs on a GPU.
        fuse: True compiles its kernels within those.
        bf16: True trains in mixed precision.
        channels: channels of the first stage's latents. None: the recipe's.
        seed: of the networks' training.
        overrides: `section.key=value` for the recipes of the base and of FARM.
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

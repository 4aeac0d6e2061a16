"""Defects that a base fills into the masks of drawn ones: to look at, and to score."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from fast.aias import AIASOptions, Guidance, aias
from fast.data.images import write_image
from fast.data.tensors import latent_mask, to_image
from fast.pretraining.drawing import DrawingRecipe, Sheet, draw_sheet, masks_of
from fast.pretraining.pool import to_float
from fast.pretraining.settings import Settings
from fast.procedural.traits import HELD_APART
from fast.training.config import load_recipe
from ldm.models.diffusion.ddim import bind
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.rng import PairNoise, generator
from ldm.util import instantiate_from_config


@torch.no_grad()
def fill(
    model: LatentDiffusion,
    normals: np.ndarray,
    masks: np.ndarray,
    words: Sequence[str],
    scale: float = 1.0,
    steps: int = 10,
) -> np.ndarray:
    """Images (N,H,W,3) with a defect of `words` in each of the `masks` (N,H,W) of `normals` (N,H,W,3), both uint8, by
    the base alone, without FARM. `scale`: guidance against the empty prompt."""
    device = model.device
    pixels = torch.from_numpy(masks)[:, None].to(device)
    background = model.scale_factor * model.first_stage_mean(to_float(torch.from_numpy(normals).to(device)))
    size = (background.shape[-2], background.shape[-1])
    mask, shown = latent_mask(pixels, size), model.detailed_mask(pixels, size)

    def placed(texts: Sequence[str]) -> object:
        return model.with_place(model.get_learned_conditioning(list(texts)), shown, background)

    denoise = bind(model, placed(words), scale, None if scale == 1 else placed([""] * len(words)))
    noise = PairNoise([generator(0, i) for i in range(len(words))])
    guidance = Guidance(model.schedule, mask, background)
    z = aias(denoise, model.schedule, noise(background), guidance=guidance, noise=noise, options=AIASOptions(steps))
    decoded: Tensor = model.decode_first_stage(z).float().cpu()
    inside = masks[..., None] > 0
    return np.where(inside, np.stack([to_image(image) for image in decoded]), normals)


def sheet_image(rows: Sequence[tuple[str, Sequence[np.ndarray]]], side: int = 128) -> np.ndarray:
    """Rows of images, each with its name at the left, as one image (H,W,3) uint8."""
    lines = []
    for name, images in rows:
        title = np.full((side, 110, 3), 255, np.uint8)
        cv2.putText(title, name, (2, side // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        small = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]
        lines.append(np.concatenate([title, *(np.pad(i, ((2, 2), (2, 2), (0, 0)))[2:-2] for i in small)], axis=1))
    return np.concatenate(lines)


def sample_sheet(
    model: LatentDiffusion, sheets: Sequence[Sheet], scales: Sequence[float], steps: int = 10
) -> np.ndarray:
    """One row for each defect type of the sheets: normal, mask, drawn defect, and filled at each of the `scales`."""
    first: dict[str, tuple[Sheet, int]] = {}
    for sheet in sheets:
        for number, defect_type in enumerate(sheet.types):
            first.setdefault(defect_type, (sheet, number))
    names = sorted(first)
    normals = np.stack([first[name][0].images[0] for name in names])
    masks = np.stack([masks_of(first[name][0])[first[name][1]] for name in names])
    true = [first[name][0].images[1 + first[name][1]] for name in names]
    filled = [fill(model, normals, masks, names, scale, steps) for scale in scales]
    rows = []
    for i, name in enumerate(names):
        shown = np.repeat(255 * masks[i][..., None], 3, axis=2)
        rows.append((name, [normals[i], shown, true[i], *(images[i] for images in filled)]))
    return sheet_image(rows)


def write_samples(settings: Settings, path: Path, scales: Sequence[float] = (1.0, 2.0, 4.0), sheets: int = 16) -> None:
    """Write an image of what the shipped base fills into masks on held-out materials, see `sample_sheet`."""
    section = load_recipe(settings.recipes / "base.yaml").model
    section.params.ckpt_path = str(settings.ship / "base.safetensors")
    changed = OmegaConf.merge({"model": section}, OmegaConf.from_dotlist(settings.overrides))
    plain = OmegaConf.to_container(changed.model, resolve=True)
    model = instantiate_from_config(plain).to(settings.device).eval()  # type: ignore[arg-type]
    recipe = DrawingRecipe(size=settings.recipe.size, seed=1, materials=tuple(HELD_APART))
    drawn = [draw_sheet(number, recipe) for number in range(sheets)]
    write_image(path, sample_sheet(model, drawn, scales))

"""Short trainings of the base side by side, at equal time each: which recipe makes its words visible soonest?

    python -m benchmarks.base_recipes --seconds 15 --classifier FILE

All share the drawn images and, for one number of latent channels, the first stage. Scored on drawn defects of
materials that were held out: the share whose type a classifier names from what fills the mask, the change inside the
mask, and the first stage's PSNR inside the defects.
"""

from __future__ import annotations

import argparse
import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fast.pretraining.drawing import Drawing, DrawingRecipe, Sheet, masks_of
from fast.pretraining.loop import Deadline
from fast.pretraining.pool import SheetPool, to_float
from fast.pretraining.samples import fill
from fast.pretraining.settings import Settings
from fast.pretraining.stages import Pretraining
from fast.procedural.traits import HELD_APART
from ldm.metrics import decibels

UNET = "model.params.unet_config.params"
FOUR = [
    "model.params.channels=4", f"{UNET}.out_channels=4", "model.params.first_stage_config.params.embed_dim=4",
    "model.params.first_stage_config.params.ddconfig.z_channels=4",
]  # fmt: skip
COARSE = "model.params.mask_detail=1"
RECIPES: dict[str, tuple[int, list[str]]] = {
    "as shipped: 8 channels, every mask pixel, pooled prompt": (8, []),
    "mask by cells": (8, [COARSE, f"{UNET}.in_channels=17"]),
    "4 channels": (4, [*FOUR, f"{UNET}.in_channels=24"]),
    "no pooled prompt": (8, [f"{UNET}.pooled_context=false"]),
    "plain mean of the loss": (8, ["model.params.defect_share=null"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="of each training of a base (default: 15)")
    parser.add_argument("--sheets", type=int, default=500, help="drawn sheets of 8 defects (default: 500)")
    parser.add_argument("--test_sheets", type=int, default=30, help="of held-out materials (default: 30)")
    parser.add_argument("--batch_size", type=int, default=512)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--classifier", type=Path, required=True, help="weights of the classifier of types")
    parser.add_argument("--only", nargs="*", help="numbers of the recipes, from 0")
    parser.add_argument("--out", type=Path, default=Path("base_recipes.json"))
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - begin:5.0f} s] {line}", flush=True)

    test = _drawn(DrawingRecipe(size=args.size, seed=1, materials=tuple(HELD_APART)), args.test_sheets)
    sheets = _drawn(DrawingRecipe(size=args.size), args.sheets)
    say(f"{len(sheets)} + {len(test)} sheets drawn")
    stages: dict[int, Any] = {}
    results = []
    for number, (name, (channels, overrides)) in enumerate(RECIPES.items()):
        if args.only and str(number) not in args.only:
            continue
        run = _run(args, device, channels, overrides)
        pool = SheetPool(len(sheets), args.size, device)
        for start in range(0, len(sheets), 50):
            pool.add(sheets[start : start + 50])
        if channels not in stages:
            stages[channels] = run.train_first_stage(pool, 1.3 * args.seconds)
        first_stage = stages[channels]
        psnr = _psnr(first_stage, test, device)
        run.use(pool, first_stage)
        model, training = run.train_base(first_stage, args.seconds)
        score = _score(model, test, args.classifier)
        results.append({"recipe": name, "steps": training.step, "psnr inside": psnr, **score})
        say(json.dumps(results[-1]))
        args.out.write_text(json.dumps(results, indent=1))


def _drawn(recipe: DrawingRecipe, count: int) -> list[Sheet]:
    sheets: list[Sheet] = []
    with Drawing(recipe) as drawing:
        while len(sheets) < count:
            with drawing.taken(16, wait=True) as found:
                sheets += [deepcopy(sheet) for _, sheet in found]
    return sheets[:count]


def _run(args: argparse.Namespace, device: torch.device, channels: int, overrides: list[str]) -> Pretraining:
    settings = Settings(
        out=Path("."), ship=Path("."), minutes=1, device=device, recipe=DrawingRecipe(size=args.size),
        recipes=Path("configs/mini"), batch=args.batch_size, capacity=args.sheets, window=args.size // 2,
        overrides=overrides, channels=channels,
    )  # fmt: skip
    run = Pretraining(settings, report=lambda line: None)
    run.deadline = Deadline()
    return run


def _psnr(first_stage: Any, test: list[Sheet], device: torch.device) -> float:
    """PSNR inside the defects, dB."""
    error, count = 0.0, 0
    for sheet in test:
        images = to_float(torch.from_numpy(sheet.images[1:]).to(device))
        with torch.no_grad():
            again = first_stage.decode(first_stage.encode(images).mean).clamp(-1, 1)
        inside = torch.from_numpy(masks_of(sheet))[:, None].to(device)
        error += float(((again - images) ** 2 * inside).sum())
        count += 3 * int(inside.sum())
    return float(decibels(torch.tensor(error / count), 2))


def _score(model: Any, test: list[Sheet], classifier: Path) -> dict[str, float]:
    from fast.quality.words import Classifier

    judge = Classifier.load(classifier, str(model.device))
    model.eval()
    out: dict[str, float] = {}
    masks = np.concatenate([masks_of(s) for s in test])
    normals = np.concatenate([np.repeat(s.images[:1], len(s.types), axis=0) for s in test])
    true = np.concatenate([s.images[1:] for s in test])
    words = [t for s in test for t in s.types]
    types = np.array([list(judge.types).index(t) for t in words])
    out["accuracy true"] = _accuracy(judge, true, masks, types)
    for scale in (1.0, 2.0):
        parts = [slice(i, i + 60) for i in range(0, len(words), 60)]
        filled = np.concatenate([fill(model, normals[part], masks[part], words[part], scale) for part in parts])
        inside = masks[..., None] > 0
        change = np.abs(filled.astype(np.float32) - normals)[np.broadcast_to(inside, normals.shape)].mean()
        out[f"accuracy at {scale}"] = _accuracy(judge, filled, masks, types)
        out[f"change at {scale}"] = round(float(change), 1)
    return out


def _accuracy(judge: Any, images: np.ndarray, masks: np.ndarray, types: np.ndarray) -> float:
    return round(float((judge.logits(images, masks).float().cpu().numpy().argmax(1) == types).mean()), 3)


if __name__ == "__main__":
    main()

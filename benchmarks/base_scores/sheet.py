"""Pictures of true and synthesized defects, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from benchmarks.base_scores.bench import artifact_of
from benchmarks.base_scores.filling import Truth, fill, pasted
from fast.artifact import load_fast
from fast.data.images import resize_image, write_image
from fast.procedural import DEFECTS, defects_of, draw_defect, draw_surface
from fast.procedural.dataset import picture_rng
from fast.procedural.surfaces import check_material
from fast.procedural.traits import HELD_APART
from fast.quality.windows import cut
from fast.runtime.workers import cores
from fast.synthesis.options import Recipe

GAP, HEAD, FOOT = 3, 22, 15


def sheet(options: argparse.Namespace) -> Path:
    """Write the sheet that the options of `base_sheet.py` ask for. Raises `UserError`."""
    for material in options.materials:
        check_material(material)
    truth = examples(options.materials, options.per_type, options.seed, options.size)
    columns = {"normal": [p.normal for p in truth], "mask": [_white(p.mask) for p in truth]}
    columns["true"] = [p.image for p in truth]
    if options.base != "none":
        for scale in options.scales or [None]:
            name = "synthesized" if scale is None else f"scale {scale:g}"
            columns[name] = [pasted(p, w) for p, w in zip(truth, synthesized(options, truth, scale), strict=True)]
    if options.view == "near":
        columns = {n: [cut(i, p.mask)[0] for i, p in zip(c, truth, strict=True)] for n, c in columns.items()}
    captions = [f"{p.kind}, {p.material}" + ("" if p.material in HELD_APART else " (trained on)") for p in truth]
    write_image(options.out, layout(columns, captions, options.tile, options.blocks))
    return options.out


def synthesized(options: argparse.Namespace, truth: Sequence[Truth], scale: float | None) -> list[np.ndarray]:
    """What the base makes of the normals, masks and words of `truth`."""
    half = options.precision == "bf16"
    artifact = artifact_of("--base", Path(options.base))
    model = load_fast(artifact, dtype=torch.bfloat16 if half else None)
    recipe = Recipe(
        detail=True,
        blend=2,
        size=options.size,
        steps=options.evaluations,
        precision=options.precision,
        scale=float(artifact.config["model"]["params"].get("scale", 1.0) if scale is None else scale),
    )
    device = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
    workers = options.workers or cores()
    return fill(model, recipe, truth, range(len(truth)), device, workers, options.seed)


def examples(materials: Sequence[str], per_type: int, seed: int, size: int) -> list[Truth]:
    """`per_type` drawn defects of every type, each on another of the `materials` as far as they have it."""
    found = []
    for k, kind in enumerate(DEFECTS):
        held = [m for m in materials if kind in defects_of(m) and m in HELD_APART]
        others = [m for m in materials if kind in defects_of(m) and m not in HELD_APART]
        held = [held[(i + k) % len(held)] for i in range(len(held))]  # not always the same material first
        suited = [*held, *others]
        for i in range(per_type if suited else 0):
            material = suited[i % len(suited)]
            rng = picture_rng(seed, material, kind, i)
            normal = draw_surface(material, rng, size)
            found.append(Truth(material, kind, normal, *draw_defect(normal, material, kind, rng)))
    return found


def _white(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)


def layout(columns: dict[str, list[np.ndarray]], captions: list[str], tile: int, blocks: int) -> np.ndarray:
    """Rows of tiles of `tile` pixels, a caption under each row, `blocks` rows side by side, headings on top."""
    lines, width = -(-len(captions) // blocks), len(columns) * (tile + GAP) + 4 * GAP
    height = tile + FOOT + GAP
    page = Image.new("RGB", (blocks * width, HEAD + lines * height), "white")
    draw, bold, small = ImageDraw.Draw(page), ImageFont.load_default(14), ImageFont.load_default(11)
    for i, caption in enumerate(captions):
        block, line = divmod(i, lines)
        x, y = block * width, HEAD + line * height
        for c, (name, pictures) in enumerate(columns.items()):
            left = x + c * (tile + GAP)
            if line == 0:
                draw.text((left + tile // 2, HEAD // 2), name, fill="black", font=bold, anchor="mm")
            page.paste(Image.fromarray(resize_image(pictures[i], tile)), (left, y))
        draw.text((x + 2, y + tile + 1), caption, fill="black", font=small)
    return np.asarray(page)

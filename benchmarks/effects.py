"""What each faster way does to the pictures: the same pairs made again, compared, and shown side by side.

    python -m benchmarks.effects --dataset demo/data/wood --pt_path demo/fast --out docs/images/effects

Writes <out>-options.png and <out>-regions.png and prints their tables.
"""

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fast.artifact import Artifact, find_artifact, load_model
from fast.data.images import read_image, read_mask, resize_image, write_image
from fast.data.layouts import open_dataset
from fast.runtime.command import run_cli
from fast.synthesis.defect_types import match_types
from fast.synthesis.options import Recipe
from fast.synthesis.pair import Pair, SynthesizedSample
from fast.synthesis.sources import Sources, find_masks, find_normals
from fast.synthesis.synthesizer import Synthesizer
from ldm.modules.packed import has_int8

SHOWN = (
    *("fp32", "bf16", "int8", "--reuse 2", "--stop_at 2", "--stop_at 130", "fp32, 50", "--reuse 5, 50"),
    *("ddim 50, no FARM", "--reuse 5, ddim"),
)


@dataclass(frozen=True)
class Outcome:
    """Pairs of one recipe in order, and seconds per pair without loading."""

    made: list[SynthesizedSample]
    seconds: float


def make(artifact: Artifact, base: str | None, recipe: Recipe, pairs: list[Pair]) -> Outcome:
    """All pairs with one recipe on the CPU."""
    dtype = None if recipe.precision == "fp32" else torch.bfloat16
    engine = Synthesizer(load_model(artifact, base, dtype=dtype), recipe)
    list(engine.make(iter(pairs[:2]), 2))  # warm
    start = time.perf_counter()
    made = sorted(engine.make(iter(pairs), 8), key=lambda m: m.pair.index)
    return Outcome(made, (time.perf_counter() - start) / len(pairs))


def differences(made: list[SynthesizedSample], reference: list[SynthesizedSample]) -> np.ndarray:
    """Absolute differences in grey levels (0..255) inside the masks, all pairs and channels together."""
    each = [np.abs(a.image.astype(int) - b.image.astype(int))[a.mask > 0] for a, b in zip(made, reference, strict=True)]
    return np.concatenate([e.ravel() for e in each])


def border_gradient(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute step in grey levels between neighbouring pixels on two sides of the mask's border."""
    grey, inside = image.astype(float).mean(axis=2), mask.astype(bool)
    steps = [np.abs(np.diff(grey, axis=a))[np.diff(inside, axis=a)] for a in (0, 1)]
    return float(np.concatenate(steps).mean())


def option_recipes(plain: Recipe) -> dict[str, list[tuple[str, Recipe]]]:
    """Reference recipes by name, each with the variants that are compared with it."""
    many = replace(plain, steps=50)
    few = [
        ("bf16", replace(plain, precision="bf16")),
        *([("int8", replace(plain, precision="int8"))] if has_int8() else []),
        ("--reuse 2", replace(plain, reuse=2)),
        ("--reuse 3", replace(plain, reuse=3)),
        ("--stop_at 2", replace(plain, stop_at=2)),
        ("--stop_at 130", replace(plain, stop_at=130)),
        ("bf16, --reuse 2, --stop_at 2", replace(plain, precision="bf16", reuse=2, stop_at=2)),
    ]
    more = [
        ("bf16, 50", replace(many, precision="bf16")),
        ("--reuse 2, 50", replace(many, reuse=2)),
        ("--reuse 5, 50", replace(many, reuse=5)),
        ("--stop_at 40, 50", replace(many, stop_at=40)),
    ]
    alone = replace(many, sampler="ddim", use_farm=False)  # all that is seen is the U-Net's
    unet = [
        ("bf16, ddim", replace(alone, precision="bf16")),
        *([("int8, ddim", replace(alone, precision="int8"))] if has_int8() else []),
        ("--reuse 2, ddim", replace(alone, reuse=2)),
        ("--reuse 5, ddim", replace(alone, reuse=5)),
    ]
    return {
        "fp32": [("fp32", plain), *few],
        "fp32, 50": [("fp32, 50", many), *more],
        "ddim 50, no FARM": [("ddim 50, no FARM", alone), *unet],
    }


def options(artifact: Artifact, base: str | None, pairs: list[Pair], size: int, out: Path) -> None:
    """The table and the picture of the options."""
    plain = Recipe(size=size, steps=10, detail=False, blend=0)
    print("| pairs made with | s per pair | mean difference | 99th percentile | against |")
    print("| --- | --- | --- | --- | --- |")
    columns: list[tuple[str, list[SynthesizedSample]]] = []
    for reference, variants in option_recipes(plain).items():
        known: list[SynthesizedSample] = []
        for name, recipe in variants:
            outcome = make(artifact, base, recipe, pairs)
            known = known or outcome.made
            found = differences(outcome.made, known)
            _row(name, outcome, found, reference)
            columns += [(name, outcome.made)] if name in SHOWN else []
    other = make(artifact, base, plain, [replace(p, seed=p.seed + 1) for p in pairs])
    _row("another seed", other, differences(other.made, columns[0][1]), "fp32")
    columns.append(("another seed", other.made))
    sheet(columns, out, rows=6)


def _row(name: str, outcome: Outcome, found: np.ndarray, reference: str) -> None:
    print(
        f"| {name} | {outcome.seconds:.2f} | {found.mean():.2f} | {np.percentile(found, 99):.0f} | {reference} |",
        flush=True,
    )


def regions(artifact: Artifact, base: str | None, pairs: list[Pair], trained: int, dataset: Path, out: Path) -> None:
    """The table and the picture of `full` and `auto` at the pictures' own size."""
    plain = Recipe(size=None, steps=10, precision="bf16", min_window=trained, detail=False, blend=0)
    print("\n| pairs made with | s per pair | share of the picture sampled | step across the mask's border |")
    print("| --- | --- | --- | --- |")
    columns = []
    for name, recipe in (
        ("full", plain),
        (f"auto, windows from {trained}", replace(plain, region="auto")),
        (f"auto, windows from {trained // 2}", replace(plain, region="auto", min_window=trained // 2)),
    ):
        outcome = make(artifact, base, recipe, pairs)
        share = np.mean([sum(w[2] * w[3] for w in m.windows) / m.mask.size for m in outcome.made])
        step = np.mean([border_gradient(m.image, m.mask) for m in outcome.made])
        print(f"| {name} | {outcome.seconds:.2f} | {share:.2f} | {step:.1f} |", flush=True)
        columns.append((name, outcome.made))
    before = np.mean([border_gradient(read_image(m.pair.files[0]), m.mask) for m in columns[0][1]])
    print(f"| the normal pictures there | | | {before:.1f} |")
    real = [s for s in open_dataset(dataset).defects if s.mask is not None]
    steps = [border_gradient(read_image(s.image), read_mask(s.mask)) for s in real if s.mask is not None]
    print(f"| the dataset's own defects | | | {np.mean(steps):.1f} |")
    sheet(columns, out, rows=7)


def sheet(columns: list[tuple[str, list[SynthesizedSample]]], path: Path, rows: int, cell: int = 160) -> None:
    """A picture of the first pairs: the mask and every column's image, enlarged to what lies around the defect."""
    gap, head = 6, 30
    picture = Image.new("RGB", ((len(columns) + 1) * (cell + gap) + gap, head + rows * (cell + gap) + gap), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for c, (name, made) in enumerate([("mask", columns[0][1]), *columns]):
        x = gap + c * (cell + gap)
        draw.text((x + cell // 2, head // 2), name, fill="black", font=font, anchor="mm")
        for r, one in enumerate(made[:rows]):
            around = _around(one.mask)
            shown = np.repeat(one.mask[..., None] * np.uint8(255), 3, axis=2) if c == 0 else one.image
            picture.paste(Image.fromarray(resize_image(shown[around], cell)), (x, head + r * (cell + gap)))
    write_image(path, np.asarray(picture))


def _around(mask: np.ndarray) -> tuple[slice, slice]:
    """A square with the defect in its middle and as much again around it, inside the picture."""
    points = np.argwhere(mask)
    low, high = points.min(axis=0), points.max(axis=0) + 1
    side = int(min(max(2 * (high - low).max(), 64), *mask.shape))
    top, left = (int(v) for v in np.clip((low + high - side) // 2, 0, np.array(mask.shape) - side))
    return slice(top, top + side), slice(left, left + side)


def main(argv: list[str]) -> None:
    p = argparse.ArgumentParser(prog="python -m benchmarks.effects", description=__doc__.splitlines()[0])
    p.add_argument("--dataset", required=True, help="one category in MVTec layout: normals, masks, defects")
    p.add_argument("--pt_path", required=True, help="the trained FAST")
    p.add_argument("--actual_resume", default=None, help="its base, if it is not where training found it")
    p.add_argument("--large", default=None, help="the category in larger pictures, for full against auto")
    p.add_argument("--count", type=int, default=24, help="pairs (default 24)")
    p.add_argument("--out", required=True, help="beginning of the pictures' names")
    given = p.parse_args(argv)
    artifact = find_artifact(given.pt_path)
    trained = int(artifact.config["data"]["params"]["size"])
    for folder, what in ((given.dataset, "options"), (given.large or given.dataset, "regions")):
        root = Path(folder)
        normals, (masks, _) = find_normals(str(root / "train" / "good")), find_masks(str(root / "ground_truth"))
        allowed = match_types(artifact.types, root.name, None)
        sources = Sources(normals, masks, artifact.types, allowed).narrowed()
        pairs = [sources.pair(i, 0) for i in range(given.count)]
        out = Path(f"{given.out}-{what}.png")
        if what == "options":
            options(artifact, given.actual_resume, pairs, trained, out)
        else:
            regions(artifact, given.actual_resume, pairs, trained, root, out)


if __name__ == "__main__":
    sys.exit(run_cli(main))

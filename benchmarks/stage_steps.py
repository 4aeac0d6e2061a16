"""STAGE with few evaluations: the same pairs by its 1000 single steps and by AIAS's jumps, compared and shown.

    python -m benchmarks.stage_steps --data_root NORMALS --mask_path MASKS --pt_path logs/stage --out steps.png

How far two ways are apart is measured by what the defects do to their ground (`fast.quality.measure.features`), as the
distance of the two sets, type by type; the unit is how much two defects of one type differ that the 1000 steps made.
The 1000 steps with another seed say how far apart two sets are that differ by chance alone.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.effects import Outcome, differences, make, sheet
from fast.artifact import find_artifact
from fast.data.images import read_image, resize_image
from fast.quality.measure import change, features, set_distance, spread
from fast.runtime.command import run_cli
from fast.synthesis.pair import SynthesizedSample
from fast.synthesis.recipe import recipe_for
from fast.synthesis.sources import Sources, find_masks, find_normals

STEPS = (100, 50, 20, 10, 5)


def described(made: Sequence[SynthesizedSample], size: int) -> list[np.ndarray]:
    """The features (5,) of each pair's defect."""
    normals = [resize_image(read_image(m.pair.files[0]), size) for m in made]
    return [features(n, m.image, m.mask) for n, m in zip(normals, made, strict=True)]


def strength(made: Sequence[SynthesizedSample], size: int) -> float:
    """Mean absolute change inside the masks, grey levels."""
    return float(
        np.mean([change(resize_image(read_image(m.pair.files[0]), size), m.image)[m.mask != 0].mean() for m in made])
    )


def main(argv: list[str]) -> None:
    p = argparse.ArgumentParser(prog="python -m benchmarks.stage_steps", description=__doc__.splitlines()[0])
    p.add_argument("--data_root", required=True, help="normal pictures, or a dataset")
    p.add_argument("--mask_path", required=True, help="masks, in folders by defect type")
    p.add_argument("--pt_path", required=True, help="the run of a trained STAGE")
    p.add_argument("--count", type=int, default=24, help="pairs (default 24)")
    p.add_argument("--size", type=int, default=256, help="side of the pictures in pixels (default 256)")
    p.add_argument("--out", required=True, type=Path, help="the picture to write")
    given = p.parse_args(argv)
    artifact = find_artifact(given.pt_path, name="stage")
    normals, (masks, _) = find_normals(given.data_root), find_masks(given.mask_path)
    sources = Sources(normals, masks, artifact.types, list(range(len(artifact.types)))).narrowed()
    pairs = [sources.pair(i, 0) for i in range(given.count)]
    plain: dict[str, Any] = {"size": given.size, "region": "full", "precision": "bf16"}
    ways: list[tuple[str, dict[str, Any], int]] = [
        ("1000 steps", {"sampler": "ddpm"}, 0),
        ("1000, another seed", {"sampler": "ddpm"}, 1),
    ]
    ways += [(f"{n} jumps", {"sampler": "aias", "steps": n}, 2) for n in STEPS]
    groups = [p.type_index for p in pairs]
    columns: list[tuple[str, list[SynthesizedSample]]] = []
    print("| pairs made by | evaluations | s per pair | change inside | set distance | mean difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, way, seed in ways:
        recipe = recipe_for(artifact, **plain, **way)
        outcome: Outcome = make(artifact, None, recipe, [replace(p, seed=p.seed + seed) for p in pairs])
        columns.append((name, outcome.made))
        found, reference = described(outcome.made, given.size), described(columns[0][1], given.size)
        apart = set_distance(found, reference, groups, spread(reference, groups)).mean()
        moved = differences(outcome.made, columns[0][1]).mean()
        print(
            f"| {name} | {recipe.steps} | {outcome.seconds:.2f} | {strength(outcome.made, given.size):.1f} | "
            f"{apart:.2f} | {moved:.1f} |",
            flush=True,
        )
    sheet(columns, given.out, rows=6)


if __name__ == "__main__":
    sys.exit(run_cli(main))

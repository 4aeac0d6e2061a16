"""Can filled masks be told from the rest? Masks filled with normal content by the path of the defects, with and without
the detail that the first stage loses and the blended border: grain inside against around, seam, detector of synthesis.

%(prog)s --dataset parts --pt_path mini --out detail
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fast.runtime.options import Parser
from ldm.errors import UserError


def main(argv: list[str]) -> None:
    # fmt: off
    p = Parser(prog="scripts/evaluate_detail.py", description=__doc__,
               formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dataset", required=True, metavar="FOLDER", help="a dataset; its training normals are filled")
    p.add_argument("--pt_path", default="mini", metavar="FOLDER", help="weights of a method on a base (default: mini)")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for rows.json, table.md and samples.png")
    p.add_argument("--images", type=int, default=180, help="normal windows, two thirds to train on (default: 180)")
    p.add_argument("--side", type=int, default=128, help="of a window in pixels (default: 128)")
    p.add_argument("--masks", default="blob", help="shapes of fast.masks.shapes (default: blob)")
    p.add_argument("--strengths", type=float, nargs="+", default=[0.0, 0.1],
                   help="how far the normal content is noised, of T; 0: encoded and decoded alone (default: 0 0.1)")
    p.add_argument("--blend", type=int, default=2, help="pixels of the last row of each strength (default: 2)")
    p.add_argument("--steps", type=int, default=300, help="of the detector's training (default: 300)")
    p.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the detector's training (default: 0)")
    p.add_argument("--method", default="fast", help="the method of the weights (default: fast)")
    # fmt: on
    evaluate(p.parse_args(argv))


def evaluate(options: argparse.Namespace) -> None:
    """Raises `UserError`."""
    from fast.data.images import write_bytes, write_image
    from fast.runtime.tables import markdown

    train, test = windows(options)
    rows, shown = [], []
    for name, made in fillings(options, [*train, *test]):
        rows.append({"filled by": name, **measured(made, len(train), options.seeds, options.steps)})
        shown.append([image for image, _ in made[-6:]])
        print(json.dumps(rows[-1]), flush=True)
        write_bytes(options.out / "rows.json", (json.dumps(rows, indent=1) + "\n").encode())
    head = list(rows[0])
    text = markdown(head, [[_cell(row[key]) for key in head] for row in rows], left=1)
    write_bytes(options.out / "table.md", (text + "\n").encode())
    write_image(options.out / "samples.png", _sheet(test[-6:], shown))
    print(text)


def windows(options: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """(train, test): normal windows (side,side,3) with a drawn mask each, of different parts. Raises `UserError`."""
    import numpy as np

    from fast.data.images import read_image
    from fast.data.layouts import check, open_dataset
    from fast.masks.shapes import drawn

    normals = check(open_dataset(options.dataset)).usable.normals
    groups = sorted({s.group for s in normals})
    if len(groups) < 3:
        raise UserError(f"--dataset {options.dataset} has normals of {len(groups)} parts; three are needed")
    order = np.random.default_rng(0).permutation(len(groups))
    held = {groups[i] for i in order[: -(-len(groups) // 3)]}
    found: tuple[list[Any], list[Any]] = ([], [])
    for number in range(options.images):
        side = int(number >= options.images * 2 // 3)
        own = [s for s in normals if (s.group in held) == bool(side)]
        rng = np.random.default_rng([1, number])
        image = read_image(own[int(rng.integers(len(own)))].image)
        if min(image.shape[:2]) < options.side:
            short = [max(0, options.side - length) for length in image.shape[:2]]
            image = np.pad(image, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
        y, x = (int(rng.integers(length - options.side + 1)) for length in image.shape[:2])
        mask = drawn(options.masks, (options.side, options.side), rng)
        found[side].append((np.ascontiguousarray(image[y : y + options.side, x : x + options.side]), mask))
    return found


def fillings(options: argparse.Namespace, pairs: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
    """(what was done, images with their masks): the untouched windows first, at which a detector must fail."""
    import numpy as np
    import torch

    from fast.generators import create
    from fast.synthesis.detail import faded, restored

    torch.set_num_threads(1)
    yield "nothing", list(pairs)
    method = create(options.method, weights=options.pt_path, **_types(options), region="auto", detail=False, blend=0)
    engine = method.synthesizer.engine  # type: ignore[attr-defined]

    def filled(strength: float) -> list[Any]:
        return [
            engine.counterfeit([normal], [mask], [number], [number], strength=strength)[0]
            for number, (normal, mask) in enumerate(pairs)
        ]

    decoded = filled(0)
    for strength in options.strengths:
        made = filled(strength) if strength else decoded
        # At strength 0 what is lost is all of the difference: with it there is the normal again.
        for detail, blend in ((False, 0), (True, 0), (True, options.blend)) if strength else ((False, 0),):
            full = [
                restored(pair[0], plain, one, number) if detail else one
                for number, (pair, plain, one) in enumerate(zip(pairs, decoded, made, strict=True))
            ]
            name = f"strength {strength:g}{', detail' if detail else ''}{f', blend {blend}' if blend else ''}"
            yield (
                name,
                [
                    (np.where(mask[..., None] > 0, faded(normal, one, mask, blend), normal), mask)
                    for (normal, mask), one in zip(pairs, full, strict=True)
                ],
            )


def _types(options: argparse.Namespace) -> dict[str, Any]:
    """A word for weights that serve any: no words take part in normal content."""
    from fast.artifact import find_artifact

    return {"types": ["/stain"]} if find_artifact(options.pt_path, None, options.method).open_types else {}


def measured(made: Sequence[Any], train: int, seeds: Sequence[int], steps: int) -> dict[str, Any]:
    """Levels of the bands (dB, medians), the median seam, and the detector's mean over the seeds."""
    import numpy as np

    from fast.bench.pictures import seam
    from fast.quality.detector import detect
    from fast.quality.noise import band_levels

    bands = np.median([b for image, mask in made if (b := band_levels(image, mask)) is not None], axis=0)
    found = [detect(made[:train], made[train:], seed, steps) for seed in seeds]
    return {
        **{
            name: round(float(level), 2)
            for name, level in zip(("fine dB", "middle dB", "coarse dB"), bands, strict=True)
        },
        "seam": round(float(np.median([s for image, mask in made if (s := seam(image, mask)) is not None])), 3),
        "ap": round(float(np.mean([f.ap for f in found])), 4),
        "auroc": round(float(np.mean([f.auroc for f in found])), 4),
        "chance (ap)": round(found[0].chance, 4),
    }


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _sheet(pairs: Sequence[Any], shown: Sequence[Sequence[Any]]) -> Any:
    """Masks above, then a row for each way of filling, three pixels for each."""
    import numpy as np

    lines = [[np.repeat(255 * mask[..., None], 3, axis=2).astype(np.uint8) for _, mask in pairs], *shown]
    return np.concatenate([np.concatenate(line, axis=1).repeat(3, 0).repeat(3, 1) for line in lines])

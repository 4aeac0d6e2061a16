"""Every method on one footing: the same split, normals, masks and pairs of one size; and what each was given.

python scripts/compare_methods.py --data_root DATASET --out compared --count 60

Trains each method that learns by its recipe in configs/methods, makes pairs with all of them, and writes footing.md (a
row per method: what it saw, its budget, its speed) and methods.png (the same normals and masks side by side).
Everything lies in one folder; a second run goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fast.door import open_door
from fast.generators import METHODS, method_class
from fast.training.options import Parser
from ldm.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
ROWS, CELL, GAP, HEAD = 6, 192, 6, 24  # of the picture, in pixels


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="compare_methods.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    p.add_argument("--data_root", required=True, metavar="FOLDER", help="a dataset, or one category of it")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for everything")
    p.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), help="default: all")
    p.add_argument("--count", type=int, default=60, help="pairs of each method (default %(default)s)")
    p.add_argument("--size", type=int, default=256, help="side of every picture in pixels (default %(default)s)")
    p.add_argument(
        "--max_steps", type=int, default=None, help="optimiser steps of each training (default: the recipes')"
    )
    p.add_argument(
        "--evaluations",
        type=int,
        default=None,
        metavar="N",
        help="network evaluations of the methods on a latent base, fast and stage by AIAS's jumps (default: each as "
        "published; stage then takes 1000)",
    )
    p.add_argument("--own_masks", action="store_true", help="methods that draw masks use theirs, as published")
    p.add_argument("--textures", default=None, metavar="FOLDER", help="textures for draem and glass (default: drawn)")
    p.add_argument("--seed", type=int, default=0, help="seed of the split, the trainings and the pairs (default 0)")
    return p


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    out: Path = options.out
    split = prepare(options)
    rows = []
    for method in options.methods:
        weights = train(options, method, split) if learns(method) else None
        pairs = synthesize(options, method, weights)
        rows.append(footing(options, method, weights, pairs))
        write_table(rows, split, out)
    picture(options, out / "methods.png")
    print(f"{out / 'footing.md'}\n{out / 'methods.png'}")


def learns(method: str) -> bool:
    from fast.generators.base import Learned

    return issubclass(method_class(method), Learned)


def prepare(options: argparse.Namespace) -> Path:
    """The split and the training third's masks, in folders by defect type. Returns the split's file."""
    from fast.data.images import read_mask, write_bytes, write_mask
    from fast.data.layouts import check, open_dataset
    from fast.data.split import Split, make_split

    names = ("data_root", "size", "seed", "own_masks", "textures", "max_steps", "evaluations")
    asked = {k: str(getattr(options, k)) for k in names}
    mark, file = options.out / "settings.json", options.out / "split.json"
    if mark.is_file() and json.loads(mark.read_text()) != asked:
        raise UserError(f"{options.out} holds a run with other settings; give another --out")
    if not mark.is_file() and options.out.is_dir() and any(options.out.iterdir()):
        raise UserError(f"{options.out} holds other files; give another --out")
    index = check(open_dataset(options.data_root)).usable
    if len(index.categories) > 1:
        raise UserError(f"{options.data_root} holds {', '.join(index.categories)}; give the folder of one of them")
    split = Split.load(file) if file.is_file() else make_split(index, seed=options.seed)
    train, _ = split.apply(index)
    for i, sample in enumerate(train):
        target = options.out / "masks" / sample.anomaly / f"{i:04d}.png"
        if sample.mask is not None and not target.is_file():
            write_mask(target, read_mask(sample.mask))
    if not file.is_file():
        split.save(file)
    write_bytes(mark, json.dumps(asked, indent=1).encode())
    return file


def run(script: str, *flags: str) -> None:
    """A program of the project, in a process of its own: each has its own threads and memory."""
    print(f"$ python {script} {' '.join(flags)}", flush=True)
    done = subprocess.run([sys.executable, str(ROOT / script), *flags], env={**os.environ, "PYTHONUNBUFFERED": "1"})
    if done.returncode:
        raise UserError(f"{script} ended with {done.returncode}; the line above says why. The same command goes on")


def train(options: argparse.Namespace, method: str, split: Path) -> Path:
    """The run's folder of a method, trained to the end of its budget."""
    from fast.generators.latent import LatentGenerator

    folder = options.out / "runs" / method
    finished = folder.with_name(f"{method}.finished")
    if finished.is_file():
        return folder
    limits = [] if options.max_steps is None else [f"--max_steps={options.max_steps}"]
    data = ["--mvtec_path", options.data_root, "--split", str(split), "-s", str(options.seed)]
    if (folder / "config.yaml").is_file():
        run("main.py", "-r", str(folder), "-t", *limits)
    else:
        if issubclass(method_class(method), LatentGenerator):  # whole pictures, as the others see them
            data += ["data.params.native=false", f"data.params.size={options.size}"]
        recipe = str(ROOT / f"configs/methods/{method}.yaml")
        run("main.py", "--base", recipe, "-t", *data, "-n", method, "-l", str(folder.parent), *limits)
    finished.touch()
    return folder


def synthesize(options: argparse.Namespace, method: str, weights: Path | None) -> Path:
    """The folder of a method's pairs."""
    from fast.generators.latent import LatentGenerator

    found, pairs = method_class(method), options.out / "pairs" / method
    flags = [
        "--method",
        method,
        "--sample_name",
        str(pairs),
        "--count",
        str(options.count),
        "--size",
        str(options.size),
    ]
    flags += ["--data_root", options.data_root, "--seed", str(options.seed)]
    if found.takes_mask and not (options.own_masks and found.own_masks):
        flags += ["--mask_path", str(options.out / "masks")]
    if weights is not None:
        flags += ["--pt_path", str(weights)]
    if options.evaluations and issubclass(found, LatentGenerator):
        few = "ddim" if method == "anomalydiffusion" else "aias"
        flags += ["--sampler", few, "--steps", str(options.evaluations)]
    if options.textures and method in ("draem", "glass"):
        flags += [f"method.textures={options.textures}"]
    run("generate_with_mask.py", *flags)
    return pairs


def footing(options: argparse.Namespace, method: str, weights: Path | None, pairs: Path) -> dict[str, Any]:
    """What a method was given and what it took."""
    from fast.checkpoint import find_weights
    from ldm.checkpoint import read_state_dict

    records = [json.loads(line) for line in (pairs / "manifest.jsonl").read_text().splitlines()]
    budget, learnt = records[0].get("training", {}), 0
    if weights is not None:
        file = find_weights(weights, method_class(method).artifact)  # type: ignore[attr-defined]
        learnt = sum(v.numel() for v in read_state_dict(file).values())
    seconds = sorted(r["seconds"] for r in records)
    return {
        "method": method,
        "masks": "the training third's" if records[0]["mask_kind"] == "given" else records[0]["mask_kind"],
        "background": "a normal picture" if records[0]["normal_source"] else "its own",
        "trained at": trained_at(weights),
        "optimiser steps": budget.get("steps", "-"),
        "minutes": f"{float(budget['minutes']):.1f}" if budget else "-",
        "weights learned": f"{learnt / 1e6:.2f} M" if learnt else "-",
        "evaluations": records[0].get("steps", records[0].get("options", {}).get("steps", "-")),
        "pairs": len(records),
        "s per pair": f"{seconds[len(seconds) // 2]:.2f}",
        "change inside": f"{change(pairs, records, inside=True):.1f}",
        "outside": f"{change(pairs, records, inside=False):.2f}",
    }


def trained_at(weights: Path | None) -> str:
    """The side of the pictures that a training saw, in pixels."""
    from omegaconf import OmegaConf

    if weights is None:
        return "-"
    return f"{OmegaConf.select(OmegaConf.load(weights / 'config.yaml'), 'data.params.size')} px"


def change(pairs: Path, records: list[dict[str, Any]], inside: bool) -> float:
    """Mean absolute difference to the normal picture in grey levels, inside or outside the masks."""
    import numpy as np

    from fast.contact_sheet import read_row

    values = []
    for record in records[:40]:
        row = read_row(pairs, record)
        found = (row.mask != 0) == inside
        if found.any():
            values.append(float(np.abs(row.synthetic.astype(float) - row.normal)[found].mean()))
    return float(np.mean(values)) if values else 0.0


def write_table(rows: list[dict[str, Any]], split: Path, out: Path) -> None:
    from fast.data.images import write_bytes
    from fast.data.split import Split

    names = list(rows[0])
    lines = [f"Split {Split.load(split).hash[:12]}, the same for all.", "", "| " + " | ".join(names) + " |"]
    lines.append("| " + " | ".join("---" for _ in names) + " |")
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    write_bytes(out / "footing.md", ("\n".join(lines) + "\n").encode())


def picture(options: argparse.Namespace, file: Path) -> None:
    """The first pairs of every method side by side, the normal picture and the mask first."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from fast.contact_sheet import read_row
    from fast.data.images import resize_image, write_image

    step = max(1, options.count // ROWS)
    records = {
        m: [json.loads(line) for line in (options.out / "pairs" / m / "manifest.jsonl").read_text().splitlines()]
        for m in options.methods
    }
    given = next((m for m in options.methods if method_class(m).takes_image), options.methods[0])
    sheet = Image.new("RGB", ((2 + len(records)) * (CELL + GAP), HEAD + ROWS * (CELL + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, name in enumerate(["normal", "mask", *records]):
        draw.text((column * (CELL + GAP) + CELL // 2, HEAD // 2), name, fill="black", font=font, anchor="mm")
    for line, index in enumerate(range(0, options.count, step)[:ROWS]):
        first = read_row(options.out / "pairs" / given, records[given][index]).cells()
        shown = [first[0], first[1]]
        shown += [read_row(options.out / "pairs" / m, r[index]).synthetic for m, r in records.items()]
        for column, cell in enumerate(shown):
            small = Image.fromarray(resize_image(cell, CELL))
            sheet.paste(small, (column * (CELL + GAP), HEAD + line * (CELL + GAP)))
    write_image(file, np.asarray(sheet))


if __name__ == "__main__":
    sys.exit(open_door(main))

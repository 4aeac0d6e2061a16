"""The pairs that `scripts/bench.py --auto` delivers, and weights that are adapted for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fast.bench.candidates import ADAPT_MINUTES, CANDIDATES, adapted_folder
from fast.bench.choice import SPLITS, Choice
from fast.bench.nested import Sides
from fast.bench.placeholders import SEED
from fast.bench.rows import Made, RowPairs
from fast.bench.work import run_program
from fast.data.images import write_bytes, write_mask
from fast.data.index import DatasetIndex
from fast.data.source_mode import like_source
from fast.data.split import Split
from fast.generators.training import recipe_of
from fast.runtime.counts import number_of
from fast.runtime.flags import as_flags
from fast.runtime.options import TrainingOptions
from fast.synthesis.options import FIRST_COUNTERFEIT
from fast.synthesis.records import ASKED, FILES

ALL = "all"  # stands for `{seed}` where the whole training side is meant
FINISHED = "adapted"  # in the folder of an adaptation that went to its end


def adapt(label: str, index: DatasetIndex, split: Split, out: Path, run: str, content: str, minutes: float) -> Path:
    """Train a candidate's method on the training side of a split with `main.py`, once; returns its folder. One that was
    stopped goes on. `content`: see `adapted_folder`. Raises `UserError`."""
    folder = adapted_folder(out, CANDIDATES[label], run, content)
    if (folder / FINISHED).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    limits = TrainingOptions(train=True, max_minutes=minutes)
    if (folder / "config.yaml").is_file():
        flags = as_flags(replace(limits, resume=str(folder)))
    else:
        flags = _first_flags(label, index, split, folder, limits)
    run_program(folder.parent, "main.py", *flags)
    (folder / FINISHED).touch()
    return folder


def _first_flags(label: str, index: DatasetIndex, split: Split, folder: Path, limits: TrainingOptions) -> list[str]:
    """Of `main.py`, to begin an adaptation in a folder. Writes the split beside it."""
    candidate = CANDIDATES[label]
    file, category = folder.with_name(f"{folder.name}.split.json"), index.categories[0]
    split.save(file)
    options = replace(
        limits,
        base=[str(recipe_of(candidate.method))],
        logdir=str(folder.parent),
        name=folder.name,
        data=str(index.root),
        split=str(file),
        category=category if (index.root / category).is_dir() else None,
    )
    return [*as_flags(options), *candidate.training]


def final_pairs(
    choice: Choice, sides: Sides, out: Path, pairs: RowPairs, content: str, report: Callable[[str], None]
) -> list[Made]:
    """The pairs of what was taken, from the whole training side, written as a synthesis output. `content`: of that."""
    shutil.rmtree(out / "pairs", ignore_errors=True)
    if choice.taken is None:
        return []
    row = pairs.rows[choice.taken]
    for label in row.mix or (choice.taken,):
        if SEED in str(pairs.rows[label].options.get("weights", "")):
            adapt(label, sides.index, sides.split, out, ALL, content, ADAPT_MINUTES)
    made = pairs.made(choice.taken, sides, sides.train, None, SPLITS, run=ALL)
    write_pairs(made, out / "pairs")
    fakes = sum(pair.counterfeit for pair in made)
    also = f" and {number_of(fakes, 'counterfeit')}" if fakes else ""
    report(f"{number_of(len(made) - fakes, 'pair')}{also} in {out / 'pairs'}")
    return made


def write_pairs(made: Sequence[Made], folder: Path) -> None:
    """Image, mask, what was filled where that is more, and a line of the manifest for each pair, as
    `generate_with_mask.py` lays them out: counterfeits come last, under numbers of their own."""
    shown, fakes = ([pair for pair in made if pair.counterfeit == wanted] for wanted in (False, True))
    lines = []
    for number, pair in (*enumerate(shown), *enumerate(fakes, FIRST_COUNTERFEIT)):
        parts = ("image", "mask") if pair.filled is None else FILES
        files = {part: f"{part}/{number:06d}.png" for part in parts}
        image, mask = pair.sample.read()
        like_source(image, pair.record.get("normal_source")).write(folder / files["image"])
        write_mask(folder / files["mask"], mask)
        if pair.filled is not None:
            write_mask(folder / files[ASKED], pair.filled)
        about = {"prompt": "", "windows": [[0, 0, *mask.shape]]}  # for those who show them
        lines.append(json.dumps({"index": number, **files, **about, **pair.record}))
    write_bytes(folder / "manifest.jsonl", ("\n".join(lines) + "\n").encode())

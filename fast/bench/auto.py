"""It chooses by itself: what helps most on splits inside the training side, its pairs, and a segmenter to take away."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from fast.artifact import find_weights
from fast.bench.candidates import ADAPT_MINUTES, CANDIDATES, adapted_folder, rows_of
from fast.bench.choice import SPLITS, Budget, Choice, Trials, choose
from fast.bench.nested import Sides, nested_sides, sides_of
from fast.bench.rows import SEED, Made, Row, RowPairs
from fast.bench.trial import NetworkJudge
from fast.bench.work import run_program
from fast.data.images import write_bytes, write_image, write_mask
from fast.data.index import DatasetIndex
from fast.data.split import Split
from fast.generators.training import recipe_of
from fast.runtime.flags import as_flags
from fast.runtime.options import TrainingOptions
from fast.segmentation.data import from_samples, merged
from fast.segmentation.export import Described, export
from fast.segmentation.networks import save
from fast.segmentation.quick import QuickJudge
from fast.synthesis.options import FIRST_COUNTERFEIT
from ldm.errors import UserError

NETWORK, STEPS, NORMALS, REAL_SHARE = "fpn", 700, 0.3, 0.5  # of the final segmenter, as the answer's protocol has them
CHOOSING = 0.5  # share of the minutes in which it chooses
ENDING = 0.06  # share for the test, the export and the page
ALL = "all"  # stands for `{seed}` where the whole training side is meant


@dataclass(frozen=True)
class Plan:
    """`minutes` in all; `per_type`: pairs of each type; `size`: side in pixels that segmenters see, or with `native`
    of their windows; `augment`: one of `fast.data.transforms.AUGMENT`; `steps` of the final training, at most;
    `looks`: what `procedural` draws for a type."""

    minutes: float = 30.0
    per_type: int = 40
    size: int = 256
    native: bool = False
    augment: str = "classical"
    steps: int = STEPS
    looks: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, least in (
            ("minutes", self.minutes, 0.1),
            ("count", self.per_type, 1),
            ("size", self.size, 32),
        ):
            if not least <= value <= 65535:
                raise UserError(f"--{name} {value} lies outside {least}..65535; change it")
        if self.steps < 1:
            raise UserError(f"--steps {self.steps} must be above 0")


@dataclass(frozen=True)
class Final:
    """The segmenter that is delivered: its figures on the test side, steps and seconds of training, pairs by type."""

    network: nn.Module
    figures: Mapping[str, Any]
    steps: int
    seconds: float
    made: Sequence[Made]


@dataclass(frozen=True)
class Delivered:
    """All that `deliver` found out. `kinds`: the defect types; `seconds` of all of it."""

    name: str
    plan: Plan
    sides: Sides
    kinds: Sequence[str]
    choice: Choice
    rows: Mapping[str, Row]
    final: Final
    seconds: float


def deliver(
    index: DatasetIndex, split: Split, out: Path, plan: Plan, report: Callable[[str], None] = print
) -> Delivered:
    """Choose, make the pairs, train the segmenter, test it once, and write all of it into `out`. Raises `UserError`."""
    budget, sides = Budget(60 * plan.minutes), sides_of(index, split)
    kinds = sorted({f"{s.category}/{s.anomaly}" for s in sides.train})
    rows, undrawable = rows_of(kinds, out, plan.looks)
    pairs = RowPairs(rows, plan.per_type)
    choice = _choose(index, split, out, plan, pairs, undrawable, report)
    report(f"taken: {choice.taken or 'nothing, real defects with classical augmentation'}")
    made = _pairs(choice, sides, out, pairs, report)
    final = _final(sides, plan, made, budget.left / 60 - ENDING * plan.minutes, report)
    described = Described(plan.size, plan.native, kinds, NETWORK)
    files = export(final.network, out, described)
    save(final.network, out / "segmenter.safetensors", NETWORK)
    figures = {**final.figures, "taken": choice.taken, "split": split.hash, "steps": final.steps}
    write_bytes(out / "metrics.json", (json.dumps(figures, indent=1) + "\n").encode())
    shutil.rmtree(out / "features", ignore_errors=True)
    report(f"written: {', '.join(file.name for file in files)}")
    spent = budget.seconds - budget.left
    return Delivered(sides.train[0].category, plan, sides, kinds, choice, pairs.rows, final, spent)


def _choose(
    index: DatasetIndex, split: Split, out: Path, plan: Plan, pairs: RowPairs, undrawable: Mapping[str, str],
    report: Callable[[str], None],
) -> Choice:  # fmt: skip
    sides = nested_sides(index, split, SPLITS)
    size = None if plan.native else plan.size
    judge = QuickJudge(size, plan.augment, cache=out / "features")
    budget = Budget(60 * CHOOSING * plan.minutes)
    adapted = {label: 60 * ADAPT_MINUTES for label in pairs.rows if CANDIDATES[label].adapted}

    def prepare(label: str, number: int) -> None:
        if label in adapted:
            adapt(CANDIDATES[label].method, index, sides[number].split, out, str(number), ADAPT_MINUTES)

    trials = Trials(
        sides, pairs, judge, budget, out / "choice.json", prepare, report, {"size": size, "augment": plan.augment}
    )
    trials.left_out.update(undrawable)
    # At the end the weights are adapted once more, to all of the training side.
    labels = [label for label in pairs.rows if label not in adapted or _room(plan)]
    for label in adapted.keys() - set(labels):
        trials.left_out[label] = (
            f"adapting takes {ADAPT_MINUTES:.0f} minutes on each of two nested splits, and again on the whole training "
            f"side: give --minutes {least_minutes():.0f} or more"
        )
    return choose(trials, labels, adapted)


def least_minutes() -> float:
    """Minutes from which methods that are adapted are tried: two adaptations in half of the time for choosing."""
    return 2 * 2 * ADAPT_MINUTES / CHOOSING


def _room(plan: Plan) -> bool:
    return plan.minutes >= least_minutes()


def adapt(method: str, index: DatasetIndex, split: Split, out: Path, run: str, minutes: float) -> Path:
    """Train a method on the training side of a split with `main.py`, once; returns its folder. Raises `UserError`."""
    folder = adapted_folder(out, method, run)
    try:
        find_weights(folder, method)
        return folder
    except UserError:
        folder.parent.mkdir(parents=True, exist_ok=True)
    limits = TrainingOptions(train=True, max_minutes=minutes)
    if (folder / "config.yaml").is_file():
        run_program(folder.parent, "main.py", *as_flags(replace(limits, resume=str(folder))))
        return folder
    file, category = folder.with_name(f"{folder.name}.split.json"), index.categories[0]
    split.save(file)
    options = replace(
        limits,
        base=[str(recipe_of(method))],
        logdir=str(folder.parent),
        name=folder.name,
        data=str(index.root),
        split=str(file),
        category=category if (index.root / category).is_dir() else None,
    )
    run_program(folder.parent, "main.py", *as_flags(options))
    return folder


def _pairs(choice: Choice, sides: Sides, out: Path, pairs: RowPairs, report: Callable[[str], None]) -> list[Made]:
    """The pairs of what was taken, from the whole training side, written as a synthesis output."""
    shutil.rmtree(out / "pairs", ignore_errors=True)
    if choice.taken is None:
        return []
    row = pairs.rows[choice.taken]
    for label in row.mix or (choice.taken,):
        if SEED in str(pairs.rows[label].options.get("weights", "")):
            adapt(CANDIDATES[label].method, sides.index, sides.split, out, ALL, ADAPT_MINUTES)
    made = pairs.made(choice.taken, sides, sides.train, None, SPLITS, run=ALL)
    write_pairs(made, out / "pairs")
    fakes = sum(pair.counterfeit for pair in made)
    report(f"{len(made) - fakes} pairs{f' and {fakes} counterfeits' if fakes else ''} in {out / 'pairs'}")
    return made


def write_pairs(made: Sequence[Made], folder: Path) -> None:
    """Image, mask and a line of the manifest for each pair, as `generate_with_mask.py` lays them out: counterfeits come
    last, under numbers of their own."""
    shown, fakes = ([pair for pair in made if pair.counterfeit == wanted] for wanted in (False, True))
    lines = []
    for number, pair in (*enumerate(shown), *enumerate(fakes, FIRST_COUNTERFEIT)):
        files = {part: f"{part}/{number:06d}.png" for part in ("image", "mask")}
        image, mask = pair.sample.read()
        write_image(folder / files["image"], image)
        write_mask(folder / files["mask"], mask)
        about = {"prompt": "", "windows": [[0, 0, *mask.shape]]}  # for those who show them
        lines.append(json.dumps({"index": number, **files, **about, **pair.record}))
    write_bytes(folder / "manifest.jsonl", ("\n".join(lines) + "\n").encode())


def _final(sides: Sides, plan: Plan, made: Sequence[Made], minutes: float, report: Callable[[str], None]) -> Final:
    """Train on the whole training side and the pairs, test once."""
    losses: list[float] = []
    training = {"steps": plan.steps, "minutes": max(0.1, minutes), "batch_size": 8, "augment": plan.augment}
    seen = {"size": plan.size, "native": plan.native}
    judge = NetworkJudge(NETWORK, training, seen, progress=lambda _, __, loss: losses.append(loss))
    normals = from_samples(sides.index.normals)
    samples = merged(
        [pair.sample for pair in made], from_samples(sides.train), normals,
        REAL_SHARE if made else None, NORMALS if normals else 0.0,
    )  # fmt: skip
    report(f"training {NETWORK}: {plan.steps} steps, or {max(0.1, minutes):.1f} minutes")
    start = time.monotonic()
    network = judge.fit(samples)
    seconds = time.monotonic() - start
    figures = judge.test(network, from_samples(sides.test))
    report(f"test side: IoU {100 * figures['miou']:.1f} %, mean of types {100 * figures['miou_types']:.1f} %")
    return Final(network, figures, len(losses), seconds, made)

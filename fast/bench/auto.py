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

from fast.bench.auto_pairs import adapt, final_pairs
from fast.bench.candidates import ADAPT_MINUTES, CANDIDATES, rows_of
from fast.bench.choice import SPLITS, Choice, Trials, choose
from fast.bench.few import ALONE, Shares
from fast.bench.foresight import LEAST_STEPS, Budget, Foreseen, advised, foresee, in_minutes, looked_at, measure
from fast.bench.nested import Sides, content_beside, nested_sides, sides_of, told_again, training_side
from fast.bench.rows import Made, Row, RowPairs
from fast.bench.trial import NetworkJudge
from fast.data.content import dataset_content
from fast.data.images import write_bytes
from fast.data.index import DatasetIndex
from fast.data.split import Split
from fast.data.whole import CHOICE
from fast.segmentation.data import from_samples
from fast.segmentation.export import Described, export
from fast.segmentation.networks import save
from fast.segmentation.quick import QuickJudge
from ldm.errors import UserError

NETWORK, STEPS, NORMALS = "fpn", 700, 0.3  # of the final segmenter, as the answer's protocol has them
SHOWN_NORMALS = 60  # of trials, at most: features of thousands would take the minutes
CHOOSING = 0.5  # share of the minutes in which it chooses, at least


@dataclass(frozen=True)
class Plan:
    """What a run of `--auto` is asked for.

    Args:
        minutes: time for the whole run, 0.1 or more.
        per_type: pairs of each type, 1 or more.
        size: side in pixels that segmenters see, 32 or more, or with `native` that of their windows.
        native: pictures keep their own size.
        augment: one of `fast.data.transforms.AUGMENT`.
        steps: optimizer steps of the final training, at most.
        looks: what is drawn for a type, by `procedural` as pairs or as drafts.
        device: where segmenters are trained, "cpu" or "cuda".
        real_share: share of the defects drawn that are real, in rows with pairs. None: every one equally often.

    Raises:
        UserError: when a number lies out of range.
    """

    minutes: float = 30.0
    per_type: int = 40
    size: int = 256
    native: bool = False
    augment: str = "classical"
    steps: int = STEPS
    looks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    device: str = "cpu"
    real_share: float | None = Shares.real_share

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
    """The segmenter that is delivered.

    Args:
        network: the trained network.
        figures: what it scores on the test side, see `fast.segmentation.evaluation.evaluate`.
        steps, seconds: optimizer steps and seconds that its training took.
        made: the pairs that it was trained on, type by type. Empty when none helped.
    """

    network: nn.Module
    figures: Mapping[str, Any]
    steps: int
    seconds: float
    made: Sequence[Made]


@dataclass(frozen=True)
class Delivered:
    """All that `deliver` found out.

    Args:
        name: the category.
        plan: what the run was asked for.
        sides: the training and test side.
        kinds: the defect types, "category/type".
        choice: what helped most, and the trials behind it.
        rows: where the pairs of each candidate come from, by label.
        final: the segmenter, its figures and the pairs.
        seconds: of the whole run, the reading of the dataset and what was measured before it began among them.
    """

    name: str
    plan: Plan
    sides: Sides
    kinds: Sequence[str]
    choice: Choice
    rows: Mapping[str, Row]
    final: Final
    seconds: float


class Job:
    """A run of `--auto` that was found to fit into its minutes, as far as can be foreseen: what it takes is measured on
    a few images here, before anything is written.

    `out`: the folder that it is to fill; `budget`: runs since the command began. UserError where real defects alone and
    one candidate on one nested split, and the final segmenter, do not fit, and for what cannot be measured.
    """

    def __init__(
        self, index: DatasetIndex, split: Split, out: Path, plan: Plan, budget: Budget,
        report: Callable[[str], None] = print,
    ):  # fmt: skip
        self.index, self.out, self.plan, self.budget, self.report = index, out, plan, budget, report
        self.sides, self.inner = sides_of(index, split), nested_sides(index, split, SPLITS)
        for line in told_again(self.inner):
            report(line)
        self.kinds = sorted({f"{s.category}/{s.anomaly}" for s in self.sides.train})
        seen = training_side(index, split)
        self.content = dataset_content(seen)
        for inner in self.inner:
            self.content = content_beside(self.content, seen, inner)
        rows, undrawable = rows_of(self.kinds, out, plan.looks, self.content)
        self.pairs = RowPairs(rows, plan.per_type)
        self.size = None if plan.native else plan.size
        self.judge = QuickJudge(self.size, plan.augment, cache=out / "features", device=plan.device)
        self.trials = self._trials(undrawable)
        self.described = Described(plan.size, plan.native, self.kinds, NETWORK)
        self.foreseen = self._foresee()
        # What final training and test need, and no more than half of the minutes, is kept for them.
        self.trials.budget = Budget(budget.left - self.foreseen.reserve(budget.left), budget.clock)

    def _trials(self, undrawable: Mapping[str, str]) -> Trials:
        self.adapted = [label for label in self.pairs.rows if CANDIDATES[label].adapted]
        trials = Trials(
            self.inner, self.pairs, self.judge, self.budget, self.out / CHOICE, self._prepare, self.report,
            {**self.judge.settings(), "data": self.content},
            Shares(NORMALS, real_share=self.plan.real_share, most=SHOWN_NORMALS),
        )  # fmt: skip
        trials.left_out.update(undrawable)
        # At the end the weights are adapted once more, to all of the training side.
        if self.plan.minutes < least_minutes():
            for label in self.adapted:
                trials.left_out[label] = (
                    f"adapting takes {ADAPT_MINUTES:.0f} minutes on each of two nested splits, and again on the whole "
                    f"training side: give --minutes {least_minutes():.0f} or more"
                )
            self.adapted = []
        self.labels = [label for label in self.pairs.rows if label not in trials.left_out]
        return trials

    def _prepare(self, label: str, number: int) -> None:
        if label in self.adapted:
            adapt(label, self.index, self.inner[number].split, self.out, str(number), self.content, ADAPT_MINUTES)

    def _foresee(self) -> Foreseen:
        """What is to come, measured and told. UserError where the minutes are too few for it."""
        plan, inner, first = self.plan, self.inner[0], next(iter(self.labels), None)
        probe, few = replace(self.judge, cache=None), looked_at(self.sides.train)  # leaves nothing
        row = self.pairs.rows[first] if first else None
        costs = measure(probe, _network(plan), self.described, few, row, self.sides)
        done = 0 if not self.trials.done(ALONE, 0) else 1 if not (first and self.trials.done(first, 0)) else 2
        found = foresee(
            costs, self.judge, real=len(inner.train), inner_test=len(inner.test),
            pairs=plan.per_type * len(self.kinds) if first else 0,
            normals=len(self.trials.shares.flawless(inner.index.normals)),
            test=len(self.sides.test), steps=plan.steps, done=done,
        )  # fmt: skip
        if self.adapted:
            found = replace(found, full=found.full + 60 * ADAPT_MINUTES)
        spent = self.budget.seconds - self.budget.left
        parts = (
            f"one nested split (real defects alone and {first or 'no candidate'}) takes about "
            f"{in_minutes(found.first)}, the pairs of the end {in_minutes(found.delivered)}, the final segmenter "
            f"{in_minutes(found.least)} with {min(plan.steps, LEAST_STEPS)} steps and {in_minutes(found.full)} with "
            f"all {plan.steps}; {in_minutes(spent)} are spent"
        )
        choosing = f"{advised(spent, found.choosing)} for two nested splits, below which nothing can be chosen"
        if found.smallest > self.budget.left:
            raise UserError(
                f"--minutes {plan.minutes:g} is too few by what was measured here on {len(few)} images: {parts}; give "
                f"--minutes {advised(spent, found.smallest)} at least, and {choosing}"
            )
        self.report(f"by what was measured on {len(few)} images, {parts}")
        if found.choosing > self.budget.left and not (first and self.trials.done(first, 1)):
            self.report(f"note: --minutes {plan.minutes:g} suffices for one nested split alone; give {choosing}")
        return found


def deliver(job: Job) -> Delivered:
    """Choose, make the pairs, train the segmenter, test it once, and write all of it into the job's folder. Raises
    `UserError`."""
    plan, out, report = job.plan, job.out, job.report
    extra = {label: job.foreseen.beside + (60 * ADAPT_MINUTES if label in job.adapted else 0.0) for label in job.labels}
    choice = choose(job.trials, job.labels, extra)
    report(f"taken: {choice.taken or 'nothing, real defects with classical augmentation'}")
    made = final_pairs(choice, job.sides, out, job.pairs, job.content, report)
    final = _final(job, made)
    files = export(final.network, out, job.described)
    save(final.network, out / "segmenter.safetensors", NETWORK, job.sides.split.hash)
    figures = {**final.figures, "taken": choice.taken, "split": job.sides.split.hash, "steps": final.steps}
    write_bytes(out / "metrics.json", (json.dumps(figures, indent=1) + "\n").encode())
    shutil.rmtree(out / "features", ignore_errors=True)
    report(f"written: {', '.join(file.name for file in files)}")
    spent = job.budget.seconds - job.budget.left
    name = job.sides.train[0].category
    return Delivered(name, plan, job.sides, job.kinds, choice, job.pairs.rows, final, spent)


def least_minutes() -> float:
    """Minutes from which methods that are adapted are tried: two adaptations in half of the time for choosing."""
    return 2 * 2 * ADAPT_MINUTES / CHOOSING


def _final(job: Job, made: Sequence[Made]) -> Final:
    """Train on the whole training side and the pairs, test once."""
    plan, sides, report, losses = job.plan, job.sides, job.report, list[float]()
    left = job.budget.left - job.foreseen.ending
    least = job.foreseen.least - job.foreseen.ending
    if left < least:
        report(
            f"note: {in_minutes(left)} are left to train in; it takes {in_minutes(least)}, for the least of its steps"
        )
        left = least
    judge = _network(plan, left / 60, lambda _, __, loss: losses.append(loss))
    shares = Shares(NORMALS, real_share=plan.real_share)
    samples = shares.samples([pair.sample for pair in made], from_samples(sides.train), sides.index.normals)
    report(f"training {NETWORK}: {plan.steps} steps, or {in_minutes(left)}")
    start = time.monotonic()
    network = judge.fit(samples)
    seconds = time.monotonic() - start
    figures = judge.test(network, from_samples(sides.test))
    report(f"test side: IoU {100 * figures['miou']:.1f} %, mean of types {100 * figures['miou_types']:.1f} %")
    return Final(network, figures, len(losses), seconds, made)


def _network(
    plan: Plan, limit: float | None = None, progress: Callable[[int, float, float], None] | None = None
) -> NetworkJudge:
    """How the final segmenter is trained, within `limit` minutes, and tested."""
    training = {"steps": plan.steps, "minutes": limit, "batch_size": 8, "augment": plan.augment, "prior": "real"}
    seen = {"size": plan.size, "native": plan.native, "device": plan.device}
    return NetworkJudge(NETWORK, training, seen, progress=progress)

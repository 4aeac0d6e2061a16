"""Which pairs help most? Candidates tried on nested splits of the training side, within a budget of time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fast.bench.few import ALONE, Shares, measured
from fast.bench.foresight import Budget, in_minutes
from fast.bench.nested import Sides
from fast.bench.rows import Row, RowPairs, learns
from fast.bench.trial import Judge
from fast.data.images import write_bytes

SPLITS = 5  # nested splits, at most: three differ among themselves by more than methods do (docs/ablations.md)
SHARES = Shares()
LEAST = 2  # of them, below which nothing is chosen: one says nothing about chance


@dataclass(frozen=True)
class CandidateScore:
    """A candidate's scores above real defects alone on the same nested splits, in points: their mean, its standard
    error (None for one split). `iou`: its own mean score in percent; `splits`: on so many."""

    label: str
    iou: float
    gain: float
    error: float | None
    splits: int

    @property
    def helps(self) -> bool:
        """More than chance: above the standard error."""
        return self.error is not None and self.splits >= LEAST and self.gain > self.error


@dataclass(frozen=True)
class Choice:
    """`taken`: the label of what helps most, None if nothing does; `scores` of all that was tried; `left_out`: why
    others were not; `rows`: the measurements."""

    taken: str | None
    scores: Sequence[CandidateScore]
    left_out: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    alone: float


def score_of(row: Mapping[str, Any]) -> float:
    """What candidates are ranked by, in percent: the mean of pooled IoU, in which large defects count most, and the
    mean of the types' IoU, in which rare types count as much as common ones."""
    return 50.0 * (row["miou"] + row["miou_types"])


class Trials:
    """Trials of rows on nested splits. Those in `file` are not done again, if they were done with the same `settings`,
    what decides the figures beside the pairs, and the same `shares`. `prepare(label, split)` is called before the first
    of a label on a split, and counts as part of it."""

    def __init__(
        self, sides: Sequence[Sides], pairs: RowPairs, judge: Judge, budget: Budget, file: Path,
        prepare: Callable[[str, int], None] = lambda label, split: None,
        report: Callable[[str], None] = print, settings: Mapping[str, Any] | None = None, shares: Shares = SHARES,
    ):  # fmt: skip
        self.sides, self.pairs, self.judge, self.budget = sides, pairs, judge, budget
        self.file, self.prepare, self.report, self.settings = file, prepare, report, dict(settings or {})
        self.shares = shares
        known = json.loads(file.read_text()) if file.is_file() else []
        self.rows: list[dict[str, Any]] = [row for row in known if self._same(row)]
        self.left_out: dict[str, str] = {}

    def _how(self, label: str) -> dict[str, Any]:
        rows, row = self.pairs.rows, self.pairs.rows.get(label, Row())
        of = {name: rows[name].describe() for name in row.mix or ()}
        shares = {**self.shares.describe(), **({} if label == ALONE else self.shares.of_pairs(None))}
        found = {**row.describe(), "of": of, "per_type": self.pairs.per_type, **self.settings, **shares}
        return dict(json.loads(json.dumps(found)))

    def _same(self, row: Mapping[str, Any]) -> bool:
        """Whether a known measurement is one of these trials."""
        inside = row["seed"] < len(self.sides) and row["split"] == self.sides[row["seed"]].split.hash
        return inside and (row["how"] == self._how(row["label"]) or " + " in row["label"])

    def done(self, label: str, split: int) -> bool:
        return any((row["label"], row["seed"]) == (label, split) for row in self.rows)

    @property
    def left(self) -> float:
        """Seconds left to choose in. Kept are those in which the pairs of what is taken are made once more, from the
        whole training side: of a mixture those of two rows."""
        making = {row["label"]: row.get("making", 0.0) for row in self.rows if row["label"] in self.pairs.rows}
        again = sorted(seconds for label, seconds in making.items() if learns(self.pairs.rows[label]))
        return self.budget.left - sum(again[-2:])

    def run(self, label: str, split: int) -> None:
        """Try a row on a nested split."""
        if self.done(label, split):
            return
        start, sides = self.budget.clock(), self.sides[split]
        self.prepare(label, split)
        row = measured(label, None, split, sides.train, sides, self.pairs, self.judge, self.shares)
        if row is None:
            self.left_out[label] = "it makes no pairs here"
            return
        seconds = round(self.budget.clock() - start, 1)
        making = round(self.pairs.seconds.get(label, 0.0), 1)
        about = {"split": sides.split.hash, "how": self._how(label), "seconds": seconds, "making": making}
        self.rows.append({**row, **about})
        write_bytes(self.file, (json.dumps(self.rows, indent=1) + "\n").encode())
        self.report(
            f"nested split {split}, {label}: IoU {100 * row['miou']:.1f} %, mean of types "
            f"{100 * row['miou_types']:.1f} %, {seconds:.0f} s; "
            f"{in_minutes(self.left)} left to choose in"
        )

    def seconds(self, label: str) -> float | None:
        """Of the last trial of a row; None before the first."""
        found = [row["seconds"] for row in self.rows if row["label"] == label]
        return found[-1] if found else None

    def estimate(self, label: str, extra: Mapping[str, float] | None = None) -> float:
        """Seconds of the next trial of a row, by those there were: an unknown one takes as long as the longest, each
        without its own `extra` (see `choose`), and this one's on top."""
        known, extra = self.seconds(label), extra or {}
        if known is not None:
            return known
        plain = (row["seconds"] - extra.get(row["label"], 0.0) for row in self.rows)
        return max(plain, default=0.0) + extra.get(label, 0.0)


def choose(trials: Trials, labels: Sequence[str], extra: Mapping[str, float] | None = None) -> Choice:
    """Try real defects alone and the rows `labels`, then the mixture of the two best, and take what helps most.

    Real defects alone and the first row are measured on the first split. By what they took, as many of the other rows
    as can have two splits are tried. The rest is left out and reported. Further splits follow as far as the time goes.
    From one split nothing is chosen.

    Args:
        trials: runs the trials, keeps their scores and knows how much time is left.
        labels: rows in the order in which they are tried.
        extra: seconds that a trial of a row takes more than one of real defects alone, such as adapting weights, as far
            as it is known before the first one.

    Returns:
        What helps most, if anything does more than chance, with all scores and why other rows were left out.
    """
    extra = extra or {}
    trials.run(ALONE, 0)
    begun = [ALONE]
    for label in labels:
        cost = trials.estimate(label, extra)
        # Each that is begun has a second split to come; the first row is tried if it can have one split.
        promised = sum(trials.estimate(other) for other in begun) if len(begun) > 1 else 0.0
        splits = LEAST if len(begun) > 1 else 1
        if not trials.done(label, 0) and splits * cost + promised > trials.left:
            trials.left_out[label] = (
                f"{_count(splits)} of it would have taken about {in_minutes(splits * cost)}, and "
                f"{in_minutes(trials.left - promised)} were left to choose in"
            )
            continue
        trials.run(label, 0)
        begun += [label] if trials.done(label, 0) else []
        if len(begun) == 2 and not trials.done(label, 1):  # by an earlier run, whose trials take no time
            trials.report(_outlook(trials, labels, begun, extra))
    rounds = _rounds(trials, begun)
    if rounds < len(trials.sides):
        trials.left_out[f"nested split {rounds + 1} of {len(trials.sides)}"] = "the minutes did not suffice"
    _try_mixture(trials, begun[1:], rounds)
    if trials.left_out:
        trials.report("left out: " + "; ".join(f"{label} ({why})" for label, why in trials.left_out.items()))
    return _chosen(trials)


def _count(splits: int) -> str:
    return "a nested split" if splits == 1 else f"{splits} nested splits"


def _outlook(trials: Trials, labels: Sequence[str], begun: Sequence[str], extra: Mapping[str, float]) -> str:
    """What fits into the minutes, by what the first two trials took; each trial from here on corrects it."""
    alone, first = (trials.estimate(label) for label in begun)
    left, fitting = trials.left - alone - first, 1  # the second split of these comes first
    for label in (label for label in labels if label not in begun):
        cost = LEAST * trials.estimate(label, extra)
        if cost <= left:
            left, fitting = left - cost, fitting + 1
    more = int(max(0.0, left) // (alone + fitting * first)) if left >= 0 else -1
    splits = max(1, min(len(trials.sides), LEAST + more))
    return (
        f"real defects alone took {alone:.0f} s, {begun[1]} {first:.0f} s: {fitting} of {len(labels)} candidates on "
        f"{splits} of {len(trials.sides)} nested splits fit into the {in_minutes(trials.left)} left to choose in"
        + (", and from one split nothing can be chosen" if splits < LEAST else "")
    )


def _rounds(trials: Trials, begun: Sequence[str]) -> int:
    """Try the rows on further splits; returns on how many real defects alone were measured. The second split is made as
    far as the minutes go, for it decides; later ones are made whole or not at all, so that gains stay comparable."""
    for number in range(1, len(trials.sides) if len(begun) > 1 else 1):
        needed = [trials.estimate(label) for label in begun if not trials.done(label, number)]
        # Real defects alone say nothing alone: one row at least has to fit beside them.
        first = needed[: 1 if trials.done(ALONE, number) else 2]
        least = sum(first if number < LEAST else needed)
        if needed and least > trials.left:
            return number
        for label in begun:
            if trials.done(label, number) or trials.estimate(label) <= trials.left:
                trials.run(label, number)
            else:
                trials.left_out[f"{label} on nested split {number + 1}"] = "the minutes did not suffice"
    return len(trials.sides) if len(begun) > 1 else 1


def _try_mixture(trials: Trials, labels: Sequence[str], rounds: int) -> None:
    """Half of the pairs of each of the two best; their features are there already."""
    best = [score.label for score in ranked(trials.rows) if score.label in labels and score.splits >= rounds][:2]
    if len(best) < 2:
        return
    label = " + ".join(best)
    trials.pairs.rows = {**trials.pairs.rows, label: Row(mix=(best[0], best[1]))}
    trials.rows = [row for row in trials.rows if " + " not in row["label"] or row["how"] == trials._how(label)]
    cost = sum(trials.estimate(ALONE) for split in range(rounds) if not trials.done(label, split))
    if cost > trials.left:
        trials.left_out[label] = "the minutes did not suffice"
        return
    for split in range(rounds):
        trials.run(label, split)


def ranked(rows: Sequence[Mapping[str, Any]]) -> list[CandidateScore]:
    """The scores of all rows but real defects alone, the greatest gain first."""
    base = {row["seed"]: score_of(row) for row in rows if row["label"] == ALONE}
    found = []
    for label in dict.fromkeys(row["label"] for row in rows if row["label"] != ALONE):
        own = {row["seed"]: score_of(row) for row in rows if row["label"] == label}
        both = sorted(own.keys() & base.keys())
        if not both:
            continue
        gains = np.array([own[seed] - base[seed] for seed in both])
        error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else None
        iou = float(np.mean([own[seed] for seed in both]))
        found.append(CandidateScore(label, iou, float(gains.mean()), error, len(both)))
    return sorted(found, key=lambda score: -score.gain)


def _chosen(trials: Trials) -> Choice:
    # A mixture of an earlier run is no candidate where this one did not come to it.
    scores = [score for score in ranked(trials.rows) if score.label in trials.pairs.rows]
    taken = next((score.label for score in scores if score.helps), None)
    alone = float(np.mean([score_of(row) for row in trials.rows if row["label"] == ALONE]))
    return Choice(taken, scores, dict(trials.left_out), list(trials.rows), alone)

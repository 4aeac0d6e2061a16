"""How many real defects are pairs worth? The quick judge's scores with few real defects, alone and with pairs.

Factories have a handful of defects. For each number of them, nested random choices are trained on as they are and
together with each method's pairs; a method that learns from defects sees the chosen ones alone.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fast.bench.nested import Sides, beside, content_beside, nested_sides, sides_of, told_again, training_side
from fast.bench.rows import Row, RowPairs
from fast.bench.trial import Judge, trial
from fast.data.content import dataset_content
from fast.data.images import write_bytes
from fast.data.index import DatasetIndex, Sample
from fast.data.split import Split
from fast.runtime.counts import number_of
from fast.runtime.progress import followed
from fast.segmentation.data import SegmentationSample, from_samples, merged
from ldm.errors import UserError

ALONE = "real alone"
METRICS = ("miou", "miou_types", "ap", "auroc")
UNTOLD = ("types", "parts", "split", "data", "how", "judged")  # of a row, in the line about it


@dataclass(frozen=True)
class Shares:
    """How often training draws what, as `fast.segmentation.data.merged` takes it.

    Args:
        normals: share of what is drawn that are normal images. At 0 real defects alone never see one, while pairs stand
            on them.
        draw: what of the real defects is drawn equally often, "parts" or "images".
        real_share: share of the defects drawn that are real, where there are pairs. None: every defect is drawn equally
            often.
        most: normal images to use, at most, evenly spread over all. None: all of them.
    """

    normals: float = 0.0
    draw: str = "parts"
    real_share: float | None = 0.5
    most: int | None = None

    def flawless(self, normals: Sequence[Sample]) -> list[SegmentationSample]:
        """The normal images to train on."""
        if not self.normals or not normals:
            return []
        count = len(normals) if self.most is None else min(self.most, len(normals))
        return from_samples(normals[len(normals) * k // count] for k in range(count))

    def samples(
        self, synthetic: Sequence[SegmentationSample], real: Sequence[SegmentationSample], normals: Sequence[Sample]
    ) -> list[SegmentationSample]:
        """All to train on, weighted. Raises `UserError`."""
        flawless, share = self.flawless(normals), self.real_share if synthetic and real else None
        return merged(synthetic, real, flawless, share, self.normals if flawless else 0.0, self.draw)

    def describe(self) -> dict[str, Any]:
        """What decides every row's figures, as plain data. No normals, and images drawn alike, as all was before there
        was anything else, go unsaid."""
        normals = {"normals": self.normals} if self.normals else {}
        normals |= {"most_normals": self.most} if self.normals and self.most is not None else {}
        return {**normals, **({"draw": self.draw} if self.draw != "images" else {})}

    def of_pairs(self, count: int | None) -> dict[str, Any]:
        """What decides the figures of pairs beside so many real defects of each type; a half goes unsaid."""
        return {"real_share": self.real_share or "merge"} if self.real_share != 0.5 and count != 0 else {}


@dataclass(frozen=True)
class Few:
    """What is measured to find how many real defects the pairs are worth.

    Args:
        counts: numbers of real defects of each type to train on. None among them: all of the training side.
        seeds: random seeds. Each chooses the defects and trains anew.
        rows: where pairs come from, by label.
        per_type: pairs of each type.
        only_all: rows that are measured beside all real defects alone. Those of a finished run or of trained weights
            always are, for their pairs may hold any defect of the training side.
        nested: measure seed k on nested split k of the training side, and nothing on the test side.
        shares: how often every row's training draws what.
        judged: how the judge sees images, as plain data. These options change every figure.
    """

    counts: tuple[int | None, ...]
    seeds: tuple[int, ...]
    rows: Mapping[str, Row]
    per_type: int
    only_all: tuple[str, ...] = ()
    nested: bool = False
    shares: Shares = Shares()
    judged: Mapping[str, Any] = field(default_factory=dict)


def choose(samples: Sequence[Sample], count: int | None, seed: int) -> list[Sample]:
    """The first `count` of each type in a random order in which different parts come first; larger choices of one seed
    hold the smaller ones."""
    rng = np.random.default_rng(seed)
    chosen: list[Sample] = []
    for kind in sorted({(s.category, s.anomaly) for s in samples}):
        own = [s for s in samples if (s.category, s.anomaly) == kind]
        own = [own[i] for i in rng.permutation(len(own))]
        seen: dict[str, int] = {}
        turns = []
        for sample in own:
            turns.append(seen.get(sample.group, 0))
            seen[sample.group] = turns[-1] + 1
        order = sorted(range(len(own)), key=lambda i: turns[i])
        chosen += [own[i] for i in order[: count if count is not None else len(own)]]
    return chosen


def measure(
    index: DatasetIndex, split: Split, few: Few, judge: Judge, out: Path, report: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Rows `label`, `count`, `seed` with the judge's figures, written to `out` as they come; those there are not
    measured again. Raises `UserError`, also where those were measured otherwise."""
    if (normals := few.shares.normals) and not index.normals:
        raise UserError(f"--normals {normals:g}: {index.root} has no normal images to train on; leave it out")
    sides = _sides(index, split, few)
    # For nested splits nothing of the test side is opened.
    seen = training_side(index, split) if few.nested else next(iter(sides.values())).index
    content = dataset_content(seen)
    data = {seed: content_beside(content, seen, own) for seed, own in sides.items()}
    known = _known(out, few, sides, data)
    done = {(row["label"], row["count"], row["seed"]) for row in known}
    pairs = RowPairs(few.rows, few.per_type)
    counts, notes = enough(few.counts, sides.values())
    asked = [
        (label, count, seed)
        for count, seed, label in itertools.product(counts, few.seeds, (ALONE, *few.rows))
        if not _skipped(label, count, few, pairs)
    ]
    todo = [row for row in asked if row not in done]
    for line in (
        *told_again([*sides.values()]),
        *notes,
        *_left_out(counts, few, pairs),
        *_without_row(counts, {count for _, count, _ in asked}),
    ):
        report(line)
    for label, count, seed in todo:  # before anything is trained
        if label != ALONE:
            pairs.check(label, _chosen_sides(sides[seed], count, seed), str(seed), count)
    for label, count, seed in followed(todo, "measuring", "row", leave=False):
        real = choose(sides[seed].train, count, seed) if count != 0 else []
        chosen = _chosen_sides(sides[seed], count, seed)
        row = measured(label, count, seed, real, chosen, pairs, judge, few.shares)
        if row is None:
            continue
        how, judged = _how(label, few, count, seed), _judged(few)
        about = {"split": sides[seed].split.hash, "data": data[seed], "how": how, "judged": judged}
        known.append({**row, **about})
        write_bytes(out, (json.dumps(known, indent=1) + "\n").encode())
        report(_line(known[-1]))
    return known


def enough(counts: Sequence[int | None], sides: Iterable[Sides]) -> tuple[list[int | None], list[str]]:
    """Those of the `counts` of real defects of each type that are fewer than all, and what to tell of others and of
    types that have fewer. Raises `UserError` for one that is all of them where "all" is not among them."""
    have = [Counter(f"{s.category}/{s.anomaly}" for s in side.train) for side in sides]
    most = max(max(own.values(), default=0) for own in have)
    kept = [count for count in counts if not count or count < most]
    told = f"no type has more than {number_of(most, 'real defect')} to train on"
    if left := [str(count) for count in counts if count not in kept]:
        if None not in kept:
            raise UserError(f"--counts {left[0]}: {told}, so that is all of them; write all, or a smaller number")
        notes = [f"note: {told}: {', '.join(left)} of each are all of them, and are left out"]
    else:
        notes = []
    for kind in sorted(have[0]):
        least = min(own[kind] for own in have)
        if short := [str(count) for count in kept if count is not None and count > least]:
            few = number_of(least, "real defect")
            notes.append(f"note: of {kind} there {'is' if least == 1 else 'are'} {few} to train on: it has no more in "
                         f"rows of {', '.join(short)} of each type")  # fmt: skip
    return kept, notes


def _without_row(counts: Sequence[int | None], measured: Container[int | None]) -> list[str]:
    """What to tell of numbers of real defects of which no row can be measured."""
    if 0 in counts and 0 not in measured:
        return ["note: without any real defect (0) there is no row here: real ones alone are none, and no row's method "
                "does without them"]  # fmt: skip
    return []


def _chosen_sides(sides: Sides, count: int | None, seed: int) -> Sides:
    """The sides where so many real defects of each type are chosen by `seed`; without any, types are still known."""
    return beside(sides, choose(sides.train, count, seed)) if count else sides


def save_few(
    index: DatasetIndex,
    split: Split,
    counts: Sequence[int],
    seeds: Sequence[int],
    folder: Path,
    nested: bool,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Write the splits that train on so many real defects of each type, chosen by each seed, as `5-0.json`, for
    `main.py --split`; `nested`: chosen of nested split `seed`. Raises `UserError`."""
    sides = _sides(index, split, Few(tuple(counts), tuple(seeds), {}, 0, nested=nested))
    for line in (*told_again([*sides.values()]), *enough(counts, sides.values())[1]):
        report(line)
    files = []
    for count, seed in itertools.product(counts, seeds):
        files.append(folder / f"{count}-{seed}.json")
        _chosen_sides(sides[seed], count, seed).split.save(files[-1])
    return files


def _sides(index: DatasetIndex, split: Split, few: Few) -> dict[int, Sides]:
    if not few.nested:
        return dict.fromkeys(few.seeds, sides_of(index, split))
    found = nested_sides(index, split, max(few.seeds) + 1)
    return {seed: found[seed] for seed in few.seeds}


def _skipped(label: str, count: int | None, few: Few, pairs: RowPairs) -> bool:
    if label == ALONE:
        return count == 0
    if count == 0 and pairs.needs_some(label):
        return True
    return count is not None and (label in few.only_all or pairs.needs_all(label))


def _left_out(counts: Sequence[int | None], few: Few, pairs: RowPairs) -> list[str]:
    """What to tell of rows that were asked for beside fewer real defects than all and cannot be measured there."""
    fewer = [str(count) for count in counts if count is not None]
    return [
        f"note: {label} is measured beside all real defects alone, not beside {', '.join(fewer)}: its pairs may hold "
        "any of them; pairs made within a row (--row) of shipped weights and drawn drafts are measured everywhere"
        for label in few.rows
        if fewer and label not in few.only_all and pairs.needs_all(label)
    ]


def measured(
    label: str,
    count: int | None,
    seed: int,
    real: Sequence[Sample],
    sides: Sides,
    pairs: RowPairs,
    judge: Judge,
    shares: Shares = Shares(),
) -> dict[str, Any] | None:
    """One row's figures; None where it has no pairs."""
    made = [] if label == ALONE else pairs.of(label, sides, real, count, seed)
    if label != ALONE and not made:
        return None
    seen = shares.samples(made, from_samples(real), sides.index.normals)
    figures = trial(judge, seen, from_samples(sides.test), seed).figures
    row = {"label": label, "count": count, "seed": seed, "real": len(real), "pairs": len(made)}
    types = {name: own["iou"] for name, own in figures["types"].items()}
    told = {name: figures[name] for name in (*METRICS, "oversampling") if name in figures}
    return {**row, **told, "types": types, "parts": figures["parts"]}


def _known(out: Path, few: Few, sides: Mapping[int, Sides], data: Mapping[int, str]) -> list[dict[str, Any]]:
    """The rows that were measured before. UserError where they are of another split, of other pictures or masks under
    the same names, or of other options."""
    known: list[dict[str, Any]] = json.loads(out.read_text()) if out.is_file() else []
    for row in known:
        seed, label = row["seed"], row["label"]
        if seed in sides and row.get("split") != sides[seed].split.hash:
            raise UserError(f"{out} holds rows of another split (seed {seed}); choose another --out")
        if row.get("data") != data.get(seed, row.get("data") if few.nested else next(iter(data.values()))):
            raise UserError(f"{out} holds rows of other pictures, masks or parts than are there now, or of all normal "
                            "images where some show parts that are tested on; choose another --out")  # fmt: skip
        if (judged := row.get("judged", {})) != _judged(few):
            raise UserError(f"{out} holds rows judged otherwise ({_told(judged)}, now {_told(_judged(few))}); choose "
                            "another --out, or give the same options")  # fmt: skip
        if (label == ALONE or label in few.rows) and row.get("how") != _how(label, few, row["count"], seed):
            raise UserError(f"{out} holds '{label}' with other options ({row.get('how')}); change --out or label")
    return known


def _judged(few: Few) -> dict[str, Any]:
    """What decides every row's figures."""
    return {**few.judged, **few.shares.describe()}


def _told(judged: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in judged.items()) or "not recorded how"


def _how(label: str, few: Few, count: int | None, seed: int) -> dict[str, Any]:
    """What decides the pairs of a row beside so many real defects, as JSON gives it back."""
    if label == ALONE:
        return {}
    row = few.rows[label]
    parts = {name: _how(name, few, count, seed) for name in row.mix or ()}
    own = {**row.describe(), **row.files(str(seed), count), "per_type": few.per_type}
    found = {**own, **({"of": parts} if parts else {}), **few.shares.of_pairs(count)}
    return dict(json.loads(json.dumps(found)))


def _line(row: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in row.items() if key not in UNTOLD}
    return " ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in shown.items())

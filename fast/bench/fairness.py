"""What stands under every table: the same conditions for all rows, and their differences from real defects alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import nan

from fast.bench.protocol import Entry, Protocol
from fast.bench.results import Record
from fast.bench.verdict import gain
from fast.runtime.counts import number_of
from fast.runtime.tables import markdown

AUGMENTED = {
    "none": "no augmentation",
    "light": "quarter turns, mirrors, zoom and grey levels",
    "upright": "small turns, scale, shift and grey levels",
    "classical": "turns by any angle, mirrors, scale, shift and grey levels",
}


def notes(protocol: Protocol, records: Sequence[Record]) -> Iterator[str]:
    """Markdown blocks: the conditions of the rows, then the differences where there is something to compare with."""
    yield conditions(protocol)
    if found := differences(protocol, records):
        yield found


def conditions(protocol: Protocol) -> str:
    """How the rows of a protocol are trained and tested, in sentences."""
    seg = protocol.segmentation
    quick, others = "quick" in seg.networks, [name for name in seg.networks if name != "quick"]
    steps = f"{seg.steps} steps for every row" if others else "the quick judge's training for every row"
    beside = ", as in the papers" if seg.real_share is None else " (all of them where there are no pairs)"
    real = told_share(seg.real_share) + beside
    normal = f", {100 * seg.normals:g} % of what is drawn are normal images" if seg.normals else ""
    changed = [f"{e.label}: {what}" for e in protocol.entries if (what := _own(e))]
    parts = [
        f"The same for all rows: {steps}; {real}{normal}",
        f"all training images, real and synthetic, see {AUGMENTED[seg.augment]}",
        *(["exceptions: " + "; ".join(changed)] if changed else []),
    ]
    odds = ", of pictures in which defects are as common as in the real ones of the training side (or in pairs alone)"
    common = odds if seg.prior == "real" else ""
    parts += [f"a pixel is found at a probability above 0.5{common}, fixed beforehand"] if others else []
    parts += ["the quick judge's threshold is chosen on held-out parts of the training side"] if quick else []
    parts += [f"{number_of(len(seg.seeds), 'seed')}; nothing is chosen on the test side"]
    return "; ".join(parts) + ".\n"


def told_share(real_share: float | None) -> str:
    """How often real defects are drawn beside pairs, as a clause."""
    if real_share is None:
        return "every pair, real or synthetic, is drawn equally often"
    return f"{100 * real_share:g} % of the defects drawn are real"


def _own(entry: Entry) -> str:
    share = entry.real_share
    own = (
        [] if share is None else ["every pair equally often" if share == "merge" else f"{100 * float(share):g} % real"]
    )
    return ", ".join([*own, *([AUGMENTED[entry.augment]] if entry.augment else [])])


def reference(protocol: Protocol) -> str | None:
    """The row of real defects alone, trained as the others are."""
    return next((e.label for e in protocol.entries if e.method is None and e.augment is None), None)


def differences(protocol: Protocol, records: Sequence[Record]) -> str:
    """A Markdown table: each row's points above real defects alone, trained with the same seeds, with the half-width of
    the 95 % interval of the mean paired difference. Empty where nothing can be compared."""
    base, seg = reference(protocol), protocol.segmentation
    if base is None:
        return ""
    found = {(r.backbone, r.category, r.label, r.seed): r.values for r in records}
    categories = list(dict.fromkeys(r.category for r in records))
    labels = [e.label for e in protocol.entries if e.label != base]
    lines = []
    for backbone, category, label in product(seg.networks, categories, labels):
        cells = []
        for metric in protocol.metrics:
            both = [
                [found.get((backbone, category, name, seed), {}).get(metric, nan) for seed in seg.seeds]
                for name in (base, label)
            ]
            change = gain(*both)
            margin = "" if change is None or change.margin is None else f" ± {change.margin:.2f}"
            cells.append("-" if change is None else f"{change.points:+.2f}{margin}")
        if set(cells) != {"-"}:
            lines.append([backbone, category, label, *cells])
    if not lines:
        return ""
    head = ["segmenter", "category", f"against {base}", *protocol.metrics]
    how = "Differences in points, paired by seed, ± half of their 95 % interval (Student's t over the seeds alone)."
    return "\n".join([how, "", markdown(head, lines, left=len(head)), ""])

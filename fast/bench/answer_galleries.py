"""The sections of the answer's page that show pictures: pairs, predictions, and what is found away from the marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fast.bench.advice import number, share, short
from fast.bench.verdict import Answer, FoundAway
from fast.reports.report import PREDICTION_KEY, Gallery, Points, Section, Table, pair_row, percent, trial_row
from fast.segmentation.unmarked import LEAST, LISTED

MEANINGS = (  # of the measures of pairs
    ("Look empty:", "pairs whose defect does not stand out from the part's own grain; 0 % is best."),
    (
        "Seam:",
        "how much sharper the border of the mask is than what is beside it; 1 is none. Near the real ones is good.",
    ),
    (
        "Likeness:",
        "1 is the same defect again. As alike as real defects are among themselves is good, copies are not.",
    ),
)


def pairs_section(answer: Answer) -> Section | None:
    """Measures of the pairs and some of them; None where there is neither."""
    parts: list[Table | Gallery | Points] = []
    if answer.pictures:
        parts += [_measured(answer.pictures), Points(MEANINGS)]
    if answer.pairs:
        rows = [pair_row(short(answer, kind), normal, mask, made) for kind, normal, mask, made in answer.pairs]
        parts.append(Gallery("", rows))
    text = (
        "Look at them as an inspector would: is that a defect, and does it look like one of this type? A network "
        "learns what it is shown."
    )
    return Section("The pairs: are they defects?", text, parts) if parts else None


def _measured(pictures: Mapping[str, Any]) -> Table:
    real = pictures.get("real") or {}

    def shown(name: str, key: str, whole: bool) -> list[str]:
        values = [number(one, key) for one in (pictures, real)]
        return [name, *("–" if v is None else share(v) if whole else f"{v:.2f}" for v in values)]

    rows = [
        shown("look empty", "empty", True),
        shown("seam at the border", "seam", False),
        shown("likeness to the nearest real defect", "likeness", False),
        shown("copies of a real defect", "copied", True),
    ]
    count = f"{pictures['pairs']} pairs" if "pairs" in pictures else "the pairs"
    return Table(f"Measured on {count}, no network involved", ["measure", "pairs", "real defects"], rows)


def predictions_section(answer: Answer) -> Section | None:
    """What the networks find in some test pictures; None where none is shown."""
    if not answer.predictions:
        return None
    rows = [trial_row(short(answer, kind), image, truth, found) for kind, image, truth, found in answer.predictions]
    return Section(
        "What the networks find",
        "Test pictures that no training saw, the first ones of each type, good or bad. Below each: its own IoU.",
        [Gallery("", rows, PREDICTION_KEY)],
    )


def unmarked_section(found: Sequence[FoundAway], who: str) -> Section | None:
    """Test pictures in which `who` found much where nothing is marked, for somebody to look at."""
    if not found:
        return None
    rows = [
        trial_row(f"{file}: {percent(share)} of the picture", image, truth, masks)
        for file, share, image, truth, masks in found
    ]
    return Section(
        "Found where nothing is marked",
        f"Test pictures in which {who} found most away from every mark: at least {percent(LEAST)} of the picture, one "
        f"picture of a part, {LISTED} at most. It is a false alarm, or a defect that nobody marked: look. Missing "
        "marks make IoU and AP too low, most of all where most is found; mark what is missing and run again. A false "
        "alarm, at grease or a reflection say, can grow rarer with normal images that show the like: pairs stand on "
        "them, and a network learns that it is no defect.",
        [Gallery("", rows, PREDICTION_KEY)],
    )

"""What to do next, after the answer to "do synthetic pairs help?"."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fast.bench.verdict import BOTH, REAL, WORTH, Answer, Verdict, gain, points, types
from fast.generators import METHODS
from fast.runtime.counts import number_of
from fast.synthesis.options import DRAFTS

Advice = tuple[str, str]  # in a few words, and more about it
FEW = 10  # test pictures of a type, below which its figures are a tendency
EMPTY, COPIED = 0.1, 0.1  # shares from which pairs are worth a word; copies: above the real ones' own
SEAM = 1.25  # times the real defects' own


def advice(answer: Answer, found: Verdict) -> list[Advice]:
    """The most useful first."""
    own = {"yes": _after_yes, "no": _after_no, "cannot tell": _after_doubt}[found.answer]
    first = [_apart(answer.leaking)] if answer.leaking else []
    seen, rest = list(_pictures(answer)), [*own(answer, found), *_types(answer, found)]
    return first + (seen + rest if found.answer == "no" else rest + seen)


def _apart(leaking: int) -> Advice:
    return (
        "Test on other parts.",
        f"{number_of(leaking, 'test picture shows a part', 'test pictures show parts')} that training saw in another "
        "picture, so all figures here are too good. Make a new split with scripts/prepare_data.py, "
        "which joins parts that look alike (--alike shows them, --join_alike), and run again with --split.",
    )


def _after_yes(answer: Answer, found: Verdict) -> Iterator[Advice]:
    yield from _count(answer, found)
    yield (
        "Train for use.",
        "Adapt the method once more with --split all, so that the defects kept aside for this test help too, make the "
        "pairs again, and train your network on real defects and pairs together.",
    )
    yield "Keep the real defects in.", "Pairs add to them. Every further real defect is worth having."


def _after_no(answer: Answer, found: Verdict) -> Iterator[Advice]:
    if answer.pairs:
        yield (
            "Look at the pairs above.",
            "Would an inspector call them defects? Are their size, contrast and place those of the real ones?",
        )
    yield from _count(answer, found)
    if answer.draft != "none":
        others = " or ".join(name for name in DRAFTS if name not in ("none", answer.draft))
        yield (
            "Other drafts.",
            f"These pairs started from drafts ({answer.draft}; see below). Try generate_with_mask.py with --draft "
            f"{others}, and another --strength.",
        )
    else:
        yield (
            "Other masks.",
            "They decide where a defect lies and what shape it has. Try generate_with_mask.py with --masks augmented, "
            "scratch, crack, blob or learned, and --preview to see them before hours are spent.",
        )
    yield _other_method(answer)
    yield "More real defects.", "A method learns a type from a few examples; with more it has more to vary."


def _after_doubt(answer: Answer, found: Verdict) -> Iterator[Advice]:
    if found.real is None or found.both is None:
        yield "Finish the trainings.", "Give the same command again: what is done is kept."
        return
    seeds = min(found.real.seeds, found.both.seeds)
    yield (
        "More trainings of each kind.",
        f"Run again with --seeds {max(3, 2 * seeds)}. Each tells more about how much of the change is chance; what is "
        "done is kept.",
    )
    yield "More test pictures.", "Real defects with masks in the dataset. They also make the figures of the types firm."
    yield from _count(answer, found)
    yield _other_method(answer)


def _other_method(answer: Answer) -> Advice:
    names = ", ".join(name for name in METHODS if name != answer.method.lower())
    return (
        "Another method.",
        f"Run again with --method and one of {names}. The trainings on real defects alone are kept.",
    )


def _count(answer: Answer, found: Verdict) -> Iterator[Advice]:
    """What the curve says about the number of pairs."""
    values = dict(points(answer))
    curve = [(number, float(np.mean(own))) for number, own in values.items()]
    if len(curve) < 2:
        return
    (before, low), (last, high) = curve[-2:]
    number, top = found.best or (0, 0.0)
    lead = gain(values[last], values[number]) if number else None
    if lead and lead.sure and lead.points >= WORTH:
        yield (
            f"Fewer pairs: {number}.",
            f"There the curve is highest, {top:.1f} % against {high:.1f} % with {last}. That number is picked by the "
            "test pictures, so check it on others.",
        )
    elif found.answer != "no" and high - low >= WORTH:
        yield (
            "More pairs.",
            f"The curve's last step, from {before} to {last} pairs, still goes up by {high - low:.1f} points. Run "
            "again with a larger --count.",
        )
    elif found.answer == "yes":
        yield (
            "As many pairs as now.",
            f"From {before} to {last} pairs the IoU changed by {signed(high - low)} points; more may add little.",
        )


def _types(answer: Answer, found: Verdict) -> Iterator[Advice]:
    if 0 < len(found.fell) < len(types(answer)):
        names = ", ".join(short(answer, kind) for kind, _ in found.fell)
        yield (
            f"Look at what got worse: {names}.",
            "Compare their pairs with real ones. Leave the pairs of such a type out, or give it other masks.",
        )
    few = [short(answer, kind) for kind in types(answer) if 0 < images(answer, kind) < FEW]
    if few:
        yield (
            f"Collect test pictures of {', '.join(few)}.",
            f"Fewer than {FEW} are there: take the figures of such a type as a tendency.",
        )


def _pictures(answer: Answer) -> Iterator[Advice]:
    made = answer.pictures or {}
    real = made.get("real") or {}
    empty, seam, copied = (number(made, key) for key in ("empty", "seam", "copied"))
    if empty is not None and empty >= EMPTY:
        yield (
            f"{share(empty)} of the pairs look empty.",
            "Pixels marked as defect that show none teach the wrong thing. Train the method longer, or use masks of "
            "the sizes of real defects.",
        )
    own = number(real, "seam")
    if seam is not None and seam >= SEAM * (own or 1.0):
        yield "The pairs have a seam.", "A network may learn the border of the mask and not the defect."
    if copied is not None and copied - (number(real, "copied") or 0.0) >= COPIED:
        yield (
            f"{share(copied)} of the pairs are much like a real defect.",
            "They add little that is new. Train the method for fewer steps, or vary the masks.",
        )


def number(values: Mapping[str, Any], key: str) -> float | None:
    """None for one that is missing or not finite."""
    value = values.get(key)
    return float(value) if value is not None and math.isfinite(value) else None


def share(value: float) -> str:
    """Like 4 %; of a share in 0..1."""
    return f"{100 * value:.0f} %"


def signed(value: float) -> str:
    """Like +1.2 or −0.3; what rounds to zero has no sign."""
    text = f"{abs(value):.1f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def short(answer: Answer, kind: str) -> str:
    """A type without its category where that says nothing new."""
    category, _, name = kind.rpartition("/")
    only = len({one.rpartition("/")[0] for one in [*types(answer), kind]}) == 1
    return (name if category and only else kind).replace("_", " ")


def images(answer: Answer, kind: str) -> int:
    """Test pictures of a type; 0 where nobody counted."""
    found = [
        (one.get("types") or {}).get(kind, {}).get("images") for run in (REAL, BOTH) for one in answer.runs.get(run, ())
    ]
    return max((int(n) for n in found if n), default=0)

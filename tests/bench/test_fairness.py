"""What stands under a table: conditions in words, and paired differences against numbers worked by hand."""

import math

from fast.bench.fairness import conditions, differences, notes, reference
from fast.bench.protocol import parse
from fast.bench.results import Record


def protocol(**segmentation: object):
    return parse(
        {
            "name": "p",
            "title": "P",
            "metrics": ["mIoU", "AP"],
            "entries": [
                {"label": "plain", "augment": "none"},
                {"label": "real"},
                {"label": "pasted", "method": "cutpaste"},
                {"label": "merged", "method": "cutpaste", "real_share": "merge"},
            ],
            "segmentation": {"networks": ["fpn"], "seeds": [0, 1, 2], **segmentation},
        },
        "here",
    )


def records(**values: tuple[float, ...]) -> list[Record]:
    return [
        Record("part", label, "fpn", seed, {"mIoU": value, "AP": 2 * value})
        for label, row in values.items()
        for seed, value in enumerate(row)
    ]


def test_the_conditions_are_those_of_the_protocol() -> None:
    text = conditions(protocol(steps=300, normals=0.25))
    for words in (
        "300 steps for every row",
        "50 % of the defects drawn are real (all of them where there are no pairs)",
        ", 25 % of what is drawn are normal images",
        "turns by any angle",
        "exceptions: plain: no augmentation; merged: every pair equally often",
        "3 seeds",
        "probability above 0.5",
    ):
        assert words in text
    assert "as common as in the real ones" not in text
    assert "above 0.5, of pictures in which defects are as common as in the real ones" in conditions(
        protocol(prior="real")
    )
    assert "every pair, real or synthetic, is drawn equally often" in conditions(protocol(real_share=None))
    quick = conditions(protocol(networks=["quick"]))
    assert "held-out parts of the training side" in quick
    assert "0.5" not in quick


def test_the_differences_are_paired_by_seed() -> None:
    given = protocol()
    assert reference(given) == "real"
    found = differences(given, records(real=(30, 32, 34), pasted=(38, 42, 46), plain=(29, 31, 33)))
    # 8, 10, 12: sample deviation 2, t of 2 degrees 4.303.
    margin = 4.3027 * 2 / math.sqrt(3)
    assert f"| fpn | part | pasted | +10.00 ± {margin:.2f} | +20.00 ± {2 * margin:.2f} |" in found
    assert "| fpn | part | plain | -1.00 ± 0.00 | -2.00 ± 0.00 |" in found
    assert "merged" not in found


def test_nothing_to_compare_is_no_table() -> None:
    assert differences(protocol(), records(pasted=(1, 2, 3))) == ""
    assert len(list(notes(protocol(), records(pasted=(1, 2, 3))))) == 1

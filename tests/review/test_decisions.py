"""Decisions about pairs: the last word counts, actions are taken back, and a damaged file is never overwritten."""

import json
from pathlib import Path

import pytest

from fast.review.decisions import Decision, Review, rejected, told
from fast.review.table import read_table
from ldm.errors import UserError

ROWS = [{"index": i, "image": f"image/{i:06d}.png", "type": "wood/crack"} for i in range(4)]
NO, YES = Decision("rejected", "off the object"), Decision("accepted")


def test_the_last_word_counts_and_undo_takes_whole_actions_back(tmp_path: Path) -> None:
    review = Review(tmp_path)
    assert review.decisions() == {}
    with pytest.raises(UserError, match="there is no decision to take back"):
        review.undo()
    review.decide({1: NO, 2: YES})
    review.decide({1: YES})
    review.decide({2: Decision("undecided"), 3: NO})
    assert review.decisions() == {1: YES, 3: NO}
    assert rejected(tmp_path) == {3}
    assert Review(tmp_path).undo().decisions.keys() == {2, 3}
    assert review.decisions() == {1: YES, 2: YES}
    review.undo()
    assert review.decisions() == {1: NO, 2: YES}
    review.decide({0: NO})  # a decision after an undo, then both undone
    review.undo()
    review.undo()
    assert review.decisions() == {}
    with pytest.raises(UserError, match="there is no decision to take back"):
        review.undo()
    assert len((tmp_path / "review.jsonl").read_text().splitlines()) == 8  # nothing is forgotten


def test_undo_does_not_reach_behind_what_was_acted_on(tmp_path: Path) -> None:
    review = Review(tmp_path)
    review.decide({1: NO, 3: YES})
    review.conclude()
    with pytest.raises(UserError, match="before rejected pairs were made anew is not taken back; pairs that are still"):
        review.undo()
    review.decide({2: NO})
    assert review.undo().decisions == {2: NO}
    assert review.decisions() == {1: NO, 3: YES}
    with pytest.raises(UserError, match="is not taken back"):
        review.undo()


def test_bad_decisions_are_refused_and_a_damaged_file_stays_as_it_is(tmp_path: Path) -> None:
    review = Review(tmp_path)
    for bad, says in (
        (Decision("maybe"), "'maybe' is no decision"),
        (Decision("accepted", "nice"), "a reason is for rejected"),
        (Decision("rejected", "x" * 201), "at most 200"),
    ):
        with pytest.raises(UserError, match=says):
            review.decide({0: bad})
    assert not (tmp_path / "review.jsonl").exists()
    for text in ("{", '{"action": 1, "decided": [{"index": "x"}]}', '{"action": 1, "undone": 7}', "[]"):
        (tmp_path / "review.jsonl").write_text(text)
        with pytest.raises(UserError, match="is damaged"):
            review.decisions()
        with pytest.raises(UserError, match="is damaged"):
            review.undo()
        assert (tmp_path / "review.jsonl").read_text() == text


def test_what_is_left_out_is_told_in_one_line(tmp_path: Path) -> None:
    assert told(tmp_path, range(4)) == ""
    Review(tmp_path).decide({1: NO, 9: NO})
    assert told(tmp_path, range(4)) == f"1 of 4 pairs in {tmp_path} is rejected (review.jsonl) and left out"


def test_a_table_names_pairs_by_number_or_file(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text("index,decision,reason\n1,reject,off the object\n002,Accepted,\n", encoding="utf-8-sig")
    assert read_table(file, ROWS) == {1: NO, 2: YES}
    file.write_text("decision;file\nok;samples\\image\\000002.png\nundecided;000003.png\n")
    assert read_table(file, ROWS) == {2: YES, 3: Decision("undecided")}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "needs the columns"),
        ("name,decision\n", "it has name, decision"),
        ("index,decision\n7,ok\n", "line 2: index '7' is no pair"),
        ("index,decision\n1,ok\n1,ok\n", "line 3: pair 1 is decided a second time"),
        ("index,decision\n1,perhaps\n", "'perhaps' is no decision"),
        ("index,decision\n1\n", "'' is no decision"),
    ],
)
def test_a_table_that_is_not_clear_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "d.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=says):
        read_table(file, ROWS)
    with pytest.raises(UserError, match="cannot read"):
        read_table(tmp_path / "none.csv", ROWS)


def test_the_log_is_plain_lines(tmp_path: Path) -> None:
    Review(tmp_path).decide({1: NO})
    line = json.loads((tmp_path / "review.jsonl").read_text())
    assert line["decided"] == [{"index": 1, "decision": "rejected", "reason": "off the object"}]

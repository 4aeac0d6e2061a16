"""The papers' numbers, results, and tables of both."""

import csv
import io
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from fast.bench import paper, results, tables
from fast.bench.results import Record
from ldm.errors import UserError

FOLDER = Path(paper.__file__).parent / "paper"
TABLE1 = paper.load("fast_table1_mvtec_segformer")
STDC = paper.load("stage_table4_mvtec_stdc")


def record(label: str, seed: int = 0, category: str = "tile", backbone: str = "segformer", **values: float) -> Record:
    return Record(category, label, backbone, seed, values)


def lines_of(name: str) -> list[list[str]]:
    return [line.split(",") for line in (FOLDER / f"{name}.csv").read_text().splitlines()]


# --- the papers


def test_every_file_of_a_paper_has_a_name_and_every_name_a_file() -> None:
    assert set(paper.names()) == {p.stem for p in FOLDER.glob("*.csv")}
    assert len(paper.names()) == 13


@pytest.mark.parametrize("name", paper.names())
def test_every_printed_number_is_found_by_its_place(name: str) -> None:
    table = paper.load(name)
    header, *lines = lines_of(name)
    several = header[0] == "backbone"
    for line in lines:
        backbone, (category, label, *numbers) = (line[0], line[1:]) if several else (None, line)
        for metric, number in zip(header[-2:], numbers, strict=True):
            if category == "Average":
                found = table.average(label, metric, backbone)
            else:
                found = table.value(category, label, metric, backbone)
            assert found is not None
            assert (found.number, found.computed) == (float(number), False)
    assert table.metrics == tuple(header[-2:])
    assert table.column == header[-3]
    assert len(table.rows) * len(table.labels) == sum("Average" not in line for line in lines)


@pytest.mark.parametrize("name", paper.names())
def test_an_average_of_some_categories_is_computed_and_says_so(name: str) -> None:
    table = paper.load(name)
    header, *lines = lines_of(name)
    by_label = defaultdict(dict)
    for line in lines:
        if header[0] != "backbone" or line[0] == "stdc":
            by_label[line[-3]][line[-4]] = float(line[-1])
    backbone = "stdc" if header[0] == "backbone" else None
    some = table.categories(backbone)[:2]
    for label in table.labels:
        found = table.average(label, header[-1], backbone, some)
        assert found is not None
        assert found.computed
        assert found.number == pytest.approx(sum(by_label[label][c] for c in some) / 2, abs=1e-9)
        assert (
            found.notes[0]
            == f"computed: the paper's rows of 2 of {table.dataset}'s {len(table.categories(backbone))} categories"
        )


def test_an_average_that_is_not_printed_is_computed() -> None:
    found = paper.load("fast_table2_btad").average("FAST", "mIoU", "segformer")
    assert found is not None
    assert found.computed
    rows = [float(r[3]) for r in lines_of("fast_table2_btad") if r[0] == "segformer" and r[2] == "FAST"]
    assert len(rows) == 3
    assert found.number == pytest.approx(sum(rows) / 3)


def test_known_slips_have_a_note_and_their_printed_number() -> None:
    def note(name: str, category: str, label: str, metric: str) -> str:
        found = paper.load(name).value(category, label, metric)
        assert found is not None
        return " ".join(found.notes)

    swapped = [("screw", "DFMGAN"), ("screw", "RealNet"), ("tile", "DFMGAN"), ("tile", "RealNet")]
    fast = paper.load("fast_table5_mvtec_stdc")
    other = {"DFMGAN": "RealNet", "RealNet": "DFMGAN"}
    for category, label in swapped:
        assert "the other way round" in note(STDC.name, category, label, "Acc")
        assert STDC.printed["stdc", category, label, "mIoU"] == fast.printed["stdc", category, other[label], "mIoU"]
    assert "BiSeNetV2" in note(STDC.name, "cable", "CutPaste", "mIoU")
    bisenet = paper.load("stage_table3_mvtec_bisenetv2")
    assert STDC.printed["stdc", "cable", "CutPaste", "Acc"] == bisenet.printed["bisenetv2", "cable", "CutPaste", "Acc"]
    for one in (TABLE1, paper.load("stage_table2_mvtec_segformer")):
        assert "Acc below mIoU" in note(one.name, "capsule", "DFMGAN", "Acc")
        assert one.printed["segformer", "capsule", "DFMGAN", "Acc"] == 15.83
    assert note(TABLE1.name, "capsule", "FAST", "Acc") == ""


def test_a_printed_average_that_its_rows_do_not_give_says_what_they_give() -> None:
    found = paper.load("fast_table5_mvtec_stdc").average("DFMGAN", "Acc")
    assert found == paper.Value(58.81, ("the printed average; the rows of FAST, Table 5 give 57.49",))
    right = paper.load("fast_table5_mvtec_stdc").average("FAST", "Acc")
    assert right == paper.Value(72.85)


def test_what_a_paper_lacks() -> None:
    assert TABLE1.value("magnetic_tile", "FAST", "mIoU") is None
    assert TABLE1.value("tile", "FAST", "PRO") is None
    assert TABLE1.value("tile", "FAST", "mIoU", "stdc") is None
    assert TABLE1.average("STAGE", "mIoU") is None
    with pytest.raises(UserError, match="unknown; give one of fast_table1"):
        paper.load("table1")
    with pytest.raises(ValueError, match="several backbones"):
        paper.load("fast_table2_btad").value("01", "FAST", "mIoU")


# --- results


def test_a_result_becomes_a_record_in_percent() -> None:
    metrics = {"miou": 0.41, "acc": 0.6, "f1_max": 0.5, "pro": None, "ap": float("nan"), "types": {"a/b": {"iou": 0.3}}}
    found = results.from_json({"category": "a", "label": 50, "backbone": "stdc", "seed": 2, "metrics": metrics})
    assert (found.category, found.label, found.backbone, found.seed) == ("a", "50", "stdc", 2)
    assert found.values == pytest.approx({"mIoU": 41.0, "Acc": 60.0, "F1-max": 50.0})


@pytest.mark.parametrize("result", [[], {}, {"category": "a", "label": "b", "backbone": "c", "seed": 0}])
def test_an_incomplete_result_is_refused(result: Any) -> None:
    with pytest.raises(UserError, match="a result is incomplete"):
        results.from_json(result)


def test_a_result_of_several_classes_has_their_means() -> None:
    where = {"category": "a", "label": "b", "backbone": "c", "seed": 0}
    found = results.from_json({**where, "metrics": {"miou_classes": 0.25, "acc_classes": 0.5}})
    assert found.values == {"mIoU (classes)": 25.0, "Acc (classes)": 50.0}


# --- tables


def hand_worked() -> tables.ResultTable:
    """Two seeds; A 50 +- sqrt(2) 2, B as printed the same, C worse, D a single seed, E not there yet."""
    found = [
        record("A", 0, mIoU=48.0), record("A", 1, mIoU=52.0),
        record("B", 0, mIoU=50.001), record("B", 1, mIoU=50.001),
        record("C", 0, mIoU=40.0), record("C", 1, mIoU=42.0),
        record("D", 0, mIoU=41.0),
    ]  # fmt: skip
    return tables.build(found, metrics=["mIoU"], column="method", labels=list("ABCDE"), seeds=[0, 1], title="Hand")


def test_a_table_by_hand() -> None:
    assert tables.markdown(hand_worked()).splitlines() == [
        "Hand. tile, segformer. mIoU in percent, mean ± sample standard deviation over 2 seeds; best bold, second "
        "underlined. 7 of 10 trainings are finished.",
        "",
        "| method | mIoU |",
        "| --- | ---: |",
        "| A | **50.00** ± 2.83 |",
        "| B | **50.00** ± 0.00 |",
        "| C | <u>41.00</u> ± 1.41 |",
        "| D | <u>41.00</u><sup>a</sup> |",
        "| E | - |",
        "",
        "<sup>a</sup> 1 of 2 seeds.",
    ]


def test_a_single_label_has_no_rank() -> None:
    found = [record("A", PRO=3.0), record("B", PRO=2.0), record("C", PRO=1.0)]
    for some, ranks in ((found, [1, 2, 0]), (found[:1], [0])):
        table = tables.build(some, metrics=["PRO"], column="method")
        assert [table.cell("segformer", "tile", label, "PRO").rank for label in table.labels] == ranks


def test_averages_over_categories() -> None:
    """Each seed's average first, then their spread; a label without one of the categories has none."""
    found = [
        record(label, seed, category, mIoU=value)
        for label, seed, category, value in [
            ("A", 0, "tile", 10.0),
            ("A", 1, "tile", 30.0),
            ("A", 0, "wood", 50.0),
            ("A", 1, "wood", 30.0),
            ("B", 0, "tile", 70.0),
            ("B", 1, "tile", 70.0),
        ]
    ]
    table = tables.build(found, metrics=["mIoU"], column="method")
    assert table.rows == (("segformer", "tile"), ("segformer", "wood"), ("segformer", "Average"))
    assert table.cell("segformer", "tile", "A", "mIoU").ours == results.Summary(20.0, stdev([10, 30]), 2)
    assert table.cell("segformer", "Average", "A", "mIoU").ours == results.Summary(30.0, 0.0, 2)
    assert table.cell("segformer", "Average", "B", "mIoU").ours is None
    assert "| Average | 30.00 ± 0.00 | - |" in tables.markdown(table)
    assert "6 of 8 trainings are finished." in tables.markdown(table)


def test_the_papers_number_stands_next_to_ours() -> None:
    found = [record("FAST", mIoU=50.0, Acc=60.0), record("DRAEM", mIoU=40.0, Acc=30.0), record("Ours", mIoU=1, Acc=2)]
    text = tables.markdown(tables.build(found, metrics=["mIoU", "Acc"], column="method", paper=TABLE1))
    assert "| method | mIoU | paper | Acc | paper |" in text
    assert "| FAST | **50.00** | 90.13 | **60.00** | 93.77 |" in text
    assert "| Ours | 1.00 | - | 2.00 | - |" in text
    assert "paper: FAST, Table 1." in text


def test_of_several_papers_each_has_its_own_method_and_backbone() -> None:
    found = [record(label, backbone=b, mIoU=1.0) for label in ("FAST", "STAGE") for b in ("segformer", "stdc", "mini")]
    two = [TABLE1, paper.load("stage_table2_mvtec_segformer"), STDC]
    table = tables.build(found, metrics=["mIoU"], column="method", paper=two)
    shown = {(b, label): table.cell(b, "tile", label, "mIoU").paper for b, _ in table.rows for label in table.labels}
    assert {key: (value.number, value.notes) for key, value in shown.items() if value} == {
        ("segformer", "FAST"): (90.13, ()),
        ("segformer", "STAGE"): (90.76, ()),
        ("stdc", "STAGE"): (83.04, ()),
        ("mini", "FAST"): (90.13, ("the paper's is SegFormer's",)),
        ("mini", "STAGE"): (90.76, ("the paper's is SegFormer's",)),
    }
    assert "| backbone | FAST | paper | STAGE | paper |" in tables.markdown(table)


def test_a_network_that_no_paper_used_is_shown_the_table_s_only_one() -> None:
    def beside(backbone: str, name: str, category: str) -> paper.Value | None:
        return paper.orientation([paper.load(name)], backbone, category, "FAST", "mIoU", [category])

    (stdc,) = (float(r[2]) for r in lines_of("fast_table5_mvtec_stdc") if r[:2] == ["bottle", "FAST"])
    assert beside("stdc2", "fast_table5_mvtec_stdc", "bottle") == paper.Value(stdc, ("the paper's is STDC's",))
    assert beside("mini", TABLE1.name, "own") == paper.Value(
        76.72, ("paper: average over MVTec-AD's 15 categories", "the paper's is SegFormer's")
    )
    assert beside("mini", "fast_table2_btad", "01") is None  # which of its three?
    assert beside("stdc", TABLE1.name, "bottle") is None  # has numbers of its own in another table
    text = tables.markdown(
        tables.build([record("FAST", backbone="mini", mIoU=1.0)], metrics=["mIoU"], column="method", paper=TABLE1)
    )
    assert "| FAST | 1.00 | 90.13<sup>a</sup> |" in text
    assert "<sup>a</sup> the paper's is SegFormer's." in text


def test_a_category_that_the_paper_lacks_shows_its_average_and_says_so() -> None:
    found = [record(label, category="magnetic_tile", Acc=1.0) for label in ("FAST", "DRAEM", "Ours")]
    text = tables.markdown(tables.build(found, metrics=["Acc"], column="method", paper=TABLE1))
    assert "| method | Acc | paper<sup>a</sup> |" in text
    assert "| FAST | **1.00** | 83.97 |" in text
    assert "<sup>a</sup> paper: average over MVTec-AD's 15 categories." in text


def test_an_average_is_compared_with_the_papers_over_the_same_categories() -> None:
    found = [record("FAST", category=c, mIoU=1.0) for c in ("tile", "screw")]
    table = tables.build(found, metrics=["mIoU"], column="method", paper=TABLE1)
    theirs = table.cell("segformer", "Average", "FAST", "mIoU").paper
    assert theirs is not None
    assert theirs.number == pytest.approx((90.13 + 49.94) / 2)
    mixed = tables.build(
        [*found, record("FAST", category="x", mIoU=1.0)], metrics=["mIoU"], column="method", paper=TABLE1
    )
    theirs = mixed.cell("segformer", "Average", "FAST", "mIoU").paper
    assert theirs is not None
    assert (theirs.number, theirs.notes) == (76.72, ("paper: average over MVTec-AD's 15 categories",))


def test_a_slip_is_told_below_the_table_that_shows_it() -> None:
    found = [
        record(label, category=c, backbone="stdc", mIoU=1.0) for label in ("DFMGAN", "STAGE") for c in ("tile", "wood")
    ]
    text = tables.markdown(tables.build(found, metrics=["mIoU"], column="method", paper=STDC))
    tile = next(line for line in text.splitlines() if line.startswith("| tile"))
    letter = re.search(r"70\.29<sup>(\w)</sup>", tile)
    assert letter is not None
    assert f"<sup>{letter[1]}</sup> the printed row has DFMGAN and RealNet the other way round" in text
    assert "the other way round" not in tables.markdown(
        tables.build(found[2:], metrics=["mIoU"], column="method", paper=STDC)
    )


def test_csv_comes_back_as_it_went() -> None:
    found = [
        record(label, seed, category, mIoU=10.0 + seed * 3.3333333 + len(label), Acc=20.0)
        for label in ("FAST", 'odd, "name"') for seed in range(3) for category in ("tile", "own")
    ]  # fmt: skip
    table = tables.build(found, metrics=["mIoU", "Acc"], column="method", paper=TABLE1)
    rows = list(csv.DictReader(io.StringIO(tables.csv(table))))
    assert len(rows) == 3 * 2 * 2 == len(table.cells)
    for row in rows:
        cell = table.cell(row["backbone"], row["category"], row["method"], row["metric"])
        assert cell.ours is not None
        assert cell.ours.spread is not None
        assert float(row["mean"]) == pytest.approx(cell.ours.mean, abs=1e-6)
        assert float(row["spread"]) == pytest.approx(cell.ours.spread, abs=1e-6)
        assert int(row["seeds"]) == 3
        assert (row["paper"] and float(row["paper"])) == ("" if cell.paper is None else cell.paper.number)
    values = [r.values["mIoU"] for r in found if r.label == "FAST" and r.category == "own"]
    own = next(r for r in rows if (r["category"], r["method"], r["metric"]) == ("own", "FAST", "mIoU"))
    assert float(own["mean"]) == pytest.approx(fmean(values), abs=1e-6)
    assert float(own["spread"]) == pytest.approx(stdev(values), abs=1e-6)
    assert own["note"] == "paper: average over MVTec-AD's 15 categories"
    missing = list(csv.DictReader(io.StringIO(tables.csv(hand_worked()))))[-1]
    assert (missing["method"], missing["mean"], missing["spread"], missing["seeds"]) == ("E", "", "", "0")


def test_latex_prints_names_as_they_are() -> None:
    found = [record(r"50%_&#$^~{}\|<>", category="a_b", mIoU=1.0), record("[b]", category="a_b", mIoU=2.0)]
    text = tables.latex(tables.build(found, metrics=["mIoU"], column="method"))
    body = text[text.index("\\midrule") : text.index("\\bottomrule")].splitlines()[1:]
    assert body == [
        r"50\%\_\&\#\$\textasciicircum{}\textasciitilde{}\{\}\textbackslash{}\textbar{}\textless{}\textgreater{}"
        r" & \underline{1.00} \\",
        r"{[}b{]} & \textbf{2.00} \\",
    ]
    assert r"a\_b" in text
    assert text.count("{") == text.count("}")


def test_latex_has_a_tabular_per_metric_as_wide_as_its_lines() -> None:
    found = [
        record(label, s, c, mIoU=50.0 + s, Acc=60.0)
        for label in TABLE1.labels
        for s in (0, 1)
        for c in ("tile", "wood")
    ]
    text = tables.latex(tables.build(found, metrics=["mIoU", "Acc"], column="method", paper=TABLE1))
    tabulars = re.findall(r"\\begin\{tabular\}\{(l+)(r+)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(tabulars) == 2
    for (left, right, body), number in zip(tabulars, (r"50.50} $\pm$ 0.71", r"60.00} $\pm$ 0.00"), strict=True):
        assert (left, right) == ("l", "r" * 14)
        lines = [line for line in body.splitlines() if "&" in line]
        assert [line.count(" & ") for line in lines] == [14] * 4
        assert number in body
    assert text.startswith("\\begin{table*}[t]")
    assert text.endswith("\\end{table*}\n")


def test_markdown_shows_names_as_they_are() -> None:
    found = [record("a|b*c", mIoU=1.0), record("metal_nut <x>", mIoU=2.0)]
    text = tables.markdown(tables.build(found, metrics=["mIoU"], column="method"))
    assert r"| a\|b\*c | <u>1.00</u> |" in text
    assert r"| metal_nut \<x\> | **2.00** |" in text


def test_what_makes_no_table() -> None:
    with pytest.raises(UserError, match="two results of segformer, tile, A, seed 0"):
        tables.build([record("A", mIoU=1.0)] * 2, metrics=["mIoU"], column="method")
    with pytest.raises(UserError, match="no results to show"):
        tables.build([], metrics=["mIoU"], column="method")
    steps = paper.load("fast_table3_mvtec_steps")
    with pytest.raises(UserError, match="compares steps, not method"):
        tables.build([record("A", mIoU=1.0)], metrics=["mIoU"], column="method", paper=steps)


def test_a_grid_of_which_nothing_is_there_yet_has_a_table() -> None:
    table = tables.build(
        [], metrics=["mIoU"], column="method", labels=["A"], categories=["tile"], backbones=["mini"], seeds=[0]
    )
    assert "| A | - |" in tables.markdown(table)
    assert "0 of 1 trainings are finished." in tables.caption(table)

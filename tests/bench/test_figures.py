"""Figures have the numbers they were given, galleries the right pictures in the right places."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image

from fast.bench import figures, gallery, outcome, paper, tables
from fast.bench.results import Record
from fast.data.images import write_image, write_mask
from fast.reports.zoom import zoom_box
from ldm.errors import UserError

STEPS = ("5", "50", "1000")


def steps_table(category: str = "tile") -> tables.ResultTable:
    """Over two seeds 41 +- sqrt(2), 51 +- sqrt(2), and a single 60."""
    values = {("5", 0): 40.0, ("5", 1): 42.0, ("50", 0): 50.0, ("50", 1): 52.0, ("1000", 0): 60.0}
    found = [Record(category, label, "segformer", seed, {"mIoU": v}) for (label, seed), v in values.items()]
    theirs = paper.load("fast_table3_mvtec_steps")
    return tables.build(found, metrics=["mIoU"], column="steps", labels=STEPS, paper=theirs)


# --- figures


def test_a_step_curve_shows_means_spread_and_the_paper() -> None:
    (axes,) = figures.steps(steps_table(), "mIoU", title="Steps").axes
    ours, theirs = axes.get_lines()
    assert ours.get_xydata().tolist() == [[5, 41], [50, 51], [1000, 60]]
    assert theirs.get_xydata().tolist() == [[5, 89.46], [50, 90.13], [1000, 91.01]]
    assert (ours.get_linestyle(), theirs.get_linestyle()) == ("-", "--")
    (band,) = axes.collections
    corners = {(round(x), round(y, 3)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(5, 39.586), (5, 42.414), (50, 49.586), (50, 52.414), (1000, 60.0)}
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == list(STEPS)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["tile", "tile (paper)"]
    assert (axes.get_ylabel(), axes.get_title(loc="left")) == ("mIoU (%)", "Steps")


def test_a_papers_average_is_not_shown_as_our_category() -> None:
    figure = figures.steps(steps_table("own"), "mIoU")
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["own", "paper"]
    assert figure.get_supxlabel() == "paper: average over MVTec-AD's 15 categories"


def test_bars_show_values_spread_and_the_paper_where_there_are_any() -> None:
    panel = figures.Panel(
        "mIoU",
        [
            figures.Bars("without", [10.0, 20.0], [1.0, None], [15.0, None]),
            figures.Bars("with", [None, 30.0], None, [25.0, 35.0]),
        ],
    )
    (axes,) = figures.bars(["tile", "wood"], [panel]).axes
    boxes = sorted((patch.get_x() + patch.get_width() / 2, patch.get_height()) for patch in axes.patches)
    assert [height for _, height in boxes] == [10, 20, 30]
    assert [round(x) for x, _ in boxes] == [0, 1, 1]
    assert boxes[1][0] < 1 < boxes[2][0]
    ticks = [line for line in axes.get_lines() if line.get_gid() == "paper"]
    assert [line.get_ydata()[0] for line in ticks] == [15, 25, 35]
    assert ticks[0].get_xdata().mean() == pytest.approx(boxes[0][0])
    (error,) = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    assert error.lines[2][0].get_segments()[0][:, 1].tolist() == [9, 11]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["tile", "wood"]


def test_many_groups_go_on_in_further_axes_of_equal_height() -> None:
    groups = [f"g{i}" for i in range(16)]
    panels = [
        figures.Panel(m, [figures.Bars(str(k), [float(i + k) for i in range(16)]) for k in range(4)]) for m in "ab"
    ]
    figure = figures.bars(groups, panels)
    assert len(figure.axes) == 6
    shown = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    assert shown == groups * 2
    for axes, panel in zip(figure.axes, "aaabbb", strict=True):
        assert axes.get_ylabel() == panel
        assert axes.get_ylim() == (0, pytest.approx(1.05 * 18))
    heights = sorted(patch.get_height() for axes in figure.axes[:3] for patch in axes.patches)
    assert heights == sorted(float(i + k) for i in range(16) for k in range(4))
    assert figure.get_figwidth() * 72 * 600 / 460 <= 611  # 11 point letters are 14 pixels high at a width of 600


def test_a_table_of_one_category_has_a_bar_per_label() -> None:
    figure = figures.grouped(steps_table())
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == list(STEPS)
    assert [patch.get_height() for patch in axes.patches] == [41, 51, 60]


def test_a_table_of_several_categories_has_a_group_per_row() -> None:
    found = [
        Record(category, label, "segformer", 0, {"mIoU": m, "Acc": m + 1})
        for category, label, m in [("tile", "with", 3.0), ("tile", "without", 1.0), ("wood", "with", 7.0)]
    ]
    table = tables.build(found, metrics=["mIoU", "Acc"], column="farm", labels=["without", "with"])
    first, second = figures.grouped(table).axes
    assert sorted((round(p.get_x() + 0.2), p.get_height()) for p in first.patches) == [(0, 1), (0, 3), (1, 7), (2, 5)]
    assert sorted(p.get_height() for p in second.patches) == [2, 4, 6, 8]
    assert [label.get_text() for label in second.get_xticklabels()] == ["tile", "wood", "Average"]


def drawings(monkeypatch: pytest.MonkeyPatch, table: tables.ResultTable, *networks: str) -> dict[str, Figure]:
    """The figures of a grid by file, without being drawn."""
    monkeypatch.setattr(figures, "png", lambda figure: figure)
    monkeypatch.setattr(figures, "svg", lambda figure: "")
    plan: Any = SimpleNamespace(protocol=SimpleNamespace(segmentation=SimpleNamespace(networks=networks)))
    return {name: made for name, made in outcome._drawings(plan, table) if isinstance(made, Figure)}


def test_a_grid_of_steps_has_a_curve_of_each_metric_and_network(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Record(category, label, "mini", 0, {"mIoU": m, "Acc": m + 1})
        for category, label, m in [("a", "5", 10.0), ("b", "5", 20.0), ("a", "50", 30.0), ("b", "50", 50.0)]
    ]
    theirs = paper.load("fast_table3_mvtec_steps")
    metrics = ["mIoU", "Acc", "AP"]
    networks = ("stdc", "mini")
    table = tables.build(found, metrics=metrics, column="steps", labels=STEPS, paper=theirs, backbones=networks)
    made = drawings(monkeypatch, table, *networks)
    assert list(made) == ["figure-mini-miou.png", "figure-mini-acc.png"]  # of stdc there is nothing yet
    ours, _ = made["figure-mini-acc.png"].axes[0].get_lines()
    assert ours.get_xydata().tolist() == [[5, 16], [50, 41]]  # the average alone
    note = made["figure-mini-acc.png"].get_supxlabel()
    assert note == "paper: average over MVTec-AD's 15 categories; the paper's is SegFormer's"
    legend = made["figure-mini-acc.png"].axes[0].get_legend()
    assert legend is not None
    assert legend.get_texts()[-1].get_text() == "paper"


def test_a_grid_of_anything_else_has_bars_of_each_network_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Record("own", label, backbone, 0, {"mIoU": m, "Acc": m + 1, "PRO": 99.0})
        for label, backbone, m in [("FAST", "mini", 1.0), ("DRAEM", "mini", 3.0), ("FAST", "segformer", 5.0)]
    ]
    theirs = paper.load("fast_table1_mvtec_segformer")
    networks = ("segformer", "mini")
    metrics = ["mIoU", "Acc", "PRO"]
    table = tables.build(found, metrics=metrics, column="method", paper=theirs, backbones=networks)
    made = drawings(monkeypatch, table, *networks)
    assert list(made) == ["figure-segformer.png", "figure-mini.png"]
    heights = [[patch.get_height() for patch in axes.patches] for axes in made["figure-mini.png"].axes]
    assert heights == [[1, 3], [2, 4]]
    assert made["figure-segformer.png"].get_supxlabel() == "paper: average over MVTec-AD's 15 categories"


def test_equal_numbers_give_equal_bytes() -> None:
    def made() -> Figure:
        band = figures.Series("a", [2, 10], [1.0, 2.0], [0.1, 0.2])
        return figures.curve([band, replace(band, paper=True)], x_label="x", y_label="y", log=True)

    pictures, drawings = ([save(made()) for _ in range(2)] for save in (figures.png, figures.svg))
    assert pictures[0] == pictures[1]
    assert drawings[0] == drawings[1]
    assert "<dc:date>" not in drawings[0]
    with Image.open(BytesIO(pictures[0])) as picture:
        assert picture.size == (960, 570)
        assert "Software" not in picture.info


def test_what_makes_no_figure() -> None:
    with pytest.raises(UserError, match="no points"):
        figures.curve([figures.Series("a", [1.0], [None])], x_label="x", y_label="y")
    with pytest.raises(UserError, match="x=0 has no logarithm"):
        figures.curve([figures.Series("a", [0.0], [1.0])], x_label="x", y_label="y", log=True)
    with pytest.raises(UserError, match="no bars"):
        figures.bars(["a"], [figures.Panel("y", [figures.Bars("b", [None])])])
    table = tables.build([Record("tile", "FAST", "mini", 0, {"mIoU": 1.0})], metrics=["mIoU"], column="method")
    with pytest.raises(UserError, match="FAST are no numbers of steps"):
        figures.steps(table, "mIoU")


# --- galleries

SIDE, CELL = 200, 100


def output(folder: Path, grey: int, own: bool = False, types: tuple[str, ...] = ("tile/crack", "tile/hole")) -> Path:
    """Two pairs of each type: all of one grey, on the normal pictures of grey 10, 20, ... or on its own."""
    rows: list[dict[str, Any]] = []
    for i, name in enumerate([types[0], types[1], types[0], types[1]]):
        normal = folder.parent / f"normal{i}.png"
        write_image(normal, np.full((SIDE, SIDE, 3), 10 * (i + 1), np.uint8))
        image = np.full((SIDE, SIDE, 3), grey + i, np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[20:30, 30:50] = 1
        if own:
            mask[:] = np.roll(mask, 100, axis=(0, 1))
        write_image(folder / "image" / f"{i}.png", image)
        write_mask(folder / "mask" / f"{i}.png", mask)
        gap = np.full((SIDE, 4, 3), 255, np.uint8)
        write_image(folder / "triptych" / f"{i}.png", np.concatenate([image, gap, image, gap, image], axis=1))
        row = {"index": i, "image": f"image/{i}.png", "mask": f"mask/{i}.png", "type": name, "prompt": ""}
        rows.append({**row, "normal_source": None if own else str(normal), "windows": [[0, 0, 100, 100]]})
        if own:
            rows[-1]["windows"] = [[0, 0, SIDE, SIDE]]
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_pairs_of_one_normal_picture_and_mask_stand_side_by_side(tmp_path: Path) -> None:
    own = output(tmp_path / "own", 150, own=True, types=("tile/hole", "tile/crack"))
    outputs = {"DFMGAN": own, "A": output(tmp_path / "a", 100), "B": output(tmp_path / "b", 50)}
    lines = gallery.read_lines(outputs, per_type=2)
    assert [line.heading for line in lines] == ["crack", "crack", "hole", "hole"]
    # Pairs 0 and 2 are of a crack, but 1 and 3 of the one that makes its own.
    for line, index, other in zip(lines, (0, 2, 1, 3), (1, 3, 0, 2), strict=True):
        assert np.unique(line.normal).tolist() == [10 * (index + 1)]
        assert line.normal.shape == (SIDE, SIDE, 3)  # whole, not only the window that was sampled
        assert (line.mask[20:30, 30:50] == 1).all()
        assert line.mask.sum() == 200
        a, b, c = (line.pictures[k] for k in ("A", "B", "DFMGAN"))
        assert a is not None
        assert b is not None
        assert c is not None
        assert [np.unique(p.pixels).tolist() for p in (a, b, c)] == [[100 + index], [50 + index], [150 + other]]
        assert a.mask is None
        assert b.mask is None
        assert c.mask is not None
        assert (c.mask[120:130, 130:150] == 1).all()


def test_a_cell_lies_where_its_row_and_column_are() -> None:
    """No zoom: each cell is its picture, and nothing else has its grey."""
    grey = [[40, 60, 80], [100, 120, 140]]
    empty = np.zeros((50, 50), np.uint8)
    lines = [
        gallery.Line("x", np.full((50, 50, 3), g[0], np.uint8), empty, {
            "A": gallery.GalleryImage(np.full((50, 50, 3), g[1], np.uint8)),
            "B": gallery.GalleryImage(np.full((50, 50, 3), g[2], np.uint8)),
        })
        for g in grey
    ]  # fmt: skip
    picture = gallery.grid(lines, cell=CELL)
    places = {}
    for g in (v for row in grey for v in row):
        rows, columns = np.nonzero((picture == g).all(axis=2))
        assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == CELL
        assert len(rows) == CELL**2
        places[g] = int(rows.min()), int(columns.min())
    step = CELL + gallery.GAP
    top, left = places[40]
    assert places[60] == (top, left + 2 * step)  # the mask is between
    assert places[80] == (top, left + 3 * step)
    assert places[140] == (top + step, left + 3 * step)
    assert (picture[top : top + CELL, left + step : left + step + CELL] == 0).all()
    assert picture.shape[1] - (left + 3 * step + CELL) == gallery.MARGIN == picture.shape[0] - (top + step + CELL)


def test_a_small_defect_is_magnified_in_a_corner_that_is_free_of_it() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[20:24, 30:36] = 1
    image = np.zeros((256, 256, 3), np.uint8)
    image[mask != 0] = 255
    box = zoom_box(mask)
    assert box == (0, 1, 64, 65)
    line = gallery.Line("x", image, mask, {})
    shown, plain = (gallery.grid([line], cell=128, zoom=zoom) for zoom in (True, False))
    words = shown.shape[1] - 2 * 128 - gallery.GAP - gallery.MARGIN
    cell, without = (p[-gallery.MARGIN - 128 : -gallery.MARGIN, words : words + 128] for p in (shown, plain))
    inset = cell[64:, 64:]
    assert (inset[0] == gallery.FRAME).all()
    # 64 pixels at their own size: the defect is twice as large as in the cell, whose side is half the picture's.
    assert (inset[20:24, 29:35] > 200).all()
    assert (inset[2:-2, 2:-2].min(axis=2) > 128).sum() == 24
    assert (without.min(axis=2) > 128).sum() == 6
    assert (cell[0, :32] == gallery.FRAME).all()


def test_where_nothing_is_magnified() -> None:
    mask = np.zeros((256, 256), np.uint8)
    assert zoom_box(mask) is None
    mask[10:240, 100] = 1
    assert zoom_box(mask) is None
    assert zoom_box(np.eye(40, dtype=np.uint8)[:, :3]) is None


@pytest.mark.parametrize(("at", "corner"), [((10, 10), (1, 1)), ((250, 250), (0, 1)), ((10, 250), (1, 0))])
def test_the_corner_hides_no_defect(at: tuple[int, int], corner: tuple[int, int]) -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[at] = 1
    if at == (10, 250):
        mask[250, 250] = 1
    assert gallery.free_corner(mask, 0.5, 0.5) == corner
    mask[[10, 10, 250, 250], [10, 250, 10, 250]] = 1
    assert gallery.free_corner(mask, 0.5, 0.5) is None


def test_a_label_with_its_own_mask_shows_it() -> None:
    empty, full = np.zeros((50, 50), np.uint8), np.zeros((50, 50), np.uint8)
    full[:20, :20] = 1
    black = np.zeros((50, 50, 3), np.uint8)
    picture = gallery.grid([gallery.Line("x", black, empty, {"GAN": gallery.GalleryImage(black, full)})], cell=CELL)
    foot = picture.shape[0] - gallery.grid([gallery.Line("x", black, empty, {"GAN": None})], cell=CELL).shape[0]
    assert foot > 0  # says what the star means
    cell = picture[:, -gallery.MARGIN - CELL : -gallery.MARGIN]
    top = int(np.flatnonzero((cell[:, 0] == 0).all(axis=1))[0])
    corner = cell[top + 70 : top + 100, 70:]
    assert (corner[0] == gallery.FRAME).all()
    assert (corner[2:11, 2:11] == 255).all()
    assert (corner[14:-1, 14:-1] == 0).all()


def test_words_stay_within_their_cells() -> None:
    black, empty = np.zeros((50, 50, 3), np.uint8), np.zeros((50, 50), np.uint8)
    long = "AnomalyDiffusionWithAVeryLongName and more"
    picture = gallery.grid([gallery.Line("x", black, empty, {long: None, "B": gallery.GalleryImage(black)})], cell=CELL)
    left = picture.shape[1] - gallery.MARGIN - 2 * CELL - gallery.GAP
    ink = (picture < 200).any(axis=(0, 2))
    assert ink[left : left + CELL].any()
    assert not ink[left + CELL : left + CELL + gallery.GAP].any()
    assert not ink[left - gallery.GAP : left].any()


def test_what_makes_no_gallery(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one line"):
        gallery.grid([])
    with pytest.raises(UserError, match="at least one synthesis output"):
        gallery.read_lines({})
    with pytest.raises(UserError, match=r"has no manifest\.jsonl"):
        gallery.read_lines({"A": tmp_path})
    found = output(tmp_path / "a", 100)
    with pytest.raises(UserError, match="has no pairs of tile/dent; it has tile/crack, tile/hole"):
        gallery.read_lines({"A": found}, types=["tile/dent"])
    (found / "manifest.jsonl").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        gallery.read_lines({"A": found})
    (found / "manifest.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no pairs"):
        gallery.read_lines({"A": found})

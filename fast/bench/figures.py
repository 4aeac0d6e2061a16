"""Figures of results: curves (FAST's steps) and grouped bars (FAST's Fig. 5 and 8, STAGE's Fig. 6).

They are `Figure` objects, without pyplot's global state; `png` and `svg` give the same bytes for the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fast.bench.paper import ANOTHER, ELSEWHERE, Value
from fast.bench.tables import ResultTable, TableCell
from ldm.errors import UserError

# Told apart without seeing red and green (Okabe and Ito), darkest contrasts first; yellow is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = "osD^vPX*"
INK, GREY = "#1A1F24", "#5A646E"
PAPER = "paper"
DPI = 150
WIDTH, HEIGHT = 6.4, 3.8  # inches
SLOTS = 30  # bars and gaps between groups that this width takes
_STYLE: Any = {  # matplotlib types the keys one by one
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 11.0,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "fast",
}


@dataclass(frozen=True)
class Series:
    """A line: x, y and, if given, the half width of its band, each as long. `paper`: dashed, without marks of ours.

    A `y` of None is a point that is not there.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    spread: Sequence[float | None] | None = None
    paper: bool = False


@dataclass(frozen=True)
class Bars:
    """A bar per group: values, their spread, and the paper's, each as long as the groups; None for none there."""

    label: str
    values: Sequence[float | None]
    spread: Sequence[float | None] | None = None
    paper: Sequence[float | None] | None = None


@dataclass(frozen=True)
class Panel:
    """One row of a bar figure."""

    y_label: str
    bars: Sequence[Bars]


def curve(
    series: Sequence[Series], *, x_label: str, y_label: str, title: str = "", log: bool = False, note: str = ""
) -> Figure:
    """Lines with a band of plus and minus the spread; `log`: x in powers, each point's x written out.

    Raises `UserError` for no points, or an x of 0 or less on a logarithmic axis.
    """
    points = sorted({x for one in series for x, y in zip(one.x, one.y, strict=True) if y is not None})
    if not points:
        raise UserError(f"figure '{title or y_label}' has no points; give at least one finished result")
    if log and points[0] <= 0:
        raise UserError(f"figure '{title or y_label}': x={points[0]:g} has no logarithm; give x above 0")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        colours = dict(zip(dict.fromkeys(one.label for one in series), _cycle(PALETTE, len(series)), strict=False))
        for k, one in enumerate(series):
            _line(axes, one, colours[one.label], MARKERS[k % len(MARKERS)])
        if log:
            axes.set_xscale("log")
            axes.set_xticks(points, [f"{x:g}" for x in points])
            axes.minorticks_off()
        _dress(axes, y_label, title)
        axes.set_xlabel(x_label)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=10)
        _note(figure, note)
    return figure


def _line(axes: Axes, one: Series, colour: str, marker: str) -> None:
    spreads = one.spread or [None] * len(one.x)
    kept = sorted((x, y, s) for x, y, s in zip(one.x, one.y, spreads, strict=True) if y is not None)
    x, y = [k[0] for k in kept], [k[1] for k in kept]
    if one.paper:
        name, colour = (PAPER, GREY) if one.label == PAPER else (f"{one.label} ({PAPER})", colour)
        axes.plot(x, y, linestyle="--", color=colour, linewidth=1.6, label=name)
        return
    axes.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=2, label=one.label)
    if any(k[2] is not None for k in kept):
        low, high = [k[1] - (k[2] or 0) for k in kept], [k[1] + (k[2] or 0) for k in kept]
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def bars(groups: Sequence[str], panels: Sequence[Panel], *, title: str = "", note: str = "") -> Figure:
    """Grouped bars with error bars; a paper's value is an outlined tick across its bar. One panel under another.

    What is too much for the figure's width goes on in further axes of the same panel, with the same y, so that a page
    600 pixels wide can show it. Raises `UserError` where nothing is there to draw.
    """
    drawn = [v for panel in panels for one in panel.bars for v in (*one.values, *(one.paper or ())) if v is not None]
    if not drawn:
        raise UserError(f"figure '{title}' has no bars; give at least one finished result")
    most = max(len(panel.bars) for panel in panels)
    lines = -(-len(groups) * (most + 1) // SLOTS)
    each = -(-len(groups) // lines)
    count = lines * len(panels)
    height = 2.5 if lines == 1 else 1.9
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + height * count), dpi=DPI, layout="constrained")
        for k in range(count):
            panel, first = panels[k // lines], k % lines * each
            axes = figure.add_subplot(count, 1, k + 1)
            _bar_panel(axes, panel, range(first, min(first + each, len(groups))), each)
            last = first + each >= len(groups) and k == count - 1
            _group_names(axes, groups[first : first + each], shown=last or lines > 1)
            _dress(axes, panel.y_label, title if k == 0 else "")
        _bar_legend(figure, panels)
        _note(figure, note)
    return figure


def _group_names(axes: Axes, names: Sequence[str], shown: bool) -> None:
    crowded = max(map(len, names)) * len(names) > 11 * WIDTH
    turn: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(range(len(names)), list(names) if shown else [], **turn)
    axes.tick_params(axis="x", length=0)


def _bar_panel(axes: Axes, panel: Panel, groups: range, room: int) -> None:
    """Those `groups` of a panel, at 0, 1, ... in axes with room for `room` of them."""
    width = 0.82 / max(len(panel.bars), 1.5)
    tops = [1.0]
    for k, one in enumerate(panel.bars):
        colour = PALETTE[k % len(PALETTE)]
        spreads, theirs = one.spread or [None] * len(one.values), one.paper or [None] * len(one.values)
        tops += [v + (s or 0) for v, s in zip(one.values, spreads, strict=True) if v is not None]
        tops += [v for v in theirs if v is not None]
        for i, g in enumerate(groups):
            x, value, spread, paper = i + (k - (len(panel.bars) - 1) / 2) * width, one.values[g], spreads[g], theirs[g]
            if value is not None:
                axes.bar(x, value, 0.92 * width, color=colour, label=one.label, zorder=2)
            if value is not None and spread is not None:
                axes.errorbar(x, value, spread, color=INK, capsize=2.5, elinewidth=1.1, capthick=1.1, zorder=4)
            if paper is not None:
                ends = [x - 0.46 * width, x + 0.46 * width]
                axes.plot(ends, [paper] * 2, color="white", linewidth=4.2, solid_capstyle="butt", zorder=5)
                axes.plot(ends, [paper] * 2, color=INK, linewidth=1.8, solid_capstyle="butt", zorder=6, gid="paper")
    axes.set_xlim(-0.55, room - 0.45)
    axes.set_ylim(0, 1.05 * max(tops))


def _bar_legend(figure: Figure, panels: Sequence[Panel]) -> None:
    labels = list(dict.fromkeys(one.label for one in max(panels, key=lambda p: len(p.bars)).bars))
    handles = [
        Line2D([], [], linestyle="", marker="s", markersize=8, color=colour, label=label)
        for label, colour in zip(labels, _cycle(PALETTE, len(labels)), strict=True)
    ]
    if any(v is not None for panel in panels for one in panel.bars for v in one.paper or ()):
        handles.append(Line2D([], [], color=INK, linewidth=1.8, label=PAPER))
    if len(handles) > 1:
        columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.5 + 0.09 * max(map(len, labels))))))
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=10)


def _dress(axes: Axes, y_label: str, title: str) -> None:
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=12, fontweight="bold", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#D5DADE", linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)


def _note(figure: Figure, note: str) -> None:
    if note:
        figure.supxlabel(note, fontsize=9, color=GREY, x=0.01, ha="left")


def _cycle(values: Sequence[str], count: int) -> list[str]:
    return [values[i % len(values)] for i in range(count)]


def steps(table: ResultTable, metric: str, *, title: str = "") -> Figure:
    """The step trend (FAST, Table 3): `table`'s labels are numbers of steps; a series per row, the paper's dashed.

    Raises `UserError` for labels that are no numbers.
    """
    try:
        x = [float(label) for label in table.labels]
    except ValueError:
        raise UserError(f"labels {', '.join(table.labels)} are no numbers of steps; give a table of steps") from None
    series = []
    for backbone, category in table.rows:
        cells = [table.cell(backbone, category, label, metric) for label in table.labels]
        name = _row_name(table, backbone, category)
        ours = [c.ours.mean if c.ours else None for c in cells]
        if any(v is not None for v in ours):
            series.append(Series(name, x, ours, [c.ours.spread if c.ours else None for c in cells]))
        theirs = [c.paper.number if c.paper else None for c in cells]
        elsewhere = all(_stands_for_others(c.paper) for c in cells if c.paper)  # one line for all of our rows
        if any(v is not None for v in theirs) and not (elsewhere and any(s.label == PAPER for s in series)):
            series.append(Series(PAPER if elsewhere else name, x, theirs, paper=True))
    return curve(
        series, x_label="sampling steps", y_label=f"{metric} (%)", title=title, log=True, note=_paper_note(table)
    )


def grouped(table: ResultTable, *, title: str = "") -> Figure:
    """Bars of `table`, a panel per metric: a group per row with a bar per label (FAST's Fig. 5 and 8, STAGE's Fig. 6);
    for a single row a bar per label with its name below."""
    single = len(table.rows) == 1
    panels = []
    for metric in table.metrics:
        cells = [[table.cell(*row, label, metric) for row in table.rows] for label in table.labels]
        if single:
            cells = [[line[0] for line in cells]]
        names = [table.rows[0][1]] if single else table.labels
        panels.append(Panel(f"{metric} (%)", [_bars(name, line) for name, line in zip(names, cells, strict=True)]))
    groups = table.labels if single else [_row_name(table, *row) for row in table.rows]
    return bars(groups, panels, title=title, note=_paper_note(table))


def _bars(name: str, cells: Sequence[TableCell]) -> Bars:
    return Bars(
        name,
        [c.ours.mean if c.ours else None for c in cells],
        [c.ours.spread if c.ours else None for c in cells],
        [c.paper.number if c.paper else None for c in cells],
    )


def _row_name(table: ResultTable, backbone: str, category: str) -> str:
    backbones, categories = ({row[i] for row in table.rows} for i in (0, 1))
    shown = [category] * (len(categories) > 1 or len(backbones) == 1) + [backbone] * (len(backbones) > 1)
    return ", ".join(shown)


def _paper_note(table: ResultTable) -> str:
    """Of the papers' numbers that stand for another category or network than their row says."""
    notes = [note for cell in table.cells.values() if cell.paper for note in cell.paper.notes]
    return "; ".join(dict.fromkeys(note for note in notes if note.startswith((ELSEWHERE, ANOTHER))))


def _stands_for_others(value: Value) -> bool:
    return bool(value.notes) and value.notes[0].startswith(ELSEWHERE)


def png(figure: Figure) -> bytes:
    target = BytesIO()
    with matplotlib.rc_context(_STYLE):
        FigureCanvasAgg(figure).print_png(target, metadata={"Software": None})
    return target.getvalue()


def svg(figure: Figure) -> str:
    """Letters are drawn as paths, so that it looks the same where the fonts are others."""
    target = StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(target, format="svg", metadata={"Date": None})
    return target.getvalue()

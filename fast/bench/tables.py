"""Tables of results as the papers have them, beside the papers' own numbers: Markdown, CSV, LaTeX.

`build` gathers; `markdown`, `csv` and `latex` show. A paper's number is for orientation: it never enters a mean or a
rank of ours.
"""

import csv as csv_files
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from fast.bench.paper import AVERAGE, PaperTable, Value, orientation
from fast.bench.results import Record, ResultGrid, Summary
from fast.runtime import tables as text_tables
from fast.runtime.tables import markdown_text
from ldm.errors import UserError

DECIMALS = 2
MISSING = "-"
WIDE = 8  # columns; a wider table spans both columns of a LaTeX page


@dataclass(frozen=True)
class TableCell:
    """`rank`: 1 for the best of its row and metric, 2 for the second, else 0."""

    ours: Summary | None
    paper: Value | None = None
    rank: int = 0


@dataclass(frozen=True)
class ResultTable:
    """`rows`: (backbone, category), averages included. `cells`: by (backbone, category, label, metric).

    `finished` of `expected` trainings are in it, of up to `seeds` seeds each.
    """

    title: str
    column: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    cells: Mapping[tuple[str, str, str, str], TableCell]
    finished: int
    expected: int
    seeds: int
    papers: tuple[str, ...] = ()

    def cell(self, backbone: str, category: str, label: str, metric: str) -> TableCell:
        return self.cells[backbone, category, label, metric]


def build(
    records: Sequence[Record],
    *,
    metrics: Sequence[str],
    column: str,
    paper: PaperTable | Sequence[PaperTable] | None = None,
    labels: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    title: str = "",
) -> ResultTable:
    """Mean and spread over seeds, the average over categories where there are several, and the paper's numbers.

    `labels`, `categories`, `backbones` and `seeds` are the whole grid, in order (default: what the records hold); other
    records are left out. Of several papers the first that has a cell's backbone, label and metric counts.
    Raises `UserError` for two records of one cell, no records at all, or a paper's table with another column key.
    """
    papers = (paper,) if isinstance(paper, PaperTable) else tuple(paper or ())
    for one in papers:
        if one.column != column:
            raise UserError(f"paper table {one.name} compares {one.column}, not {column}; give one that compares that")
    grid = ResultGrid.of(records, labels, categories, backbones, seeds)
    several = len(grid.categories) > 1
    rows = [(b, c) for b in grid.backbones for c in (*grid.categories, *([AVERAGE] * several))]
    cells: dict[tuple[str, str, str, str], TableCell] = {}
    for (backbone, category), metric in product(rows, metrics):
        averaged = category == AVERAGE and several
        ours = {
            label: grid.average(backbone, label, metric) if averaged else grid.cell(backbone, category, label, metric)
            for label in grid.labels
        }
        ranks = _ranks({label: s.mean for label, s in ours.items() if s})
        for label in grid.labels:
            theirs = orientation(papers, backbone, category, label, metric, grid.categories)
            cells[backbone, category, label, metric] = TableCell(ours[label], theirs, ranks.get(label, 0))
    return ResultTable(
        title,
        column,
        grid.labels,
        tuple(metrics),
        tuple(rows),
        cells,
        len(grid.finished()),
        grid.size(),
        len(grid.seeds),
        tuple(one.title for one in papers),
    )


def _ranks(means: Mapping[str, float]) -> dict[str, int]:
    """Largest 1, second 2, as printed: what reads alike shares its rank. Nothing where there is nothing to compare."""
    if len(means) < 2:
        return {}
    shown = {label: float(_number(mean)) for label, mean in means.items()}
    order = sorted(set(shown.values()), reverse=True)
    return {label: order.index(v) + 1 for label, v in shown.items() if order.index(v) < 2}


def caption(table: ResultTable) -> str:
    """What the numbers are, how many of them are there, and whose the paper's are."""
    seeds = "one seed" if table.seeds == 1 else f"mean ± sample standard deviation over {table.seeds} seeds"
    backbones, categories = _backbones(table), _categories(table)
    fixed = [names[0] for names in (categories, backbones) if len(names) == 1]
    parts = [
        table.title,
        ", ".join(fixed),
        f"{', '.join(table.metrics)} in percent, {seeds}; best bold, second underlined",
        f"paper: {'; '.join(table.papers)}" if _has_paper(table) else "",
        f"{table.finished} of {table.expected} trainings are finished" if table.finished < table.expected else "",
    ]
    return " ".join(part.rstrip(".") + "." for part in parts if part)


@dataclass(frozen=True)
class _Text:
    """A cell to show. `notes`: the letters of its notes."""

    text: str
    spread: str = ""
    rank: int = 0
    notes: str = ""


@dataclass
class _Block:
    """`breaks`: lines before which a rule is drawn. `left`: how many first columns are names."""

    heading: str
    header: list[_Text]
    lines: list[list[_Text]]
    left: int
    breaks: set[int] = field(default_factory=set)


def _blocks(table: ResultTable) -> tuple[list[_Block], list[str]]:
    """One block with the labels as rows for one category, else a block per metric; and the notes in order."""
    notes: list[str] = []
    if len(table.rows) == 1:
        columns = [[(table.rows[0], label, metric) for label in table.labels] for metric in table.metrics]
        names = [[_Text(label)] for label in table.labels]
        return [_block("", [table.column], names, table.metrics, columns, table, notes)], notes
    backbones, categories = len(_backbones(table)) > 1, len(_categories(table)) > 1
    keys = ["backbone"] * backbones + ["category"] * categories
    names = [[_Text(b)] * backbones + [_Text(c)] * categories for b, c in table.rows]
    blocks = []
    for metric in table.metrics:
        columns = [[(row, label, metric) for row in table.rows] for label in table.labels]
        block = _block(metric, keys, names, table.labels, columns, table, notes)
        for i, (backbone, category) in enumerate(table.rows):
            if i and (category == AVERAGE or (categories and backbone != table.rows[i - 1][0])):
                block.breaks.add(i)
        blocks.append(block)
    return blocks, notes


def _block(
    heading: str,
    keys: Sequence[str],
    names: Sequence[list[_Text]],
    heads: Sequence[str],
    columns: Sequence[Sequence[tuple[tuple[str, str], str, str]]],
    table: ResultTable,
    notes: list[str],
) -> _Block:
    """Each column of ours and, next to it, the paper's where it has any number there."""
    block = _Block(heading, [_Text(key) for key in keys], [list(name) for name in names], len(keys))
    for head, column in zip(heads, columns, strict=True):
        cells = [table.cell(*row, label, metric) for row, label, metric in column]
        block.header.append(_Text(head))
        for line, cell in zip(block.lines, cells, strict=True):
            line.append(_ours(cell, table.seeds, notes))
        values = [cell.paper for cell in cells]
        if any(values):
            common = _common(values)
            block.header.append(_Text("paper", notes=_letters(common, notes)))
            for line, value in zip(block.lines, values, strict=True):
                line.append(_theirs(value, common, notes))
    return block


def _ours(cell: TableCell, seeds: int, notes: list[str]) -> _Text:
    if cell.ours is None:
        return _Text(MISSING)
    spread = "" if cell.ours.spread is None else _number(cell.ours.spread)
    fewer = [f"{cell.ours.seeds} of {seeds} seeds"] if cell.ours.seeds < seeds else []
    return _Text(_number(cell.ours.mean), spread, cell.rank, _letters(fewer, notes))


def _theirs(value: Value | None, common: Sequence[str], notes: list[str]) -> _Text:
    if value is None:
        return _Text(MISSING)
    return _Text(_number(value.number), notes=_letters([n for n in value.notes if n not in common], notes))


def _common(values: Sequence[Value | None]) -> list[str]:
    """Notes of every number of a column, which its head takes."""
    found = [value.notes for value in values if value]
    return [note for note in found[0] if all(note in others for others in found)] if len(found) > 1 else []


def _letters(found: Sequence[str], notes: list[str]) -> str:
    notes.extend(note for note in found if note not in notes)
    return ",".join(sorted(_letter(notes.index(note)) for note in found))


def _letter(index: int) -> str:
    return chr(ord("a") + index % 26) * (1 + index // 26)


def _number(value: float) -> str:
    return f"{value:.{DECIMALS}f}"


def _backbones(table: ResultTable) -> list[str]:
    return list(dict.fromkeys(backbone for backbone, _ in table.rows))


def _categories(table: ResultTable) -> list[str]:
    return list(dict.fromkeys(category for _, category in table.rows))


def _has_paper(table: ResultTable) -> bool:
    return any(cell.paper for cell in table.cells.values())


def markdown(table: ResultTable) -> str:
    """The caption, the table, or a table per metric, and the notes. Ends with a line break."""
    blocks, notes = _blocks(table)
    parts = [markdown_text(caption(table))]
    for block in blocks:
        head, *lines = [list(map(_md_cell, line)) for line in [block.header, *block.lines]]
        parts += [f"**{markdown_text(block.heading)}**"] * bool(block.heading)
        parts.append(text_tables.markdown(head, lines, block.left))
    parts += [f"<sup>{_letter(i)}</sup> {markdown_text(note)}." for i, note in enumerate(notes)]
    return "\n\n".join(parts) + "\n"


def _md_cell(cell: _Text) -> str:
    text = markdown_text(cell.text) if cell.text != MISSING else MISSING
    text = {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(cell.rank, text)
    return text + (f" ± {cell.spread}" if cell.spread else "") + (f"<sup>{cell.notes}</sup>" if cell.notes else "")


def csv(table: ResultTable) -> str:
    """A line per row, label and metric, averages included: backbone, category, the column key, metric, mean, spread,
    seeds, paper, note. What there is none of is left empty."""
    target = io.StringIO()
    writer = csv_files.writer(target, lineterminator="\n")
    writer.writerow(["backbone", "category", table.column, "metric", "mean", "spread", "seeds", "paper", "note"])
    for (backbone, category), label, metric in product(table.rows, table.labels, table.metrics):
        cell = table.cell(backbone, category, label, metric)
        ours = cell.ours or Summary(float("nan"), None, 0)
        mean = _exact(ours.mean if cell.ours else None)
        theirs = ["", ""] if cell.paper is None else [_exact(cell.paper.number), "; ".join(cell.paper.notes)]
        writer.writerow([backbone, category, label, metric, mean, _exact(ours.spread), ours.seeds, *theirs])
    return target.getvalue()


def _exact(value: float | None) -> str:
    return "" if value is None else repr(round(value, 6))


def latex(table: ResultTable) -> str:
    """A table float that needs the package booktabs; a tabular per metric where there are several categories."""
    blocks, notes = _blocks(table)
    wide = max(len(block.header) for block in blocks) > WIDE
    star = "*" if wide else ""
    size = "\\scriptsize\\setlength{\\tabcolsep}{2pt}" if wide else "\\small"
    parts = [f"\\begin{{table{star}}}[t]", f"\\centering{size}", f"\\caption{{{_tex(caption(table))}}}"]
    for block in blocks:
        parts += [f"\\par\\medskip\\textbf{{{_tex(block.heading)}}}\\par\\smallskip"] * bool(block.heading)
        parts.append(f"\\begin{{tabular}}{{{'l' * block.left}{'r' * (len(block.header) - block.left)}}}\n\\toprule")
        parts += [_tex_line(block.header), "\\midrule"]
        for i, line in enumerate(block.lines):
            parts += ["\\midrule"] * (i in block.breaks) + [_tex_line(line)]
        parts.append("\\bottomrule\n\\end{tabular}")
    parts += [f"\\par\\footnotesize\\textsuperscript{{{_letter(i)}}} {_tex(n)}." for i, n in enumerate(notes)]
    return "\n".join([*parts, f"\\end{{table{star}}}"]) + "\n"


def _tex(text: str) -> str:
    """Text that LaTeX prints as it is. A line of a table must not begin with [ or *, which would be an argument."""
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))


def _tex_cell(cell: _Text) -> str:
    text = _tex(cell.text)
    text = {1: f"\\textbf{{{text}}}", 2: f"\\underline{{{text}}}"}.get(cell.rank, text)
    spread = f" $\\pm$ {cell.spread}" if cell.spread else ""
    return text + spread + (f"\\textsuperscript{{{cell.notes}}}" if cell.notes else "")


def _tex_line(line: Sequence[_Text]) -> str:
    return " & ".join(map(_tex_cell, line)) + r" \\"


_TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{c: f"{{{c}}}" for c in "[]*"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
}

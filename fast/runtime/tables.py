"""Tables of text, for a terminal and for a Markdown page."""

import re
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def plain(head: Sequence[str], rows: Rows, left: int = 1) -> str:
    """Columns padded to their widest cell, the first `left` of them to the left and the others to the right. No line is
    broken, however narrow the terminal: the output may go to a file."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, [head, *rows]))


def markdown(head: Sequence[str], rows: Rows, left: int = 1) -> str:
    """A Markdown table, the first `left` columns to the left and the others to the right. Cells are Markdown."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *rows])


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is. An underscore within a word means nothing there."""
    return re.sub(r"([\\`*|<>\[\]~]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))

"""Figures as text: numbers, ratios, tables, and the block of a page that holds them."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ldm.errors import UserError

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NONE = "–"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, without an exponent."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def times(slow: float | None, quick: float | None) -> str:
    """How many times as long the slow one takes."""
    return NONE if not slow or not quick else f"{number(slow / quick, 2)} x"


def share(part: float | None, whole: float | None) -> str:
    return NONE if not part or not whole else f"{100 * part / whole:.0f} %"


def gigabytes(size: float | None) -> str:
    return NONE if size is None else f"{size / 1e9:.2f}"


def exponent(small: tuple[float, float], large: tuple[float, float]) -> float:
    """p of `seconds ~ side ** p` through two points (side, seconds)."""
    return math.log(large[1] / small[1]) / math.log(large[0] / small[0])


def extrapolated(few: tuple[int, float], many: tuple[int, float], steps: int) -> float:
    """Seconds for `steps` evaluations on the line through two measurements (steps, seconds)."""
    each = (many[1] - few[1]) / (many[0] - few[0])
    return few[1] + (steps - few[0]) * each


def read_parts(text: str) -> dict[str, str]:
    """The parts of a page's measured block by name, such as "cpu/unet"; none where the page has no block."""
    if BEGIN not in text or END not in text:
        return {}
    block = text.split(BEGIN)[1].split(END)[0]
    pieces = re.split(r"^<!-- part (\S+) -->$", block, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(pieces[::2], pieces[1::2], strict=True)}


def with_parts(text: str, parts: Mapping[str, str], order: Sequence[str]) -> str:
    """The page `text` with its measured block renewed: new parts replace those of their name, the others stay.

    Parts stand by device, then in `order`. A page without a block gets one at its end.
    """
    merged = {**read_parts(text), **parts}

    def place(name: str) -> tuple[str, int]:
        device, _, part = name.partition("/")
        return device, order.index(part) if part in order else len(order)

    body = "\n\n".join(f"<!-- part {name} -->\n{merged[name]}" for name in sorted(merged, key=place))
    block = f"{BEGIN}\n{body}\n{END}"
    if BEGIN not in text or END not in text:
        return f"{text.rstrip()}\n\n{block}\n".lstrip()
    return text.split(BEGIN)[0] + block + text.split(END, 1)[1]


def write_parts(path: Path, parts: Mapping[str, str], order: Sequence[str]) -> None:
    """Renew the block of a page; a page that is not there is begun. Raises `UserError`."""
    before = path.read_text() if path.is_file() else ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(with_parts(before, parts, order))
    except OSError as error:
        raise UserError(f"--out {path} cannot be written ({error.strerror}); give another file") from None

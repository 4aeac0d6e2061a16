"""How a dataset's files are to be read where they could be meant in several ways: its `reading.json`.

The file lies in the dataset's folder, or any folder above the pictures, is written by `scripts/prepare_data.py` from
its flags, and is obeyed wherever a picture or mask is read, so that training, bench and segmenters see the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fast.data.packed import is_packed
from ldm.errors import UserError

NAME = "reading.json"
MANIFEST = "manifest.jsonl"
OURS = (MANIFEST, "masks.json")  # in folders of pairs and of masks that the project made
LEVELS = 6  # folders above a file that are looked into
WORDS = ("opaque", "transparent")
_COLOUR = re.compile(r"#[0-9a-f]{6}")

Value = int | str


@dataclass(frozen=True)
class Reading:
    """How pictures and masks are read where a file could be meant in several ways.

    Args:
        mask_values: values that mean defect, all others being background: grey levels or label ids, colours "#rrggbb",
            or "opaque" or "transparent". Empty: the file tells (`fast.data.mask_values`).
        ignore: values that mean neither. A segmenter is neither trained nor scored on them, and for a generator they
            are background.
        line_width: width in pixels of the lines and points of annotations, above 0, up to 1000. Both have no area.
            None: they are refused.
        bits: depth, 8 to 16, of the values in 16-bit pictures. None: the file tells.
        masks_upright: masks are drawn on the pictures as EXIF turns them.
        parts_apart: pictures that look alike are of different parts all the same.

    Raises:
        UserError: when a value is none of these.
    """

    mask_values: tuple[Value, ...] = ()
    ignore: tuple[Value, ...] = ()
    line_width: float | None = None
    bits: int | None = None
    masks_upright: bool = False
    parts_apart: bool = False

    def __post_init__(self) -> None:
        for name in ("mask_values", "ignore"):
            for value in getattr(self, name):
                _check(name, value)
        if self.line_width is not None and not 0 < self.line_width <= 1000:
            raise UserError(f"line_width={self.line_width} must lie between 0 and 1000 pixels")
        if self.bits is not None and not 8 <= self.bits <= 16:
            raise UserError(f"bits={self.bits} must lie between 8 and 16")
        for name in ("masks_upright", "parts_apart"):
            if type(getattr(self, name)) is not bool:
                raise UserError(f"{name}={getattr(self, name)} must be true or false")

    def text(self) -> str:
        """JSON of what is set."""
        said = {k: v for k, v in asdict(self).items() if v is not False and v not in ((), None)}
        return json.dumps(said, indent=1) + "\n"


NONE = Reading()


def parse_values(text: str) -> tuple[Value, ...]:
    """Values of a flag, divided by commas: "1,2", "#ff0000", "opaque"."""
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    return tuple(int(word) if re.fullmatch(r"-?\d+", word) else word for word in words)


def reading_of(path: Path) -> Reading:
    """What the nearest `reading.json` above a file or folder says; nothing where there is none."""
    file = reading_file(path)
    return NONE if file is None else load_reading(file)


_tried: dict[Path, Reading] = {}  # what a `reading.json` would say


@contextmanager
def trying(file: Path, reading: Reading) -> Iterator[None]:
    """Within, everything is read as if `file`, a `reading.json`, said this: to see what comes of it before it is
    written."""
    _tried[file] = reading
    try:
        yield
    finally:
        del _tried[file]


def reading_file(path: Path) -> Path | None:
    if is_packed(path):  # pairs of our own
        return None
    folder = path if path.is_dir() else path.parent
    for place in (folder, *folder.absolute().parents[:LEVELS]):
        if place / NAME in _tried or (place / NAME).is_file():
            return place / NAME
        if any((place / own).is_file() for own in OURS):  # pairs kept inside a dataset are not read as it is
            return None
    return None


def load_reading(file: Path) -> Reading:
    return _tried[file] if file in _tried else _load(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _load(file: Path, _changed: int) -> Reading:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({str(error).splitlines()[0]}); correct or remove it") from error
    names = set(Reading.__dataclass_fields__)
    unknown = sorted(content.keys() - names) if isinstance(content, dict) else ["not an object"]
    if unknown:
        raise UserError(f"{file}: '{unknown[0]}' is unknown; it may hold {', '.join(sorted(names))}")
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    try:
        return Reading(**given)
    except (TypeError, UserError) as error:
        raise UserError(f"{file}: {error}") from error


def _check(name: str, value: Any) -> None:
    words = WORDS if name == "mask_values" else ()
    if type(value) is int or (isinstance(value, str) and (value in words or _COLOUR.fullmatch(value))):
        return
    kinds = ", ".join(["whole numbers", "colours such as #ff0000", *words])
    raise UserError(f"{name}: '{value}' is no value; use {kinds}")

"""Where the figures are kept, and the page that their tables are written into."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ldm.errors import UserError

PLACES = ("real", "fitted", "adapted")  # flags whose absence does not make a stored section another one


class FigureStore:
    """Figures on disk: of finished sections, and of the parts of one that was stopped. Written after each part."""

    def __init__(self, path: Path):
        self.path = path
        self.content: dict[str, Any] = {}
        if path.is_file():
            try:
                self.content = dict(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                raise UserError(f"{path} is damaged; remove it or give another --out") from None

    def section(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        """What is known of a section. Raises `UserError` if that was measured otherwise."""
        entry: dict[str, Any] = self.content.setdefault(name, {"settings": settings, "parts": {}, "seconds": 0.0})
        before = entry["settings"]
        # A section measured with a dataset or an artifact stands when the next call does not name it.
        other = [k for k, v in settings.items() if (v is not None or k not in PLACES) and before.get(k) != v]
        if other:
            raise UserError(
                f"{self.path}: {name} was measured with {other[0]} {before.get(other[0])}, not {settings[other[0]]}; "
                "add --redo to measure it again, or give another --out"
            )
        return entry

    def save(self) -> None:
        from fast.data.images import write_bytes

        write_bytes(self.path, (json.dumps(self.content, indent=1) + "\n").encode())


def keeper(store: FigureStore, entry: dict[str, Any]) -> Callable[[str, Callable[[], Any]], Any]:
    """Keeps what calls returned in the section's entry."""

    def part(key: str, call: Callable[[], Any]) -> Any:
        if key not in entry["parts"]:
            start = time.perf_counter()
            entry["parts"][key] = call()
            entry["seconds"] += time.perf_counter() - start
            store.save()
        return entry["parts"][key]

    return part


class Page:
    """A Markdown page with a pair of marks for each of `names`. Raises `UserError` for a page that lacks one."""

    def __init__(self, path: Path, names: Sequence[str]):
        self.path = path
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for name in names:
            if not self._place(name).search(text):
                begin, end = marks(name)
                raise UserError(
                    f"--doc {path}: the marks {begin} and {end} are missing; add them on lines of their own"
                )

    def _place(self, name: str) -> re.Pattern[str]:
        begin, end = (re.escape(mark) for mark in marks(name))
        return re.compile(f"({begin}\n)(.*?)({end})", re.DOTALL)

    def put(self, name: str, text: str) -> None:
        from fast.data.images import write_bytes

        page = self.path.read_text(encoding="utf-8")
        page = self._place(name).sub(lambda m: f"{m[1]}\n{text}\n\n{m[3]}", page, count=1)
        write_bytes(self.path, page.encode(errors="backslashreplace"))


def marks(name: str) -> tuple[str, str]:
    return f"<!-- scores: {name} -->", f"<!-- end of scores: {name} -->"

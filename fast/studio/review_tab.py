"""The page's second half: the pairs of a finished run, judged."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from fast.review.decisions import Decision, Review
from fast.runtime.counts import number_of
from fast.studio.gallery import PAGE, cards, chosen, counted, read_items, sortable
from fast.studio.pictures import four
from fast.studio.said import guarded, line
from fast.synthesis.accepted import export_accepted
from fast.synthesis.records import is_output
from ldm.errors import UserError

PLACE = Path(__file__).parent / "page"
REASONS = ["not visible", "looks unreal", "visible seam", "off the object", "wrong type", "mask does not fit"]
ALL = "all"
KEYS = (
    "<kbd>click</kbd> chooses one, <kbd>shift</kbd> a range, <kbd>ctrl</kbd> one more, <kbd>ctrl A</kbd> the page · "
    "<kbd>←</kbd><kbd>→</kbd> go on · <kbd>a</kbd> accepts · <kbd>r</kbd> rejects · <kbd>c</kbd> neither · "
    "<kbd>u</kbd> undoes"
)
Regenerate = Callable[[Path], int]


class ReviewTab:
    """Builds its components where it is called, within Blocks. `folders`: output folders by the name that the page
    shows; `regenerate(folder)` makes the rejected pairs of one anew and returns how many."""

    def __init__(self, folders: dict[str, Path], regenerate: Regenerate):
        self.folders, self.regenerate = folders, regenerate
        first = next(iter(folders))
        with gr.Row():
            self.folder = gr.Dropdown(list(folders), value=first, label="Folder", scale=3, elem_id="folder")
            self.kind = gr.Dropdown([ALL], value=ALL, label="Type", min_width=130)
            self.decision = gr.Dropdown(
                [ALL, "undecided", "accepted", "rejected"], value=ALL, label="Decision", min_width=130, elem_id="shown"
            )
            self.by = gr.Dropdown(["number"], value="number", label="Sorted by", min_width=130, elem_id="by")
            self.descending = gr.Checkbox(False, label="largest first", min_width=110)
            self.page = gr.Number(1, label="Page", precision=0, minimum=1, min_width=80)
        with gr.Row(elem_classes="tools"):
            self.accept = gr.Button("Accept", variant="primary", elem_id="accept", size="md", min_width=90)
            self.reject = gr.Button("Reject", variant="stop", elem_id="reject", size="md", min_width=90)
            self.reason = gr.Dropdown(REASONS, value=None, label="Reason", allow_custom_value=True, scale=2,
                                      elem_id="reason")  # fmt: skip
            self.clear = gr.Button("Neither", elem_id="clear", size="md", min_width=90)
            self.undo = gr.Button("Undo", elem_id="undo", size="md", min_width=90)
            self.again = gr.Button("Make rejected anew", elem_id="again", size="md", min_width=190)
        self.told = gr.HTML(line(""), elem_id="judged")
        gr.HTML(f'<div class="keys">{KEYS}</div>')
        self.grid = gr.HTML("", elem_id="grid", js_on_load=(PLACE / "gallery.js").read_text(encoding="utf-8"))
        self.marked = gr.State({"chosen": [], "focus": None})
        with gr.Row(elem_classes="result"):
            self.pictures = [
                gr.Image(label=label, format="png", interactive=False, buttons=["fullscreen", "download"], height=330)
                for label in ("Normal", "Mask", "Pair", "Difference, three times as strong")
            ]
        with gr.Row(elem_classes="tools"):
            self.name = gr.Textbox("accepted", label="Export the accepted pairs beside this folder, as", scale=3,
                                   elem_id="name")  # fmt: skip
            self.export = gr.Button("Export", elem_id="export", size="md", min_width=110)
        self._wire()

    @property
    def filters(self) -> list[Any]:
        return [self.folder, self.kind, self.decision, self.by, self.descending, self.page]

    @property
    def shown(self) -> list[Any]:
        return [self.told, self.grid, self.kind, self.by]

    def _wire(self) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        show = guarded(self.show, 4)
        for part in self.filters:
            part.input(show, self.filters, self.shown, **quiet)
        self.grid.select(guarded(self._look, 6), [self.folder], [self.told, self.marked, *self.pictures], **quiet)
        for button, decision in ((self.accept, "accepted"), (self.reject, "rejected"), (self.clear, "undecided")):
            inputs = [self.marked, self.reason, *self.filters]
            button.click(guarded(self._decider(decision), 4), inputs, self.shown, **quiet)
        self.undo.click(guarded(self._undo, 4), self.filters, self.shown, **quiet)
        self.again.click(guarded(self._again, 4), self.filters, self.shown, api_visibility="private")
        self.export.click(guarded(self._export, 1), [self.folder, self.name], self.told, **quiet)

    def show(self, folder: str, kind: str, decision: str, by: str, descending: bool, page: float | None) -> Any:
        """The page of cards that the filters leave. Raises `UserError`."""
        place = self._place(folder)
        if not is_output(place):
            text = f"{place} holds no pair yet: keep one in the first tab."
            return line(text), "", gr.Dropdown([ALL], value=ALL), gr.Dropdown(["number"], value="number")
        items = read_items(place)
        kinds, names = sorted({i.kind for i in items}), sortable(items)
        kind, by = kind if kind in kinds else ALL, by if by in names else "number"
        found = chosen(items, _any(kind), _any(decision), by, descending)
        pages = max(1, -(-len(found) // PAGE))
        number = min(max(1, int(page or 1)), pages)
        part = found[(number - 1) * PAGE : number * PAGE]
        more = f" Page {number} of {pages}." if pages > 1 else ""
        text = f"{len(found)} of {number_of(len(items), 'pair')} shown: {counted(items)}.{more}"
        return (line(text), cards(place, part, by), gr.Dropdown([ALL, *kinds], value=kind),
                gr.Dropdown(names, value=by))  # fmt: skip

    def _place(self, folder: str) -> Path:
        if folder not in self.folders:
            raise UserError(f"folder {folder!r} is none of those that the page was started with")
        return self.folders[folder]

    def _look(self, folder: str, event: gr.EventData) -> tuple[Any, ...]:
        """What is chosen, and the pictures of the pair that was looked at last."""
        told = event._data or {}
        chosen = [int(i) for i in told.get("chosen", [])]
        marked = {"chosen": chosen, "focus": told.get("focus")}
        place = self._place(folder)
        row = next((i.row for i in read_items(place) if i.index == marked["focus"]), None)
        pictures = [gr.skip()] * 4 if row is None else four(place, row)
        count = len(chosen)
        text = f"{number_of(count, 'pair')} chosen."
        if row is not None:
            scores = ", ".join(f"{k} {v:.3g}" if isinstance(v, int | float) else f"{k} {v}"
                               for k, v in (row.get("scores") or {}).items() if v is not None)  # fmt: skip
            text += f" Number {row['index']}, {str(row.get('type')).strip('/')}{': ' + scores if scores else ''}."
        return (line(text), marked, *pictures)

    def _decider(self, decision: str) -> Callable[..., Any]:
        def decide(marked: dict[str, Any], reason: str | None, *filters: Any) -> Any:
            place = self._place(filters[0])
            here = {i.index for i in read_items(place)}
            numbers = [n for n in marked["chosen"] if n in here]
            if not numbers:
                raise UserError("choose pairs first: click on them")
            why = (reason or "").strip() if decision == "rejected" else ""
            Review(place).decide({n: Decision(decision, why) for n in numbers})
            return self.show(*filters)

        return decide

    def _undo(self, *filters: Any) -> Any:
        action = Review(self._place(filters[0])).undo()
        _, *rest = self.show(*filters)
        return line(f"Taken back: {number_of(len(action.decisions), 'decision')}. {self._count(filters[0])}"), *rest

    def _count(self, folder: str) -> str:
        return f"{counted(read_items(self._place(folder)))}."

    def _again(self, *filters: Any) -> Any:
        place = self._place(filters[0])
        made = self.regenerate(place)
        _, *rest = self.show(*filters)
        return line(f"{number_of(made, 'pair')} made anew; what was rejected lies in {place / 'rejected'}."), *rest

    def _export(self, folder: str, name: str) -> str:
        if not re.fullmatch(r"[\w][\w .-]{0,79}", name or ""):
            raise UserError(f"{name!r} is no name for a folder; use letters, digits, spaces, dots and dashes")
        place = self._place(folder)
        out = place.parent / name
        count = export_accepted(place, out, "export to")
        return line(f"{count} accepted pairs exported to {out}.")


def _any(value: str) -> str:
    return "" if value == ALL else value

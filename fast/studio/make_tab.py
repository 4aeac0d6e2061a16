"""The page's first half: one pair at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from markupsafe import Markup

from fast.data.images import resize_image, resize_mask
from fast.data.shown import around, data_url, outlined
from fast.studio.kept import keep
from fast.studio.pictures import difference
from fast.studio.said import guarded, line
from fast.studio.workbench import SHAPE_NAMES, Wish, WishedPair, Workbench
from fast.synthesis.options import DRAFT_STRENGTH
from fast.synthesis.triptych import panel

PAINT = "#ff2d6e"
TINT = np.array((170, 30, 73), np.uint8)  # two thirds of it
REAL = Markup('<figure><img src="{picture}" alt="real defect"><figcaption>{name}</figcaption></figure>')


class MakeTab:
    """Builds its components where it is called, within Blocks. `kept`: where pairs are stored that somebody keeps."""

    def __init__(self, bench: Workbench, kept: Path):
        self.bench, self.kept = bench, kept
        method = bench.methods[0]
        with gr.Row():
            with gr.Column(scale=5, min_width=360):
                self._left()
            with gr.Column(scale=4, min_width=320):
                self._right(method)
        self._results(bench.types(method)[0])
        self._wire()

    def _left(self) -> None:
        names = list(zip(self.bench.names, range(len(self.bench.names)), strict=True))
        self.normal = gr.Dropdown(names, value=0, label="Normal image", elem_id="normal")
        self.editor = gr.ImageEditor(
            type="numpy", label="Mask: paint where the defect is to be", elem_id="editor",
            layers=False, transforms=(), sources=(), height=500, format="png", buttons=[],
            brush=gr.Brush(default_size=4, colors=[PAINT], default_color=PAINT, color_mode="fixed"),
            eraser=gr.Eraser(default_size=14),
        )  # fmt: skip
        self.given: gr.State = gr.State(None)  # a drawn or loaded mask, to which painting adds
        with gr.Row():
            self.shape = gr.Dropdown(SHAPE_NAMES, value="mixed", label="Shape of drawn masks", min_width=150, scale=2)
            with gr.Column(scale=5, min_width=300), gr.Row():
                self.draw = gr.Button("Draw one on the object", elem_id="draw", scale=4, size="md", min_width=160)
                self.load = gr.UploadButton(
                    "Load one", file_types=["image", ".json"], elem_id="load", scale=2, size="md", min_width=90
                )
                self.wipe = gr.Button("Clear", elem_id="wipe", scale=1, size="md", min_width=70)

    def _right(self, method: str) -> None:
        kinds = self._kinds(method)
        latent = method in self.bench.artifacts
        self.method = gr.Dropdown(self.bench.methods, value=method, label="Method", elem_id="method")
        self.kind = gr.Dropdown(kinds, value=kinds[0][1], label="Defect type", elem_id="kind")
        with gr.Group(visible=latent) as self.latent:
            with gr.Row():
                scale, steps = self.bench.recommended(method) or (1.0, 1)
                self.scale = gr.Number(scale, label="Guidance", minimum=0, step=0.5, min_width=120)
                self.steps = gr.Number(steps, label="Steps", precision=0, minimum=1, min_width=120)
            with gr.Row(visible=method == "fast") as self.drafting:
                self.draft = gr.Dropdown(self.bench.drafts, value="none", label="Start from", min_width=120)
                self.strength = gr.Slider(
                    0.05, 1, DRAFT_STRENGTH, step=0.05, label="Made new of the draft", min_width=160
                )
        with gr.Row():
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=110)
            self.again = gr.Checkbox(True, label="next seed each time", min_width=130)
        self.go = gr.Button("Make the pair", variant="primary", elem_id="make", size="md")
        self.save = gr.Button("Keep this pair", elem_id="keep", size="md", interactive=False)
        self.told = gr.HTML(line(self._hint(method)), elem_id="told")
        self.made: gr.State = gr.State(None)

    def _results(self, kind: str) -> None:
        with gr.Row(elem_classes="result"):
            self.pictures = [
                gr.Image(label=label, format="png", interactive=False, buttons=["fullscreen", "download"], height=330)
                for label in ("Normal", "Mask", "Pair", "Difference, three times as strong")
            ]
        gr.Markdown("Real defects of this type")
        self.real = gr.HTML(self._real(kind), elem_id="real")

    def _wire(self) -> None:
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        for event in (self.normal.change, self.wipe.click):
            event(lambda number: (self.canvas(number), None), self.normal, [self.editor, self.given], **private)
        self.draw.click(
            guarded(self._drawn, 3),
            [self.normal, self.shape, self.seed],
            [self.told, self.editor, self.given],
            **private,
        )
        outputs = [self.told, self.editor, self.given]
        self.load.upload(guarded(self._loaded, 3), [self.normal, self.load], outputs, **private)
        self.method.change(
            self._chosen,
            self.method,
            [self.told, self.kind, self.latent, self.drafting, self.scale, self.steps],
            **private,
        )
        self.kind.change(self._real, self.kind, self.real, **private)
        inputs = [self.normal, self.editor, self.given, self.method, self.kind, self.scale, self.steps, self.draft,
                  self.strength,
                  self.seed, self.again]  # fmt: skip
        outputs = [self.told, *self.pictures, self.made, self.save, self.seed]
        self.go.click(guarded(self._make, len(outputs)), inputs, outputs, api_visibility="private")
        self.save.click(guarded(self._keep, 2), self.made, [self.told, self.save], **private)

    def _kinds(self, method: str) -> list[tuple[str, str]]:
        return [(kind.strip("/"), kind) for kind in self.bench.types(method)]

    def _hint(self, method: str) -> str:
        if method in self.bench.artifacts:
            return "Paint, load or draw a mask, or start from a draft."
        return "Without a mask the method places its own."

    def _chosen(self, method: str) -> tuple[Any, ...]:
        kinds, latent = self._kinds(method), method in self.bench.artifacts
        shown = gr.Row(visible=method == "fast")
        told = line(self._hint(method)), gr.Dropdown(kinds, value=kinds[0][1]), gr.Group(visible=latent), shown
        return *told, *(self.bench.recommended(method) or (gr.skip(), gr.skip()))

    def canvas(self, number: int, mask: np.ndarray | None = None) -> dict[str, Any]:
        """A normal image to paint on, with a mask (H,W) of its size shown in it or none; large ones are smaller."""
        shown = panel(self.bench.read_normal(number))
        if mask is not None:
            covered = resize_mask(mask, shown.shape[:2])[..., None] > 0
            shown = np.where(covered, shown // 3 + TINT, shown)
        return {"background": shown, "layers": [], "composite": None}

    def _drawn(self, number: int, shape: str, seed: float | None) -> tuple[Any, ...]:
        mask = self.bench.draw_mask(number, shape, int(seed or 0))
        told = f"A drawn mask of {int(mask.sum())} pixels; another seed draws another. Painting adds to it."
        return line(told), self.canvas(number, mask), mask

    def _loaded(self, number: int, file: str) -> tuple[Any, ...]:
        mask = self.bench.load_mask(number, Path(file))
        return (
            line(f"{Path(file).name}: {int(mask.sum())} pixels. Painting adds to it."),
            self.canvas(number, mask),
            mask,
        )

    def _make(
        self, number: int, canvas: dict[str, Any] | None, given: np.ndarray | None, method: str, kind: str,
        scale: float | None, steps: int | None, draft: str, strength: float, seed: int | None, again: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        mask = painted(canvas, self.bench.read_normal(number).shape[:2])
        if given is not None:
            mask = given if mask is None else mask | given
        drafted = draft if method == "fast" else "none"
        wish = Wish(method, kind, number, mask, scale, steps, drafted, strength,
                    seed or 0)  # fmt: skip
        made = self.bench.make(wish)
        pixels = int(made.mask.sum())
        told = f"Made in {made.seconds:.1f} s, seed {wish.seed}: {pixels} pixels of {kind.strip('/')}."
        pictures = (made.normal, made.mask * np.uint8(255), made.image, difference(made.normal, made.image))
        following = wish.seed + 1 if again else wish.seed
        return line(told), *pictures, made, gr.Button(interactive=True), following

    def _keep(self, made: WishedPair | None) -> tuple[Any, ...]:
        if made is None:
            return line("Make a pair first."), gr.skip()
        index = keep(self.kept, made, self.bench.normals[made.wish.normal].path)
        return line(f"Kept as number {index} in {self.kept}."), gr.Button(interactive=False)

    def _real(self, kind: str) -> str:
        """Real defects of a type, each with its outline, as HTML; every text in it is escaped."""
        found = self.bench.real(kind)
        if not found:
            asked = "give a dataset with --defects" if self.bench.defects is None else "the dataset has none"
            return line(f"No real {kind.rpartition('/')[2]} to show: {asked}.")
        figures = []
        for name, image, mask in found:
            shown = around(mask)
            size = (150, 150)
            small = outlined(resize_image(image[shown], size), resize_mask(mask[shown], size))
            figures.append(REAL.format(picture=data_url(small), name=name))
        return str(Markup('<div class="real">{}</div>').format(Markup("").join(figures)))


def painted(canvas: dict[str, Any] | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """The mask (H,W) in {0,1} of `shape` that was painted on an editor's layers; None where nothing was."""
    layers = [layer for layer in (canvas or {}).get("layers") or () if layer is not None and layer.ndim == 3]
    alpha = [layer[..., 3] > 127 for layer in layers if layer.shape[2] == 4]
    alpha = [a for a in alpha if a.any()]
    if not alpha:
        return None
    return resize_mask(np.logical_or.reduce(alpha).astype(np.uint8), (shape[0], shape[1]))

"""The page of the demonstration: figures, pairs, and what the segmenter marks on cells it was tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fast.reports.report import (
    FALSE,
    Bar,
    Figure,
    Gallery,
    ImageRow,
    Report,
    ReportImage,
    Section,
    Table,
    duration,
    render,
)
from solar_cells.archive import Photo
from solar_cells.scores import CONTROLS, SEGMENTER, Result

Pair = tuple[np.ndarray, np.ndarray, str]  # image (H,W), mask (H,W), type
SHOWN = 4  # cells of each kind and outcome


@dataclass(frozen=True, eq=False)
class Tested:
    """A test cell, its score, and its map of log-odds (H,W)."""

    photo: Photo
    score: float
    odds: np.ndarray


def marked(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A grey image (H,W) in colour, with the outlines of `where` (H,W)."""
    shown = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    outlines, _ = cv2.findContours(where.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(shown, outlines, -1, FALSE, 2)
    return shown


def page(
    results: Sequence[Result],
    verdict: str,
    made: Sequence[Pair],
    tested: Sequence[Tested],
    threshold: float,
    seconds: float,
    seed: int = 0,
) -> str:
    """The HTML file. `made`: pairs to show; `threshold`: log-odds from which pixels are marked and cells sorted out."""
    whole = next(r for r in results if r.group == "all" and r.defective == 1)
    best = max(CONTROLS, key=lambda name: whole.auroc[name][0])
    return render(
        Report(
            title="Solar cells: defects found, none of them seen in training",
            lead=(
                "Electroluminescence images of solar cells (elpv-dataset, CC BY-NC-SA 4.0). Cracks, cut-off areas, "
                "broken fingers, burns and dark cells were drawn into functional cells of one half of the images; a "
                "segmenter learned "
                f"from these pairs alone. Here it meets the other half, and the real defects. {verdict}"
            ),
            figures=[
                Figure(
                    f"{whole.auroc[SEGMENTER][0]:.3f}", "AUROC, segmenter", "image level, mono and poly", strong=True
                ),
                Figure(
                    f"{whole.auroc[best][0]:.3f}", f"AUROC, {best}", "the better of two controls that learn nothing"
                ),
                Figure(duration(seconds), "from images to this page"),
            ],
            sections=[_table(results), _pairs(made), *_outcomes(tested, threshold, seed)],
            foot="Images: elpv-dataset (Buerhop-Lutz, Deitsch et al.), CC BY-NC-SA 4.0; its terms hold for this page.",
        )
    )


def _table(results: Sequence[Result]) -> Section:
    rows: list[list[str | Bar]] = []
    for r in results:
        low, high = r.auroc[SEGMENTER][1:]
        controls = [f"{r.auroc[name][0]:.3f}" for name in CONTROLS]
        share = Bar(r.auroc[SEGMENTER][0], strong=True)
        counts, sorted_out = f"{r.cells[0]} / {r.cells[1]}", f"{r.found:.0%} / {r.false:.0%}"
        rows.append([r.name, counts, share, f"{low:.3f}-{high:.3f}", *controls, sorted_out])
    columns = [
        "cells",
        "defective / functional",
        "segmenter",
        "95 % interval",
        *CONTROLS,
        "sorted out, of defective / functional",
    ]
    caption = "AUROC of whole cells. Last column: at the threshold above which 5 % of held-out functional cells lie."
    return Section("Figures", "", [Table(caption, columns, rows)])


def _pairs(made: Sequence[Pair]) -> Section:
    rows = []
    for start in range(0, len(made) - 1, 2):
        pictures = []
        for image, mask, kind in made[start : start + 2]:
            name = kind.replace("_", " ").replace("+", ", ")
            pictures += [ReportImage(image, name, f"Drawn: {name}"), ReportImage(mask > 0, "mask", f"Mask: {name}")]
        rows.append(ImageRow("", pictures))
    return Section(
        "What it learned from", "Drawn defects on functional cells: the first pairs made.", [Gallery("", rows)]
    )


def _outcomes(tested: Sequence[Tested], threshold: float, seed: int) -> list[Section]:
    rng = np.random.default_rng(seed)
    sections = []
    for title, text, defective, right in (
        ("Defects found", "Defective cells above the threshold, drawn at random.", True, True),
        ("Defects missed", "Defective cells below it: first the lowest scores, then at random.", True, False),
        ("False alarms", "Functional cells above it: first the highest scores, then at random.", False, False),
        ("Rightly passed", "Functional cells below it, drawn at random.", False, True),
    ):
        rows = []
        for kind in ("mono", "poly"):
            sort = [t for t in tested if t.photo.defective == float(defective) and t.photo.mono == (kind == "mono")]
            those = [t for t in sort if (t.score > threshold) == (defective == right)]
            chosen = _chosen(those, defective, right, rng)
            for start in range(0, len(chosen), 2):
                pictures = [p for t in chosen[start : start + 2] for p in _pictures(t, threshold)]
                rows.append(ImageRow(kind, pictures, f"{len(those)} such cells" if start == 0 else ""))
        sections.append(Section(title, text, [Gallery("", rows, [("marked", FALSE)])]))
    return sections


def _chosen(those: list[Tested], defective: bool, right: bool, rng: np.random.Generator) -> list[Tested]:
    drawn = [those[i] for i in rng.permutation(len(those))]
    if right:
        return drawn[:SHOWN]
    worst = sorted(those, key=lambda t: t.score if defective else -t.score)[: SHOWN // 2]
    return worst + [t for t in drawn if t not in worst][: SHOWN - len(worst)]


def _pictures(tested: Tested, threshold: float) -> list[ReportImage]:
    name = tested.photo.name
    return [
        ReportImage(tested.photo.image, name, f"Cell {name}"),
        ReportImage(
            marked(tested.photo.image, tested.odds > threshold), f"score {tested.score:.2f}", f"Marked on {name}"
        ),
    ]

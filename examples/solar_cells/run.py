"""The whole demonstration: fetch, draw, train, test, report."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fast.data.images import write_bytes
from fast.reports.report import duration
from fast.segmentation.networks import save
from solar_cells.archive import Photo, fetch, read
from solar_cells.judge import BATCH, odds, train
from solar_cells.page import Tested, page
from solar_cells.pairs import channels, pairs, training_set
from solar_cells.scores import CONTROLS, SEGMENTER, Result, darkest_spot, highest, mean_darkness, results, verdict

TRAINING_HALF = 0
HELD_OUT = 6  # every so many functional cells of the training half only set the threshold
PASSED = 0.95  # share of them that lies below it
PAIRS_SHOWN = 16


def run(data: Path, out: Path, count: int, seed: int, start: float) -> list[Result]:
    """All of it. `start`: the clock, `time.perf_counter`, when it began. Raises `UserError`."""

    def say(text: str) -> None:
        print(f"[{duration(time.perf_counter() - start)}] {text}", flush=True)

    say(f"images: {data}")
    photos = read(fetch(data))
    own = [p for p in photos if p.functional and p.half == TRAINING_HALF]
    judged = [p for p in photos if not p.functional or p.half != TRAINING_HALF]
    held, learned = own[::HELD_OUT], [p for i, p in enumerate(own) if i % HELD_OUT]
    say(f"{len(photos)} cells; drawing {count} pairs on {len(learned)} functional ones")
    samples = training_set(learned, count, seed)
    say("training")
    network = train(samples, seed)
    save(network, out / "segmenter.safetensors", "quick", "drawn")
    say(f"testing on {len(judged)} cells")
    threshold = float(np.quantile([t.score for t in scored(network, held)], PASSED))
    tested = scored(network, judged)
    scores = {
        SEGMENTER: np.array([t.score for t in tested]),
        CONTROLS[0]: np.array([darkest_spot(p.image) for p in judged]),
        CONTROLS[1]: np.array([mean_darkness(p.image) for p in judged]),
    }
    found = results(judged, scores, threshold, seed)
    write_bytes(out / "scores.csv", _csv(judged, scores).encode())
    html = page(found, verdict(found), pairs(learned, PAIRS_SHOWN, seed), tested, threshold,
                time.perf_counter() - start, seed)  # fmt: skip
    write_bytes(out / "report.html", html.encode())
    print("\n".join(table(found)))
    say(f"{verdict(found)} Open {out / 'report.html'}")
    return found


def scored(network: torch.nn.Module, photos: Sequence[Photo]) -> list[Tested]:
    """Every cell's map and score."""
    found = []
    for first in range(0, len(photos), BATCH):
        some = photos[first : first + BATCH]
        maps = odds(network, [channels(p.image) for p in some])
        found += [Tested(photo, highest(one), one) for photo, one in zip(some, maps, strict=True)]
    return found


def table(found: Sequence[Result]) -> list[str]:
    """The figures, as lines of a Markdown table."""
    names = (SEGMENTER, *CONTROLS)
    lines = [f"| cells | defective / functional | {' | '.join(names)} | over the better control | sorted out |"]
    lines.append("| --- " * (len(names) + 4) + "|")
    for r in found:
        figures = " | ".join("{:.3f} ({:.3f}-{:.3f})".format(*r.auroc[name]) for name in names)
        gain = "{:+.3f} ({:+.3f} to {:+.3f})".format(*r.gain)
        lines.append(f"| {r.name} | {r.cells[0]} / {r.cells[1]} | {figures} | {gain} | {r.found:.0%} / {r.false:.0%} |")
    return lines


def _csv(photos: Sequence[Photo], scores: dict[str, np.ndarray]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "kind", "probability", *scores])
    for i, photo in enumerate(photos):
        kind = "mono" if photo.mono else "poly"
        writer.writerow([photo.name, kind, f"{photo.defective:.2f}", *(f"{s[i]:.4f}" for s in scores.values())])
    return text.getvalue()

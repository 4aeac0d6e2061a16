"""Image-level figures of the segmenter and of the controls, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from solar_cells.archive import Photo

SEGMENTER = "segmenter"
CONTROLS = ("darkest spot", "mean darkness")
TOP = 0.01  # share of a cell's pixels whose mean score is the cell's
AIM = 0.92
RESAMPLES = 1000


def highest(scores: np.ndarray, share: float = TOP) -> float:
    """Mean of the highest `share` of a map (H,W), of one pixel at least."""
    count = max(1, round(share * scores.size))
    return float(np.partition(scores.reshape(-1), -count)[-count:].mean())


def darkest_spot(image: np.ndarray) -> float:
    """Control: how dark the darkest place of the blurred image is, uint8 (H,W), its dark frame left out."""
    side = min(image.shape)
    soft = cv2.GaussianBlur(image.astype(np.float32), (0, 0), side / 40)
    frame = side // 10
    return -float(soft[frame:-frame, frame:-frame].min())


def mean_darkness(image: np.ndarray) -> float:
    """Control: how dark the whole image is, uint8 (H,W)."""
    return -float(image.mean())


def auroc(defective: np.ndarray, functional: np.ndarray) -> float:
    """Chance that a defective cell scores above a functional one; ties count half."""
    below = np.sort(functional)
    ranks = np.searchsorted(below, defective, "left") + np.searchsorted(below, defective, "right")
    return float(ranks.mean() / (2 * len(below)))


@dataclass(frozen=True)
class Result:
    """Of a group of test cells: "mono", "poly" or "all", with defective ones of one probability. `auroc`: of each score
    by name, with the ends of its 95 % interval (bootstrap over cells); `gain`: the segmenter's over the better
    control, likewise; `found`, `false`: shares of the defective and functional cells above the threshold."""

    group: str
    defective: float
    cells: tuple[int, int]
    auroc: Mapping[str, tuple[float, float, float]]
    gain: tuple[float, float, float]
    found: float
    false: float

    @property
    def name(self) -> str:
        doubt = {1: "defective", 2 / 3: "doubtful, 0.67", 1 / 3: "doubtful, 0.33"}
        return f"{self.group}, {next(v for k, v in doubt.items() if abs(k - self.defective) < 0.01)}"


def results(photos: Sequence[Photo], scores: Mapping[str, np.ndarray], threshold: float, seed: int = 0) -> list[Result]:
    """Figures of test cells, of each group and probability that there are cells of."""
    chance = np.array([p.defective for p in photos])
    mono = np.array([p.mono for p in photos], bool)
    found = []
    for value in sorted(set(chance[chance > 0]), reverse=True):
        for group, inside in (("mono", mono), ("poly", ~mono), ("all", np.ones_like(mono))):
            bad, good = np.flatnonzero(inside & (chance == value)), np.flatnonzero(inside & (chance == 0))
            if len(bad) and len(good):
                found.append(_result(group, float(value), scores, bad, good, threshold, seed))
    return found


def _result(
    group: str,
    value: float,
    scores: Mapping[str, np.ndarray],
    bad: np.ndarray,
    good: np.ndarray,
    threshold: float,
    seed: int,
) -> Result:
    names = (SEGMENTER, *CONTROLS)
    rng = np.random.default_rng(seed)
    exact = {name: auroc(scores[name][bad], scores[name][good]) for name in names}
    control = max(CONTROLS, key=lambda name: exact[name])
    drawn = []
    for _ in range(RESAMPLES):
        b, g = rng.choice(bad, len(bad)), rng.choice(good, len(good))
        drawn.append([auroc(scores[name][b], scores[name][g]) for name in names])
    sample = np.array(drawn)
    ends = np.percentile(sample, [2.5, 97.5], axis=0)
    gains = np.percentile(sample[:, 0] - sample[:, names.index(control)], [2.5, 97.5])
    return Result(
        group,
        value,
        (len(bad), len(good)),
        {name: (exact[name], float(ends[0, i]), float(ends[1, i])) for i, name in enumerate(names)},
        (exact[SEGMENTER] - exact[control], float(gains[0]), float(gains[1])),
        float((scores[SEGMENTER][bad] > threshold).mean()),
        float((scores[SEGMENTER][good] > threshold).mean()),
    )


def verdict(found: Sequence[Result]) -> str:
    """Whether the aim is reached, in a sentence."""
    sure = [r for r in found if r.defective == 1]
    whole = next(r for r in sure if r.group == "all")
    reached = "reached" if whole.auroc[SEGMENTER][0] >= AIM else "not reached"
    above = [r.group for r in sure if r.gain[1] > 0]
    clear = "mono, poly and both together" if len(above) == len(sure) else ", ".join(above) or "none of the groups"
    return (
        f"AUROC {whole.auroc[SEGMENTER][0]:.3f}: the aim of {AIM} is {reached}. "
        f"It lies above the better control beyond the 95 % interval for {clear}."
    )

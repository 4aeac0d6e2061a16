"""Real defects cut out of their pictures, and where on the part they were."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fast.data.content import hash_of
from fast.data.images import read_image, read_mask
from fast.data.index import Sample
from fast.generators.surroundings import Surroundings, surroundings_of
from fast.generators.windows import depth_in
from fast.masks.foreground import Ground
from fast.procedural.photo import look_at

# Parts of a mask nearer than this share of the picture's shorter side belong together.
TOGETHER = 0.02
# Around a defect this many px of its ground are kept, or this share of its size: enough to see where its edge ends.
MARGIN, MARGIN_SHARE = 16, 0.25
NEXT = 3  # px around other defects of the picture that may be theirs
LARGEST = 0.6  # share of the picture that a defect's box covers; with a larger one it is no piece of it
SMALLEST = 3  # px of a defect; less is a slip of the annotation
SLIP = 0.005  # of the median defect of a type: a smaller one is a slip too
# From this many parts on a type's places are looked at; below, nobody can tell.
FEW = 5
# Kolmogorov-Smirnov: the largest distance to a uniform distribution, times the root of the number, is above this in one
# of twenty samples that are uniform.
CRITICAL = 1.36


@dataclass(frozen=True)
class Cutout:
    """A defect cut out of its picture with a margin of its ground.

    Args:
        source: the picture that it comes from.
        kind: its type, "category/type".
        group: the physical part that the picture shows.
        image: the piece (h,w,3) uint8.
        mask: the defect in it (h,w), in {0,1}.
        clean: where no other defect of the picture is (h,w), in {0,1}.
        place: the middle of the defect's box (y, x), as shares of the object's box.
        rim: the share of the object that lies nearer to the object's edge than the defect's middle, 0 at the rim.
        touches: whether the top, bottom, left and right border of the picture cuts the defect off.
        grained: whether the surface has a direction.
        share: the share of the picture that the defect's box covers.
        filled: the mask and the fringe in which its type still shows beyond it (h,w), in {0,1}, see
            `fast.generators.outline`. `cut_out` sets it to the mask alone.
        around: the picture around the defect, to find such a place again.
    """

    source: Path
    kind: str
    group: str
    image: np.ndarray
    mask: np.ndarray
    clean: np.ndarray
    place: tuple[float, float]
    rim: float
    touches: tuple[bool, bool, bool, bool]
    grained: bool
    share: float
    filled: np.ndarray
    around: Surroundings

    @property
    def movable(self) -> bool:
        """Whether the defect can be moved: its box does not fill its picture, of which it would bring all along."""
        return self.share < LARGEST and not all(self.spans)

    @property
    def spans(self) -> tuple[bool, bool]:
        """Whether it goes from the top border of its picture to the bottom one, and from the left one to the right."""
        top, bottom, left, right = self.touches
        return top and bottom, left and right


def cut_out(sample: Sample, ground: Ground | None) -> list[Cutout]:
    """Cut each defect out of one picture, of which parts of the mask that lie close together count as one.

    Args:
        sample: the picture and its mask.
        ground: says where the object is. None: everywhere.

    Returns:
        The cutouts. There are none without a mask, or for one that is empty or has another size than the picture.

    Raises:
        UserError: when the files cannot be read.
    """
    image = read_image(sample.image)
    mask = np.zeros(image.shape[:2], np.uint8) if sample.mask is None else read_mask(sample.mask)
    if mask.shape != image.shape[:2] or not mask.any():
        return []
    region = np.ones(mask.shape, np.uint8) if ground is None else ground.of(image)
    far = depth_in(region)
    within = np.sort(far[region > 0])
    grained = look_at(image, region).grained
    reach = 2 * max(1, round(TOGETHER * min(mask.shape))) + 1
    joined = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    count, parts = cv2.connectedComponents(joined, connectivity=8)
    found = []
    for part in range(1, count):
        own = ((parts == part) & (mask > 0)).astype(np.uint8)
        if own.sum() < min(SMALLEST, int(mask.sum())):
            continue
        box = cv2.boundingRect(own)
        left, top, width, height = box
        place = _place(box, region)
        y, x = (int(v) for v in np.rint(np.argwhere(own).mean(0)))
        rim = float(np.searchsorted(within, far[y, x]) / max(len(within), 1))
        touches = (top == 0, top + height == mask.shape[0], left == 0, left + width == mask.shape[1])
        margin = round(max(MARGIN, MARGIN_SHARE * max(width, height)))
        window = (
            slice(max(0, top - margin), min(mask.shape[0], top + height + margin)),
            slice(max(0, left - margin), min(mask.shape[1], left + width + margin)),
        )
        kind = f"{sample.category}/{sample.anomaly}"
        others = ((mask > 0) & (own == 0)).astype(np.uint8)[window]
        clean = 1 - cv2.dilate(others, np.ones((2 * NEXT + 1,) * 2, np.uint8))
        piece, outline = image[window].copy(), own[window].copy()
        clean = np.asarray(clean | outline, np.uint8)
        share = width * height / own.size
        whose, around = (sample.image, kind, sample.group), surroundings_of(image, mask, box)
        found.append(Cutout(*whose, piece, outline, clean, place, rim, touches, grained, share, outline, around))
    return found


def without_slips(cutouts: Sequence[Cutout]) -> list[Cutout]:
    """The defects of a type without specks left by the brush that marked them: those below 0.5 % of the median area."""
    areas = np.array([cutout.mask.sum() for cutout in cutouts], float)
    return [cutout for cutout, area in zip(cutouts, areas, strict=True) if area >= SLIP * np.median(areas)]


def _place(box: Sequence[int], region: np.ndarray) -> tuple[float, float]:
    left, top, width, height = cv2.boundingRect((region != 0).astype(np.uint8))
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    return (y - top) / max(height, 1), (x - left) / max(width, 1)


def keeps_place(cutouts: Iterable[Cutout]) -> bool:
    """Whether a type's defects gather at a place: near or far from the rim, or in a band of height or of width.

    Several pictures of one part count once. With fewer than five parts the answer is False, since nobody can tell.
    """
    groups: dict[str, list[Cutout]] = defaultdict(list)
    for cutout in cutouts:
        groups[cutout.group].append(cutout)
    if len(groups) < FEW:
        return False
    own = [group[0] for group in groups.values()]
    # The middle of what goes from border to border is the picture's, wherever it lies.
    columns = (
        [c.rim for c in own if not any(c.spans)],
        [c.place[0] for c in own if not c.spans[0]],
        [c.place[1] for c in own if not c.spans[1]],
    )
    return any(len(column) >= FEW and _uneven(np.sort(column)) > CRITICAL for column in columns)


def _uneven(values: np.ndarray) -> float:
    """Kolmogorov-Smirnov statistic of sorted values against the uniform distribution on [0, 1], times sqrt(n)."""
    steps = np.arange(len(values) + 1) / len(values)
    apart = max(float((steps[1:] - values).max()), float((values - steps[:-1]).max()))
    return apart * float(np.sqrt(len(values)))


def contents_of(samples: Sequence[Sample]) -> tuple[str, str]:
    """Two SHA-256 hashes: of the defects' pictures and masks, and of which pictures show the same part."""
    lines, parts = [], defaultdict[str, list[str]](list)
    for sample in samples:
        image = hash_of(sample.image)
        lines += [image] if sample.mask is None else [image, hash_of(sample.mask)]
        parts[sample.group].append(image)
    together = sorted(" ".join(sorted(part)) for part in parts.values())
    content, partition = (hashlib.sha256("\n".join(found).encode()).hexdigest() for found in (lines, together))
    return content, partition

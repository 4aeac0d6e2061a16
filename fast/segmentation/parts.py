"""What a segmenter finds of each physical part that it is tested on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fast.metrics.segmentation import PixelCounts
from fast.segmentation.data import SegmentationSample


def part_of(sample: SegmentationSample) -> tuple[str, str]:
    """(category, part) that a picture shows; one whose part is not known is a part of its own."""
    own = sample.name if isinstance(sample.image, Path) else str(id(sample))
    return sample.kind.split("/", 1)[0], sample.group or own


@dataclass
class PartCounts:
    """Pictures of a part, and pixels in all of them: defect and `found`, `found`, and `defect`."""

    part: str
    images: int = 0
    both: int = 0
    found: int = 0
    defect: int = 0


class Parts:
    """Pixel counts of each physical part, from which `fast.bench.by_part` tells how much hangs on single ones."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], PartCounts] = {}

    def add(self, sample: SegmentationSample, picture: PixelCounts) -> None:
        """The counts of one picture."""
        part = part_of(sample)
        name = part[1] if sample.group or isinstance(sample.image, Path) else f"picture {len(self._counts) + 1}"
        counts = self._counts.setdefault(part, PartCounts(name))
        counts.images += 1
        counts.both += picture.both
        counts.found += picture.found
        counts.defect += picture.defect

    def report(self) -> list[dict[str, Any]]:
        """`PartCounts` of each part, in the order in which they were tested."""
        return [asdict(counts) for counts in self._counts.values()]

"""What opening a large set of pairs costs, one program in a process: `python -m benchmarks.pair_openings NAME FOLDER`.

Prints what `benchmarks.many_pairs` puts into its table.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIDE, READ = 64, 2000  # pixels; samples read in no order


def importing(folder: Path) -> str:
    """What all the others load too."""
    import fast.export.pairs
    import fast.segmentation.data  # noqa: F401

    return "-"


def samples(folder: Path) -> str:
    """The pairs as a trainer has them, and the rate at which it reads them in any order."""
    from fast.data.samples import SampleImages
    from fast.segmentation.data import from_output

    pairs = from_output(folder)[0]
    images = SampleImages(pairs, None, memory=0)
    order = np.random.default_rng(0).permutation(len(pairs))[:READ]
    start = time.process_time()
    for i in order:
        images.plain(int(i))
    return f"{len(pairs)} pairs, {len(order) / (time.process_time() - start):.0f} read a processor second"


def segmenter(folder: Path) -> str:
    """The whole command with two training steps, tested on six drawn images."""
    from fast.cli import segment
    from fast.runtime.command import run_cli

    root = dataset(folder.parent / "tested")
    out = str(folder.parent / "segmented.json")
    argv = ["--train", str(folder), "--test", str(root), "--steps", "2", "--batch_size", "8", "--size", str(SIDE)]
    return "two steps" if run_cli(segment.main, [*argv, "--out", out]) == 0 else "failed"


def dataset(root: Path) -> Path:
    """Six images with a dark square, and six without, as MVTec AD has them."""
    from fast.data.images import write_image, write_mask

    for i in range(6):
        image = np.random.default_rng(i).integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[10 + i : 20 + i, 30:44] = 1
        write_image(root / f"part/train/good/{i:03d}.png", image)
        write_image(root / f"part/test/dent/{i:03d}.png", np.where(mask[..., None] > 0, image // 2, image))
        write_mask(root / f"part/ground_truth/dent/{i:03d}_mask.png", mask)
    return root


def exporter(folder: Path) -> str:
    """All that `scripts/export.py` does before it copies the first pair."""
    from fast.export.pairs import read_run

    run = read_run(folder)
    return f"{len(run.pairs)} pairs, {len(run.classes())} types"


def export(folder: Path) -> str:
    """A whole export."""
    from fast.export.formats import export as written

    return f"{len(written(folder, 'webdataset', folder.parent / 'exported')[0].pairs)} pairs exported"


def studio(folder: Path) -> str:
    """The first page of the review, and, after a decision, a page in the middle by another order."""
    from fast.review.decisions import Decision, Review
    from fast.studio.gallery import PAGE, cards, chosen, read_items, sortable

    def page(number: int, by: str) -> float:
        start = time.process_time()
        items = read_items(folder)
        assert by in sortable(items)
        cards(folder, chosen(items, by=by)[number * PAGE :][:PAGE], by)
        return time.process_time() - start

    first = page(0, "number")
    Review(folder).decide({7: Decision("accepted")})
    later = page(len(read_items(folder)) // PAGE // 2, "defect pixels")
    Review(folder).undo()
    return f"first page {first:.1f} s, one in the middle {later:.1f} s of the processor"


OPENINGS: dict[str, Callable[[Path], str]] = {
    f.__name__: f for f in (importing, samples, segmenter, exporter, export, studio)
}

if __name__ == "__main__":
    print(OPENINGS[sys.argv[1]](Path(sys.argv[2])))

"""How well the object is found: against outlines drawn by hand, in drawn scenes, and on images without a ground.

    python -m benchmarks.objects --images FOLDER --surfaces FOLDER --scenes 200 --sheet found.png

Prints a table; every figure comes from the images given and from scenes that are drawn anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.object_scenes import draw_scene
from fast.data.images import list_images, read_image, write_image
from fast.masks.estimate import estimate
from fast.masks.preview import cell, preview_sheet
from fast.masks.vote import Vote, overlap
from fast.runtime.command import run_cli
from ldm.errors import UserError

OUTLINES = Path(__file__).resolve().parents[1] / "tests" / "files" / "object_outlines.json"
GOOD = 0.95  # overlap with the true object from which it counts as found
SIDE = 256  # px of an image on the sheet


def read_outlines(path: Path) -> dict[str, np.ndarray]:
    """Masks (H,W) uint8 in {0,1} by image name, from polygons; one inside another is a hole. Raises `UserError`."""
    try:
        entries = json.loads(path.read_text())
        return {name: _drawn(entry) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, cv2.error) as error:
        raise UserError(
            f"{path}: no file of outlines ({error}); give one like tests/files/object_outlines.json"
        ) from None


def _drawn(entry: dict) -> np.ndarray:
    width, height = entry["size"]
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.array(polygon, np.int32) for polygon in entry["polygons"]], 1)
    return mask


class Score:
    """Images for the sheet, and seconds of processor time of each estimate."""

    def __init__(self) -> None:
        self.cells: list[tuple[str, np.ndarray]] = []
        self.seconds: list[float] = []

    def say(self, line: str) -> None:
        """Prints a line at once: a long run that is stopped has said what it found."""
        print(line, flush=True)

    def estimated(self, image: np.ndarray) -> np.ndarray:
        """The object (H,W) of an image (H,W,3)."""
        start = time.process_time()
        mask = estimate(image).mask
        self.seconds.append(time.process_time() - start)
        return mask

    def show(self, caption: str, image: np.ndarray, mask: np.ndarray) -> None:
        self.cells.append((caption, cell(image, np.zeros_like(mask), mask, SIDE)))

    def add(self, name: str, found: list[float]) -> None:
        """A row of overlaps with the true object."""
        worst, tenth, middle = np.quantile(found, [0, 0.1, 0.5])
        good = sum(f >= GOOD for f in found)
        self.say(
            f"{name}: {good} of {len(found)} at IoU {GOOD} or more; least {worst:.3f}, "
            f"lowest tenth {tenth:.3f}, median {middle:.3f}"
        )


def outlined(score: Score, folder: Path, outlines: dict[str, np.ndarray]) -> None:
    """Photographs against outlines by hand."""
    found = []
    files = [file for file in list_images(folder) if file.name in outlines]
    if not files:
        raise UserError(f"{folder} holds none of the outlined images ({', '.join(sorted(outlines)[:3])}, ...)")
    for file in files:
        image, truth = read_image(file), outlines[file.name]
        if image.shape[:2] != truth.shape:
            raise UserError(f"{file} is {image.shape[1]} x {image.shape[0]} px; outlined at {truth.shape[::-1]}")
        mask = score.estimated(image)
        found.append(overlap(mask, truth))
        score.say(f"  {found[-1]:.3f}  {file.name}")
        score.show(f"{found[-1]:.3f} {file.stem}", image, mask)
    score.add(f"{folder.name}, outlined by hand", found)


def scenes(score: Score, count: int, first: int) -> None:
    """Drawn scenes, opaque objects and transparent ones apart."""
    found: dict[str, list[float]] = {"opaque": [], "transparent": []}
    for seed in range(first, first + count):
        scene = draw_scene(seed)
        mask = score.estimated(scene.image)
        share = overlap(mask, scene.mask)
        found["transparent" if "transparent" in scene.words else "opaque"].append(share)
        if share < GOOD:
            score.say(f"  {share:.3f}  scene {seed}: {scene.words}")
            score.show(f"{share:.3f} scene {seed}", scene.image, mask)
    for tone, shares in found.items():
        if shares:
            score.add(f"drawn scenes, {tone}", shares)


def surfaces(score: Score, folder: Path, most: int) -> None:
    """Images without a ground, each by itself and by their vote."""
    files = list_images(folder)
    if not files:
        raise UserError(f"{folder} holds no images; give a folder of surfaces")
    files = [files[i * len(files) // most] for i in range(most)] if 0 < most < len(files) else files
    whole = 0
    voters: list[np.ndarray] = []
    for file in files:
        image = read_image(file)
        mask = score.estimated(image)
        whole += bool(mask.all())
        voters += [image] if len(voters) < 9 else []
        if not mask.all():
            score.say(f"  an object in {file.name}")
            score.show(f"not whole: {file.stem}", image, mask)
    vote = Vote(voters)
    score.say(
        f"{folder.name}, without a ground: {whole} of {len(files)} taken whole; "
        f"{vote.share:.0%} of the first {len(voters)} vote for a ground"
    )


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m benchmarks.objects", description=__doc__.splitlines()[0])
    p.add_argument("--images", type=Path, metavar="FOLDER", help="the photographs that are outlined")
    p.add_argument("--outlines", type=Path, default=OUTLINES, metavar="FILE", help="polygons (default: %(default)s)")
    p.add_argument("--surfaces", type=Path, nargs="+", default=[], metavar="FOLDER", help="images without a ground")
    p.add_argument("--most", type=int, default=0, help="of the images of each folder of surfaces (default: all)")
    p.add_argument("--scenes", type=int, default=0, metavar="N", help="scenes to draw (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the first scene (default: %(default)s)")
    p.add_argument("--sheet", type=Path, metavar="FILE", help="an image of what was found, and of every miss")
    return p


def run(options: argparse.Namespace) -> None:
    if not options.images and not options.surfaces and not options.scenes:
        raise UserError("nothing to score; give --images, --surfaces or --scenes")
    score = Score()
    if options.images:
        outlined(score, options.images, read_outlines(options.outlines))
    if options.scenes:
        scenes(score, options.scenes, options.seed)
    for folder in options.surfaces:
        surfaces(score, folder, options.most)
    if options.sheet and score.cells:
        write_image(options.sheet, preview_sheet(score.cells))
    score.say(f"{np.mean(score.seconds):.2f} s of one core an image, {max(score.seconds):.2f} s at most")


def main(argv: list[str] | None = None) -> int:
    return run_cli(lambda given: run(parser().parse_args(given)), argv)


if __name__ == "__main__":
    sys.exit(main())

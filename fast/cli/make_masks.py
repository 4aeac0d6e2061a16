"""Make masks of defects: real ones as they are or varied, or drawn shapes; on the object, with a sheet to look at.

fast-make-masks --source crack --data_root NORMALS --count 100 --out masks --preview p.png
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fast.cli.dataset_notes import tell_left_out
from fast.data.images import check_suffix, read_image, read_mask, resize_image, write_bytes, write_image, write_mask
from fast.data.index import DatasetIndex
from fast.data.kept_masks import KeptMasks
from fast.data.layouts import check as check_dataset
from fast.data.layouts import holds_masks, open_dataset, require_defects
from fast.data.split import Split, make_split
from fast.masks.place import INSIDE
from fast.masks.preview import cell, preview_sheet
from fast.masks.source import KINDS, MADE, OF_FILES, Masks
from fast.runtime.counts import number_of
from fast.runtime.folders import held, parse_json
from fast.runtime.options import Parser
from fast.runtime.progress import followed
from fast.synthesis.normals import HeldOut
from fast.synthesis.selection import contents, drawn, marks, turn
from fast.synthesis.sources import MaskSource, find_masks, find_normals
from ldm.errors import UserError
from ldm.rng import seed_of

LARGEST = 65535  # px of a side
SHOWN, SIDE = 24, 256  # masks in the preview, and px of the longer side of each


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="scripts/make_masks.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    kinds = [kind for kind in KINDS if kind != "learned"]
    p.add_argument("--source", choices=kinds, default="mixed", help="where masks come from (default: %(default)s)")
    p.add_argument(
        "--masks",
        "--mask_path",
        dest="masks",
        metavar="FOLDER",
        help="for given and augmented: masks, in folders by defect type if they are, or a dataset",
    )
    p.add_argument(
        "--split",
        help="which masks of a dataset, or of its folder of masks: third, those that training sees; all; or a split "
        "file (default: third of a dataset, all of a folder of masks)",
    )
    p.add_argument(
        "--data_root",
        metavar="FOLDER",
        help="normal pictures or a dataset; without it --size is needed, and pictures are blank",
    )
    p.add_argument(
        "--on_object",
        metavar="RULE",
        help="keep masks off the background: off, auto, otsu, otsu_dark, triangle, realnet:CATEGORY, or a "
        "region file or a folder of them (default: auto; off without --data_root and for given masks)",
    )
    p.add_argument(
        "--inside", type=float, default=INSIDE, help="share of a defect on the object (default: %(default)s)"
    )
    p.add_argument("--count", type=int, default=100, help="masks to make (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (default: %(default)s)")
    p.add_argument("--size", type=int, help="side of a mask in px (default: as the pictures are)")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the masks")
    p.add_argument(
        "--preview",
        type=Path,
        metavar="FILE",
        help=f"an image of {SHOWN} masks over their images, with the object's outline or the word everything",
    )
    return p


@dataclass
class Work:
    """What the arguments ask for. Mask number `index` depends on the seed and the index alone."""

    options: argparse.Namespace
    read: KeptMasks = field(default_factory=KeptMasks)

    @cached_property
    def normals(self) -> list[Path]:
        return [n.path for n in find_normals(self.options.data_root)] if self.options.data_root else []

    @cached_property
    def files(self) -> list[MaskSource]:
        if self.options.source not in OF_FILES:
            return []
        if not self.options.masks:
            raise UserError(f"--source {self.options.source} needs --masks, a folder of masks")
        if _is_dataset(Path(self.options.masks)):
            return _of_dataset(self.options.masks, self.options.split or "third")
        found = find_masks(self.options.masks, self.read, "--masks")[0]
        return _apart_from_test(found, self.options.masks, self.options.split)

    @cached_property
    def masks(self) -> Masks:
        files = [f.path for f in self.files]
        masks = Masks(self.options.source, files, self.on_object, self.options.inside, read=self.read)
        masks.survey(self.normals)
        return masks

    @property
    def on_object(self) -> str:
        return self.options.on_object or ("auto" if self.normals and self.options.source != "given" else "off")

    @cached_property
    def contents(self) -> tuple[list[str], list[str]]:
        """SHA-256 of the pictures and of the mask files."""
        return contents(self.normals), contents(f.path for f in self.files)

    @cached_property
    def _marks(self) -> tuple[np.ndarray, np.ndarray]:
        return marks(self.contents[0]), marks(self.contents[1])

    def _file(self, index: int) -> MaskSource:
        """The mask file for mask `index`: all come round in a new order every time through."""
        return self.files[turn(self._marks[1], index, self.options.seed, 2)]

    def picture(self, index: int) -> tuple[np.ndarray, Path | None]:
        """The picture that a mask is made for, grey where there is none, and its file."""
        side = self.options.size
        if not self.normals:
            return np.full((side, side, 3), 128, np.uint8), None
        path = self.normals[drawn(self._marks[0], self.options.seed, 1, index)]
        image = read_image(path)
        return (resize_image(image, side) if side else image), path

    def place(self, index: int) -> Path:
        """Where mask `index` is written: in a folder named like the one that the real mask lies in."""
        name = f"{index:06d}.png"
        if not self.files:
            return self.options.out / name
        file = self._file(index)
        own = Path(self.options.masks).resolve() == file.path.parent.resolve()
        return self.options.out / name if own else self.options.out / file.kind / name

    def make(self, index: int) -> None:
        image, path = self.picture(index)
        rng = np.random.default_rng(seed_of(self.options.seed, 0, index))
        file = self._file(index).path if self.files else None
        write_mask(self.place(index), self.masks.draw(image, rng, file, path))

    def settings(self) -> dict[str, Any]:
        """What makes two runs the same run, whatever their count and preview."""
        kept = {k: getattr(self.options, k) for k in ("source", "inside", "seed", "size")}
        kept |= self.masks.settings()  # a region file by its content
        files = [*sorted(self.contents[0]), "", *sorted(self.contents[1])]  # by content, wherever they lie
        return {**kept, "files": hashlib.sha256("\n".join(files).encode()).hexdigest()[:16]}

    def without_ground(self) -> str:
        """Says in how many of the images looked at the whole image passes for the object."""
        whole = sum(self.masks.whole.values())
        looked = f"{whole} of {number_of(len(self.masks.whole), 'image')} looked at"
        return f"; no ground in {looked}: there everything is the object" if whole else ""

    def sheet(self) -> np.ndarray:
        cells = []
        for index in sorted({i * self.options.count // SHOWN for i in range(SHOWN)}):
            image, path = self.picture(index)
            place = self.place(index)
            shown = cell(image, read_mask(place), self.masks.region(image, path), SIDE)
            cells.append((place.relative_to(self.options.out).as_posix(), shown))
        return preview_sheet(cells)


def _is_dataset(path: Path) -> bool:
    """A dataset or a category of one, rather than a folder of masks or of folders of masks."""
    return path.is_dir() and holds_masks(path)


def _of_dataset(path: str, split: str) -> list[MaskSource]:
    """The real masks of a dataset that training may see. Raises `UserError`."""
    index = open_dataset(path)
    index = check_dataset(replace(index, normals=[], test_normals=[])).usable
    require_defects(index)
    tell_left_out(path, index.left_out, index.doubts)
    if split != "all":
        chosen = make_split(index) if split == "third" else Split.load(split)
        index = replace(index, defects=chosen.apply(index)[0])
        if not index.defects:
            raise UserError(f"--split {split} leaves no mask of {path}; give all, or another split file")
    return [MaskSource(s.mask, s.anomaly) for s in index.defects if s.mask is not None]


def _apart_from_test(masks: list[MaskSource], folder: str, split: str | None) -> list[MaskSource]:
    """The masks of a folder that training may see, where it is a dataset's. Raises `UserError` for a split of none."""
    index = _dataset_of(folder)
    if split is not None and index is None:
        raise UserError(
            f"--split {split} is of a dataset, and --masks {folder} is none's folder of masks; give the dataset"
        )
    if index is None or split == "all":
        return masks
    if split is None:
        print(
            f"note: {folder} holds the masks of {index.root}, those of defects to be tested on too; --split third or "
            "FILE takes those that training sees, --split all means every one",
            flush=True,
        )
        return masks
    kept, notes = HeldOut(index, split).masks(masks, folder)
    for note in notes:
        print(f"note: {note}", flush=True)
    return kept


def _dataset_of(folder: str) -> DatasetIndex | None:
    """The dataset whose defects have their masks in a folder."""
    try:
        index = open_dataset(folder).whole
    except UserError:
        return None
    place = Path(folder).expanduser().resolve()
    inside = any(s.mask is not None and place in s.mask.resolve().parents for s in index.defects)
    return index if inside else None


def check(options: argparse.Namespace) -> None:
    if options.count < 1:
        raise UserError(f"--count is {options.count}; it must be 1 or more")
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}; it must be 0 or more")
    if options.size is not None and options.size < 8:
        raise UserError(f"--size is {options.size}; it must be 8 or more")
    if options.size is not None and options.size > LARGEST:
        raise UserError(f"--size is {options.size}, larger than any picture; give at most {LARGEST} pixels")
    if options.data_root is None and options.size is None:
        raise UserError("neither --data_root nor --size is given; masks need pictures, or a size")
    if options.data_root is None and options.on_object not in (None, "off"):
        raise UserError(f"--on_object {options.on_object} needs --data_root, pictures with the object in them")
    for name in ("masks", "split"):
        if getattr(options, name) is not None and options.source not in OF_FILES:
            raise UserError(f"--{name} is for --source {' and '.join(OF_FILES)}, not {options.source}; leave it out")
    if options.preview is not None:
        check_suffix(options.preview)
    if options.preview and options.out.resolve() in options.preview.resolve().parents:
        raise UserError(f"--preview {options.preview} lies in --out and would pass for a mask; put it elsewhere")


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Refuses a folder that holds something else; marks a new one."""
    mark = out / MADE
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder")
    if mark.is_file():
        try:
            before = dict(parse_json(mark.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise UserError(f"{mark} is damaged; give a new --out folder") from None
        differing = sorted(k for k in settings.keys() | before.keys() if settings.get(k) != before.get(k))
        if differing:
            raise UserError(f"--out {out} holds other masks (differ in {', '.join(differing)}); give a new folder")
    elif held(out):
        raise UserError(f"--out {out} holds other files; give an empty or a new folder")
    else:
        write_bytes(mark, json.dumps(settings, indent=1).encode())


def run(options: argparse.Namespace) -> str:
    """Make what is missing; the same command again goes on where it stopped."""
    check(options)
    work = Work(options)
    work.masks  # noqa: B018 (reports bad input before anything is written)
    claim(options.out, work.settings())
    missing = [i for i in range(options.count) if not work.place(i).is_file()]
    for index in followed(missing, "masks", "mask"):
        work.make(index)
    if options.preview:
        write_image(options.preview, work.sheet())
    return f"{options.out}: {number_of(options.count, 'mask')}, {len(missing)} of them new{work.without_ground()}"


def main(argv: Sequence[str]) -> None:
    print(run(parser().parse_args(argv)))

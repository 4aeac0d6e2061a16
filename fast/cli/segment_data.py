"""What `segment.py` trains and tests on: pairs of its folders, and nothing of what is tested on among them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fast.bench.provenance import made_besides, segmenter_besides
from fast.cli.dataset_notes import tell_leak, tell_left_out, tell_normals
from fast.data.content import Copies
from fast.data.index import DatasetIndex, Sample
from fast.data.layouts import check, open_dataset, require_defects
from fast.data.normals import normals_of_test, without_tested
from fast.data.split import Split, make_split
from fast.review.decisions import told
from fast.runtime.counts import number_of
from fast.segmentation.data import SegmentationSample, check_pairs, from_output, from_samples, merged
from fast.synthesis.records import each_record, is_output, refuse_urls
from ldm.errors import UserError


@dataclass
class Data:
    """Pairs to train and to test on, the split's hash, and how many there are of what."""

    train: list[SegmentationSample]
    test: list[SegmentationSample]
    split: str
    counts: dict[str, int]


@dataclass
class Tested:
    """The dataset that is tested on. `index`: without those of its normals that show a part which is tested on, where
    it has others; `surfaces`: finds copies of these normals; `files`: of all images and masks that are tested on."""

    root: Path
    index: DatasetIndex
    split: Split
    train: list[Sample]
    test: list[Sample]
    surfaces: Copies
    files: Copies


@dataclass
class Gathered:
    """What the folders to train on hold: pairs, real defects, how many pairs were left out for they were made from
    what is tested on, and how many real defects that are copies of it."""

    synthetic: list[SegmentationSample] = field(default_factory=list)
    real: list[Sample] = field(default_factory=list)
    left_out: int = 0
    known: int = 0


def gather(options: argparse.Namespace) -> Data:
    """Raises `UserError` when a folder holds nothing of use or the training would see what is tested on."""
    refuse_urls(*options.train)
    refuse_twice(options.train)
    tested = _tested(options)
    tell_weights(options.weights, tested.split.hash)
    given = Gathered()
    for folder in options.train:
        if is_output(folder):
            _add_pairs(given, folder, tested)
        else:
            _add_defects(given, folder, tested, options)
    check_pairs(given.synthetic)  # the datasets' own files were decoded when they were divided
    if not given.synthetic and not given.real:
        where = " ".join(map(str, options.train))
        raise UserError(f"--train {where}: {_why_nothing(given)}; synthesize from the training side")
    normals = from_samples(tested.index.normals) if options.normals else []
    both = bool(given.synthetic and given.real)
    if not both and options.real_share != 0.5:
        kind = "real defects" if given.real else "pairs"
        asked = options.real_share or "merge"
        raise UserError(f"--real_share {asked} is of real defects beside pairs, and there are {kind} alone; leave it "
                        "out")  # fmt: skip
    share = options.real_share if both else None
    train = merged(given.synthetic, from_samples(given.real), normals, share, options.normals, options.draw)
    test = tested.test + (tested.index.test_normals if options.test_normals else [])
    counts = {
        "real": len(given.real),
        "synthetic": len(given.synthetic),
        "left out": given.left_out,
        "normals": len(normals),
        "test": len(test),
    }
    return Data(train, from_samples(test), tested.split.hash, counts)


def refuse_twice(folders: Sequence[Path]) -> None:
    """UserError for a folder that is given twice: all in it would count double."""
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise UserError(f"--train names {folder} twice, and what is in it would count double; name it once")
        seen.add(folder.resolve())


def tell_weights(weights: Path | None, split: str) -> None:
    """Tell of a segmenter to start from that may have seen what is tested on."""
    if weights is not None and (what := segmenter_besides(weights, split)):
        line = f"--weights {weights} learned from {what}, not from the split {split[:12]}"
        print(f"note: {line}: the figures tell nothing if that holds any of what is tested on", flush=True)


def _tested(options: argparse.Namespace) -> Tested:
    index, split = _divide(options.test, options)
    train, test = split.apply(index)
    if not test:
        raise UserError(f"--split {options.split} leaves no defect of {options.test} to test on; use another split")
    if any(is_output(folder) or folder.resolve() == options.test.resolve() for folder in options.train):
        tell_leak(options.test, train, test)
    if options.normals:
        tell_normals(options.test, index, split)
    files = Copies.of_samples([*test, *(index.test_normals if options.test_normals else ())])
    surfaces = normals_of_test(index, split)
    used = without_tested(index, surfaces)
    return Tested(options.test, used, split, train, test, Copies(s.image for s in surfaces), files)


def _divide(path: Path, options: argparse.Namespace) -> tuple[DatasetIndex, Split]:
    """(the usable part of a dataset, its split)"""
    index = check(open_dataset(path, category=options.category)).usable
    require_defects(index)
    tell_left_out(path, index.left_out, index.doubts)
    return index, make_split(index) if options.split == "third" else Split.load(options.split)


def _add_pairs(given: Gathered, folder: Path, tested: Tested) -> None:
    """Those of a synthesis output."""
    if note := told(folder, [row["index"] for row in each_record(folder, rejected=True)]):
        print(f"note: {note}", flush=True)
    pairs, left_out = from_output(folder, tested.files)
    _refuse_seen(folder, pairs, tested)
    _tell_surfaces(folder, pairs, tested)
    given.synthetic += pairs
    given.left_out += left_out


def _add_defects(given: Gathered, folder: Path, tested: Tested, options: argparse.Namespace) -> None:
    """The training side of a dataset, which may be the one that is tested on."""
    if folder.resolve() == tested.root.resolve():
        given.real += tested.train
        return
    index, split = _divide(folder, options)
    if index.root == tested.index.root and options.split == "third":
        raise UserError(
            f"--train {folder} and --test {tested.root} are of one dataset, {index.root}, and each would be divided by "
            "itself; give the same folder twice, or the --split FILE of the whole"
        )
    own = split.apply(index)[0]
    new = [s for s in own if not tested.files.twin(s.image)]
    given.known += len(own) - len(new)
    given.real += new


def _why_nothing(given: Gathered) -> str:
    if given.known:
        copies = number_of(given.known, "real defect is a copy", "real defects are copies")
        return f"{copies} of what is tested on"
    if given.left_out:
        made = "its only pair was" if given.left_out == 1 else f"all {given.left_out} pairs were"
        return f"{made} made from files that are tested on"
    return "no pair in it"


def _refuse_seen(folder: Path, pairs: Sequence[SegmentationSample], tested: Tested) -> None:
    """Raises `UserError` for pairs of the tested data whose making may have seen what is tested on. Of pairs that stand
    on other data it is told."""
    index, split = tested.index, tested.split.hash
    if not (what := made_besides(folder, split, bool(index.tested_normals))):
        return
    sources = {path for pair in pairs for path in pair.sources}
    line = f"{folder} was made for {what}, not for the split {split[:12]}"
    if not sources or any(path.is_relative_to(index.root.resolve()) for path in sources):
        raise UserError(f"{line}, and may have seen what is tested on; adapt and synthesize with this split (--split)")
    print(f"note: {line}: its figures tell nothing if that holds any of what is tested on", flush=True)


def _tell_surfaces(folder: Path, pairs: Sequence[SegmentationSample], tested: Tested) -> None:
    """Tell of pairs that stand on normal images of parts that are tested on."""
    standing = sum(any(tested.surfaces.twin(path) for path in pair.sources) for pair in pairs)
    if not standing:
        return
    of = f"of {len(pairs)} pairs"
    stand = number_of(standing, f"{of} stands on a normal image", f"{of} stand on normal images")
    others = bool(tested.index.tested_normals)
    remedy = f"make {folder} anew with --split, which takes others" if others else "add normal images of other parts"
    print(f"note: {stand} of parts that are tested on: scores come out too good; {remedy}", flush=True)

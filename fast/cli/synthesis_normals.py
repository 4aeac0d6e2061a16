"""The normal images that pairs are made of: none of a part that a split keeps to test on."""

from dataclasses import replace
from pathlib import Path

from fast.cli.dataset_notes import tell_normals
from fast.data.index import DatasetIndex
from fast.data.layouts import check, open_dataset
from fast.data.normals import normals_of_test, without_tested
from fast.data.split import make_split
from fast.generators.transplant import split_file
from fast.synthesis.options import SynthesisOptions, transplants
from fast.synthesis.sources import NormalSource, find_normals
from ldm.errors import UserError


def chosen_normals(options: SynthesisOptions, say: bool) -> list[NormalSource]:
    """Those of `--data_root`, without those of parts on the test side of `--split`. Raises `UserError`."""
    if not options.data_root:
        raise UserError(f"{options.method} needs normal pictures; give --data_root FOLDER")
    normals = find_normals(options.data_root)
    split = options.split or ("third" if transplants(options) else "all")
    if split == "all":
        return normals
    root = options.defects or options.data_root
    index, given = open_dataset(root), {n.path.resolve() for n in normals}
    if not index.defects and not transplants(options):  # what cuts them out says more
        raise UserError(f"--split {split} is of real defects, and {root} has none; name their dataset with --defects")
    index = replace(index, normals=[s for s in index.normals if s.image.resolve() in given])
    if not index.defects or not _share_parts(index):
        return normals
    held = split_file(split) or make_split(check(replace(index, normals=[], test_normals=[])).usable)
    held.apply(index)  # one of another dataset is told
    tested = normals_of_test(index, held)
    used = {s.image.resolve() for s in without_tested(index, tested).normals}
    left_out = {s.image.resolve() for s in index.normals} - used
    if say:
        tell_normals(Path(root), index, tested)
    return [n for n in normals if n.path.resolve() not in left_out]


def _share_parts(index: DatasetIndex) -> bool:
    """Whether any normal shows a part that has defects, too."""
    parts = {(s.category, s.group) for s in [*index.defects, *index.excluded]}
    return any((s.category, s.group) in parts for s in index.normals)

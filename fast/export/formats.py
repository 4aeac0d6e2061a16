"""All formats that pairs are exported to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fast.export.folders import write_anomalib, write_imagefolder, write_mmseg, write_mvtec
from fast.export.instances import write_coco, write_cvat, write_labelme, write_yolo
from fast.export.pairs import Run, read_run
from fast.export.shards import write_webdataset
from fast.export.write import SHARD, Target
from fast.runtime.folders import new_folder
from ldm.errors import UserError

FORMATS: dict[str, Callable[[Run, Target], None]] = {
    "mvtec": write_mvtec,
    "anomalib": write_anomalib,
    "coco": write_coco,
    "yolo": write_yolo,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "mmseg": write_mmseg,
    "imagefolder": write_imagefolder,
    "webdataset": write_webdataset,
}
WITH_POLYGONS = ("coco", "cvat", "labelme")  # besides masks; YOLO has polygons alone


def export(
    pairs: Path, kind: str, out: Path, polygons: bool = False, shard_size: int | None = None
) -> tuple[Run, list[str]]:
    """Write the pairs of a finished run as a new folder `out` in one of `FORMATS`; whole or not at all.

    Images are copied as they are. `provenance.jsonl` holds for each exported image its line of the run's manifest.
    Returns the run and remarks. Raises `UserError`.
    """
    if polygons and kind not in WITH_POLYGONS:
        raise UserError(f"--polygons is for {', '.join(WITH_POLYGONS)}; {kind} holds "
                        f"{'nothing else' if kind == 'yolo' else 'none'}: leave it out")  # fmt: skip
    if shard_size is not None and kind != "webdataset":
        raise UserError(f"--shard_size is for webdataset, and {kind} has no shards; leave it out")
    if shard_size is not None and shard_size < 1:
        raise UserError(f"--shard_size {shard_size} must be at least 1")
    around = {out.resolve(), *out.resolve().parents}
    if pairs.resolve() in around:
        raise UserError(f"--out {out} lies in {pairs}, whose pairs are exported; choose a folder outside")
    run = read_run(pairs)
    for normals in sorted({path.parent for _, path in run.normals()}):
        if normals.resolve() in around:
            raise UserError(f"--out {out} lies in {normals}, among the normal images that the pairs were made from; "
                            "choose a folder outside")  # fmt: skip
    with new_folder(out, "--out") as folder:
        target = Target(folder, polygons, SHARD if shard_size is None else shard_size)
        FORMATS[kind](run, target)
        target.finish()
    return run, target.notes

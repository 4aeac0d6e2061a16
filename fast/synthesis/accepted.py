"""The accepted pairs of a reviewed folder as a folder of their own."""

from __future__ import annotations

import json
from pathlib import Path

from fast.data.packed import copy_file, is_packed
from fast.data.whole import check_made
from fast.review.decisions import Review
from fast.runtime.folders import new_folder
from fast.synthesis.output import PICTURES
from fast.synthesis.records import ASKED, each_record, shard_files
from ldm.errors import UserError

NOTES = ("settings.json", "scores.json")  # what decided the pairs: their split is asked for before they are trained on


def export_accepted(folder: Path, out: Path, flag: str = "--export") -> int:
    """Copy what was accepted of `folder` into the new folder `out`, with its lines of the manifest: what
    `generate_with_mask.py` writes, as every program takes it that takes pairs; of shards without triptychs, which they
    do not hold. Returns how many pairs.

    Whole or not at all. Raises `UserError` where nothing is accepted, a picture is gone, or `out` is there or lies in
    `folder`.
    """
    if folder.resolve() in (inside := Path(out).resolve(), *inside.parents):
        raise UserError(f"{flag} {out} lies in {folder}, whose pairs it is to hold; choose a folder outside")
    found = Review(folder).decisions()
    rows = [r for r in each_record(folder, counterfeits=True) if r["index"] in found]
    pictures = ("image", "mask") if shard_files(folder) else PICTURES
    if not rows:
        raise UserError(f"{folder}: no pair is accepted yet; accept some first")
    for row in rows:
        if not {"image", "mask"} <= row.keys():
            raise UserError(
                f"{folder}: the record of pair {row['index']} names no image or no mask; restore its manifest"
            )
    files = [folder / row[kind] for row in rows for kind in ("image", "mask")]
    check_made(path for path in files if is_packed(path) or path.is_file())
    with new_folder(out, flag) as target:
        for row in rows:
            for kind in (*pictures, ASKED) if ASKED in row else pictures:
                place = f"{kind}/{row['index']:06d}.png"
                source = folder / (place if kind == "triptych" else row[kind])
                (target / kind).mkdir(exist_ok=True)
                try:
                    copy_file(source, target / place)
                except FileNotFoundError:
                    raise UserError(f"{source}: the manifest names it, and it is not there; restore it") from None
                if kind in row:
                    row[kind] = place
        for name in NOTES:
            if (folder / name).is_file():
                copy_file(folder / name, target / name)
        lines = "".join(json.dumps({k: v for k, v in row.items() if k != "shard"}) + "\n" for row in rows)
        (target / "manifest.jsonl").write_text(lines, encoding="utf-8")
    return len(rows)

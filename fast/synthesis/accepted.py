"""The accepted pairs of a reviewed folder as a folder of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fast.review.decisions import Review
from fast.runtime.folders import new_folder
from fast.synthesis.output import ASKED, PICTURES, read_records
from ldm.errors import UserError

NOTES = ("settings.json", "scores.json")  # what decided the pairs: their split is asked for before they are trained on


def export_accepted(folder: Path, out: Path, flag: str = "--export") -> int:
    """Copy what was accepted of `folder` into the new folder `out`, with its lines of the manifest: what
    `generate_with_mask.py` writes, as every program takes it that takes pairs. Returns how many pairs.

    Whole or not at all. Raises `UserError` where nothing is accepted, a picture is gone, or `out` is there or lies in
    `folder`.
    """
    if folder.resolve() in (inside := Path(out).resolve(), *inside.parents):
        raise UserError(f"{flag} {out} lies in {folder}, whose pairs it is to hold; choose a folder outside")
    found = Review(folder).decisions()
    rows = [r for r in read_records(folder, counterfeits=True) if r["index"] in found]
    if not rows:
        raise UserError(f"{folder}: no pair is accepted yet; accept some first")
    with new_folder(out, flag) as target:
        for row in rows:
            for kind in (*PICTURES, ASKED) if ASKED in row else PICTURES:
                place = Path(kind) / f"{row['index']:06d}.png"
                (target / kind).mkdir(exist_ok=True)
                try:
                    shutil.copyfile(folder / place, target / place)
                except FileNotFoundError:
                    raise UserError(
                        f"{folder / place}: the manifest names it, and it is not there; restore it"
                    ) from None
        for name in NOTES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (target / "manifest.jsonl").write_text(lines, encoding="utf-8")
    return len(rows)

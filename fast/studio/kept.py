"""Pairs of the workbench that somebody keeps: an output folder like any other."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fast.data.images import resize_mask
from fast.studio.workbench import WishedPair
from fast.synthesis.options import FIRST_COUNTERFEIT
from fast.synthesis.output import ASKED, OutputFolder
from fast.synthesis.pair import PairImages
from fast.synthesis.triptych import panel

SETTINGS = {"made_by": "fast-studio"}


def keep(folder: Path, made: WishedPair, normal: Path) -> int:
    """Store a pair in the folder of kept ones, made if it is not there. Returns its number. Raises `UserError`."""
    with closing(OutputFolder(folder, SETTINGS)) as output:
        output.gather()
        index = max((r["index"] for r in output.rows() if r["index"] < FIRST_COUNTERFEIT), default=-1) + 1
        asked = made.filled
        if asked is None and made.wish.mask is not None:
            asked = resize_mask(made.wish.mask, made.mask.shape)
        record = _record(index, made, normal)
        output.write(record, PairImages(panel(made.normal), made.image, made.mask, asked=asked))
        output.gather()
    return index


def _record(index: int, made: WishedPair, normal: Path) -> dict[str, Any]:
    height, width = made.mask.shape
    wish = {k: v for k, v in asdict(made.wish).items() if k not in ("kind", "normal", "mask")}
    return {
        "index": index,
        "image": f"image/{index:06d}.png",
        "mask": f"mask/{index:06d}.png",
        "normal_source": str(normal),
        "mask_source": None,
        "prompt": "",
        "type": made.wish.kind,
        "painted_mask": made.wish.mask is not None,
        **({} if made.wish.mask is None and made.filled is None else {ASKED: f"{ASKED}/{index:06d}.png"}),
        **made.origin,
        **wish,
        "settings": made.settings,
        "size": made.settings.get("size"),
        "windows": [(0, 0, height, width)],
        "defect_pixels": int(made.mask.sum()),
        "seconds": round(made.seconds, 4),
    }

"""What the shipped base is meant to reach, before and after, in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.base_scores.bench import Figures
from benchmarks.base_scores.segmenters import THIN
from benchmarks.base_scores.tables import ScoreTable, cell, percent
from ldm.errors import UserError

# name: (what is measured, aim, digits or None for per cent)
AIMS: dict[str, tuple[str, str, int | None]] = {
    "named": ("defects whose type a classifier names rightly, of true ones", "85 % or more", None),
    "segmenter": ("mIoU of a segmenter trained on pairs, of one trained on true ones", "85 % or more", None),
    **{f"segmenter_{kind}": (f"the same, IoU of {kind}", "70 % or more", None) for kind in THIN},
    "invisible": ("pairs in which nothing can be seen", "2 % or less", None),
    "set_distance": ("set distance to true defects", "0.7 or less", 2),
}


def aims_of(content: dict[str, Any]) -> dict[str, Figures]:
    """The figures of the aims in a score file: of each {true, floor, value}, None where it was not measured."""
    found: dict[str, Figures] = {}
    if words := content.get("words", {}).get("figures"):
        true, floor = words["references"][0], words["references"][-1]
        best = min(words["made"], key=lambda row: abs(float(row["name"].split()[-1]) - words["default"]))
        scale = best["name"].split()[-1]
        found["named"] = {
            "true": 1.0,
            "floor": floor["ratio"],
            "value": best["ratio"],
            "note": f"accuracy {percent(best['accuracy'])} of {percent(true['accuracy'])}, scale {scale}",
        }
    if trained := content.get("segmenter", {}).get("figures"):
        found["segmenter"] = {"true": 1.0, "floor": None, "value": trained["ratio"]}
        for kind in THIN:
            if kind in trained["ratio_types"]:
                found[f"segmenter_{kind}"] = {"true": 1.0, "floor": None, "value": trained["ratio_types"][kind]}
    if seen := content.get("visible", {}).get("figures"):
        for name, key in (("invisible", "below_noise"), ("set_distance", "set_distance")):
            true = seen["others" if key == "set_distance" else "true"][key]
            found[name] = {"true": true, "floor": seen["nothing"][key], "value": seen["made"][key]}
    return found


def read_before(path: Path) -> dict[str, Figures]:
    """The aims in the score file of an earlier base. Raises `UserError`."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["aims"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--before {path}: no score file with aims; make one with evaluate_base.py --base OLD --out"
        ) from None


def aims_tables(after: dict[str, Figures], before: dict[str, Figures]) -> list[ScoreTable]:
    def shown(figures: Figures | None, key: str, digits: int | None) -> str:
        value = None if figures is None else figures[key]
        return percent(value) if digits is None else cell(value, digits)

    table = ScoreTable("", ["", "aim", "true", "floor", "before", "after"])
    for name, (what, aim, digits) in AIMS.items():
        now, then = after.get(name), before.get(name)
        ends = [shown(now or then, key, digits) for key in ("true", "floor")]
        table.rows.append([what, aim, *ends, shown(then, "value", digits), shown(now, "value", digits)])
    return [table]

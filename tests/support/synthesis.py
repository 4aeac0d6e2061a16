"""What the synthesis tests share: the command line, and a set as plain values to compare."""

import json
from pathlib import Path
from typing import Any

import generate_with_mask
from fast.runtime.command import run_cli
from fast.synthesis.options import Recipe


def plain_recipe(*values: Any, **options: Any) -> Recipe:
    """A recipe for windows as the networks make them: nothing is given back, and no border fades in."""
    return Recipe(*values, **{"detail": False, "blend": 0, **options})


def arguments(root: Path, artifact: Path, out: Path, *more: str) -> list[str]:
    """Wood's normals and masks, three steps, unless `more` says otherwise (a later flag wins)."""
    wood = root / "wood"
    return [
        *("--data_root", str(wood / "train" / "good"), "--mask_path", str(wood / "ground_truth")),
        *("--pt_path", str(artifact), "--sample_name", str(out), "--anomaly_name", "wood", "--device", "cpu"),
        *("--steps", "3", "--count", "5", *more),
    ]


def synthesize(argv: list[str]) -> int:
    return run_cli(generate_with_mask.main, argv)


def manifest(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def whole_set(out: Path) -> dict[str, Any]:
    """Every file of a finished set by name; the manifest without the times, which are never the same."""
    files: dict[str, Any] = {
        str(p.relative_to(out)): p.read_bytes()
        for kind in ("image", "mask", "triptych")
        for p in (out / kind).iterdir()
    }
    files["manifest"] = [{k: v for k, v in row.items() if k != "seconds"} for row in manifest(out)]
    return files


def whole_shards(out: Path) -> dict[str, Any]:
    """Every file of a finished set of shards by name; records and table without the times."""
    import pyarrow.parquet as parquet

    files: dict[str, Any] = {}
    for path in out.iterdir():
        if path.suffix == ".jsonl":
            files[path.name] = [_timeless(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".parquet":
            table = parquet.read_table(path).drop_columns("seconds").to_pylist()
            groups = parquet.ParquetFile(path).num_row_groups
            files[path.name] = (groups, [{**row, "record": _timeless(row["record"])} for row in table])
        else:
            files[path.name] = path.read_bytes()
    return files


def _timeless(line: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(line).items() if key != "seconds"}


def leftovers(out: Path) -> list[str]:
    return [str(p.relative_to(out)) for p in out.rglob("*") if p.name.endswith(".part") or ".records" in p.parts]

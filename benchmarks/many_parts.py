"""Weights of many parts on one base by one command, against a command for each: processor seconds and memory.

    python -m benchmarks.many_parts --folder /tmp/parts

Writes random low-rank adapters (rank 4) on the shipped base, one for each part, and fills a small mask with 1, 5 and 20
of them by `generate_with_mask.py --pt_path a,b,...`, a pair each. Prints a table; `-- --steps 1` makes the pairs cheap.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from benchmarks.many_pairs import draw_normals, watch
from fast.data.images import write_mask
from fast.runtime.command import run_cli
from fast.runtime.options import Parser
from fast.runtime.tables import plain


def make_parts(folder: Path, count: int) -> list[Path]:
    """Runs with adapters that do something, on the shipped base."""
    import torch

    from fast.artifact import find_artifact, load_model
    from fast.latent.lora import Adapters
    from ldm.checkpoint import read_metadata, save_safetensors

    artifact = find_artifact("mini")
    model, meta = load_model(artifact), read_metadata(artifact.path)
    config = json.loads(meta["config"])
    config["model"]["params"]["lora"] = {"rank": 4}
    meta = {**meta, "config": json.dumps(config), "base": "mini/base.safetensors"}
    made = []
    for number in range(count):
        torch.manual_seed(number)
        model.lora = Adapters(model.model.diffusion_model, rank=4)
        for adapter in model.lora.by_layer.values():
            torch.nn.init.normal_(adapter.get_parameter("up"), std=0.02)
        made.append(folder / f"part{number:02d}")
        save_safetensors(model.artifact()[1], made[-1] / f"fast-{number + 1}.safetensors", meta)
    return made


def measure(args: argparse.Namespace) -> list[tuple[str, ...]]:
    folder = args.folder.resolve()
    draw_normals(folder / "normals")
    mask = np.zeros((64, 64), np.uint8)
    mask[24:40, 24:40] = 1
    write_mask(folder / "masks" / "scratch" / "0.png", mask)
    parts = make_parts(folder / "runs", max(args.parts))
    rows: list[tuple[str, ...]] = []
    first = None
    for count in args.parts:
        out = folder / f"out{count}"
        found = watch([
            sys.executable, "generate_with_mask.py", "--data_root", str(folder / "normals"), "--mask_path",
            str(folder / "masks"), "--actual_resume", "mini", "--pt_path", ",".join(map(str, parts[:count])),
            "--sample_name", str(out), "--count", "1", "--device", "cpu", *args.more,
        ])  # fmt: skip
        lines = [json.loads(p.read_text()) for p in sorted(out.glob("**/manifest.jsonl"))]
        made = sum(line["seconds"] for line in lines)
        cost = "" if first is None else f"{(found.processor - first.processor) / (count - min(args.parts)):.2f}"
        first = first or found
        row = (str(count), f"{found.processor:.1f}", cost, f"{made / len(lines):.2f}", f"{found.memory / 1e6:.0f}")
        rows.append((*row, f"{count * first.processor:.1f}"))
        print(rows[-1], flush=True)
    return rows


def main(argv: list[str]) -> None:
    p = Parser(prog="python -m benchmarks.many_parts", description=__doc__.split("\n")[0])
    p.add_argument("--folder", type=Path, required=True, help="a new folder for weights and pairs; it stays")
    p.add_argument("--parts", type=int, nargs="+", default=[1, 5, 20], help="numbers of parts, the least first")
    p.add_argument("more", nargs="*", help="more for generate_with_mask.py, behind --")
    args = p.parse_args(argv)
    rows = measure(args)
    print(describe("cpu"))
    heads = ["parts", "processor s", "s a part more, with its pair", "wall s of a pair", "MB at most"]
    print(plain([*heads, "processor s of so many commands"], rows))


if __name__ == "__main__":
    sys.exit(run_cli(main))

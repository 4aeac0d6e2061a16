"""What a pair costs one core, part by part: files in, the first stage, the U-Net, files out.

python -m benchmarks.pair_parts --images parts/wood/train/good --sides 256 1024 --pt_path mini

Medians of seconds of the processor (`time.thread_time`), not of the clock, so that other work does not count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from fast.artifact import find_artifact
from fast.data.images import list_images, read_image, read_mask, resize_image, write_image, write_mask
from fast.generators import create
from fast.runtime.command import run_cli
from fast.runtime.options import Parser
from fast.runtime.tables import markdown
from fast.synthesis.denoiser import WindowDenoiser
from fast.synthesis.output import OutputFolder
from fast.synthesis.pair import PairImages
from ldm.errors import UserError


def median(work: Callable[[int], Any], repeat: int) -> float:
    """Processor seconds of `work(i)`, i = 0..repeat-1, the first left out."""
    times = []
    for i in range(repeat + 1):
        start = time.thread_time()
        work(i)
        times.append(time.thread_time() - start)
    return float(np.median(times[1:]))


def files(images: list[np.ndarray], side: int, folder: Path, repeat: int) -> dict[str, float]:
    """Seconds for the files of a pair of `side` pixels, and their bytes."""
    shown = [resize_image(image, side) for image in images]
    mask = np.zeros((side, side), np.uint8)
    mask[side // 2 : side // 2 + 60, side // 3 : side // 3 + 60] = 1
    for i, image in enumerate(shown):
        write_image(folder / "normal" / f"{i}.png", image)
        write_mask(folder / "given" / f"{i}.png", mask)
    output = OutputFolder(folder / "out", {"side": side})

    def write(i: int) -> None:
        image = shown[i % len(shown)]
        output.write({"index": i, "normal_source": None}, PairImages(image, image, mask))

    found = {
        "read": median(lambda i: read_image(folder / "normal" / f"{i % len(shown)}.png"), repeat)
        + median(lambda i: read_mask(folder / "given" / f"{i % len(shown)}.png"), repeat),
        "write": median(write, repeat),
    }
    output.close()
    sizes = [p.stat().st_size for p in (folder / "out").rglob("*.png")]
    return {
        **found,
        "bytes": sum(sizes) / (repeat + 1),
        "read bytes": _bytes(folder / "normal") + _bytes(folder / "given"),
    }


def _bytes(folder: Path) -> float:
    return float(np.mean([p.stat().st_size for p in folder.iterdir()]))


def networks(weights: str, precision: str, side: int, repeat: int) -> dict[str, float]:
    """Seconds of the encoder, of one evaluation of the U-Net without guidance, and of the decoder for one window."""
    torch.set_num_threads(1)
    artifact = find_artifact(weights, None, "fast")
    made: Any = create(
        "fast", weights=artifact.path, device="cpu", types=["/scratch"], precision=precision, min_window=side
    )
    prepared, recipe = made.synthesizer.engine.prepared, made.synthesizer.recipe
    image = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        z = prepared.encode(image)
        pixels = torch.zeros(1, 1, side, side)
        _, context = prepared.context([0], pixels)
        shown = prepared.model.detailed_mask(pixels, (z.shape[-2], z.shape[-1]))
        denoise = WindowDenoiser(prepared, recipe, context, prepared.columns[[0]], shown, known=z, scale=1)
        t = torch.full((1,), 500)
        return {
            "encode": median(lambda _: prepared.encode(image), repeat),
            "evaluate": median(lambda _: denoise(z, t), repeat),
            "decode": median(lambda _: prepared.decode(z), repeat),
        }


def parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(prog="benchmarks/pair_parts.py", allow_abbrev=False, description="What a pair costs, part by part.")
    p.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="normal images")
    p.add_argument("--sides", type=int, nargs="+", default=[256, 1024, 2048], help="pixels (default 256 1024 2048)")
    p.add_argument("--pt_path", default="mini", help="weights of fast (default mini)")
    p.add_argument("--precision", default="auto", help="default auto")
    p.add_argument("--repeat", type=int, default=15, help="default 15")
    # fmt: on
    return p


def main(argv: list[str]) -> None:
    o = parser().parse_args(argv)
    images = [read_image(path) for path in list_images(o.images)[:4]]
    if not images:
        raise UserError(f"--images {o.images} holds no image; give a folder of normal images")
    rows = []
    for side in o.sides:
        with TemporaryDirectory() as folder:
            found = files(images, side, Path(folder), o.repeat)
        rows.append([
            f"files, {side} x {side}", f"{found['read'] * 1e3:.1f}", f"{found['write'] * 1e3:.1f}",
            f"{found['read bytes'] / 1e6:.2f}", f"{found['bytes'] / 1e6:.2f}",
        ])  # fmt: skip
    print(markdown(["", "ms to read", "ms to write", "MB read", "MB written"], rows))
    print()
    found = networks(o.pt_path, o.precision, 256, o.repeat)
    print(markdown(["", "ms"], [[f"{name}, a window of 256 x 256", f"{s * 1e3:.1f}"] for name, s in found.items()]))


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

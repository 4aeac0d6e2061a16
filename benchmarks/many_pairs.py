"""A large set of tiny pairs: the rate and the memory at its beginning and at its end, and what opening it costs.

    python -m benchmarks.many_pairs --count 100000 --folder /tmp/many

Makes the pairs with `generate_with_mask.py` as any user would, 64 pixels a side, starts the same command again once all
are there, and once more with a hundred pairs taken away (folders) or a shard (`--shards`); then opens the set as the
segmenter and the exporter do. Each step runs in a process of its own. Prints a table.
Processor seconds say more than seconds on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import psutil

from fast.data.images import write_image
from fast.runtime.command import run_cli
from fast.runtime.options import Parser
from fast.runtime.tables import plain

ROOT = Path(__file__).resolve().parents[1]
SIDE, NORMALS, POLL = 64, 20, 0.5  # pixels; files; seconds between two looks at the process
OPENINGS = {
    "segmenter (from_output)": "from fast.segmentation.data import from_output; print(len(from_output({folder!r})[0]))",
    "exporter (read_run)": "from pathlib import Path; from fast.export.pairs import read_run; "
    "print(len(read_run(Path({folder!r})).pairs))",
    "importing alone": "import fast.segmentation.data, fast.export.pairs; print('-')",
}


@dataclass
class Watched:
    """What a process did: seconds in all and of the processor, most bytes in memory, and (processor seconds, pairs,
    bytes in memory) at each look."""

    seconds: float = 0.0
    processor: float = 0.0
    memory: int = 0
    looks: list[tuple[float, int, int]] = field(default_factory=list)
    said: str = ""

    def part(self, first: float, last: float) -> tuple[float, float]:
        """(pairs a processor second, most megabytes) while the pairs grew from `first` to `last` of the most, as
        shares."""
        most = max((pairs for _, pairs, _ in self.looks), default=0)
        seen = [look for look in self.looks if look[1] and first * most <= look[1] <= last * most]
        if len(seen) < 2:
            return float("nan"), float("nan")
        (begin, few, _), (end, many, _) = seen[0], seen[-1]
        return (many - few) / max(end - begin, 1e-9), max(memory for *_, memory in seen) / 1e6

    def row(self, name: str, pairs: int | None = None) -> tuple[str, ...]:
        rate = "" if pairs is None else f"{pairs / self.processor:.0f}"
        return name, f"{self.seconds:.1f}", f"{self.processor:.1f}", f"{self.memory / 1e6:.0f}", rate


def watch(command: list[str], pairs: Path | None = None) -> Watched:
    """Run a command and look at it now and then: pairs are the files in `pairs`. Raises `CalledProcessError`."""
    found, start = Watched(), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, env=environment)
        own = psutil.Process(process.pid)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            with suppress(psutil.Error, OSError):
                times, memory = own.cpu_times(), own.memory_info().rss
                found.memory = max(found.memory, peak(process.pid))
                count = sum(1 for _ in os.scandir(pairs)) if pairs is not None and pairs.is_dir() else 0
                found.looks.append((times.user + times.system, count, memory))
            time.sleep(POLL if pairs is not None else POLL / 10)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        found.said = said.read().decode().strip()
    found.seconds, found.processor = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, found.said)
    return found


def peak(process: int) -> int:
    """Most bytes in memory so far. Not `ru_maxrss`, which counts what the parent had before the program began."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def record_of(number: int, folder: Path) -> dict[str, Any]:
    """As long as a real record."""
    common = {name: [0.5] * 10 for name in ("a", "b", "c", "d", "e", "f", "g", "h")}
    return {
        "index": number, "image": f"image/{number:06d}.png", "mask": f"mask/{number:06d}.png",
        "normal_source": str(folder / "normals" / f"{number % NORMALS:03d}.png"), "mask_source": None,
        "type": "part/defect", "pair_seed": number, **common, "defect_pixels": 400, "seconds": 0.0,
    }  # fmt: skip


def fill_directly(folder: Path, count: int) -> None:
    """Write pairs through the output folder alone, as the command does, with pictures that cost nothing to make."""
    from fast.runtime.workers import overlapped
    from fast.synthesis.output import OutputFolder

    image = np.random.default_rng(0).integers(90, 160, (SIDE, SIDE, 3), np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:40, 20:40] = 1

    def write(number: int) -> None:
        output.write(record_of(number, folder), image, image, mask)

    with closing(OutputFolder(folder / "out", {"seed": 0})) as output:
        missing = sorted(set(range(count)) - output.done())
        for _ in overlapped(write, missing, workers=2, ahead=4):
            pass
        print(output.gather(), len(output.brief()))


def fill_with_links(folder: Path, count: int) -> None:
    """What a run leaves that was killed after `count` pairs, nine tenths of them gathered by an earlier stop. The
    pictures of all but the first hundred pairs are links to those."""
    out = folder / "out"
    fill_directly(folder, 100)
    for number in range(100, count):
        for kind in ("image", "mask", "triptych"):
            os.link(out / kind / f"{number % 100:06d}.png", out / kind / f"{number:06d}.png")
    gathered = count * 9 // 10
    with open(out / "manifest.jsonl", "w") as manifest:
        manifest.writelines(json.dumps(record_of(number, folder)) + "\n" for number in range(gathered))
    (out / ".records").mkdir()
    for number in range(gathered, count):
        (out / ".records" / f"{number:06d}.json").write_text(json.dumps(record_of(number, folder)))
    print(count)


def draw_normals(folder: Path) -> None:
    """Small surfaces: smooth shading and grain, each of its own."""
    for number in range(NORMALS):
        rng = np.random.default_rng(number)
        ramp = np.linspace(90, 160, SIDE)[:, None, None] + rng.normal(0, 6, (SIDE, SIDE, 3))
        write_image(folder / f"{number:03d}.png", ramp.clip(0, 255).astype(np.uint8))


def take_away(out: Path, shards: int | None, count: int) -> str:
    """Remove a little of what is there. Returns what."""
    if shards:
        shard = sorted(out.glob("*.tar"))[0]
        shard.unlink()
        return f"a shard of {min(shards, count)} is gone"
    for number in range(0, count, max(1, count // 100)):
        (out / "image" / f"{number:06d}.png").unlink()
    return "100 images are gone"


def measure(args: argparse.Namespace) -> list[tuple[str, ...]]:
    folder = args.folder.resolve()
    normals, out = folder / "normals", folder / "out"
    draw_normals(normals)
    command = [
        sys.executable, "generate_with_mask.py", "--method", args.method, "--data_root", str(normals),
        "--sample_name", str(out), "--count", str(args.count), *args.more,
        *(["--shards", str(args.shards)] if args.shards else []),
    ]  # fmt: skip
    first = command
    if args.direct or args.linked:
        code = "from pathlib import Path; import benchmarks.many_pairs as b; b.{}(Path({!r}), {})"
        command, first = (
            [sys.executable, "-c", code.format(name, str(folder), args.count)]
            for name in ("fill_directly", "fill_with_links" if args.linked else "fill_directly")
        )
    filling = watch(first, None if args.shards else out / "mask")
    rows = [filling.row("all pairs made", args.count)]
    for name, start, end in (("first tenth", 0.0, 0.1), ("last tenth", 0.9, 1.0)) if not args.shards else ():
        rate, memory = filling.part(start, end)
        rows.append((f"  {name}", "", "", f"{memory:.0f}", f"{rate:.0f}"))
    rows.append(watch(command).row("started again, all there"))
    what = take_away(out, args.shards, args.count)
    rows.append(watch(command).row(f"started again, {what}"))
    for name, code in OPENINGS.items() if not args.shards else ():
        opened = watch([sys.executable, "-c", code.format(folder=str(out))])
        rows.append(opened.row(f"{name}: {opened.said}"))
    return rows


def main(argv: list[str]) -> None:
    p = Parser(prog="python -m benchmarks.many_pairs", description=__doc__.split("\n")[0])
    p.add_argument("--count", type=int, default=100_000, help="pairs (default: %(default)s)")
    p.add_argument("--method", default="cutpaste", help="one that needs no weights (default: %(default)s)")
    p.add_argument("--direct", action="store_true", help="write through the output folder alone: no method's time")
    p.add_argument(
        "--linked", action="store_true", help="do not write the files at all but link them: for opening alone"
    )
    p.add_argument("--shards", type=int, help="write shards of so many pairs instead of folders")
    p.add_argument("--folder", type=Path, required=True, help="a new folder for normal images and pairs; it stays")
    p.add_argument("more", nargs="*", help="more for generate_with_mask.py, behind --")
    args = p.parse_args(argv)
    rows = measure(args)
    from benchmarks.machine import describe  # torch, which the processes that are looked at do without

    print(describe("cpu"))
    print(plain(["step", "seconds", "of the processor", "MB at most", "pairs a processor second"], rows))


if __name__ == "__main__":
    sys.exit(run_cli(main))

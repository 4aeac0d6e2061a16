"""A large set of tiny pairs: the rate and the memory at its beginning and at its end, and what opening it costs.

    python -m benchmarks.many_pairs --count 100000 --folder /tmp/many
    python -m benchmarks.many_pairs --count 100000 --folder /tmp/many --shards 1000
    python -m benchmarks.many_pairs --count 100000 --folder /tmp/many --linked

Makes the pairs with `generate_with_mask.py` as any user would, 64 pixels a side, starts the same command again once all
are there, and once more with a hundred pairs taken away (folders) or a shard (`--shards`); then opens the set as the
segmenter, the exporter and the studio do (`benchmarks.pair_openings`). `--minutes` interrupts the making then, as
Ctrl-C does, and goes on with the pairs that there are. `--linked` makes a hundred pairs, and the others are copies of
their records and links to their files: for opening alone. Each step runs in a process of its own. Prints a table.
Processor seconds say more than seconds on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import psutil

from benchmarks.pair_openings import OPENINGS, SIDE
from fast.data.images import write_image
from fast.data.packed import read_bytes
from fast.runtime.command import run_cli
from fast.runtime.options import Parser
from fast.runtime.tables import plain
from fast.synthesis.records import read_lines
from fast.synthesis.shard_form import add_entry, shards_of

ROOT = Path(__file__).resolve().parents[1]
NORMALS, REAL = 20, 100  # files; pairs that the others are links to
POLL, SELDOM = 0.25, 5.0  # seconds between two looks at a process, and where the pairs are counted too


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


def watch(command: list[str], pairs: Callable[[], int] | None = None, minutes: float | None = None) -> Watched:
    """Run a command and look at it now and then; `pairs` counts what it has made. Interrupt it after so many minutes.
    Raises `CalledProcessError`."""
    found, start, ended = Watched(), time.perf_counter(), False
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
                found.looks.append((times.user + times.system, pairs() if pairs else 0, memory))
            if minutes and not ended and time.perf_counter() - start > 60 * minutes:
                process.send_signal(signal.SIGINT)
                ended = True
            time.sleep(SELDOM if pairs else POLL)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        found.said = said.read().decode().strip()
    found.seconds, found.processor = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    if process.returncode and not ended:
        raise subprocess.CalledProcessError(process.returncode, command, found.said)
    return found


def peak(process: int) -> int:
    """Most bytes in memory so far. Not `ru_maxrss`, which counts what the parent had before the program began."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def counted(out: Path, shards: int | None) -> int:
    """Pairs that are there; in shards those of whole ones."""
    if not out.is_dir():
        return 0
    if shards:
        return sum(1 + int(p.stem[-6:]) - int(p.stem[6:12]) for p in out.glob("pairs-*.jsonl"))
    return sum(1 for _ in os.scandir(out / "mask")) if (out / "mask").is_dir() else 0


def fill_directly(folder: Path, count: int) -> None:
    """Write pairs through the output folder alone, as the command does, with pictures that cost nothing to make."""
    from fast.runtime.workers import overlapped
    from fast.synthesis.output import OutputFolder
    from fast.synthesis.pair import PairImages

    image = np.random.default_rng(0).integers(90, 160, (SIDE, SIDE, 3), np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:40, 20:40] = 1
    images = PairImages(image, image, mask)

    def write(number: int) -> None:
        normal = str(folder / "normals" / f"{number % NORMALS:03d}.png")
        output.write({"index": number, "image": f"image/{number:06d}.png", "mask": f"mask/{number:06d}.png",
                      "normal_source": normal, "mask_source": None, "type": "/dent"}, images)  # fmt: skip

    with closing(OutputFolder(folder / "out", {"seed": 0})) as output:
        missing = sorted(set(range(count)) - output.done())
        for _ in overlapped(write, missing, workers=2, ahead=4):
            pass
        print(output.gather(), len(output.brief()))


def multiply(out: Path, count: int, shards: int | None) -> None:
    """Let a finished set of a few pairs be one of `count`, the further ones called as if they had been made."""
    rows = [row for _, row in read_lines(out)]
    if shards:
        held = [(json.loads(read_bytes(out / row["shard"] / f"{i:06d}.json")), read_bytes(out / row["image"]),
                 read_bytes(out / row["mask"])) for i, row in enumerate(rows)]  # fmt: skip
        for path in [*out.glob("pairs-*"), *out.glob("*.parquet")]:
            path.unlink()
        for shard in shards_of([range(count)], shards):
            lines = []
            with tarfile.open(out / f"{shard.name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
                for i in shard.numbers:
                    about, image, mask = held[i % len(rows)]
                    names = {"image": f"{i:06d}.image.png", "mask": f"{i:06d}.mask.png", "shard": f"{shard.name}.tar"}
                    lines.append(json.dumps({**rows[i % len(rows)], "index": i, **names}) + "\n")
                    about["provenance"] |= {"index": i, **names}
                    add_entry(tar, names["image"], image)
                    add_entry(tar, names["mask"], mask)
                    add_entry(tar, f"{i:06d}.json", json.dumps(about).encode())
            (out / f"{shard.name}.jsonl").write_text("".join(lines))
        return
    with open(out / "manifest.jsonl", "a") as manifest:
        for i in range(len(rows), count):
            row = rows[i % len(rows)]
            for kind in ("image", "mask", "triptych"):
                os.link(out / kind / f"{row['index']:06d}.png", out / kind / f"{i:06d}.png")
            named = {"index": i, "image": f"image/{i:06d}.png", "mask": f"mask/{i:06d}.png"}
            manifest.write(json.dumps({**row, **named}) + "\n")


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


def command(args: argparse.Namespace, count: int) -> list[str]:
    normals, out = args.folder / "normals", args.folder / "out"
    if args.direct:
        code = "from pathlib import Path; from benchmarks.many_pairs import fill_directly as f; f(Path({!r}), {})"
        return [sys.executable, "-c", code.format(str(args.folder), count)]
    line = [sys.executable, "generate_with_mask.py", "--method", args.method, "--data_root", str(normals)]
    shards = ["--shards", str(args.shards)] if args.shards else []
    return [*line, "--sample_name", str(out), "--count", str(count), *shards, *args.more]


def made(args: argparse.Namespace, out: Path) -> tuple[list[tuple[str, ...]], int]:
    """(rows of the table, number of pairs)"""
    if args.linked:
        watch(command(args, REAL))
        multiply(out, args.count, args.shards)
        return [], args.count
    filling = watch(command(args, args.count), lambda: counted(out, args.shards), args.minutes)
    count = counted(out, args.shards)
    whole = count == args.count
    rows = [filling.row("all pairs made" if whole else f"{count} pairs made, then interrupted", count)]
    for name, start, end in (("first tenth", 0.0, 0.1), ("last tenth", 0.9, 1.0)):
        rate, memory = filling.part(start, end)
        rows.append((f"  {name}", "", "", f"{memory:.0f}", f"{rate:.0f}"))
    if not whole:
        rows.append(watch(command(args, count)).row("started again, what was begun is made"))
    return rows, count


def measure(args: argparse.Namespace) -> list[tuple[str, ...]]:
    out = args.folder / "out"
    draw_normals(args.folder / "normals")
    rows, count = made(args, out)
    rows.append(watch(command(args, count)).row("started again, all there"))
    what = take_away(out, args.shards, count)
    rows.append(watch(command(args, count)).row(f"started again, {what}"))
    for name in OPENINGS if not args.direct else ():
        opened = watch([sys.executable, "-m", "benchmarks.pair_openings", name, str(out)])
        rows.append(opened.row(f"{name}: {opened.said.splitlines()[-1]}"))
    return rows


def main(argv: list[str]) -> None:
    p = Parser(prog="python -m benchmarks.many_pairs", description=__doc__.split("\n")[0])
    p.add_argument("--count", type=int, default=100_000, help="pairs (default: %(default)s)")
    p.add_argument("--method", default="procedural", help="one that needs no weights (default: %(default)s)")
    p.add_argument("--minutes", type=float, help="interrupt the making after so many")
    p.add_argument("--direct", action="store_true", help="write through the output folder alone: no method's time")
    p.add_argument("--linked", action="store_true", help=f"make {REAL} pairs and copy them: for opening alone")
    p.add_argument("--shards", type=int, help="write shards of so many pairs instead of folders")
    p.add_argument("--folder", type=Path, required=True, help="a new folder for normal images and pairs; it stays")
    p.add_argument("more", nargs="*", help="more for generate_with_mask.py, behind --")
    args = p.parse_args(argv)
    args.folder = args.folder.resolve()
    rows = measure(args)
    from benchmarks.machine import describe  # torch, which the processes that are looked at do without

    print(describe("cpu"))
    print(plain(["step", "seconds", "of the processor", "MB at most", "pairs a processor second"], rows))


if __name__ == "__main__":
    sys.exit(run_cli(main))

"""A local web page to make image-mask pairs one at a time, and to accept or reject those of a finished run.

%(prog)s --data_root parts/normal --pt_path logs/part
%(prog)s --data_root parts/normal --pt_path mini --defects parts --pairs samples/part
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from threading import Event

from fast.runtime.options import Parser
from ldm.errors import UserError


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="scripts/studio.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data_root", required=True, metavar="FOLDER", help="normal images, or a dataset")
    p.add_argument("--pt_path", metavar="FOLDER", help="trained weights, as main.py writes them, or mini (default: the "
                   "methods that need none)")  # fmt: skip
    p.add_argument("--defects", metavar="FOLDER", help="dataset with real defects, to look at and to start from "
                   "(default: --data_root, if it is one)")  # fmt: skip
    p.add_argument("--split", metavar="third|all|FILE", help="of --defects, which may be used (default: third)")
    p.add_argument("--pairs", type=Path, metavar="FOLDER", help="output of generate_with_mask.py to review")
    p.add_argument("--kept", type=Path, default=Path("samples/studio"), metavar="FOLDER",
                   help="where pairs are stored that you keep (default: %(default)s)")  # fmt: skip
    p.add_argument("--host", default="127.0.0.1", help="address to serve at (default: %(default)s, this machine alone)")
    p.add_argument("--port", type=int, default=7860, help="port to serve at (default: %(default)s)")
    p.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where networks run")
    return p


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    if not 1 <= options.port <= 65535:
        raise UserError(f"--port {options.port} is none; give a number from 1024 to 65535")
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError("the studio needs gradio; install it with: pip install '.[studio]'") from None
    from fast.cli.regenerate import regenerate
    from fast.studio.app import LOCAL, build, served
    from fast.studio.workbench import Workbench
    from fast.synthesis.records import manifests

    if options.pairs is not None:
        manifests(options.pairs)  # says what is no output
    bench = Workbench(options.data_root, options.pt_path, options.defects, options.split, options.device)
    for note in bench.notes:
        print(f"note: {note}", flush=True)
    shown = folders(options.pairs, options.kept)
    with served(lambda: build(bench, shown, options.kept, regenerate), options.host, options.port) as url:
        if options.host not in LOCAL:
            print(f"note: at {options.host} everybody who reaches this machine can use the page: it has no password")
        print(f"FAST studio: {url} (Ctrl-C ends it)", flush=True)
        wait()


def folders(pairs: Path | None, kept: Path) -> dict[str, Path]:
    """The folders to review by the name that the page shows: the run's first, then that of kept pairs."""
    found = [p for p in (pairs, kept) if p is not None]
    return {str(p): p for p in found}


def wait() -> None:
    """Until Ctrl-C or SIGTERM."""
    done = Event()
    before = {number: signal.signal(number, lambda *_: done.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not done.wait(3600):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

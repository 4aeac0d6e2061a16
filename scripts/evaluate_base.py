"""Measure the shipped base: first stage, visible defects, samplers, open questions, segmenters, real pictures.

Every section's figures are written as soon as they are there, as JSON and as tables into docs/base_model.md; the same
command goes on where it was stopped and measures nothing twice. Held-apart materials are drawn as it runs.

python scripts/evaluate_base.py
python scripts/evaluate_base.py --only first_stage,real --real DATASET --adapted logs/part
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from fast.signals import listen  # noqa: E402

listen(__name__)

import argparse  # noqa: E402
import json  # noqa: E402
import re  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from fast.data.drawn.traits import HELD_APART  # noqa: E402
from fast.door import open_door  # noqa: E402
from fast.training.options import Parser  # noqa: E402
from ldm.errors import UserError  # noqa: E402

NAMES = ("first_stage", "visible", "samplers", "open_questions", "segmenter", "real")


def parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(prog="evaluate_base.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", type=Path, default=Path("models/mini"), metavar="FOLDER",
                   help="the base and its fast-<step>.safetensors (default: models/mini)")
    p.add_argument("--only", default=",".join(NAMES), metavar="A,B", help=f"sections: {', '.join(NAMES)}")
    p.add_argument("--redo", action="store_true", help="measure these sections again")
    p.add_argument("--out", type=Path, default=Path("logs/base_scores.json"), metavar="FILE",
                   help="figures; synthesized pairs of real pictures lie beside it (default: logs/base_scores.json)")
    p.add_argument("--doc", type=Path, default=ROOT / "docs" / "base_model.md", metavar="FILE",
                   help="page with the sections' marks, which the tables are written between")
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument("--workers", type=int, help="threads that synthesize on a CPU (default: its cores)")
    drawn = p.add_argument_group("drawn pictures")
    drawn.add_argument("--materials", nargs="+", default=list(HELD_APART), metavar="NAME",
                       help=f"default: {' '.join(HELD_APART)}")
    drawn.add_argument("--size", type=int, default=256, help="side in pixels, of real pictures too (default: 256)")
    drawn.add_argument("--seed", type=int, default=0)
    drawn.add_argument("--pairs", type=int, default=200, help="defects in first_stage and visible (default: 200)")
    drawn.add_argument("--variant_pairs", type=int, default=100, help="in samplers, open_questions (default: 100)")
    drawn.add_argument("--ddpm_pairs", type=int, default=8, help="those of them that ddpm makes (default: 8)")
    drawn.add_argument("--normals", type=int, default=16, help="normals of a material to know the noise by "
                                                               "(default: 16)")
    making = p.add_argument_group("synthesis")
    making.add_argument("--evaluations", type=int, default=10, help="of the network; samplers: and five times as many "
                                                                    "(default: 10)")
    making.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto",
                        help="of the synthesis and of the segmenters' trainings; auto: bf16 where"
                             " the machine computes in it, else fp32 (default: auto)")
    trained = p.add_argument_group("segmenters")
    trained.add_argument("--segmenter", default="mini", help="for drawn pictures (default: mini)")
    trained.add_argument("--segmenter_pairs", type=int, default=500, help="pairs to train on (default: 500)")
    trained.add_argument("--test_pairs", type=int, default=200, help="true pairs to test on (default: 200)")
    trained.add_argument("--steps", type=int, default=400, help="optimiser steps (default: 400)")
    trained.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    trained.add_argument("--batch_size", type=int, default=8)
    trained.add_argument("--lr", type=float, default=1e-3)
    trained.add_argument("--weights", type=Path, metavar="FILE", help="ImageNet weights of SegFormer's encoder")
    own = p.add_argument_group("real pictures")
    own.add_argument("--real", type=Path, metavar="DATASET", help="without it they are left out")
    own.add_argument("--split", default="third", help="third, or a file of prepare_data.py (default: third)")
    own.add_argument("--fitted", type=Path, metavar="ARTIFACT",
                     help="adapted with fit_decoder on the training side: first_stage once more with its decoder")
    own.add_argument("--adapted", type=Path, metavar="ARTIFACT", help="of main.py, on the training side; for real")
    own.add_argument("--per_type", type=int, default=500, help="pairs of each type (default: 500)")
    own.add_argument("--real_share", type=float, metavar="R",
                     help="share of the defects drawn in training that are real (default: all pairs equally often)")
    own.add_argument("--real_segmenter", default="segformer", help="default: segformer")
    own.add_argument("--real_steps", type=int, default=1000, help="optimiser steps of each training (default: 1000)")
    # fmt: on
    return p


def check_options(options: argparse.Namespace) -> list[str]:
    """The sections to measure, in their order. Raises `UserError`."""
    chosen = [name.strip() for name in options.only.split(",") if name.strip()]
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown or not chosen:
        raise UserError(f"--only {options.only}: no such section; use some of {','.join(NAMES)}")
    for name, value in vars(options).items():
        least = 0 if name == "seed" else 1
        if isinstance(value, int) and not isinstance(value, bool) and value < least:
            raise UserError(f"--{name} {value} must be at least {least}")
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("--device cuda: there is no GPU here; use --device cpu")
    options.precision = _settled(options.precision, options.device)
    if options.out.suffix != ".json":
        raise UserError(f"--out {options.out}: give the name of a JSON file")
    ready = options.real is not None and options.adapted is not None
    if "real" in chosen and not ready:
        if "real" in options.only and options.only != ",".join(NAMES):
            raise UserError("the section real needs --real DATASET and --adapted ARTIFACT")
        print("real: left out, it needs --real DATASET and --adapted ARTIFACT")
    return [name for name in NAMES if name in chosen and (name != "real" or ready)]


def _settled(precision: str, device: str) -> str:
    import torch

    from fast.precision import settled

    cuda = device != "cpu" and torch.cuda.is_available()
    return settled(precision, "cuda" if cuda else "cpu")


class Store:
    """Figures on disk: of finished sections, and of the parts of one that was stopped. Written after each part."""

    def __init__(self, path: Path):
        self.path = path
        self.content: dict[str, Any] = {}
        if path.is_file():
            try:
                self.content = dict(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                raise UserError(f"{path} is damaged; remove it or give another --out") from None

    def section(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        """What is known of a section. Raises `UserError` if that was measured otherwise."""
        entry: dict[str, Any] = self.content.setdefault(name, {"settings": settings, "parts": {}, "seconds": 0.0})
        before = entry["settings"]
        # A section measured with a dataset or an artifact stands when the next call does not name it.
        other = [k for k, v in settings.items() if (v is not None or k not in PLACES) and before.get(k) != v]
        if other:
            raise UserError(
                f"{self.path}: {name} was measured with {other[0]} {before.get(other[0])}, not {settings[other[0]]}; "
                "add --redo to measure it again, or give another --out"
            )
        return entry

    def save(self) -> None:
        from fast.data.images import write_bytes

        write_bytes(self.path, (json.dumps(self.content, indent=1) + "\n").encode())


PLACES = ("real", "fitted", "adapted")


def settings_of(flags: tuple[str, ...], options: argparse.Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """What a section's figures depend on. Of artifacts the hash; of other files the name only: a place says nothing,
    and may be private."""
    from base_scores.bench import artifact_of

    from ldm.checkpoint import file_hash

    def said(flag: str, value: Any) -> Any:
        if value is not None and flag in ("adapted", "fitted"):
            return file_hash(artifact_of(f"--{flag}", value).path)
        if value is not None and flag == "weights" and Path(value).is_file():
            return file_hash(value)
        return value.name if isinstance(value, Path) else value

    known = {"artifact_sha256": about["artifact_sha256"], "base_sha256": about["base_sha256"]}
    return {**{flag: said(flag, getattr(options, flag)) for flag in flags}, **known}


def run(options: argparse.Namespace) -> None:
    """Raises `UserError`."""
    chosen = check_options(options)
    page = Page(options.doc)
    store = Store(options.out)

    from base_scores.bench import Bench
    from base_scores.sections import SECTIONS
    from base_scores.tables import markdown, plain

    bench = Bench(options)
    about = bench.about()
    for name in chosen:
        section = SECTIONS[name]
        if options.redo:
            store.content.pop(name, None)
        entry = store.section(name, settings_of(section.flags, options, about))
        if "figures" not in entry:
            entry["about"] = about
            entry["figures"] = section.measure(bench, keeper(store, entry))
            del entry["parts"]
            store.save()
            word = ""
        else:
            word = ", as measured before"
        tables = section.tables(entry["figures"])
        print(f"\n== {name} ({entry['seconds']:.0f} s{word})")
        for table in tables:
            print("\n" + plain(table), flush=True)
        page.put(name, "\n\n".join(markdown(table) for table in tables))
    print(f"\n{options.out}, {options.doc}")


def keeper(store: Store, entry: dict[str, Any]) -> Callable[[str, Callable[[], Any]], Any]:
    """Keeps what calls returned in the section's entry."""

    def part(key: str, call: Callable[[], Any]) -> Any:
        if key not in entry["parts"]:
            start = time.perf_counter()
            entry["parts"][key] = call()
            entry["seconds"] += time.perf_counter() - start
            store.save()
        return entry["parts"][key]

    return part


class Page:
    """A Markdown page with a pair of marks for each section. Raises `UserError` for a page that lacks one."""

    def __init__(self, path: Path):
        self.path = path
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for name in NAMES:
            if not self._place(name).search(text):
                begin, end = marks(name)
                raise UserError(
                    f"--doc {path}: the marks {begin} and {end} are missing; add them on lines of their own"
                )

    def _place(self, name: str) -> re.Pattern[str]:
        begin, end = (re.escape(mark) for mark in marks(name))
        return re.compile(f"({begin}\n)(.*?)({end})", re.DOTALL)

    def put(self, name: str, text: str) -> None:
        from fast.data.images import write_bytes

        page = self.path.read_text(encoding="utf-8")
        page = self._place(name).sub(lambda m: f"{m[1]}\n{text}\n\n{m[3]}", page, count=1)
        write_bytes(self.path, page.encode(errors="backslashreplace"))


def marks(name: str) -> tuple[str, str]:
    return f"<!-- scores: {name} -->", f"<!-- end of scores: {name} -->"


def main(argv: list[str]) -> None:
    run(parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(open_door(main))

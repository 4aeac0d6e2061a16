"""Measure the shipped base: first stage, visible defects, samplers, open questions, segmenters, visible words, real
pictures.

Every section's figures are written as soon as they are there, as JSON and as tables into docs/base_model.md; the same
command goes on where it was stopped and measures nothing twice. Held-apart materials are drawn as it runs.

%(prog)s
%(prog)s --only aims --precision bf16 --seeds 0
%(prog)s --only first_stage,real --real DATASET --adapted logs/part
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.base_scores.store import FigureStore, Page, keeper
from fast.procedural.traits import HELD_APART
from fast.runtime.options import Parser
from fast.runtime.project import PROJECT
from ldm.errors import UserError

NAMES = ("first_stage", "visible", "samplers", "open_questions", "segmenter", "words", "real")
BEFORE = PROJECT / "docs" / "base_before.json"
CLASSIFIER = PROJECT / "models" / "word_classifier" / "classifier.safetensors"
AIMS = ("visible", "segmenter", "words")  # the sections that the table of aims is made of


def parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(prog="scripts/evaluate_base.py", description=__doc__,
               formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", type=Path, default=Path("models/mini"), metavar="FOLDER",
                   help="the base and its fast-<step>.safetensors (default: models/mini)")
    p.add_argument("--only", default=",".join(NAMES), metavar="A,B",
                   help=f"sections: {', '.join(NAMES)}; aims: those of the table of aims, {', '.join(AIMS)}")
    p.add_argument("--redo", action="store_true", help="measure these sections again")
    p.add_argument("--out", type=Path, default=Path("logs/base_scores.json"), metavar="FILE",
                   help="figures; synthesized pairs of real pictures lie beside it (default: logs/base_scores.json)")
    p.add_argument("--doc", type=Path, default=PROJECT / "docs" / "base_model.md", metavar="FILE",
                   help="page with the sections' marks, which the tables are written between")
    p.add_argument("--before", type=Path, metavar="FILE", default=BEFORE,
                   help="figures (--out) of an earlier base, for the table of aims (default: docs/base_before.json)")
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
    making.add_argument("--scale", type=float, help="of the guidance (default: that of the weights)")
    making.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto",
                        help="of the synthesis, and on a GPU of the segmenters' trainings; auto: bf16 where the "
                             "machine computes in it, else fp32 (default: auto)")
    trained = p.add_argument_group("segmenters")
    trained.add_argument("--segmenter", default="mini", help="for drawn pictures (default: mini)")
    trained.add_argument("--segmenter_pairs", type=int, default=500, help="pairs to train on (default: 500)")
    trained.add_argument("--test_pairs", type=int, default=200, help="true pairs to test on (default: 200)")
    trained.add_argument("--steps", type=int, default=400, help="optimiser steps (default: 400)")
    trained.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    trained.add_argument("--batch_size", type=int, default=8)
    trained.add_argument("--lr", type=float, default=1e-3)
    trained.add_argument("--weights", type=Path, metavar="FILE", help="ImageNet weights of SegFormer's encoder")
    named = p.add_argument_group("visible words")
    named.add_argument("--word_pairs", type=int, default=200, help="pairs (default: 200)")
    named.add_argument("--scale_pairs", type=int, default=100,
                       help="those of them made at other scales than --scale (default: 100)")
    named.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0, 5.0], metavar="S",
                       help="of the guidance (default: 1 1.5 2 3 5)")
    named.add_argument("--classifier", type=Path, default=CLASSIFIER, metavar="FILE",
                       help="trained and written if it is not there (default: the shipped one)")
    named.add_argument("--classifier_surfaces", type=int, default=3000,
                       help="normals that it trains on, four defects on each (default: 3000)")
    named.add_argument("--classifier_minutes", type=float, default=8.0, help="of its training (default: 8)")
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
    asked = [name.strip() for name in options.only.split(",") if name.strip()]
    chosen = [name for word in asked for name in (AIMS if word == "aims" else (word,))]
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown or not chosen:
        raise UserError(f"--only {options.only}: no such section; use some of {','.join(NAMES)}, or aims")
    for name, value in vars(options).items():
        least = 0 if name in ("seed", "ddpm_pairs") else 1
        if isinstance(value, int) and not isinstance(value, bool) and value < least:
            raise UserError(f"--{name} {value} must be at least {least}")
    for name in ("scale", "scales", "classifier_minutes"):
        values = getattr(options, name)
        for value in values if isinstance(values, list) else [values]:
            if value is not None and not 0 < value < 1000:
                raise UserError(f"--{name} {value:g} must be above 0 and below 1000")
    if options.device == "cuda":
        from fast.runtime.device import pick_device

        pick_device("cuda", "--device ")
    options.precision = _settled(options.precision, options.device)
    if options.out.suffix != ".json":
        raise UserError(f"--out {options.out}: give the name of a JSON file")
    ready = options.real is not None and options.adapted is not None
    if "real" in chosen and not ready:
        if "real" in options.only and options.only != ",".join(NAMES):
            raise UserError("the section real needs --real DATASET and --adapted ARTIFACT")
        print("real: left out, it needs --real DATASET and --adapted ARTIFACT")
    return [name for name in NAMES if name in chosen and (name != "real" or ready)]


HASHED = ("weights", "classifier")


def _settled(precision: str, device: str) -> str:
    import torch

    from fast.runtime.precision import settled

    cuda = device != "cpu" and torch.cuda.is_available()
    return settled(precision, "cuda" if cuda else "cpu")


def settings_of(flags: tuple[str, ...], options: argparse.Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """What a section's figures depend on. Of artifacts the hash; of other files the name only: a place says nothing,
    and may be private."""
    from benchmarks.base_scores.bench import artifact_of
    from ldm.hashing import file_hash

    def said(flag: str, value: Any) -> Any:
        if value is not None and flag in ("adapted", "fitted"):
            return file_hash(artifact_of(f"--{flag}", value).path)
        if value is not None and flag in HASHED and Path(value).is_file():
            return file_hash(value)
        return value.name if isinstance(value, Path) else value

    known = {"artifact_sha256": about["artifact_sha256"], "base_sha256": about["base_sha256"]}
    return {**{flag: said(flag, getattr(options, flag)) for flag in flags}, **known}


def run(options: argparse.Namespace) -> None:
    """Raises `UserError`."""
    chosen = check_options(options)
    page = Page(options.doc, ("aims", *NAMES))
    store = FigureStore(options.out)

    from benchmarks.base_scores.aims import aims_of, aims_tables, read_before
    from benchmarks.base_scores.bench import Bench
    from benchmarks.base_scores.sections import SECTIONS
    from benchmarks.base_scores.tables import markdown, plain
    from benchmarks.base_scores.words import ready_classifier

    before = read_before(options.before)
    bench = Bench(options)
    about = bench.about()
    if "words" in chosen:
        ready_classifier(options.classifier, options.classifier_surfaces, options.classifier_minutes, bench.device,
                         options.seed, options.workers)  # fmt: skip
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
        if name in AIMS:
            store.content["aims"] = aims_of(store.content)
            store.save()
    if set(chosen) & set(AIMS):
        tables = aims_tables(store.content["aims"], before)
        print("\n== aims\n\n" + plain(tables[0]))
        page.put("aims", markdown(tables[0]))
    print(f"\n{options.out}, {options.doc}")


def main(argv: list[str]) -> None:
    run(parser().parse_args(argv))

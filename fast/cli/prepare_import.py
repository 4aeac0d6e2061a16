"""`prepare_data.py --import FORMAT`: annotations of other tools become a dataset in MVTec-AD's layout."""

from __future__ import annotations

import argparse
from pathlib import Path

from fast.data.formats.annotated import ImportOptions
from fast.data.formats.convert import FORMATS, Imported, convert
from fast.data.images import write_bytes
from fast.data.index import GOOD
from fast.runtime.command import command_line
from fast.runtime.tables import markdown, markdown_text, plain
from ldm.errors import UserError

SHOWN = 40  # lines of what was left out; the page has all
ONLY_IMPORT = ("images", "annotations", "types", "boxes", "unmarked", "skip_missing", "multiclass")
ONLY_DATASETS = ("mask_values", "ignore", "bits", "masks_upright", "parts_apart", "alike", "join_alike")


def add_import_flags(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("import", "annotations of other tools into a new folder --out")
    # fmt: off
    group.add_argument("--import", dest="import_format", choices=sorted(FORMATS), help="format of the annotations")
    group.add_argument("--images", type=Path, metavar="FOLDER", help="the images (default: looked for in PATH)")
    group.add_argument("--annotations", type=Path, metavar="FILE", help="the annotation file, where PATH has several")
    group.add_argument("--types", metavar="LABEL=TYPE,...", help="defect types by label or number of class or value; "
                       "LABEL= leaves a label out, LABEL=ignore makes it neither defect nor background")
    group.add_argument("--boxes", action="store_true", help="take boxes as areas of defect (default: left out)")
    group.add_argument("--unmarked", choices=["normal", "leave"], help="what images without annotation are: normal "
                       "images, or not looked at yet (asked)")
    group.add_argument("--skip_missing", action="store_true", help="leave out annotations without image file (asked)")
    group.add_argument("--multiclass", action="store_true", help="one mask an image with a value for each type "
                       "(classes.json), not one sample for each type")
    # fmt: on


def import_data(args: argparse.Namespace) -> None:
    """Convert, print what was read and left out, and keep that as README.md in the new folder."""
    if args.out is None:
        raise UserError("--import needs a new folder for the dataset; give --out FOLDER")
    for name in ONLY_DATASETS:
        if getattr(args, name) is not None:
            raise UserError(
                f"--{name} is of a dataset's own masks, pictures and parts; give it once {args.out} is imported"
            )
    options = ImportOptions(
        images=args.images, annotations=args.annotations, types=parse_types(args.types or ""), boxes=args.boxes,
        line_width=args.line_width, unmarked=args.unmarked, skip_missing=args.skip_missing, multiclass=args.multiclass,
    )  # fmt: skip
    out = Path(args.out)
    done = convert(args.import_format, Path(args.path), out, options)
    write_bytes(out / "README.md", page(args, done).encode())
    print(report(out, done))


def refuse_without_import(args: argparse.Namespace) -> None:
    """UserError for flags that only an import has a use for."""
    for name in ONLY_IMPORT:
        if getattr(args, name):
            raise UserError(f"--{name} is for --import FORMAT; say the format, or leave it out")


def parse_types(text: str) -> dict[str, str]:
    """`1=crack,2=hole` as a mapping. UserError for anything else."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        label, equals, name = pair.partition("=")
        if not equals or not label.strip() or label.strip() in found:
            raise UserError(f"--types {text}: '{pair}' is no LABEL=TYPE, or the second of its label; correct it")
        found[label.strip()] = name.strip()
    return found


def rows(done: Imported) -> list[list[str]]:
    kinds = sorted(done.samples, key=lambda kind: (kind == GOOD, kind))
    return [[kind, str(done.samples[kind]), str(done.regions[kind]) if kind != GOOD else "-"] for kind in kinds]


def report(out: Path, done: Imported) -> str:
    lines = [plain(("type", "samples", "regions"), rows(done)), ""]
    if done.left:
        more = [("...", f"{len(done.left) - SHOWN} more in {out / 'README.md'}")] if len(done.left) > SHOWN else []
        lines += [plain(("left out", "why"), [*done.left[:SHOWN], *more], left=2), ""]
    else:
        lines += ["nothing left out"]
    lines += [f"note: {note}" for note in done.notes]
    return "\n".join([*lines, f"{out}; look at it with: {command_line('scripts/prepare_data.py')} {out}"])


def page(args: argparse.Namespace, done: Imported) -> str:
    """The same, whole, as Markdown."""
    said = f"From {args.import_format} annotations in `{Path(args.path).name}`, by `prepare_data.py --import`."
    parts = ["# " + markdown_text(Path(args.out).name), said, markdown(("type", "samples", "regions"), rows(done))]
    if done.left:
        left = [[markdown_text(name), markdown_text(why)] for name, why in done.left]
        parts.append("## Left out\n\n" + markdown(("name", "why"), left, left=2))
    parts += [f"- {markdown_text(note)}" for note in done.notes]
    return "\n\n".join(parts) + "\n"

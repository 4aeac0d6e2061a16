"""Score the image-mask pairs of a synthesis output, each in its line of manifest.jsonl, and set the worst aside.

%(prog)s samples/part --defects parts --split parts.split.json
%(prog)s samples/part --defects parts --split parts.split.json --keep 0.7 --sheet scores.png

Of each defect type --keep leaves the best share; the others move to rejected/ with their records. Nothing is deleted:
--keep 1 brings them back. Pairs that somebody has rejected (scripts/review.py) are not scored and never count as kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Collection, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fast.runtime.options import Parser
from ldm.errors import UserError

if TYPE_CHECKING:  # heavy: imported only once the flags are understood
    from collections.abc import Iterator

    from fast.segmentation.data import SegmentationSample
    from fast.synthesis.output import OutputFolder

BY_RANK = "by its scores"  # why a pair is rejected
NOTE = "scores.json"  # in the output: what the scores were made from
SHOWN = 6  # best and worst pairs in a sheet


class TrainingDefects(NamedTuple):
    """What pairs are compared with. `split`: the hash of the split whose training side they are, "all", or None where
    there are none."""

    samples: Sequence[SegmentationSample] = ()
    split: str | None = None


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="scripts/score.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pairs", type=Path, metavar="PAIRS", help="output folder of generate_with_mask.py")
    p.add_argument("--defects", metavar="FOLDER", help="dataset whose real defects the pairs are compared with")
    p.add_argument("--split", metavar="third|all|FILE",
                   help="the training side of a prepare_data.py file, a third (default), or all of them")  # fmt: skip
    p.add_argument("--keep", type=float, metavar="SHARE", help="of the pairs to keep, above 0 to 1 (default: as it is)")
    p.add_argument("--sheet", type=Path, metavar="FILE", help="an image of the best and the worst pairs")
    return p


def check_keep(keep: float | None, defects: str | None, split: str | None) -> None:
    """Raises `UserError`."""
    if keep is not None and not 0 < keep <= 1:
        raise UserError(f"--keep {keep} is no share of the pairs; give a number above 0 and at most 1")
    if split is not None and defects is None:
        raise UserError(f"--split {split} is of real defects; name their dataset with --defects")


def judge(output: OutputFolder, real: TrainingDefects, keep: float | None = None, count: int | None = None) -> None:
    """Score all pairs of `output`, beside the `real` training defects, and write the scores to their records. With
    `keep` that share of them stays, with `count` that number, and all others lie in `rejected/`. Pairs that a person
    has rejected are left as they are. Raises `UserError`."""
    from fast.data.images import write_bytes
    from fast.quality.ranking import kept
    from fast.review.decisions import rejected

    every, refused = output.rows(), rejected(output.folder)
    rows = [row for row in every if row.get("rejected") in (None, BY_RANK) and row["index"] not in refused]
    content = _content(output, rows, real.samples)
    note = output.folder / NOTE
    if _noted(note) == content:
        scores = {row["index"]: row.get("scores") for row in rows}
    else:
        scores = _scores(output, rows, real.samples)
    if keep is not None or count is not None:
        wanted = round((keep or 1) * sum(s is not None for s in scores.values())) if count is None else count
        rank = [(scores[row["index"]] or {}).get("rank") for row in rows]
        best = {rows[i]["index"] for i in kept(rank, [row["type"] for row in rows], wanted)}
        rows = [
            {**_without(row, "rejected"), **({} if row["index"] in best else {"rejected": BY_RANK})} for row in rows
        ]
    told = {
        row["index"]: _without(row, "scores") | ({} if (s := scores[row["index"]]) is None else {"scores": s})
        for row in rows
    }
    output.sort([told.get(row["index"], row) for row in every])
    about = {"content": content, "real_defects": len(real.samples), "split": real.split, "pairs": len(rows)}
    write_bytes(note, (json.dumps(about, indent=1) + "\n").encode())


def _noted(note: Path) -> str | None:
    """What the scores were made from, None where nothing says so."""
    from fast.runtime.folders import parse_json

    try:
        return str(parse_json(note.read_bytes())["content"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def real_defects(defects: str | None, split: str | None) -> TrainingDefects:
    """The real defects of the training side. Raises `UserError`."""
    from fast.cli.dataset_notes import tell_left_out
    from fast.generators.transplant import training_side
    from fast.segmentation.data import from_samples

    if defects is None:
        return TrainingDefects()
    side = training_side(defects, split or "third", None)
    tell_left_out(side.dataset, side.left_out, side.doubts)
    return TrainingDefects([s for s in from_samples(side.samples) if s.mask is not None], side.split)


def _content(output: OutputFolder, rows: Sequence[dict[str, Any]], real: Sequence[SegmentationSample]) -> str:
    """A hash of all files that the scores are made from: where it is as it was, so are the scores."""
    from fast.quality.ranking import ENOUGH
    from ldm.hashing import file_hash

    place = {True: output.rejects, False: output.folder}
    files = [place[bool(r.get("rejected"))] / r[key] for r in rows for key in ("image", "mask")]
    files += [path for s in real for path in (s.image, s.mask) if isinstance(path, Path)]
    return hashlib.sha256("\n".join([str(ENOUGH), *map(file_hash, files)]).encode()).hexdigest()


def _scores(
    output: OutputFolder, rows: Sequence[dict[str, Any]], real: Sequence[SegmentationSample]
) -> dict[int, dict[str, Any] | None]:
    """The scores of each pair by its number, None for one without a defect."""
    from fast.quality.scores import Scorer, size_of
    from fast.runtime.progress import Progress

    scorer = Scorer(output.folder, real, size_of(rows) if rows else None)
    found: dict[int, dict[str, Any] | None] = {}
    with _one_thread(), Progress(len(rows) + len(real), "scores", "image") as progress:
        scorer.learn(progress.update)
        for row in rows:
            found[row["index"]] = scorer.look(row)
            progress.update()
        marked = [row for row in rows if found[row["index"]] is not None]
        scorer.judge(marked, [s for s in found.values() if s is not None])
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch with one thread: rounding depends on their number, and so would the order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != key}


def opened(folder: Path) -> OutputFolder:
    """A finished or begun output folder, held so that nobody else fills it. Raises `UserError`."""
    from fast.runtime.folders import parse_json
    from fast.synthesis.output import OutputFolder
    from fast.synthesis.records import manifests, refuse_shards

    manifests(folder)  # says what is no output
    refuse_shards(folder, "score")
    try:
        settings = dict(parse_json((folder / "settings.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        raise UserError(
            f"{folder} has no readable settings.json; give an output folder of generate_with_mask.py"
        ) from None
    return OutputFolder(folder, settings)


def run(options: argparse.Namespace) -> None:
    """Raises `UserError`."""
    from fast.review.decisions import rejected

    check_keep(options.keep, options.defects, options.split)
    if options.sheet is not None:
        from fast.reports.contact_sheet import check_place
        from fast.synthesis.records import each_record

        check_place(options.sheet, "--sheet", options.pairs, each_record(options.pairs, True, True))
    real = real_defects(options.defects, options.split)
    with closing(opened(options.pairs)) as output:
        output.gather()
        judge(output, real, options.keep)
        rows = output.rows()
    refused = rejected(options.pairs)
    print(table(rows, refused), flush=True)
    if options.sheet is not None:
        _sheet(options.pairs, [row for row in rows if row["index"] not in refused], options.sheet)
        print(options.sheet)


def table(rows: Sequence[dict[str, Any]], refused: Collection[int] = ()) -> str:
    """A line for each type: pairs kept, and the median of each score over all of them. `refused`: numbers of the pairs
    that a person has rejected; they are not kept, and their scores do not count. A pair that another was made in the
    place of is no pair of the folder any more, and is not counted at all."""
    import numpy as np

    from fast.quality.scores import SCORES
    from fast.runtime.tables import plain

    names = [name for name in SCORES if name not in ("closest", "rank")]
    present = [row for row in rows if "replaced_by" not in row]
    lines = []
    for kind in sorted({row["type"] for row in present}):
        own = [row for row in present if row["type"] == kind]
        judged = [row for row in own if row["index"] not in refused]
        values = [[s for row in judged if (s := row.get("scores", {}).get(name)) is not None] for name in names]
        medians = [f"{np.median(v):.2f}" if v else "-" for v in values]
        lines.append([kind, f"{sum(not row.get('rejected') for row in judged)} of {len(own)}", *medians])
    return plain(["type", "kept", *names], lines)


def _sheet(folder: Path, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The best pairs in the left column, the worst, from the bottom up, in the right one."""
    from dataclasses import replace

    from fast.reports.contact_sheet import contact_sheet, read_row

    ranked = sorted((r for r in rows if r.get("scores")), key=lambda r: (-(r["scores"]["rank"] or 0), r["index"]))
    count = min(SHOWN, len(ranked) // 2)
    shown = []
    for best, worst in zip(ranked[:count], ranked[::-1], strict=False):
        for row in (best, worst):
            s = row["scores"]
            words = [f"{name} {s[name]:.2f}" for name in ("rank", "visible", "seam", "texture", "distance", "agreement")
                     if s[name] is not None]  # fmt: skip
            place = folder / "rejected" if row.get("rejected") else folder
            shown.append(replace(read_row(place, row, zoom=True), caption=f"{row['type']}: {', '.join(words)}"))
    if not shown:
        raise UserError(f"{folder} has fewer than two pairs with a score; there is no best and worst to show")
    contact_sheet(shown, path)


def main(argv: list[str]) -> None:
    run(parser().parse_args(argv))

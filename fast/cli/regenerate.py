"""Rejected pairs made anew, from the same normal image and mask by another seed; the old ones go to `rejected/`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fast.cli.synthesis_fill import complete, fill
from fast.cli.synthesis_job import SynthesisJob, prepare
from fast.cli.synthesize import settings_of
from fast.review.decisions import Review
from fast.runtime.folders import parse_json
from fast.synthesis.options import FIRST_AGAIN, SynthesisOptions
from fast.synthesis.output import COMMAND, OutputFolder
from fast.synthesis.pair import Pair
from fast.synthesis.records import refuse_shards
from ldm.errors import UserError
from ldm.rng import seed_of

BY_REVIEW = "in review"  # why a pair lies in rejected/, where nobody gave a reason
Rows = dict[int, dict[str, Any]]


def command_of(folder: Path) -> SynthesisOptions:
    """The options that a folder was filled with. Raises `UserError`."""
    try:
        found = dict(parse_json((folder / COMMAND).read_bytes()))
        options = SynthesisOptions(**{f.name: found[f.name] for f in fields(SynthesisOptions)})
    except OSError:
        raise UserError(
            f"{folder} has no {COMMAND}: nothing says how it was made; run its generate_with_mask.py command once more"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / COMMAND} is damaged ({error}); run the folder's command once more") from None
    return replace(options, sample_name=str(folder))


def regenerate(folder: Path) -> int:
    """Make every rejected pair of a finished run anew. Returns how many.

    A new pair has a number from `FIRST_AGAIN` on, the normal image, type and mask file of the one in whose place it
    comes, and a seed derived from both. Stopped, the same call goes on; one that is damaged or gone since is made
    again. Raises `UserError`, for a folder without rejected pairs too.
    """
    refuse_shards(folder, "review")
    options, review = command_of(folder), Review(folder)
    job = prepare(options, say=False)
    with closing(OutputFolder(folder, settings_of(job), extend=options.extend)) as output:
        complete(output, output.to_replace())
        output.gather()
        rows = {int(row["index"]): row for row in output.rows()}
        if _set_aside(rows, review):
            output.sort([rows[i] for i in sorted(rows)])
            review.conclude()
        pairs = dict(_missing(rows, job, options.seed))
        if not pairs:
            raise UserError(f"{folder} holds no rejected pair; reject some first")
        again = {row["replaced_by"]: i for i, row in rows.items() if "replaced_by" in row}
        _, stopped = fill(
            output, job, options, list(pairs), lambda numbers: (pairs[i] for i in numbers),
            lambda pair: {"again_of": again[pair.index]},
        )  # fmt: skip
    if stopped:
        raise UserError("interrupted: not all rejected pairs are made anew; the same command goes on")
    return len(pairs)


def _set_aside(rows: Rows, review: Review) -> int:
    """Mark what was rejected in the records, with the number of the pair that comes in its place."""
    found = review.decisions()
    refused = [
        i for i, row in rows.items() if i in found and found[i].decision == "rejected" and not row.get("rejected")
    ]
    free = max([FIRST_AGAIN, *(row["replaced_by"] + 1 for row in rows.values() if "replaced_by" in row)])
    for number, index in enumerate(sorted(i for i in refused if not rows[i].get("counterfeit")), free):
        rows[index] |= {"rejected": found[index].reason or BY_REVIEW, "replaced_by": number}
    for index in refused:  # a counterfeit belongs to its pair: nothing comes in its place
        rows[index].setdefault("rejected", found[index].reason or BY_REVIEW)
    return len(refused)


def _missing(rows: Rows, job: SynthesisJob, seed: int) -> Iterator[tuple[int, Pair]]:
    """Pairs that are to come in the place of others and are not there."""
    for index, row in rows.items():
        number = row.get("replaced_by")
        if number is not None and number not in rows:
            first = _first(rows, index)
            pair = replace(job.sources.pair(first, seed), **_files(rows[first], job))
            yield number, replace(pair, index=number, seed=seed_of(pair.seed, 6, number))


def _files(row: dict[str, Any], job: SynthesisJob) -> dict[str, Any]:
    """What a record says its pair was made from: since then normal images or masks may have been added."""
    files = {
        name: None if row.get(f"{name}_source") is None else Path(row[f"{name}_source"]) for name in ("normal", "mask")
    }
    types = list(job.sources.types)
    return {**files, **({"type_index": types.index(row["type"])} if row.get("type") in types else {})}


def _first(rows: Rows, index: int) -> int:
    """The pair that stood in this one's place in the beginning."""
    while "again_of" in rows[index]:
        index = int(rows[index]["again_of"])
    return index

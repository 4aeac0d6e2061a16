"""What a shard of pairs is called and holds; the same in synthesis and in exports."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from typing import Any

from fast.synthesis.options import FIRST_COUNTERFEIT

CLASSES = "classes.json"  # numbers of the types; written once all shards are there
RANGE = re.compile(r"pairs-(\d{6,})-(\d{6,})")


def add_entry(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    """A file in a shard, without a time or an owner: the same files give the same bytes."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    shard.addfile(entry, BytesIO(data))


def about_pair(kind: str, classes: Sequence[str], record: Mapping[str, Any]) -> bytes:
    """`<name>.json` of a pair in a shard: its type, the type's number, and its line of the manifest."""
    return json.dumps({"type": kind, "label": classes.index(kind), "provenance": record}).encode()


@dataclass(frozen=True)
class Shard:
    """The pairs of these numbers, which `<name>.tar` holds; `<name>.jsonl` holds their records and is written last: a
    shard that has one is complete."""

    numbers: range

    @property
    def name(self) -> str:
        return f"pairs-{self.numbers[0]:06d}-{self.numbers[-1]:06d}"


def shards_of(groups: Iterable[range], size: int) -> list[Shard]:
    """The shards of all numbers in `groups`. Those of one shard agree in their number divided by `size`, so that a
    larger group has the same shards, and its last one and some more in the place of the last."""
    return [
        Shard(range((own := list(numbers))[0], own[-1] + 1))
        for group in groups
        for _, numbers in groupby(group, key=lambda i: i // size)
    ]


def complete_shards(names: Collection[str]) -> list[Shard]:
    """The complete shards in a place that holds files of these names, in order."""
    found = shard_parts(names, ".jsonl") & shard_parts(names, ".tar")
    ends = sorted((int(m[1]), int(m[2])) for name in found if (m := RANGE.fullmatch(name)))
    return [Shard(range(first, last + 1)) for first, last in ends]


def shard_parts(names: Collection[str], suffix: str) -> set[str]:
    """Names of the shards of which these files are the ones with that suffix."""
    return {stem for name in names if name.endswith(suffix) and RANGE.fullmatch(stem := name.removesuffix(suffix))}


def without_gaps(shards: Sequence[Shard]) -> bool:
    """Whether no shard is missing between these: each begins behind the one before it, the first at 0, and those of
    counterfeits at their own first number."""
    expected = (0, *(shard.numbers[-1] + 1 for shard in shards))
    return all(shard.numbers[0] in (last, FIRST_COUNTERFEIT) for shard, last in zip(shards, expected, strict=False))

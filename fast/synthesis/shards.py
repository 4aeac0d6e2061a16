"""The output of a synthesis run as WebDataset shards, in a folder or behind a URL: tar files of so many pairs each."""

from __future__ import annotations

import json
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from threading import Lock
from typing import IO, Any

import numpy as np

from fast.data.images import encoded, natural_key
from fast.data.index import GOOD
from fast.data.source_mode import like_source
from fast.runtime.folders import is_litter, parse_json
from fast.synthesis.options import FIRST_COUNTERFEIT
from fast.synthesis.pair import PairImages
from fast.synthesis.records import ASKED, MANIFEST, brief_record, damaged
from fast.synthesis.shard_form import CLASSES, Shard, about_pair, add_entry, complete_shards, shards_of
from fast.synthesis.shard_table import write_table
from fast.synthesis.stores import Store
from ldm.errors import UserError

SETTINGS, TABLE = "settings.json", "manifest.parquet"
TAR_END = 1024  # zero bytes that a tar file ends with, at least


@dataclass
class _Open:
    """A shard that is being filled: its files one behind the other as they came, and where each pair's lie."""

    shard: Shard
    spool: IO[bytes] = field(default_factory=TemporaryFile)
    places: dict[int, list[tuple[str, int, int]]] = field(default_factory=dict)
    records: dict[int, str] = field(default_factory=dict)


class ShardFolder:
    """An output folder of WebDataset shards: tar files `pairs-000000-000999.tar` and so on.

    A shard holds `<name>.image.png`, `<name>.mask.png` and `<name>.json` of each pair. A `.jsonl` of records lies
    beside each shard, and `settings.json` and `classes.json` beside them all.

    A shard is there whole or not at all, and one that is there is done. A stopped run goes on with the others, and
    loses the pairs of those that it was at. Several processes make different shards. Pairs whose record says why they
    are `rejected` are in the `.jsonl` alone.

    Args:
        url: folder or URL.
        settings: what makes two runs the same run.
        size: pairs in a shard.

    Raises:
        UserError: the place holds something else.
    """

    def __init__(self, url: str, settings: Mapping[str, Any], size: int):
        self.store, self.size = Store(url), size
        self._shards: list[Shard] = []
        self._open: dict[str, _Open] = {}
        self._lock, self._fresh = Lock(), False
        self._honest = bool(settings.get("honest_masks"))
        self._settings = json.dumps({**settings, "shards": size}, indent=1).encode()
        self._claim()
        categories = list(dict.fromkeys(kind.partition("/")[0] for kind in settings["types"]))
        self._several = len(categories) > 1
        defects = sorted({self._class_of(kind) for kind in settings["types"]}, key=natural_key)
        # Those of counterfeits come last, so that the others' numbers are the same without.
        self.classes = list(dict.fromkeys([*defects, *(self._class_of(f"{c}/{GOOD}") for c in categories)]))
        self._defects = len(defects)

    def _class_of(self, kind: str) -> str:
        """A type's name: with its category where there is more than one, as exports have it."""
        return kind.lstrip("/") if self._several else kind.rpartition("/")[2]

    def _claim(self) -> None:
        names = {name for name in self.store.names() if not is_litter(name) and not name.endswith(".part")}
        if MANIFEST in names:
            raise UserError(f"--sample_name {self.store.url} holds a run in folders; give a new one for shards")
        self._new = SETTINGS not in names
        if self._new:
            if names:
                raise UserError(f"--sample_name {self.store.url} holds other files; give an empty or a new folder")
            self.store.write(SETTINGS, self._settings)
            return
        try:
            before = dict(parse_json(self.store.read(SETTINGS)))
        except (ValueError, TypeError):
            raise UserError(f"{self.store.url}/{SETTINGS} is damaged; give a new --sample_name") from None
        settings = json.loads(self._settings)
        differing = sorted(k for k in settings.keys() | before.keys() if settings.get(k) != before.get(k))
        if differing and self._marks():
            raise UserError(
                f"--sample_name {self.store.url} holds another run (differs in {', '.join(differing)}); "
                "give a new folder, or give the same settings to go on"
            )
        if differing:
            self.store.write(SETTINGS, self._settings)

    def _marks(self) -> list[Shard]:
        """The shards that are complete, in order."""
        return complete_shards(self.store.names())

    def share(self, groups: Sequence[range], rank: int, world: int) -> list[int]:
        """The numbers that process `rank` of `world` makes: every `world`-th shard."""
        asked = shards_of(groups, self.size)
        self._shards = self._with_those_before(asked)
        if self.store.near and not self._new:
            self._check_whole()
        if len(self._complete()) < len(self._shards):  # what says that all are there, and would say so of fewer
            for name in {CLASSES, TABLE} & self.store.names():
                self.store.remove(name)
        return [i for shard in asked[rank::world] for i in shard.numbers]

    def _with_those_before(self, asked: Sequence[Shard]) -> list[Shard]:
        """The shards that are asked for and those that a larger set before has left, in order. Where that has made one
        longer, it stands for the shorter one: no pair is in two."""
        found = {shard.numbers[0]: shard for shard in asked}
        for shard in self._marks():
            first = shard.numbers[0]
            if first not in found or found[first].numbers[-1] < shard.numbers[-1]:
                found[first] = shard
        return [found[first] for first in sorted(found)]

    def _check_whole(self) -> None:
        """Raise `UserError` for a shard that was complete and has lost records, or the end of its tar file."""
        place = Path(self.store.url)
        for shard in self._complete():
            records = self.store.read(f"{shard.name}.jsonl").count(b"\n")
            if records != len(shard.numbers):
                raise damaged(place / f"{shard.name}.jsonl", f"{records} records of {len(shard.numbers)}")
            end = self.store.tail(f"{shard.name}.tar", TAR_END)
            if len(end) < TAR_END or any(end):
                raise damaged(place / f"{shard.name}.tar", "it is cut off")

    def missing(self) -> list[Shard]:
        """Those that are not complete, in order: each is made by one process, from its first pair on."""
        complete = set(self._complete())
        return [shard for shard in self._shards if shard not in complete]

    def shard_of(self, number: int) -> Shard:
        """The shard of a pair that is asked for."""
        return self._shards[bisect_right(self._shards, number, key=lambda s: s.numbers[0]) - 1]

    def done(self) -> set[int]:
        """Numbers of the pairs in complete shards."""
        return {i for shard in self._complete() for i in shard.numbers}

    def drop_damaged(self, numbers: Iterable[int]) -> list[Path]:
        """None: `share` has looked at the shards."""
        return []

    def write(self, record: dict[str, Any], images: PairImages) -> None:
        """Take a pair, as `OutputFolder.write` does, without a triptych. The last one of a shard writes the shard."""
        number = record["index"]
        shard = self.shard_of(number)
        files = {} if record.get("rejected") else self._files(record, images)
        names = {"image": f"{number:06d}.image.png", "mask": f"{number:06d}.mask.png"}
        if ASKED in record:
            names[ASKED] = f"{number:06d}.{ASKED}.png"
        record = {**record, **names, "shard": f"{shard.name}.tar"}
        if files:
            same = {key: value for key, value in record.items() if key != "seconds"}  # the same bytes every time
            files["json"] = about_pair(self._class_of(record["type"]), self.classes, same)
        with self._lock:
            filling = self._open.setdefault(shard.name, _Open(shard))
            places = filling.places.setdefault(number, [])
            for suffix, data in files.items():
                places.append((f"{number:06d}.{suffix}", filling.spool.tell(), len(data)))
                filling.spool.write(data)
            filling.records[number] = json.dumps(record)
            complete = len(filling.records) == len(shard.numbers)
            if complete:
                del self._open[shard.name]
        if complete:
            self._finish(filling)

    def _files(self, record: dict[str, Any], images: PairImages) -> dict[str, bytes]:
        stored, mask, asked = like_source(images.image, record.get("normal_source")), images.mask, images.asked
        image_png = encoded(stored.array) if stored.array.dtype == np.uint8 else stored.png()
        shown = np.zeros_like(mask) if record.get("counterfeit") else mask
        files = {"image.png": image_png, "mask.png": encoded((shown != 0).astype(np.uint8) * 255)}
        return files if asked is None else {**files, f"{ASKED}.png": encoded((asked != 0).astype(np.uint8) * 255)}

    def _finish(self, filling: _Open) -> None:
        """Write a shard, in the order of its numbers, remove a shorter one in its place, then write its records. Who is
        killed in between leaves a shard that is made again, never two of the same pairs."""
        name = filling.shard.name
        with TemporaryDirectory() as aside, filling.spool as spool:
            local = Path(aside) / f"{name}.tar"
            with tarfile.open(local, "w", format=tarfile.USTAR_FORMAT) as tar:
                for number in filling.shard.numbers:
                    for entry, offset, length in filling.places[number]:
                        spool.seek(offset)
                        add_entry(tar, entry, spool.read(length))
            self.store.write(f"{name}.tar", local)
        first, last = filling.shard.numbers[0], filling.shard.numbers[-1]
        for other in self._marks():
            if other.numbers[0] == first and other.numbers[-1] < last:
                self.store.remove(f"{other.name}.jsonl")
                self.store.remove(f"{other.name}.tar")
        lines = [filling.records[number] + "\n" for number in filling.shard.numbers]
        self.store.write(f"{name}.jsonl", "".join(lines).encode())
        self._fresh = True

    def gather(self) -> int:
        """Once all shards are there, write `classes.json` and `manifest.parquet`. Returns how many
        pairs they hold."""
        self.close()
        names = self.store.names()
        if SETTINGS not in names:  # another process of this run, which was refused something, has taken it away
            self.store.write(SETTINGS, self._settings)
        complete = self._complete()
        if len(complete) == len(self._shards):
            for name in names:
                if name.startswith(".pairs-") and name.endswith(".part"):  # of a process that was killed as it wrote
                    self.store.remove(name)
            if self._fresh or TABLE not in names:
                write_table(self.store, TABLE, (records_of(self.store, shard.name) for shard in complete))
            if self._fresh or CLASSES not in names:
                self._write_classes()
        return sum(not row.get("rejected") for row in self.brief())

    def _write_classes(self) -> None:
        fakes = bool(self._shards) and self._shards[-1].numbers[-1] >= FIRST_COUNTERFEIT
        numbered = {str(i): name for i, name in enumerate(self.classes if fakes else self.classes[: self._defects])}
        self.store.write(CLASSES, (json.dumps(numbered, indent=1, ensure_ascii=False) + "\n").encode())

    def _complete(self) -> list[Shard]:
        """The complete ones of the set's shards, in order."""
        own = {shard.name for shard in self._shards}
        return [shard for shard in self._marks() if shard.name in own]

    def to_replace(self) -> list[int]:
        """None: rejected pairs of shards are not made again."""
        return []

    def brief(self) -> list[dict[str, Any]]:
        """What the end of a run tells of each record.

        Records are read only where the numbers do not say it, for a million of them are a gigabyte.
        """
        if self._honest:
            return [brief_record(row) for row in self.each()]
        return [
            {"counterfeit": True} if i >= FIRST_COUNTERFEIT else {} for shard in self._complete() for i in shard.numbers
        ]

    def each(self) -> Iterator[dict[str, Any]]:
        """Records of the pairs in complete shards, in order, a shard in memory."""
        for shard in self._complete():
            yield from records_of(self.store, shard.name)

    def close(self) -> None:
        """Let go of what is not complete."""
        for filling in self._open.values():
            filling.spool.close()
        self._open.clear()

    def abandon(self) -> None:
        """Remove what this object wrote where no shard came of it: a refused input leaves nothing."""
        if self._new and not self._marks():
            for name in (SETTINGS, CLASSES):
                self.store.remove(name)
            self.store.remove_folder()


def records_of(store: Store, name: str) -> list[dict[str, Any]]:
    """The records of a complete shard. Raises `UserError`."""
    try:
        return [dict(parse_json(line)) for line in store.read(f"{name}.jsonl").splitlines()]
    except (ValueError, TypeError):
        raise UserError(f"{store.url}/{name}.jsonl is damaged; remove it, and the shard is made again") from None

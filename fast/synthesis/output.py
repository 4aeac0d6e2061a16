"""The output folder of a synthesis run: pairs, triptychs, and a manifest that says how each was made."""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from fast.data.images import write_bytes, write_image, write_mask
from fast.data.source_mode import like_source
from fast.data.whole import broken_images
from fast.runtime.folders import held, parse_json
from fast.synthesis.pair import PairImages
from fast.synthesis.records import (
    ASKED,
    Place,
    as_line,
    brief_record,
    lines_of,
    numbers_in,
    shard_files,
    texts_at,
    write_lines,
)
from fast.synthesis.triptych import triptych
from ldm.errors import UserError

COMMAND = "command.json"  # the options that the folder was last filled with
PICTURES = ("image", "mask", "triptych")
GROWING = ("normals", "masks", "types")  # settings that --extend may add to


class OutputFolder:
    """An output folder of pairs: `image/`, `mask/`, `triptych/`, and `manifest.jsonl` with a line per pair, in order.

    A pair's record is written after its pictures, so what has a record is complete. A stopped run goes on with the
    rest, and several processes, each of its own `rank`, may fill one folder. A pair whose record says why it is
    `rejected` lies in `rejected/`, a folder of the same form: it is complete, and in no reader's way.

    Args:
        folder: where to write, new or of the same run.
        settings: what makes two runs the same run.
        rank: number of this process.
        extend: True allows that the lists of `GROWING` became longer since the folder was last filled.

    Raises:
        UserError: the folder holds something else, or another process of `rank` is filling it.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: dict[str, Any], rank: int = 0, extend: bool = False):
        self.folder = Path(folder)
        self.manifest = self.folder / "manifest.jsonl"
        self.records = self.folder / ".records"
        self.rejects = self.folder / "rejected"
        self._plan = self.folder / ".sorted.jsonl"
        self._check_free()
        self._made = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--sample_name {folder} cannot be made ({error.strerror}); give another folder") from None
        self._own = self._occupy(rank)
        with self._lock():
            self._claim(settings, extend)
            self._settle()

    def _check_free(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"--sample_name {self.folder} is a file; give a folder")
        if shard_files(self.folder):
            raise UserError(
                f"--sample_name {self.folder} holds shards; give a new folder, or --shards to go on with them"
            )
        # A second process may see the folder between its making and its mark.
        others = [n for n in held(self.folder) if n != "settings.json.part" and not n.startswith(".lock")]
        if others and not (self.folder / "settings.json").is_file():
            raise UserError(f"--sample_name {self.folder} holds other files; give an empty or a new folder")

    def _occupy(self, rank: int) -> IO[str]:
        """A lock that lasts as long as this process: the same command started twice would do everything twice."""
        file = self._open(f".lock{rank}")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(f"--sample_name {self.folder} is being filled by another process; wait for it") from None
        return file

    def _open(self, name: str) -> IO[str]:
        """A lock file. Raises `UserError`."""
        try:
            return open(self.folder / name, "w")
        except OSError as error:
            raise UserError(f"{self.folder / name}: cannot write ({error.strerror}); give another folder") from None

    def _claim(self, settings: dict[str, Any], extend: bool) -> None:
        mark = self.folder / "settings.json"
        if mark.is_file():
            try:
                before = dict(parse_json(mark.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                raise UserError(f"{mark} is damaged; give a new --sample_name folder") from None
            differing = sorted(k for k in settings.keys() | before.keys() if settings.get(k) != before.get(k))
            grown = bool(differing) and all(k in GROWING and _grown(before.get(k), settings.get(k)) for k in differing)
            if differing and not (extend and grown) and self._found():
                way = "add --extend to go on with what was added" if grown else "give the same settings to go on"
                raise UserError(
                    f"--sample_name {self.folder} holds another run (differs in {', '.join(differing)}); "
                    f"give a new folder, or {way}"
                )
            if not differing:
                return
        write_bytes(mark, json.dumps(settings, indent=1).encode())

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Keeps the processes of one run apart while records move."""
        with self._open(".lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def close(self) -> None:
        """Let another process fill the folder."""
        self._own.close()

    def abandon(self) -> None:
        """Remove the folder's marks, and the folder if this object made it, where no pair came of it.

        A refused input leaves nothing. While other processes fill the folder this does nothing.
        """
        if (locks := list(self.folder.glob(".lock*"))) and len(locks) > 2:
            return
        if self._found() or any(p.is_file() for p in self.folder.glob("**/*/*")):
            return
        for path in (self.manifest, self.folder / "settings.json", self.folder / COMMAND, *locks):
            path.unlink(missing_ok=True)
        kinds = [place / kind for place in (self.rejects, self.folder) for kind in (*PICTURES, ASKED)]
        for path in (self.records, *kinds, self.rejects, *([self.folder] if self._made else [])):
            with suppress(OSError):  # not there, or not empty
                path.rmdir()

    def share(self, groups: Sequence[range], rank: int, world: int) -> list[int]:
        """The numbers that process `rank` of `world` makes: every `world`-th."""
        return [i for group in groups for i in group][rank::world]

    def done(self) -> set[int]:
        """Numbers of the pairs that are complete."""
        with self._lock():
            return set(self._found())

    def drop_damaged(self, numbers: Iterable[int]) -> list[Path]:
        """Remove the damaged files of complete pairs, which are then no longer complete, and return them.

        A pair that somebody rejected, and in whose place another came, keeps them: it must not come back. So does a
        rejected counterfeit. Raises `UserError`.
        """
        damaged = self.damaged(numbers)
        with self._lock():
            found = self._found()
            # Another process may have removed one of them meanwhile.
            refused = [p for p in damaged if p.is_relative_to(self.rejects) and int(p.stem) in found]
            stay = {path for path in refused if _replaced(found[int(path.stem)])}
        damaged = [path for path in damaged if path not in stay]
        for path in damaged:
            path.unlink(missing_ok=True)
        return damaged

    def damaged(self, numbers: Iterable[int]) -> list[Path]:
        """Files of complete pairs that are cut off or no images. Raises `UserError`.

        `fast.data.whole` judges them by their ends, without reading them whole.
        """
        with self._lock():
            found = self._found()
        places = {False: self.folder, True: self.rejects}
        asked = {out: numbers_in(folder / ASKED) for out, folder in places.items()}
        files = []
        for number in (number for number in numbers if number in found):
            out = found[number].rejected
            kinds = (*PICTURES, ASKED) if number in asked[out] else PICTURES
            files += [places[out] / kind / f"{number:06d}.png" for kind in kinds]
        return [path for path, _ in broken_images(files)]

    def to_replace(self) -> list[int]:
        """Numbers of the pairs that came in the place of rejected ones and are damaged or gone. Raises `UserError`."""
        if not (self.rejects / self.manifest.name).is_file():
            return []
        places = {int(row["replaced_by"]) for row in self.each() if "replaced_by" in row}
        there = self.done()
        return sorted((places - there) | {int(path.stem) for path in self.damaged(places & there)} - self._refused())

    def _refused(self) -> set[int]:
        """Numbers of the pairs in `rejected/`."""
        with self._lock():
            return {number for number, place in self._found().items() if place.rejected}

    def each(self) -> Iterator[dict[str, Any]]:
        """Records of the complete pairs in order, the rejected ones too, read one by one."""
        with self._lock():
            found = self._found()
            yield from map(parse_json, texts_at(found[i] for i in sorted(found)))

    def rows(self) -> list[dict[str, Any]]:
        """All of `each` at once."""
        return list(self.each())

    def brief(self) -> list[dict[str, Any]]:
        """What the end of a run tells of each record, for all of a hundred thousand would be gigabytes."""
        return [brief_record(row) for row in self.each()]

    def _found(self) -> dict[int, Place]:
        """Where the records stand, by number, without those whose pictures somebody has removed; what another pair came
        in the place of was rejected, and stays so without them."""
        found: dict[int, Place] = {}
        there = {folder: [numbers_in(folder / kind) for kind in (*PICTURES, ASKED)]
                 for folder in (self.folder, self.rejects)}  # fmt: skip
        files = [self.manifest, self.rejects / self.manifest.name, *self.records.glob("*.json")]
        try:
            for file in files:
                for offset, text in lines_of(file):
                    row = parse_json(text)
                    number, rejected = int(row["index"]), bool(row.get("rejected"))
                    kinds = there[self.rejects if rejected else self.folder][: 4 if ASKED in row else 3]
                    if "replaced_by" in row or all(number in numbers for numbers in kinds):
                        found[number] = Place(file, offset, rejected)
                    else:
                        found.pop(number, None)
        except (ValueError, KeyError, TypeError, OverflowError):
            raise UserError(f"{self.manifest} is damaged; restore it or give a new --sample_name folder") from None
        return found

    def _pictures(self, record: dict[str, Any]) -> list[Path]:
        """Files of a pair: image, mask, triptych, and the asked mask where there is one."""
        folder, kinds = self.rejects if record.get("rejected") else self.folder, (*PICTURES, ASKED)
        return [folder / kind / f"{record['index']:06d}.png" for kind in kinds[: 4 if ASKED in record else 3]]

    def write(self, record: dict[str, Any], images: PairImages) -> None:
        """Store a pair with its triptych.

        The record makes the pair count, and says by its keys whether there is an asked mask. The mask of a counterfeit
        is stored empty, and its triptych shows where it was filled. The image is stored in the mode and depth of the
        record's `normal_source`, if there is one: grey stays grey, 16 bits stay 16.
        """
        image_path, mask_path, triptych_path, *asked_path = self._pictures(record)
        stored, mask = like_source(images.image, record.get("normal_source")), images.mask
        stored.write(image_path)
        write_mask(mask_path, np.zeros_like(mask) if record.get("counterfeit") else mask)
        write_image(triptych_path, triptych(images.normal, mask[images.shown], stored.seen[images.shown]))
        if images.asked is not None:
            write_mask(asked_path[0], images.asked)
        with self._lock():
            write_bytes(self.records / f"{image_path.stem}.json", as_line(record).encode())

    def gather(self) -> int:
        """Bring all records into the manifest, sorted, those of rejected pairs into that of `rejected/`.

        Returns how many pairs the manifest holds.
        """
        with self._lock():
            files, found = list(self.records.glob("*.json")), self._found()
            places = [found[i] for i in sorted(found)]
            kept, rejected = ([p for p in places if p.rejected == out] for out in (False, True))
            if not self._listed(kept, rejected):
                self._list(texts_at(kept), texts_at(rejected), bool(rejected))
            for file in files:
                file.unlink()
            if self.records.is_dir() and not any(self.records.iterdir()):
                self.records.rmdir()
        return len(kept)

    def _listed(self, *parts: list[Place]) -> bool:
        """Whether the manifests hold these records, and nothing else, already."""
        for path, places in zip((self.manifest, self.rejects / self.manifest.name), parts, strict=True):
            if [p.offset for p in places if p.file == path] != [offset for offset, _ in lines_of(path)]:
                return False
            if any(p.file != path for p in places) or (path == self.manifest and not path.is_file()):
                return False
        return True

    def _list(self, kept: Iterable[str], rejected: Iterable[str], any_rejected: bool) -> None:
        """Write the manifests."""
        other = self.rejects / self.manifest.name
        write_lines(self.manifest, kept)
        if any_rejected or other.is_file():
            write_lines(other, rejected)

    def sort(self, rows: list[dict[str, Any]]) -> None:
        """Take `rows` for the pairs' records and bring each pair's files to where its record says.

        All of it is done or none: killed in between, it is finished when the folder is opened.

        Args:
            rows: all that `rows()` gave, with other values in them.
        """
        with self._lock():
            write_lines(self._plan, map(as_line, rows))
            self._settle()

    def _settle(self) -> None:
        """Do what is planned, if anything is."""
        if not self._plan.is_file():
            return
        rows = [parse_json(line) for line in self._plan.read_text(encoding="utf-8").splitlines()]
        kept, rejected = ([as_line(row) for row in rows if bool(row.get("rejected")) == out] for out in (False, True))
        self._list(kept, rejected, bool(rejected))
        for row in rows:
            elsewhere = self._pictures({**row, "rejected": not row.get("rejected")})
            for source, target in zip(elsewhere, self._pictures(row), strict=True):
                if source.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(source, target)
        self._plan.unlink()


def _replaced(place: Place) -> bool:
    """Whether a rejected pair has one in its place, or is a counterfeit, which needs none."""
    row = parse_json(next(texts_at([place])))
    return "replaced_by" in row or bool(row.get("counterfeit"))


def _grown(before: Any, now: Any) -> bool:
    """Whether the list `now` holds all of the list `before`, each as often as it did."""
    if not isinstance(before, list) or not isinstance(now, list):
        return False
    return not Counter(map(str, before)) - Counter(map(str, now))

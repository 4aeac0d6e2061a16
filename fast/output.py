"""The output folder of a synthesis run: pairs, triptychs, and a manifest that says how each was made."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fast.data.images import write_bytes, write_image, write_mask
from ldm.errors import UserError


class OutputFolder:
    """`image/`, `mask/`, `triptych/` and `manifest.jsonl`, a line per pair in order.

    A pair's record is written after its pictures, so what has a record is complete: a stopped run goes on with the
    rest, and several processes may fill one folder. `settings` is what makes two runs the same run.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: dict[str, Any]):
        self.folder = Path(folder)
        self.manifest = self.folder / "manifest.jsonl"
        self.records = self.folder / ".records"
        self._claim(settings)

    def _claim(self, settings: dict[str, Any]) -> None:
        mark = self.folder / "settings.json"
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"--sample_name {self.folder} is a file; give a folder")
        held = {p.name for p in self.folder.iterdir()} if self.folder.is_dir() else set()
        # A second process may see the folder between its making and its mark.
        if held - {"settings.json.part", ".lock"} and not mark.is_file():
            raise UserError(f"--sample_name {self.folder} holds other files; give an empty or a new folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if mark.is_file():
                before = json.loads(mark.read_text())
                differing = sorted(k for k in settings.keys() | before.keys() if settings.get(k) != before.get(k))
                if differing:
                    raise UserError(
                        f"--sample_name {self.folder} holds another run (differs in {', '.join(differing)}); "
                        "give a new folder, or the same settings to go on"
                    )
            else:
                write_bytes(mark, json.dumps(settings, indent=1).encode())

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with open(self.folder / ".lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def done(self) -> set[int]:
        """Numbers of the pairs that are complete."""
        return set(self._read())

    def _read(self) -> dict[int, dict[str, Any]]:
        lines = self.manifest.read_text().splitlines() if self.manifest.is_file() else []
        texts = lines + [p.read_text() for p in self.records.glob("*.json")]
        return {r["index"]: r for r in map(json.loads, texts)}

    def write(self, record: dict[str, Any], normal: np.ndarray, image: np.ndarray, mask: np.ndarray) -> None:
        """Store a pair: image and normal (H,W,3) uint8, mask (H,W) in {0,1}."""
        name = f"{record['index']:06d}"
        white = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
        gap = np.full((mask.shape[0], 4, 3), 255, np.uint8)
        write_image(self.folder / "image" / f"{name}.png", image)
        write_mask(self.folder / "mask" / f"{name}.png", mask)
        write_image(self.folder / "triptych" / f"{name}.png", np.concatenate([normal, gap, white, gap, image], axis=1))
        write_bytes(self.records / f"{name}.json", json.dumps(record).encode())

    def gather(self) -> int:
        """Bring all records into the manifest, sorted. Returns how many pairs it holds."""
        with self._lock():
            files = list(self.records.glob("*.json"))
            rows = self._read()
            text = "".join(json.dumps(rows[i]) + "\n" for i in sorted(rows))
            write_bytes(self.manifest, text.encode())
            for file in files:
                file.unlink()
            if self.records.is_dir() and not any(self.records.iterdir()):
                self.records.rmdir()
        return len(rows)

"""The images of `elpv-dataset`: fetched by pip, read out of the package as data; no code of it is run or installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ldm.errors import UserError

PACKAGE = "elpv-dataset"
LABELS = "data/labels.csv"


@dataclass(frozen=True, eq=False)
class Photo:
    """`image`: uint8 (H,W), grey. `defective`: 0, 1/3, 2/3 or 1, the experts' probability; `mono`: of a monocrystalline
    module, else polycrystalline. `half`: 0 or 1, by the pixels alone."""

    name: str
    image: np.ndarray
    defective: float
    mono: bool
    half: int

    @property
    def functional(self) -> bool:
        return self.defective == 0


def fetch(folder: Path) -> Path:
    """The package's file in `folder`, downloaded by pip from its configured index unless it is there. Raises
    `UserError`."""
    found = sorted(folder.glob("elpv_dataset-*.whl"))
    if found:
        return found[-1]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary", ":all:", "--dest", str(folder), PACKAGE]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True)
    found = sorted(folder.glob("elpv_dataset-*.whl"))
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
        raise UserError(f"cannot fetch {PACKAGE} ({reason}); put its .whl file into {folder} and run again")
    return found[-1]


def read(package: Path) -> list[Photo]:
    """All images with their labels, in the order of the package's list. Raises `UserError` for a damaged file."""
    try:
        with zipfile.ZipFile(package) as archive:
            (listing,) = (name for name in archive.namelist() if name.endswith(LABELS))
            root = listing.removesuffix("labels.csv")
            rows = [line.split() for line in archive.read(listing).decode().splitlines() if line.strip()]
            return [_photo(name, archive.read(root + name), float(p), kind) for name, p, kind in rows]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{package} is not a readable package of {PACKAGE} ({error}); delete it and run again"
        ) from None


def _photo(name: str, data: bytes, defective: float, kind: str) -> Photo:
    if kind not in ("mono", "poly") or not 0 <= defective <= 1:
        raise ValueError(f"{name} is labelled {defective} {kind}")
    with Image.open(BytesIO(data)) as opened:
        image = np.asarray(opened.convert("L"))
    return Photo(Path(name).stem, image, defective, kind == "mono", hashlib.sha256(image.tobytes()).digest()[0] & 1)

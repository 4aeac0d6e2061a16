"""A large file as several small ones, and back, for ways that carry no large files."""

import hashlib
import json
from pathlib import Path

from fast.data.images import write_bytes
from ldm.errors import UserError


def split_file(path: Path, folder: Path, most: int) -> list[Path]:
    """Write `<name>.00`, `<name>.01`, ... of at most `most` bytes into `folder`, and `<name>.json`, which says how many
    they are and the SHA-256 of the whole. Returns their paths."""
    data = path.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, start in enumerate(range(0, len(data), most)):
        parts.append(folder / f"{path.name}.{number:02d}")
        write_bytes(parts[-1], data[start : start + most])
    about = {"parts": len(parts), "sha256": hashlib.sha256(data).hexdigest()}
    write_bytes(folder / f"{path.name}.json", (json.dumps(about) + "\n").encode())
    return [*parts, folder / f"{path.name}.json"]


def join_file(about: Path, folder: Path) -> Path:
    """The file that `split_file` cut up, by its `<name>.json`, written to `folder`. Raises `UserError` for a part that
    is missing or damaged."""
    try:
        known = json.loads(about.read_text())
        count, expected = int(known["parts"]), str(known["sha256"])
        if about.suffix != ".json" or count < 1:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{about} does not say what its parts are; give the .json that lies beside them") from None
    name = about.name.removesuffix(".json")
    pieces = [about.with_name(f"{name}.{number:02d}") for number in range(count)]
    missing = [piece.name for piece in pieces if not piece.is_file()]
    if missing:
        raise UserError(f"{about.parent} lacks {', '.join(missing)}; copy all parts there")
    data = b"".join(piece.read_bytes() for piece in pieces)
    if hashlib.sha256(data).hexdigest() != expected:
        raise UserError(f"the parts of {name} in {about.parent} are damaged: not the file's SHA-256; copy them again")
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / name, data)
    return folder / name

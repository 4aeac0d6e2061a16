"""Hashes of files. A module without torch: programs that only ask for a hash or for help do not wait for it."""

import hashlib
import os
import re


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def is_hash(text: object) -> bool:
    """Whether it is a SHA-256, hexadecimal."""
    return isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text) is not None

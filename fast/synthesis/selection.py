"""Which of several files a pair takes. Their content decides, not their places and names."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.rng import seed_of


def contents(paths: Iterable[Path]) -> list[str]:
    """SHA-256 of each file, hexadecimal. Raises `UserError` for one that cannot be read."""

    def digest(path: Path) -> str:
        try:
            return file_hash(path)
        except OSError as error:
            raise UserError(f"{path}: cannot read the image ({error.strerror}); check the path") from None

    with ThreadPoolExecutor() as pool:
        return list(pool.map(digest, paths))


def marks(digests: Sequence[str]) -> np.ndarray:
    """The first 64 bits of each digest, (N,) uint64."""
    return np.array([int(d[:16], 16) for d in digests], np.uint64)


def drawn(candidates: np.ndarray, *key: int) -> int:
    """The candidate, by its `marks`, that wins for this key: the one with the highest hash of key and mark.

    Rendezvous hashing (Thaler and Ravishankar 1998): each wins equally often, and without one of them all keys that it
    did not win keep theirs.
    """
    return int(np.argmax(_mixed(candidates, seed_of(*key))))


def order(candidates: np.ndarray, lap: int, *key: int) -> np.ndarray:
    """The order of the candidates, by their `marks`, in time through number `lap`: (N,) numbers."""
    return np.argsort(_mixed(candidates, seed_of(*key, lap)), kind="stable")


def turn(candidates: np.ndarray, index: int, *key: int) -> int:
    """The candidate for number `index`, all of them by `order` every time through."""
    lap, place = divmod(index, len(candidates))
    return int(order(candidates, lap, *key)[place])


def _mixed(values: np.ndarray, key: int) -> np.ndarray:
    """A 64-bit hash of each value (N,) uint64 and the key: the last steps of SplitMix64."""
    x = values ^ np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

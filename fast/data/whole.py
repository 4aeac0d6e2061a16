"""Whether image files are whole, before hours are spent on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fast.data.decode import RESTORE, reason
from fast.data.images import read_image
from fast.data.packed import container, named, read_ends, remedy
from fast.runtime.progress import followed
from fast.runtime.signals import is_first_process
from ldm.errors import UserError

CHOICE = "choice.json"  # in the folder of a run of `bench.py --auto`: what it has tried
AT_ONCE = 4096  # files that are waited for together: a set has hundreds of thousands


def looks_whole(path: str | Path) -> bool:
    """True for a PNG or JPEG file, in a shard too, that begins and ends as such: what a full decode would find, for the
    price of two reads. UserError when the file cannot be opened."""
    path = Path(path)
    try:
        head, tail = read_ends(path, 8, 64)
    except OSError as error:
        raise UserError(
            f"{named(path)} cannot read the image ({reason(error)}); {remedy(path, 'check the path')}"
        ) from error
    return (head == b"\x89PNG\r\n\x1a\n" and b"IEND" in tail) or (head[:2] == b"\xff\xd8" and b"\xff\xd9" in tail)


def broken_images(paths: Iterable[Path]) -> Iterator[tuple[Path, UserError]]:
    """Look at every file once: each that is cut off or no image, with what is wrong, in the order of their names. One
    is decoded only where its ends leave a doubt."""
    every = sorted(set(paths))
    with ThreadPoolExecutor() as pool:
        batches = (every[start : start + AT_ONCE] for start in range(0, len(every), AT_ONCE))
        looked = (each for some in batches for each in zip(some, pool.map(_problem, some), strict=True))
        hidden = not is_first_process()
        for path, error in followed(looked, "looked at", "file", len(every), hidden=hidden, leave=False):
            if error is not None:
                yield path, error


def check_images(paths: Iterable[Path]) -> None:
    """Raises `UserError` for the first of `broken_images`."""
    for _, error in broken_images(paths):
        raise error


def check_made(paths: Iterable[Path]) -> None:
    """`check_images` of pairs that were synthesized, in folders or shards, whose remedy is another one: to make them
    anew. Raises `UserError`."""
    found = list(broken_images(paths))
    if not found:
        return
    path, error = found[0]
    others = list(dict.fromkeys(container(other) for other, _ in found))[1:]  # a tar file counts once
    more = f" (and {len(others)} more, {others[0].name} the next)" if others else ""
    what, _, again = str(error).rpartition("; ")
    if again == RESTORE or not container(path).exists():
        again = _remedy(path)
    raise UserError(f"{what}{more}; {again}")


def _remedy(path: Path) -> str:
    """What makes a file of a synthesis output anew. `bench.py --auto` keeps no settings beside its pairs."""
    if by_auto := _by_auto(path.parent.parent):
        return by_auto
    if not container(path).exists():
        return "run the set's command again, which makes what is missing"
    return "run the set's command again, which makes it anew"


def synthesized_again(output: Path) -> str:
    """The remedy for a synthesis output whose manifest is damaged."""
    return _by_auto(output) or "restore it or synthesize again"


def _by_auto(output: Path) -> str:
    """What makes an output that `bench.py --auto` left anew; empty for another one."""
    if (output / "settings.json").exists() or not (output.parent / CHOICE).is_file():
        return ""
    return f"run scripts/bench.py --auto with --out {output.parent} again, which makes all pairs of it anew"


def _problem(path: Path) -> UserError | None:
    try:
        if not looks_whole(path):
            read_image(path)
    except UserError as error:
        return error
    return None

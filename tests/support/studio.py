"""A studio on a drawn dataset, served as `fast-studio` serves it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket

from fast.cli.regenerate import regenerate
from fast.cli.studio import folders
from fast.studio.app import build, served
from fast.studio.workbench import Workbench


@contextmanager
def studio(bench: Workbench, pairs: Path | None, kept: Path) -> Iterator[str]:
    """The address of a page on a free port."""
    with socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shown = folders(pairs, kept)
    with served(lambda: build(bench, shown, kept, regenerate), "127.0.0.1", port) as url:
        yield url

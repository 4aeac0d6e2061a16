"""WebDataset: pairs in tar files that are read from front to back."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO

from fast.export.pairs import Run
from fast.export.write import Target


def write_webdataset(run: Run, target: Target) -> None:
    """`pairs-000000.tar`, ...: of each pair `<name>.image.png`, `<name>.mask.png`, `<name>.json` (type, class, and the
    line of the manifest). The same pairs give the same bytes."""
    classes = run.classes()
    for first in range(0, len(run.pairs), target.shard_size):
        name = f"pairs-{first // target.shard_size:06d}.tar"
        with tarfile.open(target.folder / name, "w", format=tarfile.USTAR_FORMAT) as shard:
            for pair in run.pairs[first : first + target.shard_size]:
                pair.read_mask()
                kind = run.class_of(pair)
                told = {"type": kind, "label": classes.index(kind), "provenance": pair.record}
                _add(shard, f"{pair.name}.image{pair.image.suffix}", pair.image.read_bytes())
                _add(shard, f"{pair.name}.mask.png", pair.mask.read_bytes())
                _add(shard, f"{pair.name}.json", json.dumps(told).encode())
                target.came_from(pair, f"{name}:{pair.name}")
    target.json("classes.json", {str(i): name for i, name in enumerate(classes)})


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    shard.addfile(entry, BytesIO(data))

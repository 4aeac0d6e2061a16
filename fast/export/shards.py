"""WebDataset: pairs in tar files that are read from front to back."""

from __future__ import annotations

import tarfile

from fast.data.packed import bytes_of
from fast.export.pairs import Run
from fast.export.write import Target
from fast.synthesis.shard_form import about_pair, add_entry


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
                add_entry(shard, f"{pair.name}.image{pair.image.suffix}", bytes_of(pair.image))
                add_entry(shard, f"{pair.name}.mask.png", bytes_of(pair.mask))
                add_entry(shard, f"{pair.name}.json", about_pair(kind, classes, pair.record))
                target.came_from(pair, f"{name}:{pair.name}")
    target.json("classes.json", {str(i): name for i, name in enumerate(classes)})

"""One category folder of a dataset: collects its samples, and says what is wrong with its files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fast.data.copied import own_part
from fast.data.groups import GROUPS, read_groups
from fast.data.images import list_images, read_mask
from fast.data.index import GOOD, DatasetIndex, Sample
from fast.data.labelme import is_annotation
from fast.data.pairing import MASK_NAME, images_below, pair, reads_as_mask, split_beside
from fast.runtime.counts import number_of
from ldm.errors import UserError

NORMAL_DIRS = ("normal", "normals", "good", "ok")
DEFECT_DIRS = ("defect", "defects", "ko", "ng", "anomaly", "anomalies", "bad")
MASK_DIRS = ("mask", "masks", "ground_truth", "gt")
OTHER_DIRS = ("images", "image", "imgs", "img", "train", "test", "val", "labels", "annotations", "json")


class CategoryReader:
    """Adds one category folder's samples to an index."""

    def __init__(self, index: DatasetIndex, folder: Path) -> None:
        self.index, self.folder, self.name = index, folder, folder.name
        index.folders[self.name] = folder
        self.groups = read_groups(index.root) | read_groups(folder)
        self.ungrouped: list[Path] = []

    def sample(self, image: Path, anomaly: str = GOOD, mask: Path | None = None) -> Sample:
        group = self.groups.get(image)
        if self.groups and not group and anomaly != GOOD:
            self.ungrouped.append(image)
        return Sample(image, mask, self.name, anomaly, group or own_part(self.index.relative(image)))

    def finish(self) -> None:
        """Say which defects the table of groups forgot, and which rows name no image: that is how a split leaks."""
        lost = [image for image in read_groups(self.folder) if not image.is_file()]
        if lost:
            first, count = self.index.relative(lost[0]), len(lost)
            told = number_of(count, "row names", "rows name")
            self.problem(self.folder / GROUPS, f"{told} no image (first: {first}); correct the names")
        if self.ungrouped:
            table = next(p for p in (self.folder / GROUPS, self.index.root / GROUPS) if p.is_file())
            first, count = self.index.relative(self.ungrouped[0]), len(self.ungrouped)
            told = number_of(count, "defect has", "defects have")
            self.problem(table, f"{told} no row (first: {first}); each counts as a part of its own")

    def problem(self, path: Path, what: str) -> None:
        self.index.seen.add(path)
        self.index.problems.append(f"{self.index.relative(path)}: {what}")

    def normals(self, folder: Path, test: bool = False, below: bool = True) -> None:
        """Images of a folder and, with `below`, of the folders in it. A mask beside one must be empty."""
        target = self.index.test_normals if test else self.index.normals
        images, masks, problems = split_beside(files_of(folder, below))
        for path, what in problems:
            self.problem(path, what)
        for image in images:
            if image in masks and self.has_defect(masks[image]):
                self.problem(masks[image], f"mask with a defect, but {image.name} lies among the normals; move it")
                self.index.seen.add(image)
            elif image not in masks and MASK_NAME.search(image.stem) and reads_as_mask(image):
                self.problem(image, "mask without image; it lies among the normals, move it")
            else:
                target.append(self.sample(image))

    def has_defect(self, mask: Path) -> bool:
        self.index.seen.add(mask)
        try:
            return bool(read_mask(mask).any())
        except UserError as error:
            self.problem(mask, str(error).removeprefix(f"{mask}: "))
            return True

    def defects(
        self, folders: Iterable[Path], masks: Iterable[Path], anomaly: str, looked: Path, below: bool = True
    ) -> None:
        """Images in `folders` and their masks in the folders `masks`, or else beside them; with `below` in all folders
        inside, too. What contradicts itself or has no partner becomes a problem line that names `looked`, where masks
        should be.
        """
        folders = [p for p in folders if p.is_dir()]
        given = [(mask, root) for root in masks for mask in files_of(root, below)]
        files = [(p, root) for root in folders for p in files_of(root, below)]
        if anomaly.lower() in NORMAL_DIRS:
            if files or given:
                where = folders[0] if folders else looked
                self.index.seen.update(p for p, _ in [*files, *given])
                self.problem(where, f"a defect type cannot be called '{anomaly}', which names the normals; rename it")
            return
        if not given:
            own = self._beside([p for p, _ in files])
            given = [(mask, root) for mask in own for root in folders if root in mask.parents]
            files = [(p, root) for p, root in files if p not in own]

        def where_to(image: Path) -> str:
            return f"{self.index.relative(looked)}/{image.stem}[_mask].*"

        found = pair(files, given, where_to, anomaly)
        for path, what in found.problems:
            self.problem(path, what)
        self.index.defects += [self.sample(image, anomaly, mask) for image, mask in found.masks.items()]
        self.index.seen.update(mask for mask, _ in given)

    def _beside(self, images: list[Path]) -> set[Path]:
        """Masks that lie beside images, LabelMe files among them."""
        drawn = {p.with_suffix(".json") for p in images}
        return set(split_beside(images)[1].values()) | {p for p in drawn if p.is_file() and is_annotation(p)}


def files_of(folder: Path, below: bool = True) -> list[Path]:
    """Images of a folder, and with `below` of the folders in it; none where there is no such folder."""
    if below:
        return images_below(folder)
    return list_images(folder) if folder.is_dir() else []

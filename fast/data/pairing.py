"""Which mask belongs to which image, by their names; what has no partner or two is told."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fast.data.images import is_image, list_files, natural_key, read_mask
from fast.data.made import without_made
from ldm.errors import UserError

# What tools and datasets add to an image's name: KolektorSDD's _label and _GT, MVTec's _mask.
_WORDS = "(mask|gt|label|labels|groundtruth|ground_truth|seg|segmentation)"
MASK_NAME = re.compile(rf"[_-]{_WORDS}$|^{_WORDS}[_-]", re.IGNORECASE)


@dataclass
class Paired:
    """`masks`: each image's mask, a file, or a folder that holds its parts. `problems`: (file, what is wrong)."""

    masks: dict[Path, Path] = field(default_factory=dict)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def images_below(folder: Path) -> list[Path]:
    """Images in a folder and all folders in it, hidden ones and pairs that were made left out, in natural order."""
    return without_made([p for p in list_files(folder) if is_image(p)], folder) if folder.is_dir() else []


def pair(
    images: Sequence[tuple[Path, Path]], masks: Sequence[tuple[Path, Path]], where: Callable[[Path], str], kind: str
) -> Paired:
    """Match images with masks by their names, and tell what has no partner or two.

    An image and a mask belong together if their paths, from the folder that their type starts in, agree but for the
    suffix and an ending such as `_mask` of the mask. Where folders are nested differently, they do so if their names
    agree and are unique. A mask in a folder that is named like an image is a part of that image's mask.

    Args:
        images, masks: (file, the folder that its type starts in) of each.
        where: `where(image)` is the mask that is expected of an image without one, for the message.
        kind: name of the defect type, for the message.

    Returns:
        The mask of each image, and what is wrong with which file.
    """
    found = Paired()
    by_key: dict[str, list[Path]] = defaultdict(list)
    for image, root in images:
        by_key[_key(image, root)].append(image)
    named: dict[str, list[str]] = defaultdict(list)
    for key in by_key:
        named[key.rpartition("/")[2]].append(key)
    given, alone = defaultdict[str, list[Path]](list), list[Path]()
    for mask, root in masks:
        partner = _partner(_key(mask, root), by_key, named)
        if partner is None:
            alone.append(mask)
        else:
            given[partner].append(mask)
    for key, partners in by_key.items():
        _settle(found, partners, given.get(key, []), where)
    found.problems += [
        (mask, f"mask without image; '{kind}' has no image of that name") for mask in sorted(alone, key=natural_key)
    ]
    return found


def _settle(found: Paired, partners: list[Path], masks: list[Path], where: Callable[[Path], str]) -> None:
    image = partners[0]
    if len(partners) > 1:
        for twin in partners:
            other = next(p for p in partners if p != twin)
            found.problems.append((twin, f"has the name of {other.name}, and one mask cannot be of both; rename one"))
        return
    if not masks:
        found.problems.append((image, f"defect without mask; add {where(image)}"))
        return
    folders = {m.parent for m in masks}
    if len(folders) == 1 and next(iter(folders)).name == image.stem:
        found.masks[image] = folders.pop()
    elif len(masks) > 1:
        names = " and ".join(_short(m, masks) for m in sorted(masks, key=natural_key)[:2])
        found.problems.append((image, f"has {len(masks)} masks, {names}; keep one"))
    else:
        found.masks[image] = masks[0]


def _key(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def _partner(key: str, by_key: dict[str, list[Path]], named: dict[str, list[str]]) -> str | None:
    folder, slash, name = key.rpartition("/")
    bare = folder + slash + MASK_NAME.sub("", name)
    for name in (key, bare, key.rpartition("/")[0]):  # the last: a folder of parts
        if name in by_key:
            return name
    for name in (key.rpartition("/")[2], bare.rpartition("/")[2]):
        if len(named.get(name, ())) == 1:
            return named[name][0]
    return None


def _short(mask: Path, masks: list[Path]) -> str:
    alike = sum(m.name == mask.name for m in masks) > 1
    return f"{mask.parent.parent.name}/{mask.parent.name}/{mask.name}" if alike else mask.name


def split_beside(paths: Iterable[Path]) -> tuple[list[Path], dict[Path, Path], list[tuple[Path, str]]]:
    """(images, masks that lie beside them, problems) of files that hold both.

    A mask is called like its image, with an ending such as `_GT` or a beginning such as `mask_`; or exactly so, with
    another suffix: then one of the two must read as a mask and the other not.
    """
    by_stem: dict[Path, list[Path]] = defaultdict(list)
    by_bare: dict[Path, list[Path]] = defaultdict(list)
    paths = list(paths)
    for path in paths:
        by_stem[path.parent / path.stem].append(path)
        if (bare := MASK_NAME.sub("", path.stem)) != path.stem:
            by_bare[path.parent / bare].append(path)
    images, masks, problems = [], {}, []
    for path in paths:
        bare = MASK_NAME.sub("", path.stem)
        if bare != path.stem and path.parent / bare in by_stem:
            continue
        own, twins = _image_of(by_stem[path.parent / path.stem], path)
        if own is None:
            other = next(p for p in twins if p != path)
            problems.append((path, f"has the name of {other.name}; which is the image? remove or rename the other"))
        if own != path:
            continue
        own_masks = [*by_bare.get(path.parent / path.stem, []), *(p for p in twins if p != path)]
        if len(own_masks) > 1:
            first, second = own_masks[:2]
            problems.append((path, f"has {len(own_masks)} masks, {first.name} and {second.name}; keep one"))
            continue
        images.append(path)
        if own_masks:
            masks[path] = own_masks[0]
    return images, masks, problems


def has_masks_beside(paths: Iterable[Path]) -> bool:
    """True where some files are named like masks of others among them."""
    names = {path.parent / path.stem for path in paths}
    return any((bare := MASK_NAME.sub("", n.name)) != n.name and n.parent / bare in names for n in names)


def has_twins(paths: Sequence[Path]) -> bool:
    """True where files differ in their suffix alone."""
    return len({path.parent / path.stem for path in paths}) < len(paths)


def _image_of(files: list[Path], path: Path) -> tuple[Path | None, list[Path]]:
    """The one of files with one stem that is the image, None if that is unclear, and all of them."""
    if len(files) == 1:
        return path, files
    pictures = [p for p in files if not reads_as_mask(p)]
    return (pictures[0] if len(pictures) == 1 and len(files) == 2 else None), files


def reads_as_mask(path: Path) -> bool:
    """True for a picture that the rules for masks can read, and that is not one colour alone."""
    try:
        mask = read_mask(path)
    except UserError:
        return False
    return not mask.all()

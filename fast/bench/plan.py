"""From a protocol and a dataset to the cells of its grid."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from fast.artifact import find_weights
from fast.bench.given import TEXTURED, Given, begun_with, hash_once, is_given, overrides_of, refuse_unused
from fast.bench.grid import Cell
from fast.bench.protocol import Entry, Protocol, Segmentation, learns
from fast.bench.provenance import segmenter_besides
from fast.data.alike import Leak, leaks_of
from fast.data.content import dataset_content
from fast.data.decode import image_size
from fast.data.images import list_images
from fast.data.layouts import DatasetIndex, Sample, check, open_dataset, require_defects
from fast.data.normals import apart
from fast.data.split import Split, make_split
from fast.generators import LATENT, method_class
from fast.generators.base import Learned, Placing
from fast.masks.proportions import alike
from fast.runtime.precision import settled
from fast.runtime.project import in_project
from fast.segmentation.networks import PRETRAINED, precision_of
from fast.synthesis.options import MAX_DISTANCE
from fast.training.config import load_recipe
from ldm.errors import UserError

# What decides a segmenter's training beside network, pairs, steps and seed.
HOW = ("batch_size", "size", "crop", "lr", "loss", "recipe", "classes", "ema", "precision", "normals", "augment")
QUICK = ("size", "normals", "test_normals", "augment", "real_share")  # what decides that of the quick judge


@dataclass(frozen=True)
class CategoryPlan:
    """One category of a dataset, divided. `content`: SHA-256 of its files. `place`: the folder of its cells.
    `whole`: all of it; `index` lacks normals that show a part which is tested on, where it has others."""

    name: str
    root: Path
    index: DatasetIndex
    train: list[Sample]
    test: list[Sample]
    split: Split
    content: str
    place: Path
    whole: DatasetIndex

    @property
    def parted(self) -> bool:
        """Whether normals are left out, as they show parts that are tested on."""
        return bool(self.index.tested_normals)

    @cached_property
    def leaks(self) -> list[Leak]:
        """What of the test side shows a part that is trained on; pictures are looked at once."""
        return leaks_of(self.train, self.test)

    @property
    def types(self) -> list[str]:
        """Defect types that there is something to train on for, "category/type"."""
        return sorted({f"{s.category}/{s.anomaly}" for s in self.train})

    @property
    def kinds(self) -> list[str]:
        """All defect types, on either side of the split."""
        return sorted({f"{s.category}/{s.anomaly}" for s in (*self.train, *self.test)})

    @property
    def split_file(self) -> Path:
        return self.place / "split.json"

    @property
    def masks(self) -> Path:
        return self.place / "masks"


@dataclass(frozen=True)
class Column:
    """The cells of one entry on one category. `segments`: by (network, seed)."""

    entry: Entry
    category: CategoryPlan
    pairs: Cell | None
    pictures: Cell | None
    deep: Cell | None
    segments: dict[tuple[str, int], Cell]


@dataclass(frozen=True)
class SweepPlan:
    """`name`: of its results' folder, by protocol and dataset."""

    protocol: Protocol
    name: str
    categories: list[CategoryPlan]
    columns: list[Column]

    @property
    def cells(self) -> list[Cell]:
        """Each after those it needs, each once."""
        found: dict[Path, Cell] = {}

        def add(cell: Cell | None) -> None:
            if cell is None or cell.folder in found:
                return
            for need in cell.needs:
                add(need)
            found[cell.folder] = cell

        # All columns with the first seed, then all with the next: a grid that is stopped early has whole tables.
        for column in self.columns:
            add(column.pairs)
        for seed in self.protocol.segmentation.seeds:
            for column in self.columns:
                for network in self.protocol.segmentation.networks:
                    add(column.segments[network, seed])
        for column in self.columns:
            add(column.pictures)
            add(column.deep)
        return list(found.values())


def plan(protocol: Protocol, root: str | Path, out: str | Path, given: Given | None = None) -> SweepPlan:
    """The grid of a protocol on a dataset, its folders under `out`. Raises `UserError` for what cannot be done."""
    given, out = given or Given(), Path(os.path.abspath(out))
    refuse_unused(protocol, given)
    protocol = with_precision(protocol, given.device)
    categories = divide(protocol, os.path.abspath(root), out)
    for category in categories:
        _refuse_seen(category, given)
    columns = [_column(protocol, entry, category, out, given) for category in categories for entry in protocol.entries]
    dataset = categories[0].name if len(categories) == 1 else Path(os.path.abspath(root)).name
    return SweepPlan(protocol, f"{protocol.name}-{dataset}", categories, columns)


def with_precision(protocol: Protocol, device: str) -> Protocol:
    """The protocol with the pairs' `precision: auto` decided for the machine, and a warning of bfloat16 that is forced
    where it is slow. What it means for a segmenter depends on the network, too: `_precision`."""
    seg, where = protocol.segmentation, _where(device)
    for rule, name in ((seg, "segmentation"), (seg.start, "segmentation.start")):
        if rule is not None:
            settled(rule.precision, where, f"{name}.precision")
    pairs = settled(protocol.pairs.precision, where, "pairs.precision")
    return replace(protocol, pairs=replace(protocol.pairs, precision=pairs))


def _where(device: str) -> str:
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def _precision(network: str, choice: str, given: Given) -> str:
    """ "auto" decided for a network on the machine: a cell's key says how it was computed."""
    return precision_of(network, choice, _where(given.device)) if choice == "auto" else choice


def divide(protocol: Protocol, root: str | Path, out: Path) -> list[CategoryPlan]:
    """The categories of a dataset, each with its own part of the split. Raises `UserError`."""
    whole = open_dataset(root)
    unknown = sorted(set(protocol.categories) - set(whole.categories))
    if unknown:
        raise UserError(f"{root} has no category {', '.join(unknown)}; it has {', '.join(whole.categories)}")
    found = []
    for name in protocol.categories or whole.categories:
        index = check(open_dataset(root, category=name) if len(whole.categories) > 1 else whole).usable
        require_defects(index)
        rule = protocol.split
        split = Split.load(rule.file) if rule.file else make_split(index, rule.fraction, rule.seed)
        train, test = split.apply(index)
        for side, samples in (("train", train), ("test", test)):
            if not samples:
                raise UserError(f"{root}, {name}: the split leaves no defect to {side} on; use another split")
        used = apart(index, split)
        content = dataset_content(used)
        mark = hashlib.sha256(f"{split.hash} {content}".encode()).hexdigest()[:8]
        place = out / f"{name}-{mark}"
        found.append(CategoryPlan(name, Path(root), used, train, test, split, content, place, index))
    return found


def _refuse_seen(category: CategoryPlan, given: Given) -> None:
    """UserError for segmenters to begin with that may have seen what is tested on."""
    for name, path in given.imagenet.items():
        if what := segmenter_besides(path, category.split.hash):
            raise UserError(f"--imagenet {name}={path} learned from {what} and may have seen what is tested on; give "
                            "an encoder's weights, or a segmenter trained on this split")  # fmt: skip


def _column(protocol: Protocol, entry: Entry, category: CategoryPlan, out: Path, given: Given) -> Column:
    pairs = None if entry.method is None else _pairs(protocol, entry, category, given)
    seg = protocol.segmentation
    segments = {
        (network, seed): _segment(protocol, entry, category, pairs, network, seed, out, given)
        for network in seg.networks
        for seed in seg.seeds
    }
    pictures = deep = None
    if pairs is not None and protocol.pictures:
        pictures = Cell("pictures", entry.method or "", {}, category.place / "pictures", (pairs,), {"of": category})
    if pairs is not None and given.networks:
        key = {name: hash_once(path) for name, path in sorted(given.networks.items())}
        use = {"of": category, "networks": dict(given.networks), "device": given.device}
        deep = Cell("deep", entry.method or "", key, category.place / "deep", (pairs,), use)
    return Column(entry, category, pairs, pictures, deep, segments)


def _pairs(protocol: Protocol, entry: Entry, category: CategoryPlan, given: Given) -> Cell:
    method, rule = str(entry.method), protocol.pairs
    found = method_class(method)
    needs = (_fit(protocol, entry, category, given),) if learns(method) else ()
    # Methods that find places on the object are measured with the places they find.
    places = entry.draft != "none" or (found.own_masks and (rule.own_masks or issubclass(found, Placing)))
    files = found.takes_mask and not places
    key = {
        "split": category.split.hash,
        "data": category.content,
        "method": method,
        "per_type": rule.per_type,
        "types": category.types,
        "size": rule.size,
        "seed": rule.seed,
        "masks": _masks(rule.masks, rule.size is None or (entry.windows and method in LATENT), category)
        if files
        else "own",
        "options": list(entry.options),
    }
    use: dict[str, Any] = {"of": category, "device": given.device}
    if method in LATENT:
        key |= {"sampler": entry.sampler, "steps": entry.steps, "flags": list(entry.flags)}
        key |= {"windows": entry.windows, "precision": rule.precision}
        key |= {} if entry.scale is None else {"scale": entry.scale}
        key |= {} if entry.draft == "none" else {"draft": entry.draft, "strength": entry.strength}
        key |= {"max_distance": MAX_DISTANCE} if entry.draft == "mixed" else {}  # its overrides may say else
    if given.textures and method in TEXTURED:
        key |= {"textures": _names(given.textures)}
        use |= {"textures": os.path.abspath(given.textures)}
    return Cell("pairs", method, key, category.place / "pairs", needs, use)


def _masks(kind: str, own_size: bool, category: CategoryPlan) -> str:
    """The kind of masks; `given` ones do not fit images of other proportions that keep their size, and are varied."""
    if kind == "given" and own_size:
        first, *others = {image_size(s.image) for s in (*category.index.normals, *category.train)}
        return kind if all(alike(other, first) for other in others) else "augmented"
    return kind


def _fit(protocol: Protocol, entry: Entry, category: CategoryPlan, given: Given) -> Cell:
    method, rule, place = str(entry.method), protocol.training, category.place / "fits"
    if is_given(entry, given):
        found = method_class(method)
        assert issubclass(found, Learned)
        file = find_weights(given.weights[method], found.artifact, flag=f"--weights {method}=")
        key: dict[str, Any] = {"split": category.split.hash, "data": category.content}
        key |= {"weights_sha256": hash_once(file)}
        return Cell("given", method, key, place, (), {"of": category, "file": file})
    folder = "configs/methods" if rule.recipes == "small" else "configs/methods/full"
    recipe = in_project(Path(entry.recipe or f"{folder}/{method}.yaml"))
    overrides = overrides_of(protocol, entry)
    key = {
        "method": method,
        "recipe": _recipe_hash(recipe),
        "overrides": overrides,
        "limits": [rule.max_steps, rule.max_minutes],
        "seed": rule.seed,
        "category": category.name,
        "split": category.split.hash,
        "data": category.content,
        # Methods on a base see what they are to make: whole pictures of the pairs' size.
        "size": protocol.pairs.size if method in LATENT and not entry.windows else None,
        **begun_with(method, recipe, overrides, given),
    }
    use: dict[str, Any] = {"of": category, "recipe": recipe}
    if method in LATENT:
        use |= {"base": given.base and os.path.abspath(given.base)}
        use |= {"tokenizer": given.tokenizer and os.path.abspath(given.tokenizer)}
    return Cell("fit", method, key, place, (), use)


def _segment(
    protocol: Protocol,
    entry: Entry,
    category: CategoryPlan,
    pairs: Cell | None,
    network: str,
    seed: int,
    out: Path,
    given: Given,
) -> Cell:
    seg = protocol.segmentation
    key = {k: v for k, v in asdict(seg).items() if k not in ("networks", "seeds", "start", "native", "draw", "prior")}
    key["precision"] = _precision(network, seg.precision, given)
    real = entry.real or seg.real
    if network == "quick":
        key = {name: key[name] for name in QUICK if not (seg.native and name == "size")}
    key |= _beyond_default(seg)
    if seg.prior != "drawn" and network != "quick":  # which chooses its threshold itself
        key["prior"] = seg.prior
    if entry.real_share is not None:
        key["real_share"] = None if entry.real_share == "merge" else entry.real_share
    if pairs is None or real == "none":
        key["real_share"] = None  # there is one kind of defects
    key["augment"] = entry.augment or seg.augment
    key |= {"network": network, "seed": seed, "split": category.split.hash, "category": category.name, "real": real}
    key |= {"data": category.content}
    key |= {"count": entry.count if pairs else None}
    use: dict[str, Any] = {"of": category, "keep": seed == seg.seeds[0], "device": given.device}
    needs = () if pairs is None else (pairs,)
    if network in given.imagenet:
        key |= {"weights_sha256": hash_once(given.imagenet[network])}
        use |= {"weights": given.imagenet[network]}
    elif network == "quick":
        use |= {"features": out / "features"}
    elif seg.start is not None and network not in PRETRAINED:
        needs = (*needs, _start(seg, category, network, out, given))
    # Not by the label: what two protocols call by different names is one cell.
    name = f"{entry.method or 'real'}-{network}-{seed}"
    return Cell("segment", name, key, category.place / "segments", needs, use)


def _beyond_default(seg: Segmentation) -> dict[str, Any]:
    """How pictures are seen and drawn, where it is not the default: cells of squares, and of images drawn alike, keep
    the names that they have."""
    return {**({"native": True} if seg.native else {}), **({"draw": seg.draw} if seg.draw != "images" else {})}


def _start(seg: Segmentation, category: CategoryPlan, network: str, out: Path, given: Given) -> Cell:
    """Initial weights from drawn defects, which serve every dataset, and from the real training side after them."""
    assert seg.start is not None
    key = {k: v for k, v in asdict(seg.start).items() if k != "real_steps"} | {"network": network}
    key["precision"] = _precision(network, seg.start.precision, given)
    drawn = Cell("start", network, key, out / "starts", (), {"device": given.device})
    if not seg.start.real_steps:
        return drawn
    key = {name: getattr(seg, name) for name in HOW} | {"network": network, "seed": seg.start.seed}
    key["precision"] = _precision(network, seg.precision, given)
    key |= {"steps": seg.start.real_steps, "split": category.split.hash, "data": category.content}
    key |= _beyond_default(seg)
    use = {"of": category, "device": given.device}
    return Cell("warm", network, key, category.place / "starts", (drawn,), use)


@cache
def _recipe_hash(path: Path) -> str:
    return hashlib.sha256(OmegaConf.to_yaml(load_recipe(path), sort_keys=True).encode()).hexdigest()


@cache
def _names(folder: Path) -> str:
    """A folder of pictures by its names: reading gigabytes of textures for every plan would be too dear."""
    return hashlib.sha256("\n".join(p.name for p in list_images(folder)).encode()).hexdigest()

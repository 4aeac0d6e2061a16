"""A protocol: everything that decides a table's numbers, as one YAML file."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial, reduce
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fast.bench import paper
from fast.bench.results import METRICS
from fast.data.transforms import AUGMENT
from fast.generators import LATENT, METHODS
from fast.latent.sampling import SAMPLERS
from fast.segmentation.networks import SEGMENTERS
from fast.segmentation.recipes import PUBLISHED
from fast.segmentation.recipes import RECIPES as SCHEDULES
from fast.segmentation.train import LOSSES
from fast.training.config import load_recipe, plain
from ldm.errors import UserError
from ldm.util import check_params, check_values

COLUMNS = ("method", "steps", "farm", "sampler", "configuration", "pairs")
REAL = ("merged", "none")
RECIPES = ("small", "full")
PRECISIONS = ("auto", "fp32", "bf16")
CLASSES = ("defect", "types")
# What numbers may be; none of these is looked at where it is null.
LEAST = {
    "split.seed": 0,
    "pairs.per_type": 1,
    "pairs.size": 16,
    "pairs.seed": 0,
    "training.max_steps": 1,
    "training.seed": 0,
    "segmentation.steps": 1,
    "segmentation.batch_size": 2,  # of one picture batch normalisation learns nothing
    "segmentation.size": 16,
    "segmentation.start.shards": 1,
    "segmentation.start.steps": 1,
    "segmentation.start.size": 16,
    "segmentation.start.batch_size": 2,
    "segmentation.start.seed": 0,
    "segmentation.start.real_steps": 0,
}
ABOVE_ZERO = ("training.max_minutes", "segmentation.lr", "segmentation.start.lr")
SHARES = ("split.fraction", "segmentation.real_share")  # neither 0 nor 1
SHARES_OR_ZERO = ("segmentation.normals", "segmentation.ema")
T = TypeVar("T")


@dataclass(frozen=True)
class SplitRule:
    """`file`: a split of prepare_data.py; without one it is made: whole parts, `fraction` of each type to train."""

    fraction: float = 1 / 3
    seed: int = 0
    file: str | None = None


@dataclass(frozen=True)
class PairsRule:
    """`per_type`: pairs of each defect type; `size`: their side in pixels; `masks`: `given` or `augmented`, those of
    the training side. `own_masks`: methods that draw masks use theirs."""

    per_type: int = 500
    size: int = 256
    masks: str = "augmented"
    own_masks: bool = False
    seed: int = 0
    precision: str = "auto"


@dataclass(frozen=True)
class TrainingRule:
    """Of the methods that learn. `recipes`: `small` (configs/methods) or `full` (configs/methods/full). `max_steps`,
    `max_minutes`: the same limit for all (null: the recipes' own). `overrides`: `key=value` for each of them."""

    recipes: str = "full"
    max_steps: int | None = None
    max_minutes: float | None = None
    seed: int = 23
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Start:
    """Initial weights of the segmenters, the same for all methods: a training on drawn materials and defects, `shards`
    of 256 defects, then `real_steps` on the real training side, by the segmenters' own schedule."""

    shards: int = 8
    steps: int = 3000
    size: int = 256
    crop: int | None = 128
    batch_size: int = 8
    lr: float = 5e-4
    precision: str = "auto"
    seed: int = 0
    real_steps: int = 0


@dataclass(frozen=True)
class Segmentation:
    """`seeds`: one training each. `batch_size`, `lr`, `loss`: null for those of the `recipe`, which is `common` to all
    networks or the one each was `published` with. `classes`: one, `defect`, or as many as `types`. `real`: whether the
    real training side is `merged` with the pairs. `real_share`: share of the defects drawn that are real where there
    are both, null: every pair equally often, as in the papers. `normals`: share of what is drawn that are training
    normals.
    `augment`: of all training images alike (`fast.data.transforms.AUGMENT`). `test_normals`: held-out normals are
    tested on too. The network `quick` (`fast.segmentation.quick`) has a training of its own and takes of these only
    size, real, real_share, normals, augment and test_normals."""

    networks: tuple[str, ...] = ("fpn",)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 20000
    batch_size: int | None = None
    size: int = 256
    crop: int | None = None
    lr: float | None = None
    loss: str | None = None
    recipe: str = "common"
    classes: str = "defect"
    ema: float = 0.0
    precision: str = "auto"
    real: str = "merged"
    real_share: float | None = 0.5
    augment: str = "classical"
    normals: float = 0.0
    test_normals: bool = True
    start: Start | None = None


@dataclass(frozen=True)
class Entry:
    """One column of the table. `method`: null trains on the real side alone. `recipe`: instead of the method's own;
    `train`: overrides of its training; `sampler`, `steps`, `scale`, `flags`: of `generate_with_mask.py`;
    `options`: `key=value` of the method; `windows`: train and sample windows around the defect at the picture's own
    resolution, not whole pictures made square; `real`, `real_share` (or `merge`: every pair equally often), `augment`,
    `count`: instead of the protocol's (`count` pairs of each type are used)."""

    label: str
    method: str | None = None
    recipe: str | None = None
    train: tuple[str, ...] = ()
    sampler: str | None = None
    steps: int | None = None
    scale: float | None = None
    flags: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    windows: bool = False
    real: str | None = None
    real_share: float | str | None = None
    augment: str | None = None
    count: int | None = None


@dataclass(frozen=True)
class Protocol:
    """`column`: what the entries differ in. `paper`: tables to compare with (`fast.bench.paper`). `categories`: of the
    dataset; empty: all. `pictures`: also measure the pairs themselves."""

    name: str
    title: str
    entries: tuple[Entry, ...]
    column: str = "method"
    metrics: tuple[str, ...] = ("mIoU", "Acc")
    paper: tuple[str, ...] = ()
    dataset: str = ""
    categories: tuple[str, ...] = ()
    split: SplitRule = field(default_factory=SplitRule)
    pairs: PairsRule = field(default_factory=PairsRule)
    training: TrainingRule = field(default_factory=TrainingRule)
    segmentation: Segmentation = field(default_factory=Segmentation)
    pictures: bool = True

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), indent=1)


PARTS: dict[str, Any] = {
    "split": SplitRule,
    "pairs": PairsRule,
    "training": TrainingRule,
    "segmentation": Segmentation,
    "start": Start,
}


def load_protocol(path: str | Path, overrides: tuple[str, ...] = ()) -> Protocol:
    """Read a protocol, `key.key=value` overrides last. Raises `UserError` for what it cannot mean."""
    try:
        recipe = load_recipe(path)
    except UserError as error:
        raise UserError(str(error).replace("--base", "--protocol").replace("configs/", "protocols/")) from None
    try:
        merged = OmegaConf.merge(recipe, OmegaConf.from_dotlist(list(overrides)))
    except (OmegaConfBaseException, YAMLError, TypeError, ValueError) as error:
        raise UserError(f"--protocol {path}: {' '.join(str(error).split())[:200]}") from None
    content = plain(merged, f"--protocol {path}")
    assert isinstance(content, dict)
    return parse(content, str(path))


def parse(content: Mapping[Any, Any], where: str) -> Protocol:
    """A protocol from a mapping; `where`: the name to complain about. Raises `UserError`."""
    found = dict(content)
    entries = found.get("entries")
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        raise UserError(f"{where}: entries must be a list of columns, each with a label")
    found["entries"] = [_make(Entry, entry, f"{where}: entries[{i}]") for i, entry in enumerate(entries)]
    protocol = _make(Protocol, found, where)
    check(protocol, where)
    return protocol


def _make(cls: type[T], given: Mapping[Any, Any], where: str) -> T:
    """A dataclass of this module from plain values; lists become tuples, sections their own class. A section or list
    that is left empty is the default."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where} must be a section of key: value, not {given!r}")
    lists = {f.name for f in fields(cls) if "tuple" in str(f.type)}  # type: ignore[arg-type]
    values = {str(k): v for k, v in given.items() if v is not None or not (k in PARTS or k in lists)}
    check_params(cls, values, where)
    check_values(cls, values, where)
    for f in fields(cls):  # type: ignore[arg-type]
        value = values.get(f.name)
        if f.name in PARTS and value is not None:
            values[f.name] = _make(PARTS[f.name], value, f"{where}: {f.name}")
        elif f.name in lists and f.name in values:
            if not isinstance(value, list | tuple):
                raise UserError(f"{where}: {f.name}={value} must be a list")
            values[f.name] = tuple(value)
    return cls(**values)


def check(protocol: Protocol, where: str) -> None:
    """Raise a `UserError` of one line for what a protocol cannot mean; `where`: the name to complain about."""
    if not re.fullmatch(r"\w[\w .+-]*", protocol.name):
        raise UserError(f"{where}: name {protocol.name!r} is no plain file name; use letters, digits, - and _")
    _check_lists(protocol, where)
    _check_choices(protocol, where)
    _check_numbers(protocol, where)
    for name in protocol.paper:
        if (column := paper.load(name).column) != protocol.column:
            raise UserError(f"{where}: paper {name} compares {column}, not {protocol.column}; leave it out")
    seg = protocol.segmentation
    for network in seg.networks:
        if "published" in (seg.recipe, seg.loss) and not _is_published(network):
            raise UserError(f"{where}: nothing is published for segmenter {network}; use recipe: common, no loss")
    if "quick" in seg.networks and seg.classes == "types":
        raise UserError(f"{where}: the network quick knows one class of defects, not types; leave one of them out")
    told = [metric for metric in protocol.metrics if metric.endswith("(classes)")]
    if told and seg.classes != "types":
        raise UserError(f"{where}: metric {told[0]} needs segmentation.classes: types; set it, or leave the metric out")
    for entry in protocol.entries:
        _check_entry(entry, protocol, where)


def _check_lists(protocol: Protocol, where: str) -> None:
    """Words are words, seeds are seeds, nothing is there twice, and nothing is missing."""
    seg = protocol.segmentation
    entries = {f"{e.label!r}: ": e for e in protocol.entries}
    sections = {"": protocol, "training.": protocol.training, "segmentation.": seg, **entries}
    for prefix, section in sections.items():
        for f in fields(section):  # type: ignore[arg-type]
            odd = [v for v in getattr(section, f.name) or () if not isinstance(v, str)] if "[str" in str(f.type) else []
            if odd:
                raise UserError(f"{where}: {prefix}{f.name} has {odd[0]!r}, which is no word; put it in quotes")
    if not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seg.seeds):
        raise UserError(f"{where}: segmentation.seeds={list(seg.seeds)} must be whole numbers of 0 or more")
    lists: dict[str, tuple[Any, ...]] = {
        "entries": tuple(entry.label for entry in protocol.entries),
        "metrics": protocol.metrics,
        "segmentation.networks": seg.networks,
        "segmentation.seeds": seg.seeds,
        "paper": protocol.paper,
        "categories": protocol.categories,
    }
    for name, values in lists.items():
        if not values and name not in ("paper", "categories"):
            raise UserError(f"{where}: {name} is empty; give one or more")
        if len(set(values)) < len(values):
            raise UserError(f"{where}: {name} has {max(values, key=values.count)!r} twice; give each once")


def _check_choices(protocol: Protocol, where: str) -> None:
    seg, pairs, entries = protocol.segmentation, protocol.pairs, protocol.entries
    choices: list[tuple[str, str | None, tuple[str, ...]]] = [
        ("column", protocol.column, COLUMNS),
        ("pairs.masks", pairs.masks, ("given", "augmented")),
        ("pairs.precision", pairs.precision, PRECISIONS),
        ("training.recipes", protocol.training.recipes, RECIPES),
        ("segmentation.real", seg.real, REAL),
        ("segmentation.classes", seg.classes, CLASSES),
        ("segmentation.recipe", seg.recipe, SCHEDULES),
        ("segmentation.loss", seg.loss, LOSSES),
        ("segmentation.augment", seg.augment, AUGMENT),
        ("segmentation.precision", seg.precision, PRECISIONS),
        ("segmentation.start.precision", seg.start.precision if seg.start else None, PRECISIONS),
        *[("segmentation.networks", name, tuple(SEGMENTERS)) for name in seg.networks],
        *[("metrics", name, tuple(METRICS)) for name in protocol.metrics],
        *[("paper", name, paper.names()) for name in protocol.paper],
        *[(f"method of {e.label!r}", e.method, tuple(METHODS)) for e in entries],
        *[(f"sampler of {e.label!r}", e.sampler, SAMPLERS) for e in entries],
        *[(f"real of {e.label!r}", e.real, REAL) for e in entries],
        *[(f"augment of {e.label!r}", e.augment, AUGMENT) for e in entries],
    ]
    for name, value, allowed in choices:
        if value is not None and value not in allowed:
            raise UserError(f"{where}: {name} is {value!r}; use one of {', '.join(allowed)}")


def _check_numbers(protocol: Protocol, where: str) -> None:
    def at(path: str) -> Any:
        """None where the path leads nowhere."""
        return reduce(lambda section, name: section and getattr(section, name), path.split("."), protocol)

    bounds: list[tuple[str, str, Callable[[Any], bool]]] = [
        (path, f"{least} or more", partial(operator.le, least)) for path, least in LEAST.items()
    ]
    bounds += [(path, "above 0 and finite", lambda x: 0 < x < math.inf) for path in ABOVE_ZERO]
    bounds += [(path, "between 0 and 1", lambda x: 0 < x < 1) for path in SHARES]
    bounds += [(path, "0 or more and below 1", lambda x: 0 <= x < 1) for path in SHARES_OR_ZERO]
    for section in ("segmentation", "segmentation.start"):
        size = at(f"{section}.size") or 0
        bounds.append((f"{section}.crop", f"within 16..{size}, the size", range(16, size + 1).__contains__))
    for path, wanted, fits in bounds:
        number = at(path)
        if number is not None and not fits(number):
            raise UserError(f"{where}: {path}={number} must be {wanted}")


def _is_published(network: str) -> bool:
    maker = SEGMENTERS[network]
    return getattr(maker.func if isinstance(maker, partial) else maker, "__name__", "") in PUBLISHED


def _check_entry(entry: Entry, protocol: Protocol, where: str) -> None:
    if entry.method is None and (entry.real or protocol.segmentation.real) == "none":
        raise UserError(f"{where}: {entry.label!r} has no method and no real pairs: nothing to train on; set one")
    share = entry.real_share
    if not (share is None or share == "merge" or (isinstance(share, float) and 0 < share < 1)):
        raise UserError(f"{where}: real_share={share} of {entry.label!r} must be between 0 and 1, or merge")
    if entry.steps is not None and entry.steps < 1:
        raise UserError(f"{where}: steps={entry.steps} of {entry.label!r} must be 1 or more")
    if entry.scale is not None and not 0 <= entry.scale < math.inf:
        raise UserError(f"{where}: scale={entry.scale} of {entry.label!r} is no guidance scale; give a number from 0")
    sampling = (entry.sampler, entry.steps, entry.scale is not None, entry.flags, entry.windows)
    if entry.method not in LATENT and any(sampling):
        names = "sampler, steps, scale, flags and windows"
        raise UserError(f"{where}: {entry.label!r}: {names} are for {', '.join(LATENT)}")
    if entry.count is not None and not 0 < entry.count <= protocol.pairs.per_type:
        raise UserError(f"{where}: count={entry.count} of {entry.label!r} must lie in 1..pairs.per_type")

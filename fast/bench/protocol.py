"""A protocol: everything that decides a table's numbers, as one YAML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fast.bench.paper import names as paper_names
from fast.generators import LATENT, METHODS
from fast.segmentation.networks import SEGMENTERS
from fast.training.config import load_recipe
from ldm.errors import UserError
from ldm.util import check_params, check_values

COLUMNS = ("method", "steps", "farm", "sampler", "configuration", "pairs")
REAL = ("merged", "none")
RECIPES = ("small", "full")
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
    precision: str = "fp32"


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
    """Initial weights of the segmenters, the same for all methods: a training on drawn materials and defects."""

    shards: int = 8
    steps: int = 3000
    size: int = 256
    crop: int | None = 128
    batch_size: int = 8
    lr: float = 5e-4
    precision: str = "fp32"
    seed: int = 0


@dataclass(frozen=True)
class Segmentation:
    """`seeds`: one training each. `batch_size`, `lr`, `loss`: null for those of the `recipe`, which is `common` to all
    networks or the one each was `published` with. `classes`: one, `defect`, or as many as `types`. `real`: whether the
    real training side is `merged` with the pairs. `normals`: share of what is drawn that are training normals.
    `test_normals`: held-out normals are tested on too."""

    networks: tuple[str, ...] = ("segformer",)
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
    precision: str = "fp32"
    real: str = "merged"
    real_share: float | None = None
    normals: float = 0.0
    test_normals: bool = True
    start: Start | None = None


@dataclass(frozen=True)
class Entry:
    """One column of the table. `method`: null trains on the real side alone. `recipe`: instead of the method's own;
    `train`: overrides of its training; `sampler`, `steps`, `flags`: of `generate_with_mask.py`; `options`:
    `key=value` of the method; `windows`: train and sample windows around the defect at the picture's own resolution,
    not whole pictures made square; `real`, `count`: instead of the protocol's (`count` pairs of each type are used)."""

    label: str
    method: str | None = None
    recipe: str | None = None
    train: tuple[str, ...] = ()
    sampler: str | None = None
    steps: int | None = None
    flags: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    windows: bool = False
    real: str | None = None
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
        content = OmegaConf.to_container(merged, resolve=True)
    except OSError as error:
        raise UserError(f"--protocol {path} cannot be read ({error}); check the file") from None
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"--protocol {path}: {' '.join(str(error).split())}") from None
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
    _check(protocol, where)
    return protocol


def _make(cls: type[T], given: Mapping[Any, Any], where: str) -> T:
    """A dataclass of this module from plain values; lists become tuples, sections their own class."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where} must be a section of key: value, not {given!r}")
    values = {str(k): v for k, v in given.items()}
    check_params(cls, values, where)
    check_values(cls, values, where)
    for f in fields(cls):  # type: ignore[arg-type]
        value = values.get(f.name)
        if f.name in PARTS and value is not None:
            values[f.name] = _make(PARTS[f.name], value, f"{where}: {f.name}")
        elif "tuple" in str(f.type) and f.name in values:
            if not isinstance(value, list | tuple):
                raise UserError(f"{where}: {f.name}={value} must be a list")
            values[f.name] = tuple(value)
    return cls(**values)


def _check(protocol: Protocol, where: str) -> None:
    labels = [entry.label for entry in protocol.entries]
    seg, pairs = protocol.segmentation, protocol.pairs
    choices = [
        ("column", protocol.column, COLUMNS),
        ("pairs.masks", pairs.masks, ("given", "augmented")),
        ("pairs.precision", pairs.precision, ("fp32", "bf16")),
        ("training.recipes", protocol.training.recipes, RECIPES),
        ("segmentation.real", seg.real, REAL),
        ("segmentation.classes", seg.classes, ("defect", "types")),
        ("segmentation.recipe", seg.recipe, ("common", "published")),
        ("segmentation.precision", seg.precision, ("fp32", "bf16")),
        *[("segmentation.networks", name, tuple(SEGMENTERS)) for name in seg.networks],
        *[("paper", name, paper_names()) for name in protocol.paper],
        *[(f"method of {e.label!r}", e.method, tuple(METHODS)) for e in protocol.entries if e.method],
        *[(f"real of {e.label!r}", e.real, REAL) for e in protocol.entries if e.real],
    ]
    for name, value, allowed in choices:
        if value not in allowed:
            raise UserError(f"{where}: {name} is {value!r}; use one of {', '.join(allowed)}")
    if len(set(labels)) < len(labels):
        raise UserError(f"{where}: two entries have the label {max(labels, key=labels.count)!r}; labels must differ")
    if not seg.networks or not seg.seeds or len(set(seg.seeds)) < len(seg.seeds):
        raise UserError(f"{where}: segmentation needs networks and seeds, each seed once")
    least = {"pairs.per_type": pairs.per_type, "segmentation.steps": seg.steps, "pairs.size": pairs.size}
    for name, number in least.items():
        if number < 1:
            raise UserError(f"{where}: {name}={number} must be above 0")
    for entry in protocol.entries:
        _check_entry(entry, protocol, where)


def _check_entry(entry: Entry, protocol: Protocol, where: str) -> None:
    if entry.method is None and (entry.real or protocol.segmentation.real) == "none":
        raise UserError(f"{where}: {entry.label!r} has no method and no real pairs: nothing to train on; set one")
    if entry.method not in LATENT and (entry.sampler or entry.steps or entry.flags or entry.windows):
        raise UserError(f"{where}: {entry.label!r}: sampler, steps, flags and windows are for {', '.join(LATENT)}")
    if entry.count is not None and not 0 < entry.count <= protocol.pairs.per_type:
        raise UserError(f"{where}: count={entry.count} of {entry.label!r} must lie in 1..pairs.per_type")

"""A protocol: everything that decides a table's numbers, as one YAML file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fast.bench import paper as papers
from fast.bench.paper import names as paper_names
from fast.bench.results import METRICS
from fast.data.transforms import AUGMENT
from fast.generators import LATENT, METHODS, method_class
from fast.generators.base import Learned
from fast.latent.sampling import SAMPLERS
from fast.runtime.validated import (
    EACH_ONCE,
    STRICT,
    FromOne,
    FromZero,
    Number,
    Positive,
    Share,
    ShareOrZero,
    Switch,
    Whole,
    one_of,
    validated,
)
from fast.segmentation.data import DRAWS
from fast.segmentation.networks import PRETRAINED, SEGMENTERS
from fast.segmentation.prior import PRIORS
from fast.segmentation.recipes import PUBLISHED
from fast.segmentation.recipes import RECIPES as SCHEDULES
from fast.segmentation.train import LOSSES
from fast.synthesis.options import DRAFT_STRENGTH, DRAFTS
from fast.training.config import load_recipe, plain
from ldm.errors import UserError

Precision = Annotated[str, one_of("auto", "fp32", "bf16")]
Real = Annotated[str, one_of("merged", "none")]
Augmentation = Annotated[str, one_of(*AUGMENT)]
Network = Annotated[str, one_of(*SEGMENTERS)]
Side = Annotated[Whole, Ge(16)]  # in pixels
Batch = Annotated[Whole, Ge(2)]  # of one picture batch normalisation learns nothing


@dataclass(frozen=True)
class SplitRule:
    """`file`: a split of prepare_data.py; without one it is made: whole parts, `fraction` of each type to train."""

    __pydantic_config__ = STRICT
    fraction: Share = 1 / 3
    seed: FromZero = 0
    file: str | None = None


@dataclass(frozen=True)
class PairsRule:
    """`per_type`: pairs of each defect type; `size`: their side in pixels (null: that of their normal images); `masks`:
    `given` or `augmented`, those of the training side. `own_masks`: methods that draw masks use theirs."""

    __pydantic_config__ = STRICT
    per_type: FromOne = 500
    size: Side | None = 256
    masks: Annotated[str, one_of("given", "augmented")] = "augmented"
    own_masks: Switch = False
    seed: FromZero = 0
    precision: Precision = "auto"


@dataclass(frozen=True)
class TrainingRule:
    """Of the methods that learn. `recipes`: `small` (configs/methods) or `full` (configs/methods/full). `max_steps`,
    `max_minutes`: the same limit for all (null: the recipes' own). `overrides`: `key=value` for each of them."""

    __pydantic_config__ = STRICT
    recipes: Annotated[str, one_of("small", "full")] = "full"
    max_steps: FromOne | None = None
    max_minutes: Positive | None = None
    seed: FromZero = 23
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Start:
    """Initial weights of the segmenters, the same for all methods: a training on drawn materials and defects, `shards`
    of 256 defects, then `real_steps` on the real training side, by the segmenters' own schedule."""

    __pydantic_config__ = STRICT
    shards: FromOne = 8
    steps: FromOne = 3000
    size: Side = 256
    crop: Whole | None = 128
    batch_size: Batch = 8
    lr: Positive = 5e-4
    precision: Precision = "auto"
    seed: FromZero = 0
    real_steps: FromZero = 0


@dataclass(frozen=True)
class Segmentation:
    """`seeds`: one training each. `batch_size`, `lr`, `loss`: null for those of the `recipe`, which is `common` to all
    networks or the one each was `published` with. `classes`: one, `defect`, or as many as `types`. `real`: whether the
    real training side is `merged` with the pairs. `real_share`: share of the defects drawn that are real where there
    are both, null: every pair equally often, as in the papers. `normals`: share of what is drawn that are training
    normals. `draw`: whether of the real defects all `images` are drawn equally often, as in the papers, or all types
    and physical `parts` (`fast.segmentation.data.merged`). `prior`: how common defect pixels are taken to be, as in
    what is `drawn`, as in the papers, or as in the `real` pictures (`fast.segmentation.prior`).
    `augment`: of all training images alike (`fast.data.transforms.AUGMENT`). `test_normals`: held-out normals are
    tested on too. The network `quick` (`fast.segmentation.quick`) has a training of its own and takes of these only
    size, native, real, real_share, normals, augment and test_normals. `native`: pictures keep their size, of which
    networks see windows of side `size`, and `quick` all: for large pictures with small defects."""

    __pydantic_config__ = STRICT
    networks: Annotated[tuple[Network, ...], MinLen(1), EACH_ONCE] = ("fpn",)
    seeds: Annotated[tuple[FromZero, ...], MinLen(1), EACH_ONCE] = (0, 1, 2)
    steps: FromOne = 20000
    batch_size: Batch | None = None
    size: Side = 256
    crop: Whole | None = None
    native: Switch = False
    lr: Positive | None = None
    loss: Annotated[str, one_of(*LOSSES)] | None = None
    recipe: Annotated[str, one_of(*SCHEDULES)] = "common"
    classes: Annotated[str, one_of("defect", "types")] = "defect"
    ema: ShareOrZero = 0.0
    precision: Precision = "auto"
    real: Real = "merged"
    real_share: Share | None = 0.5
    augment: Augmentation = "classical"
    normals: ShareOrZero = 0.0
    draw: Annotated[str, one_of(*DRAWS)] = "images"
    prior: Annotated[str, one_of(*PRIORS)] = "drawn"
    test_normals: Switch = True
    start: Start | None = None


@dataclass(frozen=True)
class Entry:
    """One column of the table. `method`: null trains on the real side alone. `recipe`: instead of the method's own;
    `train`: overrides of its training; `sampler`, `steps`, `scale`, `flags`: of `generate_with_mask.py`;
    `draft`, `strength`: what FAST starts from (`fast.synthesis.options`), in masks of its own; `options`: `key=value`
    of the method; `windows`: train and sample windows around the defect at the picture's own resolution, not whole
    pictures made square; `real`, `real_share` (or `merge`: every pair equally often), `augment`, `count`: instead of
    the protocol's (`count` pairs of each type are used)."""

    __pydantic_config__ = STRICT
    label: str
    method: Annotated[str, one_of(*METHODS)] | None = None
    recipe: str | None = None
    train: tuple[str, ...] = ()
    sampler: Annotated[str, one_of(*SAMPLERS)] | None = None
    steps: FromOne | None = None
    scale: Annotated[Number, Ge(0), Lt(math.inf)] | None = None
    flags: tuple[str, ...] = ()
    draft: Annotated[str, one_of(*DRAFTS)] = "none"
    strength: Annotated[Number, Gt(0), Le(1)] = DRAFT_STRENGTH
    options: tuple[str, ...] = ()
    windows: Switch = False
    real: Real | None = None
    real_share: Share | Literal["merge"] | None = None
    augment: Augmentation | None = None
    count: FromOne | None = None


@dataclass(frozen=True)
class Protocol:
    """`column`: what the entries differ in. `paper`: tables to compare with (`fast.bench.paper`). `categories`: of the
    dataset; empty: all. `pictures`: also measure the pairs themselves."""

    __pydantic_config__ = STRICT
    name: str
    title: str
    entries: Annotated[tuple[Entry, ...], MinLen(1)]
    column: Annotated[str, one_of("method", "steps", "farm", "sampler", "configuration", "pairs")] = "method"
    metrics: Annotated[tuple[Annotated[str, one_of(*METRICS)], ...], MinLen(1), EACH_ONCE] = ("mIoU", "Acc")
    paper: Annotated[tuple[Annotated[str, one_of(*paper_names())], ...], EACH_ONCE] = ()
    dataset: str = ""
    categories: Annotated[tuple[str, ...], EACH_ONCE] = ()
    split: SplitRule = field(default_factory=SplitRule)
    pairs: PairsRule = field(default_factory=PairsRule)
    training: TrainingRule = field(default_factory=TrainingRule)
    segmentation: Segmentation = field(default_factory=Segmentation)
    pictures: Switch = True

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), indent=1)


# A section or a list that is left empty is the default.
DEFAULT = {"split", "pairs", "training", "segmentation", "overrides", "networks", "seeds", "train", "flags", "options"}
DEFAULT |= {"metrics", "paper", "categories"}


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
    protocol = validated(Protocol, _without_defaults(content), where)
    _check(protocol, where)
    return protocol


def _without_defaults(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_defaults(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _without_defaults(v) for k, v in value.items() if v is not None or k not in DEFAULT}
    return value


def check(protocol: Protocol, where: str) -> None:
    """Raise a `UserError` of one line for what a protocol cannot mean; `where`: the name to complain about."""
    parse(asdict(protocol), where)


def _check(protocol: Protocol, where: str) -> None:
    """What several values decide together."""
    if not re.fullmatch(r"\w[\w .+-]*", protocol.name):
        raise UserError(f"{where}: name {protocol.name!r} is no plain file name; use letters, digits, - and _")
    labels = [entry.label for entry in protocol.entries]
    if len(set(labels)) < len(labels):
        raise UserError(f"{where}: entries has {max(labels, key=labels.count)!r} twice; give each once")
    for name, section in (("segmentation", protocol.segmentation), ("segmentation.start", protocol.segmentation.start)):
        if section is not None and section.crop is not None and not 16 <= section.crop <= section.size:
            raise UserError(f"{where}: {name}.crop={section.crop} must be within 16..{section.size}, the size")
    for name in protocol.paper:
        if (column := papers.load(name).column) != protocol.column:
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
    if seg.native and (protocol.pairs.size is not None or seg.crop is not None):
        raise UserError(f"{where}: segmentation.native keeps pictures at their size, so that pairs.size and "
                        "segmentation.crop must be null")  # fmt: skip
    _check_segmentation(protocol, where)
    for entry in protocol.entries:
        _check_entry(entry, protocol, where)


def _check_segmentation(protocol: Protocol, where: str) -> None:
    """Of what decides the segmenters' training nothing is without effect."""
    seg = protocol.segmentation
    if seg.start is not None and set(seg.networks) <= set(PRETRAINED):
        raise UserError(f"{where}: segmentation.start is not for {', '.join(seg.networks)}, whose encoder is "
                        "pretrained; set segmentation.start: null")  # fmt: skip
    if seg.crop is not None and seg.networks == ("quick",):
        raise UserError(f"{where}: segmentation.crop is not for quick, whose training is fixed; leave it out")
    merging = any(e.method and (e.real or seg.real) == "merged" and e.real_share is None for e in protocol.entries)
    if seg.real_share not in (None, Segmentation.real_share) and not merging:
        raise UserError(f"{where}: no entry merges pairs with real defects by segmentation.real_share="
                        f"{seg.real_share}; leave it out")  # fmt: skip


def _is_published(network: str) -> bool:
    maker = SEGMENTERS[network]
    return getattr(maker.func if isinstance(maker, partial) else maker, "__name__", "") in PUBLISHED


def learns(method: str | None) -> bool:
    """Whether a method has weights to be trained; None has not."""
    return method is not None and issubclass(method_class(method), Learned)


def _check_entry(entry: Entry, protocol: Protocol, where: str) -> None:
    _check_effect(entry, protocol, where)
    if entry.method is None and (entry.real or protocol.segmentation.real) == "none":
        raise UserError(f"{where}: {entry.label!r} has no method and no real pairs: nothing to train on; set one")
    sampling = (entry.sampler, entry.steps, entry.scale is not None, entry.flags, entry.windows)
    if entry.method not in LATENT and any(sampling):
        names = "sampler, steps, scale, flags and windows"
        raise UserError(f"{where}: {entry.label!r}: {names} are for {', '.join(LATENT)}")
    if protocol.pairs.size is None and learns(entry.method) and not entry.windows:
        remedy = "set windows: true" if entry.method in LATENT else "give pairs.size, or leave the entry out"
        raise UserError(f"{where}: {entry.label!r}: {entry.method} makes pairs of a size of its own, not of the "
                        f"pictures', as pairs.size: null asks (--native); {remedy}")  # fmt: skip
    if entry.draft != "none" and entry.method != "fast":
        raise UserError(f"{where}: {entry.label!r}: draft={entry.draft} is what method fast starts from; leave it out")
    if entry.draft != "none" and entry.sampler not in (None, "aias"):
        raise UserError(f"{where}: {entry.label!r}: draft={entry.draft} is for sampler aias, not {entry.sampler}")
    if entry.draft == "none" and entry.strength != DRAFT_STRENGTH:
        raise UserError(f"{where}: {entry.label!r}: strength is how much of a draft is made new; add draft: transplant")
    if entry.count is not None and entry.count > protocol.pairs.per_type:
        raise UserError(f"{where}: count={entry.count} of {entry.label!r} must lie in 1..pairs.per_type")


def _check_effect(entry: Entry, protocol: Protocol, where: str) -> None:
    """What an entry says has an effect on its pairs, or on a training with them."""
    given = [name for name in ("recipe", "train", "options", "count", "real_share") if getattr(entry, name)]
    if entry.method is None and given:
        raise UserError(f"{where}: {entry.label!r}: {given[0]} is for pairs; leave it out, or set method")
    if not learns(entry.method) and (entry.recipe or entry.train):
        raise UserError(f"{where}: {entry.label!r}: {given[0]} is of a training, and {entry.method} learns nothing; "
                        "leave it out")  # fmt: skip
    if entry.real_share is not None and (entry.real or protocol.segmentation.real) == "none":
        raise UserError(f"{where}: {entry.label!r}: real_share={entry.real_share} is for real defects beside pairs, "
                        "and real is none; leave one of them out")  # fmt: skip

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
    """How the real defects are divided into a training and a test side.

    Args:
        fraction: share of each type's images that trains, in whole physical parts.
        seed: random seed of the split that is made.
        file: a split of prepare_data.py, which is used instead. None: one is made.
    """

    __pydantic_config__ = STRICT
    fraction: Share = 1 / 3
    seed: FromZero = 0
    file: str | None = None


@dataclass(frozen=True)
class PairsRule:
    """How the synthetic pairs are made.

    Args:
        per_type: pairs of each defect type.
        size: their side in pixels. None: that of their normal images.
        masks: masks of the training side, "given" as they are or "augmented".
        own_masks: methods that draw masks use their own instead. Those that find places on the object always do.
        seed: random seed of the pairs.
        precision: of the networks that make them, "auto", "fp32" or "bf16".
    """

    __pydantic_config__ = STRICT
    per_type: FromOne = 500
    size: Side | None = 256
    masks: Annotated[str, one_of("given", "augmented")] = "augmented"
    own_masks: Switch = False
    seed: FromZero = 0
    precision: Precision = "auto"


@dataclass(frozen=True)
class TrainingRule:
    """How methods that learn are trained.

    Args:
        recipes: "small" (configs/methods) or "full" (configs/methods/full).
        max_steps, max_minutes: the same limit for all methods. None: the recipes' own.
        seed: random seed of the trainings.
        overrides: `key=value` for every recipe.
    """

    __pydantic_config__ = STRICT
    recipes: Annotated[str, one_of("small", "full")] = "full"
    max_steps: FromOne | None = None
    max_minutes: Positive | None = None
    seed: FromZero = 23
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Start:
    """Initial weights of the segmenters, the same for all methods, from a training on drawn materials and defects.

    After it they may go on with the real training side, by the segmenters' own schedule.

    Args:
        shards: drawn defects to train on, in units of 256.
        steps: optimizer steps on them.
        size: side in pixels of the drawn pictures.
        crop: side in pixels of the windows of them that training sees. None: all of a picture.
        batch_size: pictures in a step.
        lr: learning rate.
        precision: of this training, "auto", "fp32" or "bf16".
        seed: random seed of what is drawn, of the first weights and of the training.
        real_steps: steps on the real training side after that. 0: none.
    """

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
    """How segmenters are trained on the pairs and tested.

    The network "quick" (`fast.segmentation.quick`) has a training of its own. Of these options it takes only `seeds`,
    `size`, `native`, `real`, `real_share`, `normals`, `draw`, `augment` and `test_normals`.

    Args:
        networks: names of `fast.segmentation.networks.SEGMENTERS`.
        seeds: random seeds. Each network is trained once with each.
        steps: optimizer steps of a training.
        batch_size: pictures in a step. None: the recipe's.
        size: side in pixels of the square that pictures are resized to, or with `native` of the windows.
        crop: side in pixels of the windows of the square that training sees. None: all of it.
        native: pictures keep their size, for large pictures with small defects. Networks see windows of side `size`,
            "quick" sees all of a picture.
        lr: learning rate. None: the recipe's.
        loss: one of `fast.segmentation.train.LOSSES`. None: the recipe's.
        recipe: "common", ours for all networks, or "published", the one that each network was published with.
        classes: "defect", one class, or "types", one class for each type.
        ema: decay of a running mean of the weights, which is then tested. 0: none.
        precision: of the training and the test, "auto", "fp32" or "bf16".
        real: whether the real training side is "merged" with the pairs, or "none" of it.
        real_share: share of the defects drawn that are real, where there are both. None: every pair equally often, as
            in the papers.
        augment: of all training images alike, one of `fast.data.transforms.AUGMENT`.
        normals: share of all that is drawn that are normal images of the training side.
        draw: what of the real defects is drawn equally often, all "images", as in the papers, or all types and their
            physical "parts" (`fast.segmentation.data.merged`).
        prior: how common defect pixels are taken to be, as in what is "drawn", as in the papers, or as in the "real"
            pictures (`fast.segmentation.prior`).
        test_normals: held-out normal images are tested on, too.
        start: initial weights from drawn defects. None: the networks' own.
    """

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
    """One column of the table: a method with its options, or real defects alone.

    Args:
        label: the column's name.
        method: one of `fast.generators.METHODS`. None: the real side alone.
        recipe: a training recipe instead of the method's own.
        train: overrides of the method's training, `key=value` each.
        sampler, steps, scale, flags: options of `generate_with_mask.py` for methods on a latent base, `flags` as on its
            command line. None: its defaults.
        draft, strength: what FAST starts from, in masks of the draft's own, and how much of it is made new, see
            `fast.synthesis.options`.
        options: `key=value` of the method.
        windows: train and sample windows around the defect at the picture's own resolution, not whole pictures made
            square.
        real: whether the real training side is "merged" or "none" of it. None: the protocol's.
        real_share: share of the defects drawn that are real, or "merge" to draw every pair equally often. None: the
            protocol's.
        augment: of its training images, one of `fast.data.transforms.AUGMENT`. None: the protocol's.
        count: so many pairs of each type are used. None: all that the protocol makes.
    """

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
    """All that decides the numbers of a table, as `load_protocol` reads it.

    Args:
        name: names the results, and is a plain file name.
        title: what the table is headed with.
        entries: its columns.
        column: what the entries differ in.
        metrics: which figures the table has, by the papers' names (`fast.bench.results.METRICS`).
        paper: tables to compare with (`fast.bench.paper`).
        dataset: a folder, unless the command names another. Empty: the command has to.
        categories: those of the dataset that are used. Empty: all.
        split, pairs, training, segmentation: the rules of the single steps.
        pictures: also measure the pairs themselves (`fast.bench.pictures`).
    """

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

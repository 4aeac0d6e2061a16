"""From the options of synthesis to what makes the pairs: method, normals, masks, what decides their bytes."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fast.artifact import Artifact, find_artifact, find_weights
from fast.cli.synthesis_masks import ChosenMasks, choose_masks
from fast.cli.synthesis_method import device_named, method_options, weights_settings
from fast.cli.synthesis_notes import (
    LOOKS_OF_DRAFTS,
    check_drawable,
    tell_drafts,
    tell_looks,
    tell_masks,
    tell_recipe,
    tell_sources,
    tell_sources_left_out,
    tell_unused,
    tell_words,
)
from fast.cli.synthesis_options import normals_of, weights_of
from fast.cli.synthesis_placing import flags_of_drafts, given_regions, own_flags, region_of_picture
from fast.cli.synthesis_types import asked_types, named_types, worded_types
from fast.data.images import read_image, resize_image, write_image
from fast.data.index import DatasetIndex, require_defects
from fast.data.layouts import open_dataset
from fast.generators import create, method_class
from fast.generators.base import Learned, Placing
from fast.generators.drafts import Drafter, MixedDrafter, check_drafts
from fast.generators.latent import LatentGenerator
from fast.generators.maker import GeneratorMaker
from fast.generators.procedural import Procedural
from fast.masks.preview import cell, preview_sheet
from fast.masks.source import Masks
from fast.runtime.counts import number_of
from fast.runtime.flags import given
from fast.synthesis.defect_types import match_types
from fast.synthesis.honest import HonestMaker
from fast.synthesis.maker import Maker, MaskOf
from fast.synthesis.normals import HeldOut, ask_split
from fast.synthesis.options import SamplingOptions, SynthesisOptions, draft_methods, transplants
from fast.synthesis.recipe import GuidanceWarning, recipe_for
from fast.synthesis.sources import MaskSource, NormalSource, Sources, find_normals
from fast.synthesis.synthesizer import Synthesizer
from ldm.checkpoint import read_metadata
from ldm.errors import UserError
from ldm.hashing import is_hash

SHOWN, CELL = 18, 192  # pictures of a preview, and their side in pixels


@dataclass(frozen=True)
class SynthesisJob:
    """`common`: what is the same for all pairs and recorded with each. `mask_of`: None where the method draws masks;
    `masks`: their source; `rejected()`: how many drawn masks were not fit to be kept so far."""

    maker: Maker
    sources: Sources
    common: dict[str, Any]
    masks: Masks | None
    mask_of: MaskOf | None
    rejected: Callable[[], int]


def prepare(options: SynthesisOptions, say: bool) -> SynthesisJob:
    """Everything that the flags name, found and read. Raises `UserError`."""
    method = method_class(options.method)
    masks = choose_masks(options, method)
    make = _latent if issubclass(method, LatentGenerator) else _other
    job = make(options, masks, say)
    if masks.source is not None:
        masks.source.survey([normal.path for normal in job.sources.normals])
    if job.maker.size is None:
        masks.check_proportions(options, (job.sources.pair(i, options.seed) for i in range(options.count)))
    return job


def preview(job: SynthesisJob, options: SynthesisOptions) -> None:
    """Write the first masks over their pictures to `--preview`."""
    assert job.masks is not None
    assert job.mask_of is not None
    assert options.preview is not None
    cells = []
    for index in range(min(options.count, SHOWN)):
        pair = job.sources.pair(index, options.seed)
        assert pair.normal is not None
        image = read_image(pair.normal)
        image = resize_image(image, job.maker.size) if job.maker.size else image
        region = job.masks.region(image, pair.normal)
        cells.append((job.sources.types[pair.type_index], cell(image, job.mask_of(image, pair), region, CELL)))
    write_image(options.preview, preview_sheet(cells))
    print(f"preview of {number_of(len(cells), 'mask')}: {options.preview}", flush=True)


# the methods on a latent base


def _latent(options: SynthesisOptions, masks: ChosenMasks, say: bool) -> SynthesisJob:
    artifact = find_artifact(weights_of(options), options.step, options.method)
    artifact = replace(artifact, tokenizer=options.tokenizer)
    sampling = {**method_options(options, artifact.path), **given(options, SamplingOptions)}
    recipe = recipe_for(artifact, **sampling)  # refused before the data are read
    drafts = {**flags_of_drafts(options, recipe.draft), **recipe.draft_options}
    _check_drafts(options, artifact)
    check_drafts(recipe.draft, drafts)
    sources = _trained_sources(options, artifact, masks, say)
    looks = recipe.draft_options.get("looks") or {}
    types = sources.types if artifact.open_types else None
    drawn = "procedural" in draft_methods(recipe.draft)
    if recipe.draft == "procedural":
        check_drawable([sources.types[i] for i in sources.allowed], looks)
    if say:
        tell_recipe(options, artifact, recipe)
        if artifact.open_types:
            tell_words(options, artifact, recipe, sources.types)
        tell_masks(options, sources)
        tell_sources(sources)
    chosen = {name: v for name, v in sampling.items() if v is not None and name not in recipe.own}
    synthesizer = _loaded(options, artifact, types=types, own=recipe.own, **{**chosen, "draft_options": drafts})
    synthesizer.mask_of = mask_of = masks.of(sources.types)
    if drawn:
        tell_looks(sources, looks, LOOKS_OF_DRAFTS + ".{name}=[scratch]", say)
    drafters = _drafters(synthesizer)
    if isinstance(synthesizer.draft_of, MixedDrafter):
        for number in sources.allowed:
            synthesizer.draft_of.check(number, sources.types[number])
        if say:
            tell_drafts(synthesizer.draft_of, sources, looks)
    if say:
        tell_sources_left_out([drafter.method for drafter in drafters])
    regions = None if masks.source is not None else _regions_of_drafts(options, drafters)
    maker: Maker = HonestMaker(synthesizer, recipe.composite) if options.honest_masks else synthesizer
    common = {
        "method": options.method, "seed": options.seed, **maker.settings(), **masks.settings(),
        **({} if regions is None else regions.settings()),
        **weights_settings(artifact.path), "base_sha256": artifact.base_sha256,
    }  # fmt: skip
    return SynthesisJob(maker, sources, common, masks.source, mask_of, masks.rejected)


def _loaded(options: SynthesisOptions, artifact: Artifact, **sampling: Any) -> Synthesizer:
    """The method with its weights, ready. Raises `UserError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GuidanceWarning)  # `_tell_recipe` says so, once for all processes
        made = create(
            options.method,
            weights=artifact.path,
            base=options.base,
            tokenizer=options.tokenizer,
            weights_cache=options.weights_cache,
            device=device_named(options.device),
            **sampling,
        )
    assert isinstance(made, LatentGenerator)
    assert made.synthesizer is not None
    return made.synthesizer


def _drafters(synthesizer: Synthesizer) -> list[Drafter]:
    """What makes the drafts, if any are."""
    found = synthesizer.draft_of
    return found.drafters if isinstance(found, Drafter | MixedDrafter) else []


def _regions_of_drafts(options: SynthesisOptions, drafters: Sequence[Drafter]) -> Masks | None:
    """The folder of regions that drafts are placed by, if there are both."""
    regions = given_regions(options) if drafters else None
    for drafter in drafters:
        drafter.region_of = None if regions is None else region_of_picture(regions)
    return regions


def _trained_sources(options: SynthesisOptions, artifact: Artifact, masks: ChosenMasks, say: bool) -> Sources:
    held = _held_out(options)
    normals, found = _normals(options, artifact.path, held, say), masks.files(options, held, say)
    real = _real_defects(options) if transplants(options) else None
    if artifact.open_types:
        options = options if real is None else _with_types_of_drafts(options, real)
        types = asked_types(options, artifact, normals, found)
        found = _of_types(found, types)
        allowed = list(range(len(types)))
    else:
        types, allowed = artifact.types, match_types(artifact.types, options.anomaly_name, options.init_word)
    return Sources(normals, found, types, allowed).narrowed()


def _of_types(masks: list[MaskSource], types: list[str]) -> list[MaskSource]:
    """The masks in folders that are named as one of the types "category/defect" is; all, where none is."""
    words = {key.split("/", 1)[1] for key in types}
    return [mask for mask in masks if mask.kind in words] or masks


def _check_drafts(options: SynthesisOptions, artifact: Artifact) -> None:
    """UserError where drafts might be cut from defects that the weights' split keeps for the test."""
    if transplants(options) and options.split is None and _of_a_split(artifact.path):
        raise UserError(
            f"{artifact.path.name} was adapted to the training side of a split; say with --split FILE, third or all "
            "which real defects drafts may be cut from"
        )


def _real_defects(options: SynthesisOptions) -> DatasetIndex:
    """The dataset whose real defects the drafts are cut from. Raises `UserError` where it has none."""
    index = open_dataset(str(options.defects or options.data_root))
    try:
        require_defects(index)
    except UserError as error:
        raise UserError(f"{error}, or take --draft procedural, which needs none") from None
    return index


def _with_types_of_drafts(options: SynthesisOptions, real: DatasetIndex) -> SynthesisOptions:
    """Where nothing names defect types, those of the `real` defects that drafts are cut from."""
    if options.anomaly_name or options.init_word:
        return options
    return replace(options, anomaly_name=",".join(f"{category}/{anomaly}" for category, anomaly in real.types))


# all other methods


def _other(options: SynthesisOptions, masks: ChosenMasks, say: bool) -> SynthesisJob:
    method = method_class(options.method)
    weights: dict[str, Any] = {}
    path = None
    if issubclass(method, Learned):
        path = find_weights(weights_of(options), method.artifact, options.step)
        weights = {"weights": path, "device": device_named(options.device)}
    made = create(options.method, **{**weights, **method_options(options, path), **own_flags(options, options.method)})
    if options.split is not None and not method.takes_image and options.keep is None:
        raise UserError(
            f"--split {options.split} is not for {options.method}, which takes no normal image; leave it out"
        )
    held = _held_out(options)
    normals = _normals(options, path, held, say) if method.takes_image else []
    found = masks.files(options, held, say)
    if made.words:
        types = worded_types(options, made, normals, found)
        found = _of_types(found, types)
        wanted = list(range(len(types)))
    else:
        types = list(made.types) or named_types(options, normals, found)
        knows = "these weights know" if path is not None else f"{options.method} knows"
        wanted = match_types(types, options.anomaly_name, options.init_word, knows)
    sources = Sources(normals, found, types, wanted).narrowed()
    if say:
        tell_unused(options, made)
        tell_sources_left_out([made])
        tell_masks(options, sources)
        tell_sources(sources)
    if isinstance(made, Procedural):
        tell_looks(sources, made.own_looks, "method.looks.{name}=[scratch]", say)
    mask_of = masks.of(types)
    regions = None if masks.source is not None or not isinstance(made, Placing) else given_regions(options)
    maker = GeneratorMaker(made, types, options.size, mask_of, None if regions is None else region_of_picture(regions))
    common = {
        "method": options.method, "seed": options.seed, **maker.settings(), **masks.settings(),
        **({} if regions is None else regions.settings()),
        **({} if path is None else weights_settings(path)),
    }  # fmt: skip
    return SynthesisJob(maker, sources, common, masks.source, mask_of, lambda: made.rejected + masks.rejected())


# what both have


def _held_out(options: SynthesisOptions) -> HeldOut | None:
    """What `--split` keeps to test on, of a transplant without one the third's; None where neither names a split."""
    root = options.defects or options.data_root
    if root is None or (options.split is None and not transplants(options)):
        return None
    return HeldOut(root, options.split or "third")


def _normals(options: SynthesisOptions, weights: Path | None, held: HeldOut | None, say: bool) -> list[NormalSource]:
    """Those of `--data_root`, without those of parts that are `held` out, as far as there are others."""
    root = normals_of(options)
    normals = find_normals(root)
    if held is None:
        if weights is not None and not transplants(options) and _of_a_split(weights):
            ask_split(weights, root, normals)
        return normals
    if options.split is None and not held.index.defects:
        return normals  # what cuts them out says more
    kept, notes = held.normals(normals)
    for note in notes if say else ():
        print(f"note: in {held.root} {note}", flush=True)
    return kept


def _of_a_split(weights: Path) -> bool:
    """Whether weights were trained on the training side of a split, by what they record."""
    return is_hash(read_metadata(weights).get("split"))

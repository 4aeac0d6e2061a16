"""From the options of synthesis to what makes the pairs: method, normals, masks, what decides their bytes."""

import os
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fast.anomalydiffusion.mask_model import LearnedMasks
from fast.artifact import Artifact, find_artifact, find_weights, in_project, text_encoder
from fast.data.images import read_image, resize_image, resize_mask, write_image
from fast.data.kept_masks import KeptMasks
from fast.data.words import prompt_text
from fast.generators import create, method_class
from fast.generators.base import Generator as Method
from fast.generators.base import Learned, Placing
from fast.generators.large import LARGE, is_large
from fast.generators.latent import GuidanceWarning, LatentGenerator, guidance_note, recipe_for
from fast.generators.maker import GeneratorMaker
from fast.latent.prompts import check_words, is_vocabulary
from fast.masks.preview import cell, preview_sheet
from fast.masks.source import Masks
from fast.runtime.flags import given
from fast.runtime.folders import parse_json
from fast.synthesis.options import SamplingOptions, SynthesisOptions
from fast.synthesis.sources import (
    MaskSource,
    NormalSource,
    Pair,
    Sources,
    category_of,
    find_masks,
    find_normals,
    match_types,
    open_types,
    perhaps_category,
)
from fast.synthesis.synthesizer import Made, MaskOf
from fast.training.config import load_recipe, plain
from ldm.checkpoint import file_hash, read_metadata
from ldm.errors import UserError
from ldm.rng import seed_of

SHOWN, CELL = 18, 192  # pictures of a preview, and their side in pixels


class Maker(Protocol):
    """What makes pairs: the windows of a method on a latent base, or a method that takes whole pictures.

    `size`: side of the square that pictures are resized to; None: they are not.
    """

    @property
    def size(self) -> int | None: ...

    def make(self, pairs: Iterator[Pair], in_flight: int) -> Generator[Made, None, None]: ...

    def stop(self) -> None: ...

    def prompt(self, type_index: int) -> str: ...

    def settings(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Job:
    """`common`: what is the same for all pairs and recorded with each. `mask_of`: None where the method draws masks;
    `masks`: their source; `rejected()`: how many drawn masks were not fit to be kept so far."""

    maker: Maker
    sources: Sources
    common: dict[str, Any]
    masks: Masks | None
    mask_of: MaskOf | None
    rejected: Callable[[], int]


def prepare(options: SynthesisOptions, say: bool) -> Job:
    """Everything that the flags name, found and read. Raises `UserError`."""
    method = method_class(options.method)
    kind = _mask_kind(options, method)
    learned = None
    if kind == "learned":
        assert options.mask_weights is not None
        learned = LearnedMasks(options.mask_weights, device=_device(options.device), flag="--mask_weights")
    masks = None if kind == "own" else _mask_source(options, kind, learned)
    make = _latent if issubclass(method, LatentGenerator) else _other
    job = make(options, kind, masks, learned, say)
    if masks is not None:
        masks.survey([normal.path for normal in job.sources.normals])
    return job


# masks


def _mask_kind(options: SynthesisOptions, method: type[Method]) -> str:
    kind = options.masks or ("given" if options.mask_path else "own")
    if not method.takes_mask and kind != "own":
        raise UserError(f"{options.method} draws its own masks; leave --mask_path and --masks out")
    if kind == "own" and not method.own_masks:
        raise UserError(f"{options.method} needs masks; give --mask_path FOLDER, or --masks mixed (or another shape)")
    placing = issubclass(method, Placing)
    if kind == "own" and ((options.on_object and not placing) or options.preview):
        flag = "--on_object" if options.on_object and not placing else "--preview"
        raise UserError(f"{flag} is for masks that are there before the picture; add --masks perlin, say")
    return kind


def _mask_source(options: SynthesisOptions, kind: str, learned: LearnedMasks | None) -> Masks:
    def draw(rng: np.random.Generator, anomaly: str | None, shape: tuple[int, int]) -> np.ndarray:
        # A method that knows no types names its pairs by itself: any mask will do.
        assert learned is not None
        return learned.draw(rng, anomaly if anomaly in learned.types else None, shape)

    on_object = options.on_object or ("off" if kind == "given" else "auto")
    return Masks(kind, on_object=on_object, learned=draw if learned else None, read=KeptMasks())


def _mask_of(masks: Masks, types: list[str]) -> MaskOf:
    def mask_of(image: np.ndarray, pair: Pair) -> np.ndarray:
        rng = np.random.default_rng(seed_of(pair.seed, 4))  # not the seed of the defect's own noise
        if masks.kind == "given" or not is_large(image):
            return masks.draw(image, rng, pair.mask, pair.normal, types[pair.type_index])
        # A drawn mask has no finer detail than this, and drawing it at full size takes gigabytes.
        height, width = image.shape[:2]
        shrink = (height * width / LARGE) ** 0.5
        small = resize_image(image, (max(1, int(height / shrink)), max(1, int(width / shrink))))
        mask = masks.draw(small, rng, pair.mask, pair.normal, types[pair.type_index])
        return resize_mask(mask, (height, width))

    return mask_of


def _mask_settings(kind: str, masks: Masks | None, learned: LearnedMasks | None) -> dict[str, Any]:
    """What decides a mask's bytes, beside its file."""
    own = {} if learned is None else {"mask_weights_sha256": learned.hash, "mask_device": learned.device}
    return {"mask_kind": kind, **({} if masks is None else masks.settings()), **own}


def preview(job: Job, options: SynthesisOptions) -> None:
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
    print(f"preview of {len(cells)} masks: {options.preview}", flush=True)


# the methods on a latent base


def _latent(options: SynthesisOptions, kind: str, masks: Masks | None, learned: LearnedMasks | None, say: bool) -> Job:
    artifact = find_artifact(_weights(options), options.step, options.method)
    artifact = replace(artifact, tokenizer=options.tokenizer)
    sampling = {**_options(options, artifact.path), **given(options, SamplingOptions)}
    recipe = recipe_for(artifact, **sampling)  # refused before the data are read
    note = guidance_note(artifact, recipe)
    if say and note is not None:
        print(f"warning: {note}", flush=True)
    if say and recipe.sampler == "ddpm" and options.steps not in (None, recipe.steps):
        print(f"--steps {options.steps} is not used: ddpm always takes all {recipe.steps}", flush=True)
    sources = _trained_sources(options, artifact, masks, say)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GuidanceWarning)  # the first process has said so above
        made = create(
            options.method,
            weights=artifact.path,
            base=options.base,
            tokenizer=options.tokenizer,
            weights_cache=options.weights_cache,
            device=_device(options.device),
            types=sources.types if artifact.open_types else None,
            own=recipe.own,
            **{name: value for name, value in sampling.items() if name not in recipe.own},
        )
    assert isinstance(made, LatentGenerator)
    assert masks is not None
    maker = made.synthesizer
    assert maker is not None
    mask_of = maker.mask_of = _mask_of(masks, sources.types)
    common = {
        "method": options.method, "seed": options.seed, **maker.settings(), **_mask_settings(kind, masks, learned),
        **_weights_settings(artifact.path), "base_sha256": artifact.base_sha256,
    }  # fmt: skip
    return Job(maker, sources, common, masks, mask_of, lambda: learned.rejected if learned else 0)


def _trained_sources(options: SynthesisOptions, artifact: Artifact, masks: Masks | None, say: bool) -> Sources:
    normals, found = _normals(options), _mask_files(options, masks, say)
    if artifact.open_types:
        types = _open_types(options, artifact, normals, found, say)
        found = [m for m in found if m.kind in {t.split("/", 1)[1] for t in types}] or found
        allowed = list(range(len(types)))
    else:
        types, allowed = artifact.types, match_types(artifact.types, options.anomaly_name, options.init_word)
    return _told(Sources(normals, found, types, allowed).narrowed(), say)


def _open_types(
    options: SynthesisOptions, artifact: Artifact, normals: list[NormalSource], masks: list[MaskSource], say: bool
) -> list[str]:
    """The types that the flags and folders ask of weights that serve any words. Raises `UserError` for no words."""
    encoder, top, root = text_encoder(artifact), Path(options.mask_path or ""), options.data_root or ""
    kinds = [m.kind for m in masks if m.path.parent != top]
    category = category_of(normals, root, lambda name: is_vocabulary(encoder, name))
    types = open_types(artifact.types, options.anomaly_name, options.init_word, kinds, category)
    perhaps = perhaps_category(root, lambda name: is_vocabulary(encoder, name))
    if say and perhaps and all(key.startswith("/") for key in types):
        print(f"note: nothing says what the images are of; if it is {perhaps}, add --anomaly_name {perhaps}")
    trained = {prompt_text("", t.split("/", 1)[1]) for t in artifact.types}
    for key in types:
        check_words(encoder, key)
        word = key.split("/", 1)[1]
        if say and prompt_text("", word) not in trained:
            print(f"note: these weights were not trained on {word!r}; they go by the word alone")
    return types


# all other methods


def _other(options: SynthesisOptions, kind: str, masks: Masks | None, learned: LearnedMasks | None, say: bool) -> Job:
    method = method_class(options.method)
    weights: dict[str, Any] = {}
    path = None
    if issubclass(method, Learned):
        path = find_weights(_weights(options), method.artifact, options.step)
        weights = {"weights": path, "device": _device(options.device)}
    made = create(options.method, **{**weights, **_options(options, path), **_own_flags(options, method)})
    normals = _normals(options) if method.takes_image else []
    found = _mask_files(options, masks, say)
    if made.words:
        types = _worded(options, made, normals, found)
        wanted = list(range(len(types)))
    else:
        types = list(made.types) or _named(options, normals, found)
        knows = "these weights know" if path is not None else f"{options.method} knows"
        wanted = match_types(types, options.anomaly_name, options.init_word, knows)
    sources = _told(Sources(normals, found, types, wanted).narrowed(), say)
    mask_of = None if masks is None else _mask_of(masks, types)
    regions = None if masks is not None or not isinstance(made, Placing) else _regions(options)
    maker = GeneratorMaker(made, types, options.size, mask_of, None if regions is None else _region_of(regions))
    common = {
        "method": options.method, "seed": options.seed, **maker.settings(), **_mask_settings(kind, masks, learned),
        **({} if regions is None else regions.settings()),
        **({} if path is None else _weights_settings(path)),
    }  # fmt: skip
    return Job(maker, sources, common, masks, mask_of, lambda: made.rejected + (learned.rejected if learned else 0))


def _own_flags(options: SynthesisOptions, method: type[Method]) -> dict[str, Any]:
    """Options that have flags of their own. Of a folder of regions each comes with its picture."""
    flags: dict[str, Any] = {}
    if options.material is not None:
        flags["material"] = options.material
    if options.method == "transplant":
        flags |= {"defects": options.defects or options.data_root, "split": options.split or "third"}
    if issubclass(method, Placing):
        flags["on_object"] = "off" if _regions(options) else options.on_object or "auto"
    return flags


def _regions(options: SynthesisOptions) -> Masks | None:
    """A folder of regions, one for each picture, if one is given."""
    folder = options.on_object
    return Masks("mixed", on_object=folder) if folder is not None and Path(folder).is_dir() else None


def _region_of(regions: Masks) -> MaskOf:
    """Where the defects of a method that places them may lie in a picture."""

    def region_of(image: np.ndarray, pair: Pair) -> np.ndarray:
        region = regions.region(image, pair.normal)
        assert region is not None
        return region

    return region_of


def _worded(options: SynthesisOptions, made: Method, normals: list[NormalSource], masks: list[MaskSource]) -> list[str]:
    """Types "category/word" for a method that makes any defect it has a word for: those named, those that the masks'
    folders name, or all. Raises `UserError` for a word that it cannot make."""
    top = Path(options.mask_path or "")
    kinds = sorted({m.kind for m in masks if m.path.parent != top})
    categories = sorted({n.category for n in normals} or {""})
    types = []
    for name in (options.anomaly_name or options.init_word or ",".join(kinds or made.words)).split(","):
        name = name.strip().replace("+", "/", 1)
        if name in categories and name:
            types += [f"{name}/{word}" for word in kinds or made.words]
        else:
            types += [name] if "/" in name else [f"{category}/{name}" for category in categories]
    for key in types:
        made.check_word(key)
    return list(dict.fromkeys(types))


def _named(options: SynthesisOptions, normals: list[NormalSource], masks: list[MaskSource]) -> list[str]:
    """Types "category/anomaly" for a method that knows none: by the masks' folders, else by its own name."""
    top = Path(options.mask_path or "")
    kinds = sorted({m.kind for m in masks if m.path.parent != top}) or [options.method]
    return [f"{category}/{kind}" for category in sorted({n.category for n in normals} or {""}) for kind in kinds]


# what both have


def _weights(options: SynthesisOptions) -> str:
    if not options.weights:
        raise UserError(f"{options.method} needs trained weights; give --pt_path FOLDER (main.py trains them)")
    return str(options.weights)


def _weights_settings(path: Path) -> dict[str, Any]:
    """Which weights, and what their training had: optimiser steps, minutes, the split."""
    meta = read_metadata(path)
    budget = {"steps": meta.get("step"), "minutes": meta.get("minutes"), "split": meta.get("split")}
    return {"weights": path.name, "weights_sha256": file_hash(path), "training": budget}


def _options(options: SynthesisOptions, weights: Path | None) -> dict[str, Any]:
    """The method's options: of its recipe, or of the one that its weights were trained by, then of the command line."""
    if weights is None:
        file = in_project(Path(f"configs/methods/{options.method}.yaml"))
        config: Any = OmegaConf.to_container(load_recipe(file)) if file.is_file() else {}
    else:
        config = _recorded(weights)
    method = config.get("method") or {}
    try:
        merged = OmegaConf.merge(method.get("params") or {}, OmegaConf.from_dotlist(options.overrides))
    except (OmegaConfBaseException, YAMLError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"method options: {' '.join(str(error).split())[:200]}") from None
    return {str(k): v for k, v in plain(merged, "method options").items()}


def _recorded(weights: Path) -> dict[str, Any]:
    """The config that an artifact records of its training. Raises `UserError`."""
    try:
        return dict(parse_json(read_metadata(weights).get("config", "{}")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{weights} is not an artifact of main.py: its config is broken ({error})") from None


def _normals(options: SynthesisOptions) -> list[NormalSource]:
    if not options.data_root:
        raise UserError(f"{options.method} needs normal pictures; give --data_root FOLDER")
    return find_normals(options.data_root)


def _mask_files(options: SynthesisOptions, chosen: Masks | None, say: bool) -> list[MaskSource]:
    if not options.mask_path or chosen is None:
        return []
    masks, empty = find_masks(options.mask_path, chosen.read)
    for name in empty if say else []:
        print(f"refused: {name} is an empty mask")
    return masks


def _told(sources: Sources, say: bool) -> Sources:
    if say:
        kinds = ", ".join(sources.types[i] for i in sources.allowed)
        files = f", {len(sources.masks)} masks" if sources.masks else ""
        print(f"{len(sources.normals)} normals{files}, types: {kinds}", flush=True)
    return sources


def _device(name: str) -> str:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no GPU here; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return "cuda"

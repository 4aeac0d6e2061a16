"""The synthesis command: flags to a filled output folder."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from fast.training.options import Parser
from ldm.errors import UserError

if TYPE_CHECKING:  # heavy: imported only once the flags are understood
    from fast.checkpoint import Artifact
    from fast.output import OutputFolder
    from fast.sources import MaskSource, NormalSource, Sources
    from fast.synthesis import Recipe, Synthesizer


def parser() -> argparse.ArgumentParser:
    """The flags of `generate_with_mask.py`."""
    # fmt: off
    p = Parser(
        prog="generate_with_mask.py", allow_abbrev=False,
        description="Synthesize image-mask pairs: normal images and masks in, defects inside the masks out.",
    )
    source = p.add_argument_group("what from")
    source.add_argument("--data_root", required=True, metavar="FOLDER", help="normal images, or a dataset")
    source.add_argument("--mask_path", required=True, metavar="FOLDER",
                        help="masks, white = defect; folders inside it name defect types")
    source.add_argument("--pt_path", required=True, metavar="FOLDER",
                        help="folder of fast-<step>.safetensors, as main.py writes them (or one such file)")
    source.add_argument("--weight_idx", type=int, default=None, help="step of the weights (default: the last)")
    source.add_argument("--actual_resume", default=None, metavar="CKPT",
                        help="the base checkpoint, if it is no longer where training found it")
    source.add_argument("--anomaly_name", default=None,
                        help="defect type to make: a type, category/type, or a category for all of its types; for "
                             "weights that serve any words: part/word")
    source.add_argument("--init_word", default=None,
                        help="category to take if --anomaly_name names none; for weights that serve any words: the "
                             "defect's word (scratch, say)")
    result = p.add_argument_group("what")
    result.add_argument("--sample_name", required=True, metavar="FOLDER",
                        help="output: image/, mask/, triptych/, manifest.jsonl")
    result.add_argument("--count", type=int, default=500, help="pairs in all (default 500)")
    result.add_argument("--size", type=int, default=None,
                        help="side in pixels of the square that pictures are resized to (default: the training size; "
                             "with --region auto they keep their own)")
    result.add_argument("--seed", type=int, default=0, help="pair i depends on this and i alone (default 0)")
    where = p.add_argument_group("how much of a picture")
    where.add_argument("--region", default=None, choices=["auto", "full"],
                       help="sample the full picture, or auto: only windows around the mask (default: auto for weights "
                            "that were trained on windows, data.params.native, and the shipped ones, else full)")
    where.add_argument("--margin", type=int, default=32, help="pixels of context around a defect (default 32)")
    where.add_argument("--min_window", type=int, default=None,
                       help="least side of a window in pixels (default: the training size; smaller is faster)")
    where.add_argument("--max_window", type=int, default=None,
                       help="larger windows are evaluated in overlapping tiles of this side (default: twice the "
                            "training size)")
    how = p.add_argument_group("how")
    how.add_argument("--sampler", default="aias", choices=["aias", "ddpm", "ddim", "plms"])
    how.add_argument("--steps", type=int, default=None, help="network evaluations (default: the recipe's; ddpm: all)")
    how.add_argument("--no_farm", action="store_true", help="leave FARM out (the paper's ablation)")
    how.add_argument("--batch_size", type=int, default=8, help="pairs in flight; does not change the pairs")
    how.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    fast = p.add_argument_group("faster, at a price that docs/performance.md shows")
    fast.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "int8"],
                      help="of the networks' weights; int8: the U-Net's, on CPUs with the instructions (default fp32)")
    fast.add_argument("--reuse", type=int, default=1, metavar="N",
                      help="run the inner U-Net blocks at every N-th evaluation only (default 1: always)")
    fast.add_argument("--stop_at", type=int, default=0, metavar="T",
                      help="no evaluation at times up to T; 2 saves the last two of aias (default 0)")
    fast.add_argument("--compile", action="store_true", help="run the U-Net through torch.compile")
    fast.add_argument("--weights_cache", default=None, metavar="FOLDER",
                      help="keep the base here in bfloat16, for a quick start next time (bf16 and int8)")
    # fmt: on
    return p


def check_options(options: argparse.Namespace) -> None:
    """Everything that can be refused before a heavy import. Raises `UserError`."""
    for name in ("count", "batch_size", "steps", "size", "min_window", "max_window", "reuse"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value} must be at least 1")
    for name in ("seed", "margin", "stop_at"):
        if getattr(options, name) < 0:
            raise UserError(f"--{name} {getattr(options, name)} must not be negative")
    if options.stop_at and options.sampler != "aias":
        raise UserError(f"--stop_at {options.stop_at} is for --sampler aias; leave one of the two out")
    if options.compile and (options.precision == "int8" or options.region == "auto"):
        raise UserError("--compile is for one size of window and weights as they are: not with --region auto or int8")
    if options.weights_cache and options.precision == "fp32":
        raise UserError("--weights_cache keeps weights in bfloat16; add --precision bf16 or int8")


def synthesize(options: argparse.Namespace) -> None:
    """Fill the output folder, or the part of it that this process of several is to make. Raises `UserError`.

    The folder is touched only once everything else has been found in order.
    """
    import torch

    from fast.checkpoint import find_artifact, load_model
    from fast.output import OutputFolder
    from fast.synthesis import Synthesizer
    from ldm.checkpoint import file_hash

    rank = int(os.environ.get("RANK", "0"))
    artifact = find_artifact(options.pt_path, options.weight_idx)
    recipe = _recipe(options, artifact)
    sources = _sources(options, artifact, say=rank == 0)
    dtype = None if recipe.precision == "fp32" else torch.bfloat16
    model = load_model(artifact, options.actual_resume, dtype=dtype, cache=options.weights_cache)
    if artifact.open_types:
        model.serve(sources.types)
    engine = Synthesizer(model, recipe, _device(options.device))
    common = {
        "seed": options.seed, **asdict(recipe), "device": engine.device.type, "lane": engine.lane,
        "weights": artifact.path.name, "weights_sha256": file_hash(artifact.path), "base_sha256": artifact.base_sha256,
    }  # fmt: skip
    settings = {
        **common,
        "types": [sources.types[i] for i in sources.allowed],
        "normals": [str(n.path) for n in sources.normals],
        "masks": [str(m.path) for m in sources.masks],
    }
    with closing(OutputFolder(options.sample_name, settings, rank)) as output:
        total, stopped = _fill(output, engine, sources, common, options)
    if stopped:
        raise UserError(f"interrupted: {total} of {options.count} pairs are made; the same command goes on")
    print(f"{total} pairs in {options.sample_name}", flush=True)


def _fill(
    output: OutputFolder, engine: Synthesizer, sources: Sources, common: dict[str, Any], options: argparse.Namespace
) -> tuple[int, bool]:
    """Make what is missing of this process's share. Returns (pairs in the manifest, stopped early by a signal)."""
    from tqdm import tqdm

    from fast.overlap import overlapped
    from fast.sources import check_images
    from fast.synthesis import Made, record

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    share, done = range(rank, options.count, world), output.done()
    pairs = [sources.pair(i, options.seed) for i in share if i not in done]
    check_images(p.normal for p in pairs)
    hidden = True if rank else None  # None: shown on a terminal only
    left = len(pairs)

    def write(made: Made) -> None:
        index = made.pair.type_index
        entry = record(made, engine.engine.model.prompts.text(index), {"type": sources.types[index], **common})
        output.write(entry, made.normal, made.image, made.mask, made.shown)

    try:
        with (
            stop_on_signal(engine) as signals,
            closing(engine.make(iter(pairs), options.batch_size)) as making,
            tqdm(total=len(share), initial=len(share) - len(pairs), desc="pairs", unit="pair", disable=hidden) as bar,
        ):
            for _ in overlapped(write, making, workers=2, ahead=4):
                left -= 1
                bar.update()
    finally:
        total = output.gather()
    return total, bool(signals) and left > 0


@contextmanager
def stop_on_signal(engine: Synthesizer) -> Iterator[list[int]]:
    """Ctrl-C or SIGTERM stops the engine between two pairs; yields the list of signals that came.

    A second Ctrl-C is not waited for: it raises KeyboardInterrupt.
    """
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and came:
            raise KeyboardInterrupt
        came.append(number)
        engine.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sources(options: argparse.Namespace, artifact: Artifact, say: bool) -> Sources:
    from fast.sources import Sources, find_masks, find_normals, match_types

    normals, (masks, empty) = find_normals(options.data_root), find_masks(options.mask_path)
    if artifact.open_types:
        types = _open_types(options, artifact, normals, masks, say)
        masks = [m for m in masks if m.kind in {t.split("/", 1)[1] for t in types}] or masks
        allowed = list(range(len(types)))
    else:
        types, allowed = artifact.types, match_types(artifact.types, options.anomaly_name, options.init_word)
    sources = Sources(normals, masks, types, allowed).narrowed()
    if say:
        for name in empty:
            print(f"refused: {name} is an empty mask")
        kinds = ", ".join(types[i] for i in allowed)
        print(f"{len(sources.normals)} normals, {len(sources.masks)} masks, types: {kinds}", flush=True)
    return sources


def _open_types(
    options: argparse.Namespace, artifact: Artifact, normals: list[NormalSource], masks: list[MaskSource], say: bool
) -> list[str]:
    """The types that the flags and folders ask of weights that serve any words. Raises `UserError` for no words."""
    from fast.checkpoint import text_encoder
    from fast.prompts import check_words, is_vocabulary, prompt_text
    from fast.sources import category_of, open_types

    encoder, top = text_encoder(artifact), Path(options.mask_path)
    kinds = [m.kind for m in masks if m.path.parent != top]
    category = category_of(normals, options.data_root, lambda name: is_vocabulary(encoder, name))
    types = open_types(artifact.types, options.anomaly_name, options.init_word, kinds, category)
    trained = {prompt_text("", t.split("/", 1)[1]) for t in artifact.types}
    for key in types:
        check_words(encoder, key)
        word = key.split("/", 1)[1]
        if say and prompt_text("", word) not in trained:
            print(f"note: these weights were not trained on {word!r}; they go by the word alone")
    return types


def _recipe(options: argparse.Namespace, artifact: Artifact) -> Recipe:
    from fast.aias import boundaries
    from fast.synthesis import Recipe

    config, params = artifact.config, artifact.config["model"]["params"]
    timesteps = params.get("timesteps", 1000)
    steps = options.steps or (params.get("aias") or {}).get("steps", 10)
    try:
        boundaries(steps, timesteps)
    except UserError:
        raise UserError(f"--steps {steps} lies outside 1..{timesteps}, the steps this base knows") from None
    if options.sampler == "ddpm":
        if options.steps not in (None, timesteps):
            print(f"--steps {steps} is not used: ddpm always takes all {timesteps}", flush=True)
        steps = timesteps
    data = (config.get("data") or {}).get("params") or {}
    windows = data.get("native") or artifact.open_types
    trained, region = data.get("size", 256), options.region or ("auto" if windows else "full")
    return Recipe(
        size=options.size or (trained if region == "full" else None),
        sampler=options.sampler,
        steps=steps,
        use_farm=not options.no_farm,
        precision=options.precision,
        region=region,
        margin=options.margin,
        min_window=options.min_window or trained,
        max_window=options.max_window or 2 * trained,
        reuse=options.reuse,
        stop_at=options.stop_at,
        compiled=options.compile,
    )


def _device(name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no GPU here; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return "cuda"

"""The synthesis command: flags to a filled output folder."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from fast.generators import FREE, LATENT, METHODS
from fast.runtime.options import Parser
from ldm.errors import UserError

if TYPE_CHECKING:  # heavy: imported only once the flags are understood
    from fast.cli.synthesis_job import Job, Maker
    from fast.synthesis.output import OutputFolder

# Flags that only the methods on a latent base know, and those of methods that learn.
LATENT_FLAGS = (
    "sampler", "steps", "scale", "region", "margin", "min_window", "max_window", "no_composite", "no_farm", "reuse",
    "stop_at", "compile", "precision", "weights_cache", "actual_resume", "tokenizer",
)  # fmt: skip
LEARNED_FLAGS = ("pt_path", "weight_idx")
# Flags of single methods.
OWN_FLAGS = {"material": "procedural", "defects": "transplant", "split": "transplant"}
SIDES, MOST_SIDE = ("size", "min_window", "max_window"), 65535  # of PNG's and JPEG's pictures
MASKS = ("given", "augmented", "own", "perlin", "scratch", "blob", "crack", "spots", "mixed", "learned")


def parser() -> argparse.ArgumentParser:
    """The flags of `generate_with_mask.py`."""
    # fmt: off
    p = Parser(
        prog="generate_with_mask.py", allow_abbrev=False,
        description="Synthesize image-mask pairs: normal images and masks in, defects inside the masks out.",
        epilog="Anything of the form method.key=value sets an option of the method, e.g. method.beta=[0.2,0.6].",
    )
    p.add_argument("--method", default="fast", choices=list(METHODS), help="what makes the defects (default fast)")
    source = p.add_argument_group("what from")
    source.add_argument("--data_root", default=None, metavar="FOLDER",
                        help="normal images, or a dataset (needed by all but dfmgan)")
    source.add_argument("--mask_path", default=None, metavar="FOLDER",
                        help="masks, white = defect; folders inside it name defect types")
    source.add_argument("--pt_path", default=None, metavar="FOLDER",
                        help="folder of <method>-<step>.safetensors, as main.py writes them, or one such file (needed "
                             "by methods that learn)")
    source.add_argument("--weight_idx", type=int, default=None, help="step of the weights (default: the last)")
    source.add_argument("--actual_resume", default=None, metavar="CKPT",
                        help="the base checkpoint, if it is no longer where training found it")
    source.add_argument("--tokenizer", default=None, metavar="FOLDER|NAME",
                        help="the base's tokenizer: a folder, or a hub name, which is fetched (default: the recorded "
                             "one, as far as it is on this machine)")
    source.add_argument("--anomaly_name", default=None,
                        help="defect types to make, separated by commas: a type, category/type, or a category for all "
                             "of its types; for weights that serve any words: part/word; for procedural: scratch, "
                             "crack, dent and so on (default: all there are)")
    source.add_argument("--init_word", default=None,
                        help="category to take if --anomaly_name names none; for weights that serve any words: the "
                             "defect's word (scratch, say)")
    source.add_argument("--material", default=None, metavar="NAME",
                        help="procedural: what the part is of, a material (rolled_metal, leather, ...) or a family "
                             "(metal, wood, hide, cloth, mineral, polymer, paint, glass, board, paper); default: "
                             "estimated from each picture")
    source.add_argument("--defects", default=None, metavar="FOLDER",
                        help="transplant: dataset whose real defects are cut out (default: --data_root)")
    source.add_argument("--split", default=None, metavar="third|all|FILE",
                        help="transplant: which of them, the training side of a file of prepare_data.py, a third as "
                             "that would draw it (default), or all")
    where = p.add_argument_group("where the defects go")
    where.add_argument("--masks", default=None, choices=MASKS,
                       help="given: those of --mask_path as they are; augmented: moved, turned, scaled, bent; own: the "
                            "method's; drawn shapes; learned: of --mask_weights (default: given where there is a "
                            "--mask_path, else the method's own)")
    where.add_argument("--mask_weights", default=None, metavar="FOLDER",
                       help="weights of configs/methods/masks.yaml, for --masks learned")
    where.add_argument("--on_object", default=None, metavar="RULE|PATH",
                       help="keep masks on the object: auto, otsu, otsu_dark, triangle; a region file, or a folder "
                            "with one for each picture; or off (default: auto, but off for given masks); procedural "
                            "and transplant keep their own defects on it")
    where.add_argument("--preview", default=None, metavar="FILE", help="PNG of the first masks over their pictures")
    result = p.add_argument_group("what")
    result.add_argument("--sample_name", required=True, metavar="FOLDER",
                        help="output: image/, mask/, triptych/, manifest.jsonl")
    result.add_argument("--count", type=int, default=500, help="pairs in all (default 500)")
    result.add_argument("--extend", action="store_true",
                        help="go on with a set after normal images, masks or types were added: what is made stays")
    result.add_argument("--size", type=int, default=None,
                        help="side in pixels of the square that pictures are resized to (default: the training size; "
                             "with --region auto, and of methods that learn nothing, they keep their own)")
    result.add_argument("--seed", type=int, default=0, help="pair i depends on this and i alone (default 0)")
    part = p.add_argument_group("how much of a picture (methods on a latent base)")
    part.add_argument("--region", default=None, choices=["auto", "full"],
                      help="sample the full picture, or auto: only windows around the mask (default: auto for weights "
                           "that were trained on windows, data.params.native, and the shipped ones, else full)")
    part.add_argument("--margin", type=int, default=None, help="pixels of context around a defect (default 32)")
    part.add_argument("--min_window", type=int, default=None,
                      help="least side of a window in pixels (default: the training size; smaller is faster)")
    part.add_argument("--max_window", type=int, default=None,
                      help="larger windows are evaluated in overlapping tiles of this side (default: twice the "
                           "training size)")
    part.add_argument("--no_composite", action="store_true",
                      help="leave all of the decoded window in the picture, as AnomalyDiffusion and STAGE do")
    how = p.add_argument_group("how")
    how.add_argument("--sampler", default=None, choices=["aias", "ddpm", "ddim", "plms"],
                     help="default: the method's (fast aias, stage ddpm, anomalydiffusion ddim)")
    how.add_argument("--steps", type=int, default=None, help="network evaluations (default: the recipe's; ddpm: all)")
    how.add_argument("--scale", type=float, default=None, metavar="W",
                     help="classifier-free guidance: how much the words count against no words, from 0; 1 is none, "
                          "all else takes twice the time (default: as the weights recommend, 1 where they say nothing)")
    how.add_argument("--no_farm", action="store_true", help="leave FARM out (the paper's ablation)")
    how.add_argument("--batch_size", type=int, default=8, help="pairs in flight; does not change the pairs")
    how.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    fast = p.add_argument_group("faster, at a price that docs/performance.md shows")
    fast.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "int8"],
                      help="of the networks' weights; auto: bf16 where the machine computes in it, else fp32; int8: "
                           "the U-Net's, on CPUs with the instructions (default auto)")
    fast.add_argument("--reuse", type=int, default=1, metavar="N",
                      help="run the inner U-Net blocks at every N-th evaluation only (default 1: always)")
    fast.add_argument("--stop_at", type=int, default=0, metavar="T",
                      help="no evaluation at times up to T; 2 saves the last two of aias (default 0)")
    fast.add_argument("--compile", action="store_true", help="run the U-Net through torch.compile")
    fast.add_argument("--weights_cache", default=None, metavar="FOLDER",
                      help="keep the base here in bfloat16, for a quick start next time (bf16 and int8)")
    # fmt: on
    return p


def parse_synthesis(argv: list[str]) -> argparse.Namespace:
    """Flags and `method.key=value` in any order."""
    override = re.compile(r"^method\.[A-Za-z0-9_.]+=")
    options = parser().parse_args([a for a in argv if not override.match(a)])
    options.overrides = [a.removeprefix("method.") for a in argv if override.match(a)]
    return options


def check_options(options: argparse.Namespace) -> None:
    """Everything that can be refused before a heavy import. Raises `UserError`."""
    for name in ("count", "batch_size", "steps", "size", "min_window", "max_window", "reuse"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value} must be at least 1")
        if value is not None and name in SIDES and value > MOST_SIDE:
            raise UserError(f"--{name} {value} is larger than any picture; give at most {MOST_SIDE} pixels")
    for name in ("seed", "margin", "stop_at"):
        if (getattr(options, name) or 0) < 0:
            raise UserError(f"--{name} {getattr(options, name)} must not be negative")
    if options.scale is not None and not 0 <= options.scale < math.inf:
        raise UserError(f"--scale={options.scale} is no guidance scale; give a number from 0, 1 for no guidance")
    if options.stop_at and (options.method != "fast" or options.sampler not in (None, "aias")):
        raise UserError(f"--stop_at {options.stop_at} is for --sampler aias of fast; leave one of the two out")
    if options.compile and (options.precision == "int8" or options.region == "auto"):
        raise UserError("--compile is for one size of window and weights as they are: not with --region auto or int8")
    if options.weights_cache and options.precision == "fp32":
        raise UserError("--weights_cache keeps weights in bfloat16; add --precision bf16 or int8")
    if options.masks in ("given", "augmented") and not options.mask_path:
        raise UserError(f"--masks {options.masks} needs masks; give their folder with --mask_path")
    if options.mask_path and options.masks not in (None, "given", "augmented"):
        raise UserError(f"--masks {options.masks} takes no files; leave --mask_path out, or use given or augmented")
    if (options.masks == "learned") != (options.mask_weights is not None):
        raise UserError("--masks learned and --mask_weights FOLDER go together; give both or neither")
    if options.anomaly_name is not None and not all(name.strip() for name in options.anomaly_name.split(",")):
        raise UserError(f"--anomaly_name {options.anomaly_name!r} names nothing between two commas; give words")
    if options.on_object == "":
        raise UserError("--on_object is empty; give a rule such as auto, a path, or off")
    if options.preview and Path(options.sample_name).resolve() in Path(options.preview).resolve().parents:
        raise UserError(f"--preview {options.preview} lies in --sample_name; choose a file outside that folder")
    _check_flags(options)


def _check_flags(options: argparse.Namespace) -> None:
    """No flag is given that the method would pass over in silence. Raises `UserError`."""
    foreign = (() if options.method in LATENT else LATENT_FLAGS) + (LEARNED_FLAGS if options.method in FREE else ())
    defaults = parser().parse_args(["--sample_name", "any"])
    for name in foreign:
        if getattr(options, name) != getattr(defaults, name):
            own = "; its own options are method.key=value" if name in LATENT_FLAGS else ", which learns nothing"
            raise UserError(f"--{name} is not for {options.method}{own}")
    for name, method in OWN_FLAGS.items():
        if getattr(options, name) is not None and options.method != method:
            raise UserError(f"--{name} is for --method {method}, not {options.method}; leave it out")
    given = {o.split("=")[0] for o in options.overrides}
    flags = {"device": "--device", "weights": "--pt_path", "step": "--weight_idx", "on_object": "--on_object"}
    for name, flag in {**flags, **{name: f"--{name}" for name in OWN_FLAGS}}.items():
        if name in given:
            raise UserError(f"method.{name} is set by {flag}; use that")


def synthesize(options: argparse.Namespace) -> None:
    """Fill the output folder, or the part of it that this process of several is to make. Raises `UserError`.

    The folder is touched only once everything else has been found in order.
    """
    from fast.cli.synthesis_job import prepare, preview
    from fast.synthesis.output import OutputFolder

    rank = int(os.environ.get("RANK", "0"))
    job = prepare(options, say=rank == 0)
    if options.preview and rank == 0:
        preview(job, options)
    settings = {
        **job.common,
        "types": [job.sources.types[i] for i in job.sources.allowed],
        # By content: where the files lie decides nothing.
        "normals": sorted(job.sources.normal_contents),
        "masks": sorted(job.sources.mask_contents),
    }
    with closing(OutputFolder(options.sample_name, settings, rank, options.extend)) as output:
        try:
            total, stopped = _fill(output, job, options)
        except UserError:
            output.abandon()
            raise
    rejected = job.rejected()
    if rejected and rank == 0:
        print(f"{rejected} drawn masks were rejected and drawn again", flush=True)
    if stopped:
        raise UserError(f"interrupted: {total} of {options.count} pairs are made; the same command goes on")
    print(f"{total} pairs in {options.sample_name}", flush=True)


def _fill(output: OutputFolder, job: Job, options: argparse.Namespace) -> tuple[int, bool]:
    """Make what is missing of this process's share. Returns (pairs in the manifest, stopped early by a signal)."""
    from fast.runtime.progress import Progress
    from fast.runtime.workers import overlapped
    from fast.synthesis.sources import check_images
    from fast.synthesis.synthesizer import Made, record

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    share, done = range(rank, options.count, world), output.done()
    pairs = [job.sources.pair(i, options.seed) for i in share if i not in done]
    check_images(p.normal for p in pairs if p.normal)
    left = len(pairs)

    def write(made: Made) -> None:
        index = made.pair.type_index
        entry = record(made, job.maker.prompt(index), {"type": job.sources.types[index], **job.common})
        output.write(entry, made.normal, made.image, made.mask, made.shown)

    try:
        with (
            stop_on_signal(job.maker) as signals,
            closing(job.maker.make(iter(pairs), options.batch_size)) as making,
            Progress(len(share), "pairs", "pair", initial=len(share) - len(pairs), hidden=rank != 0) as progress,
        ):
            for _ in overlapped(write, making, workers=2, ahead=4):
                left -= 1
                progress.update()
    finally:
        total = output.gather()
    return total, bool(signals) and left > 0


@contextmanager
def stop_on_signal(maker: Maker) -> Iterator[list[int]]:
    """Ctrl-C or SIGTERM stops the maker between two pairs; yields the list of signals that came.

    A second Ctrl-C is not waited for: it raises KeyboardInterrupt.
    """
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and came:
            raise KeyboardInterrupt
        came.append(number)
        maker.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

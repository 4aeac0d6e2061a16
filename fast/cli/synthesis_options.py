"""What `generate_with_mask.py` is told: all options of synthesis, their flags, and what can be refused at once."""

from __future__ import annotations

import argparse
import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from fast.generators import FREE, LATENT, METHODS
from fast.runtime.flags import add_flags, default_of, flag_of, option
from fast.runtime.options import Parser
from fast.synthesis.options import LatentOptions, check_latent
from ldm.errors import UserError

# Of the options of methods on a latent base those that others have too, and those of all methods that learn.
SHARED, LEARNED = ("size", "device"), ("weights", "step")
# Options of single methods.
OWN = {"material": "procedural", "defects": "transplant", "split": "transplant"}
MASKS = ("given", "augmented", "own", "perlin", "scratch", "blob", "crack", "spots", "mixed", "learned")
# The flags as `--help` shows them.
GROUPS = {
    "": ("method",),
    "what from": (
        "data_root", "mask_path", "weights", "step", "base", "tokenizer", "anomaly_name", "init_word", "material",
        "defects", "split",
    ),
    "where the defects go": ("masks", "mask_weights", "on_object", "preview"),
    "what": ("sample_name", "count", "extend", "size", "seed"),
    "how much of a picture (methods on a latent base)": ("region", "margin", "min_window", "max_window", "composite"),
    "how": ("sampler", "steps", "scale", "use_farm", "batch_size", "device"),
    "faster, at a price that docs/performance.md shows": (
        "precision", "reuse", "stop_at", "compiled", "weights_cache",
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SynthesisOptions(LatentOptions):
    """A set of pairs to make: the method, what from, where the defects go, how many. `overrides`: `key=value` for
    options of the method, as after `method.` on the command line."""

    # fmt: off
    method: str = option("fast", "what makes the defects (default fast)", choices=list(METHODS))
    data_root: str | None = option(
        None, "normal images, or a dataset (needed by all but dfmgan)", metavar="FOLDER")
    mask_path: str | None = option(
        None, "masks, white = defect; folders inside it name defect types", metavar="FOLDER")
    anomaly_name: str | None = option(
        None, "defect types to make, separated by commas: a type, category/type, or a category for all of its types; "
        "for weights that serve any words: part/word; for procedural: scratch, crack, dent and so on (default: all "
        "there are)")
    init_word: str | None = option(
        None, "category to take if --anomaly_name names none; for weights that serve any words: the defect's word "
        "(scratch, say)")
    material: str | None = option(
        None, "procedural: what the part is of, a material (rolled_metal, leather, ...) or a family (metal, "
        "wood, hide, cloth, mineral, polymer, paint, glass, board, paper); default: estimated from each picture",
        metavar="NAME")
    defects: str | None = option(
        None, "transplant: dataset whose real defects are cut out (default: --data_root)", metavar="FOLDER")
    split: str | None = option(
        None, "transplant: which of them, the training side of a file of prepare_data.py, a third as that would draw "
        "it (default), or all", metavar="third|all|FILE")
    masks: str | None = option(
        None, "given: those of --mask_path as they are; augmented: moved, turned, scaled, bent; own: the method's; "
        "drawn shapes; learned: of --mask_weights (default: given where there is a --mask_path, else the method's own)",
        choices=MASKS)
    mask_weights: str | None = option(
        None, "weights of configs/methods/masks.yaml, for --masks learned", metavar="FOLDER")
    on_object: str | None = option(
        None, "keep masks on the object: auto, otsu, otsu_dark, triangle; a region file, or a folder with one for each "
        "picture; or off (default: auto, but off for given masks); procedural and transplant keep their own defects on "
        "it", metavar="RULE|PATH")
    preview: str | None = option(None, "PNG of the first masks over their pictures", metavar="FILE")
    sample_name: str = option(
        MISSING, "output: image/, mask/, triptych/, manifest.jsonl", metavar="FOLDER")
    count: int = option(500, "pairs in all (default 500)", least=1)
    extend: bool = option(
        False, "go on with a set after normal images, masks or types were added: what is made stays")
    seed: int = option(0, "pair i depends on this and i alone (default 0)", least=0)
    batch_size: int = option(8, "pairs in flight; does not change the pairs", least=1)
    overrides: list[str] = option([], None)
    # fmt: on


def parser() -> argparse.ArgumentParser:
    """The flags of `generate_with_mask.py`."""
    p = Parser(
        prog="generate_with_mask.py", allow_abbrev=False,
        description="Synthesize image-mask pairs: normal images and masks in, defects inside the masks out.",
        epilog="Anything of the form method.key=value sets an option of the method, e.g. method.beta=[0.2,0.6].",
    )  # fmt: skip
    for title, names in GROUPS.items():
        add_flags(p.add_argument_group(title) if title else p, SynthesisOptions, names)
    return p


def parse_synthesis(argv: list[str]) -> SynthesisOptions:
    """Flags and `method.key=value` in any order."""
    override = re.compile(r"^method\.[A-Za-z0-9_.]+=")
    values = vars(parser().parse_args([a for a in argv if not override.match(a)]))
    return SynthesisOptions(**values, overrides=[a.removeprefix("method.") for a in argv if override.match(a)])


def check_options(options: SynthesisOptions) -> None:
    """Everything that can be refused before a heavy import. Raises `UserError`."""
    check_latent(options, options.method)
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
    _check_method(options)


def _check_method(options: SynthesisOptions) -> None:
    """Nothing is given that the method would pass over in silence. Raises `UserError`."""
    for own in fields(LatentOptions):
        learned = own.name in LEARNED
        foreign = options.method in FREE if learned else options.method not in LATENT and own.name not in SHARED
        if foreign and getattr(options, own.name) != default_of(own):
            why = ", which learns nothing" if learned else "; its own options are method.key=value"
            raise UserError(f"{flag_of(options, own.name)} is not for {options.method}{why}")
    for name, method in OWN.items():
        if getattr(options, name) is not None and options.method != method:
            raise UserError(f"--{name} is for --method {method}, not {options.method}; leave it out")
    given = {o.split("=")[0] for o in options.overrides}
    for name in ("device", *LEARNED, "on_object", *OWN):
        if name in given:
            raise UserError(f"method.{name} is set by {flag_of(options, name)}; use that")

"""The flags of `generate_with_mask.py`, and which of its options can be refused at once."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

from fast.cli.score import check_keep
from fast.generators import FREE, LATENT, METHODS
from fast.runtime.flags import add_flags, default_of, flag_of, flagged
from fast.runtime.options import Parser
from fast.runtime.runner import check_runner
from fast.synthesis.options import (
    FIRST_COUNTERFEIT,
    LatentOptions,
    SynthesisOptions,
    check_latent,
    draft_methods,
    strength_alone,
    transplants,
)
from ldm.errors import UserError

# Of the options of methods on a latent base those that others have too, and those of all methods that learn.
SHARED, LEARNED = ("size", "device"), ("weights", "step")
# Options of single methods, also where their pictures are drafts.
OWN = {"material": "procedural", "defects": "transplant"}
OVERRIDE = re.compile(r"^method\.[A-Za-z0-9_.]+=")
# The flags as `--help` shows them.
GROUPS = {
    "": ("method",),
    "what from": (
        "data_root", "mask_path", "weights", "step", "base", "tokenizer", "anomaly_name", "init_word", "material",
        "defects", "split",
    ),
    "where the defects go": ("masks", "mask_weights", "on_object", "honest_masks", "preview"),
    "what fast starts from": ("draft", "strength"),
    "what": ("sample_name", "shards", "count", "counterfeits", "keep", "regenerate", "extend", "size", "seed"),
    "how much of a picture (methods on a latent base)": (
        "region", "margin", "min_window", "max_window", "composite", "detail", "blend",
    ),
    "how": ("sampler", "steps", "scale", "use_farm", "batch_size", "device"),
    "faster, at a price that docs/performance.md shows": (
        "precision", "reuse", "stop_at", "compiled", "weights_cache",
    ),
    "on more than one machine (docs/scale.md)": ("runner", "workers", "slurm", "dry_run"),
}  # fmt: skip


OPTIONS = {own.name: own for own in fields(SynthesisOptions)}


def parser() -> argparse.ArgumentParser:
    """The flags of `generate_with_mask.py`."""
    p = Parser(
        prog="generate_with_mask.py", allow_abbrev=False,
        description="Synthesize image-mask pairs: normal images and masks in, defects inside the masks out.",
        epilog="Anything of the form method.key=value sets an option of the method, e.g. method.beta=[0.2,0.6].",
    )  # fmt: skip
    for title, names in GROUPS.items():
        add_flags(
            p.add_argument_group(title) if title else p, SynthesisOptions, names, method={"choices": list(METHODS)}
        )
    return p


def parse_synthesis(argv: list[str]) -> tuple[SynthesisOptions, set[str]]:
    """Flags and `method.key=value` in any order: the options, and the names of those whose flags are on the command
    line, also where they are given their default value."""
    unsaid = object()  # a value that no flag can have
    single = [name for name in flagged(SynthesisOptions) if not isinstance(default_of(OPTIONS[name]), list)]
    whole = argparse.Namespace(**dict.fromkeys(single, unsaid))
    found = vars(parser().parse_args([a for a in argv if not OVERRIDE.match(a)], whole))
    said = {name: value for name, value in found.items() if value is not unsaid and value != []}
    overrides = [a.removeprefix("method.") for a in argv if OVERRIDE.match(a)]
    return SynthesisOptions(**said, overrides=overrides), set(said)


def check_options(options: SynthesisOptions, named: Collection[str] = ()) -> None:
    """Everything that can be refused before a heavy import. `named`: options that are asked for, though they may have
    their default value. Raises `UserError`."""
    check_latent(options, options.method)
    if "strength" in named and options.draft == "none":
        raise strength_alone(options.strength, options.method)
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
    _check_own_masks(options)
    check_runner(options)
    _check_shards(options)
    _check_kept(options)
    _check_method(options, named)
    _check_counterfeits(options)
    if options.method in LATENT:
        weights_of(options)
    if options.method in (*LATENT, *FREE):  # what the others take their classes say, which import torch
        normals_of(options)


def weights_of(options: SynthesisOptions) -> str:
    """The weights of a method that learns. UserError where none are given."""
    if not options.weights:
        raise UserError(f"{options.method} needs trained weights; give --pt_path FOLDER (main.py trains them)")
    return str(options.weights)


def normals_of(options: SynthesisOptions) -> str:
    """Where the normal images are. UserError where it is not given."""
    if not options.data_root:
        raise UserError(f"{options.method} needs normal pictures; give --data_root FOLDER")
    return options.data_root


def _check_own_masks(options: SynthesisOptions) -> None:
    """Raises `UserError` where the method is to make its own masks and cannot, or they are to be shown beforehand."""
    if options.masks != "own" and (options.masks or options.mask_path):
        return
    if options.method in LATENT and options.draft == "none":
        raise UserError(f"{options.method} needs masks; give --mask_path FOLDER, or --masks mixed (or another shape)")
    if options.preview:
        maker = options.method if options.draft == "none" else f"--draft {options.draft}"
        raise UserError(
            f"--preview shows masks that are there before the picture, and {maker} brings its own; leave it out and "
            "look at a few pairs with scripts/contact_sheet.py, or add --masks perlin, say, if the method fills masks"
        )


def _check_shards(options: SynthesisOptions) -> None:
    """Raises `UserError` for a place that only shards can be in, and for what shards cannot do."""
    if options.count > FIRST_COUNTERFEIT:
        raise UserError(
            f"--count {options.count} is more than a set holds; make at most {FIRST_COUNTERFEIT}, and another set of "
            "another --seed"
        )
    if not options.shards:
        if "://" in options.sample_name:
            raise UserError(f"--sample_name {options.sample_name} is a URL, which takes shards; add --shards 1000, say")
        return
    if options.runner != "local" and options.sample_name.startswith("memory://"):
        raise UserError(
            f"--sample_name {options.sample_name} is the memory of one process, and --runner {options.runner} has "
            "several; give a folder or a URL that all machines see"
        )
    for name in ("keep", "regenerate", "extend"):
        if getattr(options, name):
            raise UserError(
                f"{flag_of(options, name)} changes pairs that are made, and shards stay as they are; leave it out, or "
                "--shards, and export the folder with --format webdataset"
            )


def _check_counterfeits(options: SynthesisOptions) -> None:
    if options.counterfeits and options.method not in LATENT:
        raise UserError(f"--counterfeits is for methods on a latent base, not {options.method}; leave it out")
    if not math.isfinite(options.counterfeits):
        raise UserError(
            f"--counterfeits {options.counterfeits} is no share of the pairs; give a number from 0, say 0.3"
        )
    if options.counterfeits and not counterfeits(options):
        raise UserError(
            f"--counterfeits {options.counterfeits:g} of --count {options.count} is not one; raise it, or leave it out"
        )


def counterfeits(options: SynthesisOptions) -> range:
    """Numbers of the counterfeits beside the pairs: that of pair i is `FIRST_COUNTERFEIT + i`, so that a larger count
    or share only adds some."""
    return range(FIRST_COUNTERFEIT, FIRST_COUNTERFEIT + round(options.count * options.counterfeits))


def _check_kept(options: SynthesisOptions) -> None:
    """Raises `UserError` for a choice among the pairs that cannot be made."""
    if options.keep is not None:
        check_keep(options.keep, options.defects, None if transplants(options) else options.split)
    flag = "--regenerate" if options.regenerate else f"--keep {options.keep}"
    several = options.runner != "local" or int(os.environ.get("WORLD_SIZE", "1")) > 1
    if (options.keep is not None or options.regenerate) and several:
        raise UserError(
            f"{flag} needs all pairs at once, and each of several processes has a part of them; leave it out, and run "
            "scripts/score.py on the folder afterwards"
        )
    if options.regenerate and options.keep is None and not options.honest_masks:
        raise UserError("--regenerate is for pairs that are rejected; add --keep SHARE or --honest_masks")


def _check_method(options: SynthesisOptions, named: Collection[str]) -> None:
    """Nothing is given that the method would pass over in silence. Raises `UserError`."""
    for own in fields(LatentOptions):
        learned = own.name in LEARNED
        foreign = options.method in FREE if learned else options.method not in LATENT and own.name not in SHARED
        said = own.name in named and own.name != "draft"  # --draft none asks for nothing
        if foreign and (said or getattr(options, own.name) != default_of(own)):
            why = ", which learns nothing" if learned else "; its own options are method.key=value"
            raise UserError(f"{flag_of(options, own.name)} is not for {options.method}{why}")
    if options.honest_masks and options.method not in LATENT:
        raise UserError(
            f"--honest_masks is for methods on a latent base ({', '.join(LATENT)}): {options.method} marks what it "
            "changed"
        )
    made_by = (options.method, *draft_methods(options.draft))
    for name, method in OWN.items():
        compared = name == "defects" and (options.keep is not None or options.split is not None)
        if getattr(options, name) is not None and method not in made_by and not compared:
            drafts = f" or --draft {method} and mixed" if options.method == "fast" else ""
            beside = ", or for --keep or --split" if name == "defects" else ""
            used = options.method if options.draft == "none" else f"--draft {options.draft}"
            raise UserError(f"--{name} is for --method {method}{drafts}, not {used}{beside}; leave it out")
    given = {o.split("=")[0] for o in options.overrides}
    for name in ("device", *LEARNED, "on_object", *OWN, "split"):
        if name in given:
            raise UserError(f"method.{name} is set by {flag_of(options, name)}; use that")

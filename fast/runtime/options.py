"""The options of `main.py`: those that latent-diffusion's users know, and ours. No heavy import here."""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fast.runtime.command import command_line
from fast.runtime.flags import add_flags, option
from ldm.errors import UserError

ALIKE = 0.75  # of two flags or names, from 0 to 1 as `difflib` measures it, from which one may be meant by the other


class Parser(argparse.ArgumentParser):
    """Reports a bad flag like every other bad input: one line, exit code 2. `prog`: the command's script, which help
    names as the user calls it: `python scripts/bench.py`, or `fast-bench` once installed."""

    def __init__(self, prog: str | None = None, **options: Any):
        super().__init__(command_line(prog) if prog and prog.endswith(".py") else prog, **options)
        self._given: list[str] = []

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._given, namespace)

    def error(self, message: str) -> None:  # type: ignore[override]
        # argparse looks for what is missing first, and that may be what a misspelt flag stands for.
        name = self._misspelt()
        if name is not None and ("required" in message or message.startswith("unrecognized arguments")):
            message = message if message.startswith("unrecognized") else f"unrecognized arguments: {name}"
            message += self.meant(name)
        raise UserError(f"{message}; see --help")

    def meant(self, name: str) -> str:
        """ " (did you mean --minutes?)" for --minuts; empty where no flag is like it."""
        return did_you_mean(name, [flag for flag in self._option_string_actions if flag[:2] == "--"])

    def _misspelt(self) -> str | None:
        """The first flag of the command line that there is none of; None where all are known."""
        known = self._option_string_actions
        before = self._given[: self._given.index("--")] if "--" in self._given else self._given
        names = (text.partition("=")[0] for text in before if re.match(r"--[A-Za-z]", text))
        return next(
            (n for n in names if n not in known and not (self.allow_abbrev and self._get_option_tuples(n))), None
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " (did you mean scratch?)" for scrach, of the names that are `known`; empty where none is like it."""
    near = get_close_matches(name, list(dict.fromkeys(known)), 1, ALIKE)
    return f" (did you mean {near[0]}?)" if near else ""


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "y", "t"):
        return True
    if text.lower() in ("0", "false", "no", "n", "f"):
        return False
    raise argparse.ArgumentTypeError(f"{text} is neither true nor false")


@dataclass(frozen=True)
class TrainingOptions:
    """A run of training: recipes, data, where it runs. None: as the recipes say. `overrides`: `section.key=value`."""

    # fmt: off
    base: list[str] = option(
        [], "recipes (YAML), merged from left to right; may be given several times", "-b", "--base",
        nargs="+", action="extend", metavar="RECIPE")
    train: bool = option(
        False, "train; without it the recipe and the data are only checked", "-t", "--train",
        nargs="?", const=True, type=_boolean)
    name: str | None = option(None, "name of the run (default: the recipe's file name)", "-n", "--name")
    logdir: str = option(
        "logs", "folder that holds the runs; this run is LOGDIR/NAME", "-l", "--logdir", "--log_folder",
        metavar="LOGDIR")
    resume: str | None = option(
        None, "go on with a run: its folder, or a last.ckpt in it", "-r", "--resume", metavar="RUN")
    allow_target: list[str] = option(
        [], "let recipes name classes of this package too, whose code then runs (default: those of this project, torch "
        "and transformers)", "--allow-target", nargs="+", action="extend", metavar="PREFIX")
    seed: int | None = option(None, "seed of the run (default 23)", "-s", "--seed")
    max_steps: int | None = option(None, "optimiser steps in all")
    max_minutes: float | None = option(None, "stop after so many minutes of training in all, whatever comes first")
    actual_resume: str | None = option(
        None, "weights of the base that FAST is trained on (.ckpt or .safetensors), or mini: the one of the "
        "project", metavar="CKPT")
    data: str | None = option(
        None, "a dataset, one category of it, or one defect type's folder; any layout of docs/data.md",
        "--mvtec_path", "--data_root", metavar="FOLDER")
    category: str | None = option(None, "train on this category only")
    anomaly: str | None = option(None, "train on this defect type only")
    split: str | None = option(None, "a split file, or third, or all")
    init_word: str | None = option(None, "word that the learned prompt vectors start from")
    gpus: str | None = option(None, "GPU numbers: 0 or 0,1,2 or 0,1,..,7; the CPU where there is none")
    accelerator: str | None = option(None, "", choices=["auto", "cpu", "gpu"])
    devices: int | None = option(None, "number of GPUs, or of processes on the CPU")
    precision: str | None = option(
        None, "default: the recipe's, or auto: bf16-mixed where the machine computes in it, else 32",
        choices=["auto", "32", "bf16", "bf16-mixed", "16-mixed"])
    overrides: list[str] = option([], None)
    # fmt: on


GROUPS = {
    "run": ("base", "train", "name", "logdir", "resume", "allow_target", "seed", "max_steps", "max_minutes"),
    "data and base": ("actual_resume", "data", "category", "anomaly", "split", "init_word"),
    "where it runs": ("gpus", "accelerator", "devices", "precision"),
}


def training_parser() -> argparse.ArgumentParser:
    """The flags of `main.py`."""
    p = Parser(
        prog="main.py",
        description="Train FAST or another method, a latent-diffusion base or a first stage from a recipe.",
        epilog="Anything of the form section.key=value overrides the recipe, e.g. model.params.lr=1e-4.",
        allow_abbrev=False,
    )
    for title, names in GROUPS.items():
        add_flags(p.add_argument_group(title), TrainingOptions, names)
    p.add_argument("overrides", nargs="*", metavar="section.key=value", help="override one value of the recipe")
    return p


def parse_training(argv: list[str]) -> TrainingOptions:
    """Flags and overrides in any order; an override right after `-t` or `--base` is still an override."""
    override = re.compile(r"^(model|data|lightning|method)(\.[A-Za-z0-9_]+)+=")
    overrides = [a for a in argv if override.match(a)]
    values = vars(training_parser().parse_args([a for a in argv if not override.match(a)]))
    return TrainingOptions(**{**values, "overrides": [*overrides, *values["overrides"]]})


def gpu_numbers(text: str) -> list[int]:
    """`0`, `0,1`, `0,1,..,7` to the numbers meant."""
    parts = [p.strip() for p in text.split(",") if p.strip()]
    numbers: list[int] = []
    for i, part in enumerate(parts):
        if set(part) == {"."} and 0 < i < len(parts) - 1 and parts[i + 1].isdigit():
            numbers.extend(range(numbers[-1] + 1, int(parts[i + 1])))
        elif part.isdigit():
            numbers.append(int(part))
        else:
            raise UserError(f"--gpus {text}: {part} is not a GPU number; write --gpus 0,1,2")
    if not numbers or len(set(numbers)) < len(numbers):
        raise UserError(f"--gpus {text} names {'a GPU twice' if numbers else 'no GPU'}; write --gpus 0 or --gpus 0,1")
    return numbers

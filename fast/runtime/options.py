"""The flags of `main.py`: those that latent-diffusion's users know, and ours. No heavy import here."""

import argparse
import re
from typing import Any

from fast.runtime.command import command_line
from ldm.errors import UserError


class Parser(argparse.ArgumentParser):
    """Reports a bad flag like every other bad input: one line, exit code 2. `prog`: the command's script, which help
    names as the user calls it: `python scripts/bench.py`, or `fast-bench` once installed."""

    def __init__(self, prog: str | None = None, **options: Any):
        super().__init__(command_line(prog) if prog and prog.endswith(".py") else prog, **options)

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message}; see --help")


def training_parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(
        prog="main.py",
        description="Train FAST or another method, a latent-diffusion base or a first stage from a recipe.",
        epilog="Anything of the form section.key=value overrides the recipe, e.g. model.params.lr=1e-4.",
        allow_abbrev=False,
    )
    run = p.add_argument_group("run")
    run.add_argument("-b", "--base", nargs="+", action="extend", default=[], metavar="RECIPE",
                     help="recipes (YAML), merged from left to right; may be given several times")
    run.add_argument("-t", "--train", nargs="?", const=True, default=False, type=_boolean,
                     help="train; without it the recipe and the data are only checked")
    run.add_argument("-n", "--name", default=None, help="name of the run (default: the recipe's file name)")
    run.add_argument("-l", "--logdir", "--log_folder", dest="logdir", default="logs",
                     help="folder that holds the runs; this run is LOGDIR/NAME")
    run.add_argument("-r", "--resume", default=None, metavar="RUN",
                     help="go on with a run: its folder, or a last.ckpt in it")
    run.add_argument("--allow-target", nargs="+", action="extend", default=[], metavar="PREFIX",
                     help="let recipes name classes of this package too, whose code then runs (default: those of "
                          "this project, torch and transformers)")
    run.add_argument("-s", "--seed", type=int, default=None, help="seed of the run (default 23)")
    run.add_argument("--max_steps", type=int, default=None, help="optimiser steps in all")
    run.add_argument("--max_minutes", type=float, default=None,
                     help="stop after so many minutes of training in all, whatever comes first")
    data = p.add_argument_group("data and base")
    data.add_argument("--actual_resume", default=None, metavar="CKPT",
                      help="weights of the base that FAST is trained on (.ckpt or .safetensors)")
    data.add_argument("--mvtec_path", "--data_root", dest="data", default=None, metavar="FOLDER",
                      help="a dataset, one category of it, or one defect type's folder; any layout that README lists")
    data.add_argument("--category", default=None, help="train on this category only")
    data.add_argument("--anomaly", default=None, help="train on this defect type only")
    data.add_argument("--split", default=None, help="a split file, or third, or all")
    data.add_argument("--init_word", default=None, help="word that the learned prompt vectors start from")
    where = p.add_argument_group("where it runs")
    where.add_argument("--gpus", default=None, help="GPU numbers: 0 or 0,1,2 or 0,1,..,7; the CPU where there is none")
    where.add_argument("--accelerator", default=None, choices=["auto", "cpu", "gpu"])
    where.add_argument("--devices", type=int, default=None, help="number of GPUs, or of processes on the CPU")
    where.add_argument("--precision", default=None, choices=["auto", "32", "bf16", "bf16-mixed", "16-mixed"],
                       help="default: the recipe's, or auto: bf16-mixed where the machine computes in it, else 32")
    p.add_argument("overrides", nargs="*", metavar="section.key=value", help="override one value of the recipe")
    return p


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "y", "t"):
        return True
    if text.lower() in ("0", "false", "no", "n", "f"):
        return False
    raise argparse.ArgumentTypeError(f"{text} is neither true nor false")


def parse_training(argv: list[str]) -> argparse.Namespace:
    """Flags and overrides in any order; an override right after `-t` or `--base` is still an override."""
    override = re.compile(r"^(model|data|lightning|method)(\.[A-Za-z0-9_]+)+=")
    overrides = [a for a in argv if override.match(a)]
    options = training_parser().parse_args([a for a in argv if not override.match(a)])
    options.overrides = [*overrides, *options.overrides]
    return options


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

"""The installed commands, `[project.scripts]` of pyproject.toml; each is `main` of the module of its name."""

from __future__ import annotations

from importlib import import_module

from fast.runtime.signals import listen


def run(module: str) -> int:
    """Run a module's `main` on the arguments of the program. Returns the exit code."""
    listen("__main__")  # before the imports, which may be slow
    from fast.runtime.command import run_cli

    return run_cli(import_module(f"fast.cli.{module}").main)


def bench() -> int:
    return run("bench")


def contact_sheet() -> int:
    return run("contact_sheet")


def demo() -> int:
    return run("demo")


def draw_dataset() -> int:
    return run("draw_dataset")


def evaluate_first_stage() -> int:
    return run("evaluate_first_stage")


def export() -> int:
    return run("export")


def few_defects() -> int:
    return run("few_defects")


def join_parts() -> int:
    return run("join_parts")


def make_masks() -> int:
    return run("make_masks")


def prepare_data() -> int:
    return run("prepare_data")


def score() -> int:
    return run("score")


def review() -> int:
    return run("review")


def segment() -> int:
    return run("segment")


def studio() -> int:
    return run("studio")


def synthesize() -> int:
    return run("pairs")


def train() -> int:
    return run("train")


def train_base() -> int:
    return run("train_base")

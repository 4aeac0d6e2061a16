"""The README names every flag of both doors, and its commands and files exist."""

import argparse
import re
from pathlib import Path

import pytest

from fast.cli.synthesis_options import parser as synthesis_parser
from fast.runtime.options import parse_training, training_parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("parser", [training_parser(), synthesis_parser()], ids=["main", "generate_with_mask"])
def test_every_flag_is_described(parser: argparse.ArgumentParser) -> None:
    flags = {f for action in parser._actions for f in action.option_strings} - {"-h", "--help"}
    missing = sorted(f for f in flags if not re.search(rf"`[^`\n]*{re.escape(f)}\b", README))
    assert not missing


def _commands(program: str) -> list[list[str]]:
    import shlex

    text = README.replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith(f"python {program}")]
    return [shlex.split(line.split("#")[0])[2:] for line in lines]


def test_training_commands_parse_and_their_recipes_exist() -> None:
    commands = _commands("main.py")
    assert len(commands) >= 2
    for argv in commands:
        options = parse_training(argv)
        assert options.train
        assert all((ROOT / recipe).is_file() for recipe in options.base)


def test_synthesis_commands_parse() -> None:
    commands = _commands("generate_with_mask.py")
    assert len(commands) >= 2
    for argv in commands:
        assert synthesis_parser().parse_args(argv).count == 500


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []

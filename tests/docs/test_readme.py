"""README and docs name every flag of both commands, are short where they shall be, and point at what exists."""

import argparse
import re
from pathlib import Path

import pytest

from fast.cli.synthesis_options import parser as synthesis_parser
from fast.runtime.options import parse_training, training_parser
from support.paths import ROOT

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_is_read_in_one_sitting() -> None:
    assert 100 < len(README.splitlines()) <= 250


@pytest.mark.parametrize(("page", "parser"), [("training", training_parser()), ("synthesis", synthesis_parser())])
def test_every_flag_is_described(page: str, parser: argparse.ArgumentParser) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    flags = {f for action in parser._actions for f in action.option_strings} - {"-h", "--help"}
    assert len(flags) > 15
    missing = sorted(f for f in flags if not re.search(rf"`[^`\n]*{re.escape(f)}\b", text))
    assert not missing


def _commands(program: str) -> list[list[str]]:
    import shlex

    text = "\n".join(page.read_text() for page in PAGES).replace("\\\n", " ")
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
        options = synthesis_parser().parse_args(argv)
        assert options.count >= 100
        assert options.sample_name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_files_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert links or page.name not in ("README.md", "training.md", "bench.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_headings_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())
    assert [
        (name, anchor) for name, anchor in links if anchor not in _anchors(page.parent / name if name else page)
    ] == []


def _anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links: lower case, hyphens for blanks, no punctuation."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

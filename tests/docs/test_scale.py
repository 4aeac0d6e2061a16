"""The lines of docs/scale.md for several machines: their programs' flags are ours, and the numbers in them agree."""

import shlex

import pytest

from fast.cli.synthesis_options import check_options, parse_synthesis
from fast.runtime.options import TrainingOptions, parse_training
from fast.training.config import load_recipe
from support.paths import ROOT

TEXT = (ROOT / "docs" / "scale.md").read_text().replace("\\\n", " ")


def lines(start: str) -> list[list[str]]:
    return [shlex.split(line.split("#")[0]) for line in TEXT.splitlines() if line.startswith(start)]


def launched(start: str) -> tuple[dict[str, str], TrainingOptions, list[str]]:
    """The launcher's own flags, the options of `main.py`, and its overrides."""
    (line,) = [words for words in lines(start) if "main.py" in words]
    own = dict(word.removeprefix("--").split("=") for word in line[1 : line.index("main.py")] if word.startswith("--"))
    options = parse_training(line[line.index("main.py") + 1 :])
    return own, options, options.overrides


@pytest.mark.parametrize(
    ("start", "nodes", "each"), [("torchrun", "nnodes", "nproc_per_node"), ("srun", "nodes", "ntasks-per-node")]
)
def test_training_on_several_machines(start: str, nodes: str, each: str) -> None:
    own, options, overrides = launched(start)
    assert int(own[nodes]) > 1
    assert f"lightning.trainer.num_nodes={own[nodes]}" in overrides
    assert options.devices == int(own[each])
    assert options.train
    for recipe in options.base:
        load_recipe(ROOT / recipe)


def test_commands_of_synthesis_are_understood() -> None:
    commands = lines("python generate_with_mask.py")
    assert {line.split("=")[-1] for words in commands for line in words if line.startswith("--runner")}
    assert len(commands) >= 3
    for words in commands:
        check_options(parse_synthesis(words[2:])[0])

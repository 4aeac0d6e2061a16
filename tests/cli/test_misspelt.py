"""Misspelt names that commands refuse before they import what takes long, or read anything."""

import json
import subprocess
import sys

from fast.segmentation import SEGMENTERS
from fast.segmentation.names import NAMES

PROGRAM = """
import json, sys
sys.modules["torch"] = None  # who imports it now fails
from importlib import import_module
from fast.runtime.command import run_cli
for name, argv in json.loads(sys.argv[1]):
    assert run_cli(import_module(f"fast.cli.{name}").main, argv) == 2, argv
"""
COMMANDS = {
    "few_defects": (["--dataset", "no", "--out", "no"], ["--segmenter", "fpnn"], "segmenter 'fpnn' is unknown (did"),
    "few_rows": (["--dataset", "no", "--out", "no"], ["--looks", "pore=pitt"], "looks.pore=['pitt'] (did you mean pit"),
    "segment": (["--train", "no", "--test", "no"], ["--segmenter", "unet"], "segmenter 'unet' is unknown; use one of"),
    "bench": (["--dataset", "no", "--out", "no"], ["--segmenter", "quik"], "segmenter 'quik' is unknown (did you mean"),
    "bench_auto": (["--dataset", "no", "--auto"], ["--looks", "pore=xyzzy"], "looks.pore=['xyzzy'] must be a list"),
    "pairs": (
        ["--sample_name", "no", "--method", "procedural"], ["method.looks.pore=[pitt]"], "looks.pore=['pitt'] (did you"
    ),
}  # fmt: skip
DOORS = {"few_rows": "few_defects", "bench_auto": "bench"}


def test_misspelt_names_are_refused_before_torch_is_imported() -> None:
    lines = [(DOORS.get(name, name), [*argv, *wrong]) for name, (argv, wrong, _) in COMMANDS.items()]
    done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(COMMANDS)
    for line, (_, _, says) in zip(said, COMMANDS.values(), strict=True):
        assert line.startswith(f"error: {says}")


def test_the_names_are_those_of_the_networks() -> None:
    assert set(NAMES) == set(SEGMENTERS)

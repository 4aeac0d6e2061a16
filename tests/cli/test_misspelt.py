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
FEW, BENCH = ("few_defects", "--dataset", "no", "--out", "few"), ("bench", "--dataset", "no")
PAIRS = ("pairs", "--sample_name", "no", "--method")
# (command and what it needs, what is wrong, what is said of it)
REFUSED = [
    (FEW, ["--segmenter", "fpnn"], "segmenter 'fpnn' is unknown (did"),
    (FEW, ["--looks", "pore=pitt"], "looks.pore=['pitt'] (did you mean pit"),
    (FEW, ["--methods", "transplat"], "method 'transplat' is unknown (did you mean transplant?); use one of"),
    (FEW, ["--methods", "fast"], "--methods fast needs weights; add weights=RUN"),
    (FEW, ["--row", "x=fast,stpes=3"], "unknown config key stpes for --row x=fast,stpes=3; it takes: size"),
    (FEW, ["--row", "x=transplant,blnd=feather"], "unknown config key blnd for --row x=transplant,blnd=feather"),
    (FEW, ["--folder", "x=made", "--nested", "3"], "--folder x=made: each nested split needs pairs of its own"),
    (FEW, ["--out", "./no"], "--out no is the dataset, which nothing is written into; give another folder"),
    (FEW, ["--write_splits", "no", "--nested", "2"], "--write_splits no is the dataset, which nothing is written into"),
    (FEW, ["--mix", "x=transplant:y"], "--mix x=transplant:y: y is no row; name two of procedural, transplant"),
    (FEW, ["--at_all", "y"], "--at_all y is no row; name some of procedural, transplant"),
    (("segment", "--train", "no", "--test", "no"), ["--segmenter", "unet"], "segmenter 'unet' is unknown; use one of"),
    (BENCH, ["--segmenter", "quik"], "segmenter 'quik' is unknown (did you mean"),
    (BENCH, ["--method", "transplat"], "method 'transplat' is unknown (did you mean transplant?); use one of"),
    (BENCH, ["--looks", "pore=xyzzy"], "looks.pore=['xyzzy'] must be a list"),
    (BENCH, ["--auto", "--looks", "pore=xyzzy"], "looks.pore=['xyzzy'] must be a list"),
    (PAIRS, ["procedural", "--data_root", ".", "method.looks.pore=[pitt]"], "looks.pore=['pitt'] (did you"),
    (PAIRS, ["transplant", "--data_root", ".", "method.frnge=3"], "unknown config key frnge for method transplant"),
    (PAIRS, ["transplant"], "transplant needs normal pictures; give --data_root FOLDER"),
    (PAIRS, ["fast", "--masks", "mixed"], "fast needs trained weights; give --pt_path FOLDER"),
    (PAIRS, ["transplant", "--data_root", "nowhere"], "--data_root nowhere is not there; check the path"),
    (PAIRS, ["transplant", "--data_root", ".", "--count", "0"], "--count 0 must be at least 1"),
]


def test_misspelt_names_are_refused_before_torch_is_imported() -> None:
    lines = [(name, [*argv, *wrong]) for (name, *argv), wrong, _ in REFUSED]
    done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(REFUSED)
    for line, (_, _, says) in zip(said, REFUSED, strict=True):
        assert line.startswith(f"error: {says}")


def test_the_names_are_those_of_the_networks() -> None:
    assert set(NAMES) == set(SEGMENTERS)

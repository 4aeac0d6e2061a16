"""What `pip install .` brings beside the code: recipes, protocols, the shipped weights and their tokenizer."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT


def test_a_wheel_finds_what_recipes_name(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    code = (
        "from pathlib import Path; from fast.artifact import find_artifact, in_project, text_encoder\n"
        "assert in_project(Path('configs/methods/realnet.yaml')).is_file()\n"
        "print(len(text_encoder(find_artifact('models/mini')).tokenizer.loaded))"
    )
    env = {"PYTHONPATH": str(tmp_path / "lib"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1709\n"

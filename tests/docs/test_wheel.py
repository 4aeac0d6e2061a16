"""What `pip install .` brings: commands that work from any folder, recipes, protocols, and shipped weights by name."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fast.artifact import find_artifact, find_base
from fast.data.images import read_image, write_image, write_mask
from fast.generators import create
from fast.runtime.project import PROJECT
from ldm.errors import UserError
from support.paths import ROOT

HELP = """
import importlib, sys
for line in sys.stdin.read().split():
    name, module, function = line.replace("=", ":").split(":")
    sys.argv = [name, "--help"]
    print("==", name, getattr(importlib.import_module(module), function)())
print("torch" in sys.modules)
"""


def commands() -> dict[str, str]:
    """{command: "module:function"} of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text().split("[project.scripts]\n")[1].split("\n\n")[0]
    return dict(re.findall(r'^(\S+) = "(\S+)"$', text, re.MULTILINE))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel is made of."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel") / "lib"
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def run(library: Path, folder: Path, code: str, *arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    env = {"PYTHONPATH": str(library), "PATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=env, input=given, capture_output=True, text=True
    )


def test_every_command_explains_itself_from_any_folder_without_torch(library: Path, tmp_path: Path) -> None:
    """Torch is what makes a start slow: it takes seconds."""
    found = commands()
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    developers = {"evaluate_base", "evaluate_detail", "base_sheet", "convert_encoder"}
    named = {"fast-" + name.replace("_", "-") for name in scripts - developers}
    assert found.keys() == named | {"fast-train", "fast-synthesize"}
    done = run(library, tmp_path, HELP, given="\n".join(f"{name}={place}" for name, place in found.items()))
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^== (\S+) (\d+)$", done.stdout, re.MULTILINE) == [(name, "0") for name in found]
    assert all(f"usage: {name} " in done.stdout for name in found)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_wheel_finds_what_recipes_name_and_synthesizes_with_the_shipped_base(library: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(90, 110, (64, 64, 3), np.uint8)
    write_image(tmp_path / "normal/0.png", image)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 30:34] = 1
    write_mask(tmp_path / "masks/scratch/0.png", mask)
    code = (
        "import sys; from fast.artifact import find_artifact, text_encoder\n"
        "from fast.bench.protocol import load_protocol; from fast.training.config import load_recipe\n"
        "import fast.features.efficientnet as net; assert net.WEIGHTS.is_file()\n"
        "load_recipe('configs/methods/realnet.yaml'); load_protocol('protocols/mini_table1.yaml')\n"
        "print(len(text_encoder(find_artifact('mini')).tokenizer.loaded))\n"
        "from fast.cli.commands import synthesize; sys.exit(synthesize())"
    )
    flags = ["--data_root", "normal", "--mask_path", "masks", "--pt_path", "mini", "--sample_name", "out"]
    done = run(library, tmp_path, code, *flags, "--count", "1", "--steps", "2", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1709\n")
    made = read_image(tmp_path / "out/image/000000.png")
    assert (made[mask == 0] == image[mask == 0]).all()
    assert (made[mask == 1] != image[mask == 1]).any()


def test_the_name_of_shipped_weights_wins_over_a_folder_and_a_path_means_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    shipped = PROJECT / "models/mini"
    assert find_artifact("mini").path.parent == shipped
    assert Path(find_base("mini")[0]) == shipped / "base.safetensors"
    for folder in ("./mini", Path("mini")):
        with pytest.raises(UserError, match="mini: no fast-<step>"):
            find_artifact(folder)
        with pytest.raises(UserError, match="mini: no fast-<step>"):
            create("fast", weights=folder)
    with pytest.raises(UserError, match=r"no base\.safetensors"):
        find_base("./mini")
    monkeypatch.chdir(PROJECT)
    assert find_base("mini")[0] == "models/mini/base.safetensors"  # recorded as it is written in a checkout

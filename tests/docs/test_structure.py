"""The shape of the code: imports run one way, recipes resolve, nothing points at somebody's machine."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from fast.generators import method_class
from fast.training.config import check_targets, load_recipe
from ldm.util import check_params
from support.paths import ROOT

ORDER = ["taming", "ldm", "fast", "doors"]
DOORS = {p.stem for p in ROOT.glob("*.py")} | {"scripts"}
RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))


def modules() -> Iterator[tuple[str, Path]]:
    """(layer, file) of everything that may import."""
    for layer in ORDER[:-1]:
        yield from ((layer, path) for path in sorted((ROOT / layer).rglob("*.py")))
    doors = [*ROOT.glob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    yield from (("doors", path) for path in sorted(doors))


def imported(path: Path) -> Iterator[str]:
    """Top-level names that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("layer", ORDER)
def test_imports_run_one_way(layer: str) -> None:
    files = [path for own, path in modules() if own == layer]
    assert files
    later = set(ORDER[ORDER.index(layer) + 1 :]) - {"doors"}
    forbidden = later | (DOORS if layer != "doors" else set()) | {"tests", "support", "conftest"}
    found = [f"{path.relative_to(ROOT)}: {name}" for path in files for name in imported(path) if name in forbidden]
    assert found == []


def test_tests_import_nothing_from_each_other() -> None:
    """What two of them need stands in tests/support or is a fixture."""
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    names = {path.stem for path in tests} | {"conftest", "tests"}
    assert len(names) > 90
    found = [f"{path.relative_to(ROOT)}: {name}" for path in tests for name in imported(path) if name in names]
    assert found == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_every_target_of_a_recipe_exists_and_takes_its_params(path: Path) -> None:
    config: Any = OmegaConf.to_container(load_recipe(path), resolve=True)
    method = config.get("method", {})
    if "model" in config:
        assert "target" in config["model"]
        check_targets(config)
    else:
        assert set(config) == {"method"}
        check_params(method_class(method["name"]), method["params"], method["name"])


def test_recipes_say_how_to_run_them() -> None:
    assert RECIPES
    for path in RECIPES:
        assert path.read_text().startswith("#"), f"{path} has no header"


def ours() -> Iterator[tuple[str, str]]:
    """(name, text) of the project's files: what git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = listed.stdout.splitlines()
    if listed.returncode:  # an unpacked archive
        folders = ("taming", "ldm", "fast", "scripts", "tests", "configs")
        names = [str(p.relative_to(ROOT)) for f in folders for p in (ROOT / f).rglob("*") if p.is_file()]
    for name in names:
        path = ROOT / name
        if path.is_file() and b"\0" not in (data := path.read_bytes()):
            yield name, data.decode(errors="replace")


def test_no_file_points_at_a_machine_or_a_registry() -> None:
    """Put together from pieces here, or this very file would be found."""
    homes = ["/" + name + "/" for name in ("home", "root", "Users", "work", "workspace", "mnt")] + ["C:" + "\\"]
    hosts = ["pypi" + ".org", "python" + "hosted", "artifact" + "ory", "index" + "-url", "download" + ".pytorch"]
    found = [(name, word) for name, text in ours() for word in [*homes, *hosts] if word in text]
    assert found == []


def test_no_pickled_module_or_compiled_file_is_kept() -> None:
    bad = (".pyc", ".pt", ".pth", ".pkl", ".ckpt")
    assert [name for name, _ in ours() if name.endswith(bad)] == []

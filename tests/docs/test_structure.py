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

ORDER = ["taming", "ldm", "fast", "benchmarks", "doors"]
DOORS = {p.stem for p in ROOT.glob("*.py")} | {"scripts"}
# The rooms of `fast`, lowest first: a module imports from its own room and from those below it.
ROOMS = (
    "runtime", "windows", "data", "procedural", "masks", "features", "aias", "farm", "latent", "model", "artifact",
    "stage", "anomalydiffusion", "review", "synthesis", "training", "generators", "metrics", "segmentation", "quality",
    "pretraining", "reports", "export", "bench", "studio", "cli",
)  # fmt: skip
# (importing module, imported module) that go against the order, each with its reason; at best there is none.
UPWARDS: dict[tuple[str, str], str] = {}
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


def dotted(path: Path) -> str:
    """The name that a file is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports() -> dict[str, set[str]]:
    """What each module of the packages imports of them, anywhere in it: within functions and for types too."""
    files = {dotted(path): path for layer, path in modules() if layer != "doors"}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        asked: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                asked |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                asked |= {one if one in files else str(node.module) for one in inner}
        found[name] = asked & files.keys() - {name}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a ring; empty where there is none."""
    finished: set[str] = set()

    def search(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in finished:
            return []
        for other in sorted(graph[name]):
            if ring := search(other, [*way, name]):
                return ring
        finished.add(name)
        return []

    return next((ring for name in graph if (ring := search(name, []))), [])


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert circle(imports()) == []


def test_imports_between_the_rooms_of_fast_run_downwards() -> None:
    graph = {name: asked for name, asked in imports().items() if name.startswith("fast.")}
    assert {name.split(".")[1] for name in graph} == set(ROOMS)
    against = {
        (name, other)
        for name, asked in graph.items()
        for other in asked
        if other.startswith("fast.") and ROOMS.index(name.split(".")[1]) < ROOMS.index(other.split(".")[1])
    }
    assert against == UPWARDS.keys()


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

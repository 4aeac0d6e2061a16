"""A recipe, a run's config and an artifact name networks and data; they run, read and fetch nothing else."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import ldm.util
from fast.artifact import read_artifact, text_encoder
from fast.runtime.folders import parse_json
from fast.training.config import load_recipe, merge, no_resolvers, plain, resolved
from ldm.checkpoint import read_metadata, save_safetensors
from ldm.errors import UserError
from ldm.modules.encoders.modules import BERTEmbedder, offline
from ldm.util import allow_targets, check_target, get_obj_from_str
from support.paths import ROOT
from support.training import FIRST_STAGE, door, recipe

SHIPPED = next((ROOT / "models/mini").glob("fast-*.safetensors"))


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldm.util, "_allowed", [])


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose import, and whose function, leave a file behind."""
    (tmp_path / "canary_package.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\n"
        f"def call(**options): Path({str(tmp_path / 'called')!r}).touch()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


FOREIGN = (
    "os.system", "subprocess.Popen", "builtins.exec", "pty.spawn", "canary_package.call", "fastx.Model",
    "torchx.nn.Linear",
)  # fmt: skip
NO_PARTS = (
    "fast.runtime.command.sys", "fast.synthesis.output.OutputFolder",
    "ldm.checkpoint.Thread", "torch.hub.load", "torch.load",
    "torch.package.PackageImporter", "torch.multiprocessing.Process", "fast.bench.work.subprocess.Popen",
    "torch.nn.modules.module.warnings.os.system", "torch.utils.cpp_extension.load", "fast.aias.boundaries",
)  # fmt: skip
NO_NAMES = (
    "Linear",
    "",
    ".x.y",
    "torch..nn",
    "torch.nn.Linear()",
    "torch.nn.__builtins__",
    "fast.__main__.x",
    5,
    None,
    [1],
)


@pytest.mark.parametrize("path", [*FOREIGN, *NO_NAMES])
def test_names_are_judged_before_anything_is_imported(path: object, canary: Path) -> None:
    with pytest.raises(UserError, match=r"^target: "):
        check_target(path)
    with pytest.raises(UserError, match=r"^target: "):
        get_obj_from_str(path)  # type: ignore[arg-type]
    assert not (canary / "imported").exists()


@pytest.mark.parametrize("path", NO_PARTS)
def test_only_networks_losses_data_and_schedules_are_built(path: str) -> None:
    with pytest.raises(UserError, match=r"^target: "):
        get_obj_from_str(path)


def test_every_shipped_recipe_s_targets_are_known() -> None:
    found = set()
    for file in ROOT.glob("configs/**/*.yaml"):
        found |= {line.split("target:")[1].strip() for line in file.read_text().splitlines() if "target: " in line}
    found = {name.split("#")[0].strip() for name in found if "." in name and not name[0].isdigit()}
    assert len(found) > 10
    for name in found:
        get_obj_from_str(name)


@pytest.mark.parametrize("where", ["model.params.lossconfig", "data", "model", "model.params.ddconfig.deep.deeper"])
def test_a_recipe_runs_nothing(where: str, canary: Path, drawn_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(canary, FIRST_STAGE, drawn_root)
    config = OmegaConf.load(path)
    OmegaConf.update(config, where, {"target": "canary_package.call", "params": {"a": 1}}, merge=False)
    OmegaConf.save(config, path)
    for argv in (["-b", path], ["-b", path, "-t", "-l", canary, "-n", "run"]):
        assert door(*argv) == 2
        assert "error: target: canary_package.call lies outside fast, ldm" in capsys.readouterr().err
    assert not (canary / "imported").exists()
    assert not (canary / "run").exists()


def test_a_run_s_config_runs_nothing(canary: Path, capsys: pytest.CaptureFixture[str], drawn_root: Path) -> None:
    config = OmegaConf.load(recipe(canary, FIRST_STAGE, drawn_root))
    config.model.params.lossconfig = {"target": "canary_package.call"}
    (canary / "run/checkpoints").mkdir(parents=True)
    OmegaConf.save(config, canary / "run/config.yaml")
    assert door("-r", canary / "run", "-t") == 2
    assert "--allow-target canary_package" in capsys.readouterr().err
    assert not (canary / "imported").exists()


def test_what_the_command_line_allows_is_loaded(canary: Path) -> None:
    allow_targets("canary_package.")
    assert callable(get_obj_from_str("canary_package.call"))
    assert (canary / "imported").exists()
    with pytest.raises(UserError):
        check_target("canary_package_two.call")
    with pytest.raises(UserError, match="--allow-target os;ls"):
        allow_targets("os;ls")


def test_the_flag_takes_several(canary: Path, drawn_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(canary, {**FIRST_STAGE, "target": "elsewhere.models.Net"}, drawn_root)
    assert door("-b", path, "--allow-target", "canary_package", "elsewhere") == 2
    assert "elsewhere.models.Net does not exist" in capsys.readouterr().err


def test_no_resolver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "s3cr3t")
    for text in ("${oc.env:A_SECRET}", "x ${oc.decode:'1'}", "${oc.${model.b}:A_SECRET}", "${oc.select:b}"):
        (tmp_path / "r.yaml").write_text(f'model: {{target: x.y, b: env, lr: "{text}"}}\ndata: {{target: x.y}}\n')
        with pytest.raises(UserError, match="may refer to its own keys only") as caught:
            resolved(merge([tmp_path / "r.yaml"]))
        assert "s3cr3t" not in str(caught.value)


def test_keys_still_refer_to_each_other_and_resolvers_return() -> None:
    config = OmegaConf.create({"a": {"b": 3}, "c": "${a.b}", "d": "x${c}"})
    assert plain(config, "config") == {"a": {"b": 3}, "c": 3, "d": "x3"}
    with no_resolvers():
        assert not OmegaConf.has_resolver("oc.env")
    assert OmegaConf.has_resolver("oc.env")


@pytest.mark.parametrize(
    "text",
    ["17", "a: " + "[" * 3000 + "]" * 3000, "include: 5", "include: null", "include: {a: 1}", "\x00", "a: ${", "- 1",
     "!!python/object/apply:os.system ['true']"],
)  # fmt: skip
def test_a_recipe_that_makes_no_sense_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError, match="--base") as caught:
        load_recipe(tmp_path / "r.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_included_by_mistake_is_not_told(tmp_path: Path, drawn_root: Path) -> None:
    (tmp_path / "secret").write_text("root:x:" + "0123456789" * 30 + ":\n")
    (tmp_path / "r.yaml").write_text("include: secret\n")
    with pytest.raises(UserError) as caught:
        resolved(merge([tmp_path / "r.yaml"]))
    assert "0123456789" * 5 not in str(caught.value)


def test_an_artifact_sends_nobody_to_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    asked: list[dict[str, object]] = []

    def fail(name: str, **options: object) -> None:
        asked.append(options)
        raise OSError("not here")

    meta = read_metadata(SHIPPED)
    config = parse_json(meta["config"])
    config["model"]["params"]["cond_stage_config"]["params"]["tokenizer"] = "some/name"
    path = tmp_path / "fast-1.safetensors"
    import torch

    save_safetensors({"x": torch.zeros(1)}, path, {**meta, "config": json.dumps(config)})
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(UserError, match=r"tokenizer=some/name is not on this machine.*--tokenizer"):
        text_encoder(read_artifact(path)).tokenizer.loaded  # noqa: B018
    assert asked[0]["local_files_only"] is True
    with pytest.raises(UserError, match="could not be loaded"), offline(False):
        BERTEmbedder(8, 1, vocab_size=2000, max_seq_len=8, tokenizer="some/name").tokenizer.loaded  # noqa: B018
    assert "local_files_only" not in asked[1]


def test_a_tokenizer_is_found_beside_its_artifact(tmp_path: Path) -> None:
    """As for a wheel, which has no configs/ where the recipe named them."""
    meta = read_metadata(SHIPPED)
    config = parse_json(meta["config"])
    config["model"]["params"]["cond_stage_config"]["params"]["tokenizer"] = "elsewhere/mini/tokenizer"
    import shutil

    import torch

    shutil.copytree(ROOT / "configs/mini/tokenizer", tmp_path / "tokenizer")
    path = tmp_path / "fast-1.safetensors"
    save_safetensors({"x": torch.zeros(1)}, path, {**meta, "config": json.dumps(config)})
    assert len(text_encoder(read_artifact(path)).tokenizer.loaded) == 1709

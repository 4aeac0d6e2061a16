"""Options of synthesis are declared once: the command, a program and the manifest have the same."""

import inspect
import json
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import generate_with_mask
from fast.cli.synthesis_options import GROUPS, parse_synthesis
from fast.data.images import read_image, read_mask
from fast.generators import create, method_class
from fast.generators.latent import LatentGenerator
from fast.runtime import options as training
from fast.runtime.command import run_cli
from fast.runtime.flags import as_flags, check_limits, flagged, given, option
from fast.runtime.options import TrainingOptions, parse_training
from fast.synthesis.options import LatentOptions, Recipe, SamplingOptions, SynthesisOptions
from ldm.errors import UserError


@pytest.mark.parametrize(
    ("cls", "groups"), [(SynthesisOptions, GROUPS), (TrainingOptions, training.GROUPS)], ids=["synthesis", "training"]
)
def test_help_shows_every_option_once(cls: Any, groups: dict[str, tuple[str, ...]]) -> None:
    assert Counter(name for names in groups.values() for name in names) == Counter(flagged(cls))


def test_a_command_line_and_its_options_mean_each_other() -> None:
    options = SynthesisOptions(
        sample_name="out", method="stage", weights="runs/a b", step=7, use_farm=False, composite=False, compiled=True,
        scale=2.5, reuse=3, count=12, anomaly_name="-odd", extend=True,
    )  # fmt: skip
    assert parse_synthesis(as_flags(options))[0] == options
    assert as_flags(SynthesisOptions(sample_name="out")) == ["--sample_name=out"]
    run = TrainingOptions(base=["a.yaml", "b.yaml"], train=True, max_minutes=1.5, name="x", devices=2)
    assert parse_training([*as_flags(run), "model.params.lr=1"]).overrides == ["model.params.lr=1"]
    assert parse_training(as_flags(run)) == run
    assert given(options, SamplingOptions).keys() == {"use_farm", "composite", "compiled", "scale", "reuse"}


def test_a_program_s_arguments_are_the_options() -> None:
    known = inspect.signature(method_class("fast")).parameters
    assert [f.name for f in fields(LatentOptions)] == [p for p in known if p != "options"]
    assert all(
        known[f.name].default == f.default for f in fields(LatentOptions) if f.name not in ("own", "draft_options")
    )
    assert [f.name for f in fields(Recipe)] == [f.name for f in fields(SamplingOptions)]


def test_a_recipe_differs_from_the_options_only_where_those_leave_it_open() -> None:
    asked, decided = SamplingOptions(), Recipe()
    open_ones = {f.name for f in fields(Recipe) if getattr(asked, f.name) in (None, "auto")}
    assert {f.name for f in fields(Recipe) if getattr(asked, f.name) != getattr(decided, f.name)} <= open_ones


@pytest.mark.parametrize(
    ("method", "wrong", "says"),
    [
        ("fast", {"reuse": 0}, "--reuse 0 must be at least 1"),
        ("fast", {"margin": -1}, "--margin -1 must not be negative"),
        ("fast", {"stop_at": 2, "sampler": "ddim"}, "--stop_at 2 is for --sampler aias of fast"),
        ("fast", {"compiled": True, "region": "auto"}, "--compile is for one size of window"),
        ("fast", {"weights_cache": "kept", "precision": "fp32"}, "--weights_cache keeps weights in bfloat16"),
        ("fast", {"reuse": "often"}, "method.reuse=often must be of type int"),
        ("fast", {"cache": "kept"}, "unknown config key cache for method fast; it takes: size, sampler, steps"),
    ],
)
def test_a_program_is_refused_what_the_command_is(
    method: str, wrong: dict[str, Any], says: str, tiny_artifact: Path
) -> None:
    with pytest.raises(UserError, match=says):
        create(method, weights=tiny_artifact, **wrong)


def test_limits_come_from_the_declaration() -> None:
    from dataclasses import make_dataclass

    one = make_dataclass("One", [("side", int, option(4, "", "-s", "--side", least=1, most=8))])
    check_limits(one(8))
    for wrong, says in ((0, "--side 0 must be at least 1"), (9, "--side 9 is larger than any picture; give at most 8")):
        with pytest.raises(UserError, match=says):
            check_limits(one(wrong))


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["--reuse", "2", "--stop_at", "2"], {"reuse": 2, "stop_at": 2}),
        (["--no_farm", "--sampler", "ddim"], {"use_farm": False, "sampler": "ddim"}),
        (["--no_composite"], {"composite": False}),
        (["--precision", "bf16", "--weights_cache", "kept"], {"precision": "bf16", "weights_cache": "kept"}),
        (["--tokenizer", "configs/mini/tokenizer"], {"tokenizer": "configs/mini/tokenizer"}),
        (["method.reuse=2"], {"reuse": 2}),
    ],
    ids=["reuse", "ddim", "whole", "cache", "tokenizer", "method.reuse"],
)
def test_both_ways_make_the_same_pair(
    flags: list[str], options: dict[str, Any], drawn_root: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    def here(value: Any) -> Any:
        return str(tmp_path / "kept") if value == "kept" else value

    flags, options = [here(f) for f in flags], {k: here(v) for k, v in options.items()}
    options.setdefault("precision", "fp32")
    out, wood = tmp_path / "out", drawn_root / "wood"
    given = ["--data_root", str(wood / "train" / "good"), "--mask_path", str(wood / "ground_truth"), "--count", "1"]
    given += ["--pt_path", str(tiny_artifact), "--sample_name", str(out), "--steps", "3", "--anomaly_name", "wood"]
    assert run_cli(generate_with_mask.main, [*given, f"--precision={options['precision']}", *flags]) == 0
    row = json.loads((out / "manifest.jsonl").read_text())
    assert {k: row[k] for k in options if k in row} == {k: v for k, v in options.items() if k in row}
    made = create("fast", weights=tiny_artifact, steps=3, **options)
    assert isinstance(made, LatentGenerator)
    assert made.synthesizer is not None
    normal, mask = read_image(row["normal_source"]), read_mask(row["mask_source"])
    number = list(made.types).index(row["type"])
    pair = made.synthesizer.fill(normal, mask, number, row["pair_seed"])
    assert (pair == read_image(out / row["image"])).all()
    assert (pair != np.asarray(normal)).any()
    if "weights_cache" in options:
        assert len(list((tmp_path / "kept").glob("*-bf16.safetensors"))) == 1
    json.dumps(made.settings())


def test_one_parsing_tells_what_was_said() -> None:
    argv = ["--sample_name", "x", "method.looks.a=[pit]", "--blend", "2", "--slurm", "gpus=1", "--slurm", "mem=8G"]
    options, named = parse_synthesis(argv)
    assert named == {"sample_name", "blend", "slurm"}  # the default of one of them, yet asked for
    assert options == SynthesisOptions(sample_name="x", slurm=["gpus=1", "mem=8G"], overrides=["looks.a=[pit]"])
    assert parse_synthesis(["--sample_name", "x"])[1] == {"sample_name"}

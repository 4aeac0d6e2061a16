"""What the user has beside a protocol: what nothing takes is refused; what a training begins with names its cell."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from fast.bench.answer import protocol_of
from fast.bench.given import Given, begun_with, notes, refuse_unused
from fast.bench.plan import plan
from fast.bench.protocol import Protocol, parse
from fast.segmentation.networks import build, save
from ldm.errors import UserError
from ldm.hashing import file_hash
from support.paths import ROOT

RECIPE = ROOT / "configs/methods/fast.yaml"
PLACE = Path("F")


def protocol(*entries: dict[str, Any], **segmentation: Any) -> Protocol:
    made = [{"label": f"{i}", **entry} for i, entry in enumerate(entries)]
    return parse({"name": "p", "title": "P", "entries": made, "segmentation": segmentation}, "p.yaml")


FAST, OTHER = {"method": "fast"}, {"method": "fast", "train": ["model.params.use_farm=false"]}
MOVED = {"method": "fast", "train": ["model.params.ckpt_path=base.ckpt"]}


@pytest.mark.parametrize(
    ("entry", "given", "told"),
    [
        (FAST, Given(imagenet={"stdc": PLACE}), "--imagenet stdc=F: segmenters are fpn; leave it out"),
        (FAST, Given(weights={"stage": PLACE}), "--weights stage=F: no entry makes pairs with stage"),
        (OTHER, Given(weights={"fast": PLACE}), "--weights fast=F: its entries train models of their own"),
        (FAST, Given(weights={"fast": PLACE}, base=PLACE), "--base F: none of fast, stage, anomalydiffusion is tr"),
        ({"method": "dfmgan"}, Given(tokenizer=PLACE), "--tokenizer F: none of fast"),
        (MOVED, Given(base=PLACE), "--base F: model.params.ckpt_path= is set for every training on a base"),
        (FAST, Given(textures=PLACE), "--textures F: no entry makes pairs with draem or glass"),
        ({}, Given(networks={"lpips": PLACE}), "--lpips F: no entry makes pairs to be scored"),
        (
            {"method": "fast", "train": ["data.params.pool=4"]},
            Given(weights={"fast": PLACE}),
            "--weights fast=F takes the place of the training that '0' asks for with data.params.pool=4",
        ),
        (
            {"method": "fast", "recipe": "r.yaml"},
            Given(weights={"fast": PLACE}),
            "the training that '0' asks for with r.yaml; leave one of them out",
        ),
    ],
)
def test_what_nothing_takes_is_refused(entry: dict[str, Any], given: Given, told: str) -> None:
    with pytest.raises(UserError) as error:
        refuse_unused(protocol(entry), given)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_what_one_entry_takes_is_taken() -> None:
    refuse_unused(protocol(FAST, OTHER), Given(weights={"fast": PLACE}, base=PLACE, tokenizer=PLACE))
    refuse_unused(protocol(FAST, MOVED), Given(base=PLACE))
    refuse_unused(protocol({"method": "glass"}), Given(textures=PLACE, networks={"lpips": PLACE}))
    refuse_unused(protocol({}, networks=["stdc", "quick"]), Given(imagenet={"stdc": PLACE}))


def test_the_answer_takes_weights_that_are_given() -> None:
    """The training that it asks for otherwise is left out of its entries."""
    refuse_unused(protocol_of("fast", trained=["fast"]), Given(weights={"fast": PLACE}))
    with pytest.raises(UserError, match="takes the place of the training"):
        refuse_unused(protocol_of("fast"), Given(weights={"fast": PLACE}))


def test_the_answer_begins_with_drawn_defects_where_it_can() -> None:
    starts = {name: protocol_of(segmenter=name).segmentation.start for name in ("fpn", "quick", "mini", "stdc")}
    assert {name for name, start in starts.items() if start is not None} == {"mini", "stdc"}


def test_a_start_that_gives_way_is_told() -> None:
    drawn = protocol({}, networks=["stdc", "fpn"], start={})
    assert notes(drawn, Given(imagenet={"fpn": PLACE})) == []
    assert "stdc: --imagenet takes the place" in notes(drawn, Given(imagenet={"stdc": PLACE, "fpn": PLACE}))[0]
    assert notes(protocol({}, networks=["stdc"]), Given(imagenet={"stdc": PLACE})) == []


def test_a_training_is_told_apart_by_the_files_that_it_begins_with(shipped: Path, tmp_path: Path) -> None:
    plain = begun_with("fast", RECIPE, [], Given())
    assert plain == {"base_sha256": file_hash(ROOT / "models/mini/base.safetensors")}
    base, farm = (file_hash(shipped / name) for name in ("base.safetensors", "fast-7.safetensors"))
    beside = {"base_sha256": base, "farm_sha256": farm}
    assert begun_with("fast", RECIPE, [], Given(base=shipped)) == beside
    assert begun_with("stage", RECIPE, [], Given(base=shipped)) == {"base_sha256": base}
    assert begun_with("fast", RECIPE, [], Given(base=shipped / "base.safetensors")) == {"base_sha256": base}
    assert begun_with("fast", RECIPE, [f"model.params.ckpt_path={shipped}"], Given(base=PLACE)) == beside
    named = [f"model.params.farm_from={shipped / 'fast-7.safetensors'}", "data.params.pool=4"]
    assert begun_with("fast", RECIPE, named, Given()) == {**plain, "farm_sha256": farm}
    assert begun_with("dfmgan", RECIPE, [], Given(base=shipped, tokenizer=tmp_path)) == {}


def test_a_tokenizer_s_files_are_part_of_a_training(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROOT / "models/mini/tokenizer", tmp_path / "one"))
    again = Path(shutil.copytree(folder, tmp_path / "two"))
    other = Path(shutil.copytree(folder, tmp_path / "three"))
    with open(other / "vocab.txt", "a") as file:
        file.write("more\n")
    one, two, three = (
        begun_with("fast", RECIPE, [], Given(tokenizer=place))["tokenizer_sha256"] for place in (folder, again, other)
    )
    assert one == two != three
    with pytest.raises(UserError, match=r"--tokenizer .*vocab.txt is no folder"):
        begun_with("fast", RECIPE, [], Given(tokenizer=folder / "vocab.txt"))


@pytest.mark.parametrize(
    ("overrides", "base", "told"),
    [
        (["model.params.ckpt_path=nowhere"], None, "checkpoint nowhere does not exist; check model.params.ckpt_path"),
        (["model.params.farm_from=nowhere"], None, "model.params.farm_from nowhere is not there"),
        ([], "configs", "configs: no base.safetensors in that folder"),
    ],
)
def test_files_that_are_not_there_are_told_by_their_names(overrides: list[str], base: str | None, told: str) -> None:
    given = Given(base=None if base is None else ROOT / base)
    with pytest.raises(UserError, match=told):
        begun_with("fast", RECIPE, overrides, given)


@pytest.mark.parametrize(
    ("learned", "told"), [("0" * 64, "the split 000000000000"), ("all", "all real defects"), ("drawn", "")]
)
def test_a_segmenter_to_begin_with_must_not_have_seen_the_test_side(
    learned: str, told: str, drawn_root: Path, tmp_path: Path
) -> None:
    file = save(build("stdc"), tmp_path / "w.safetensors", "stdc", learned)
    asked, given = protocol({}, networks=["stdc"]), Given(imagenet={"stdc": file})
    if not told:
        assert plan(asked, drawn_root, tmp_path / "out", given).cells
        return
    with pytest.raises(UserError, match=f"--imagenet stdc=.* learned from {told} and may have seen what is tested on"):
        plan(asked, drawn_root, tmp_path / "out", given)

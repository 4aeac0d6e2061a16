"""Protocols as files, and the cells that follow from them."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fast.bench import paper
from fast.bench.answer import _making, protocol_of
from fast.bench.plan import Given, plan
from fast.bench.protocol import check, load_protocol, parse
from fast.bench.verdict import BOTH
from fast.bench.work import _flags, _networks
from fast.cli.synthesis_options import check_options, parse_synthesis
from ldm.errors import UserError
from support.paths import ROOT

FOLDER = ROOT / "protocols"
PROTOCOLS = sorted(FOLDER.glob("*.yaml"))
SMALL: dict[str, Any] = {
    "name": "small",
    "title": "Small",
    "categories": ["leather"],
    "pairs": {"per_type": 4, "size": 64},
    "training": {"recipes": "small"},
    "segmentation": {"networks": ["mini"], "seeds": [0, 1], "steps": 2, "batch_size": 2, "size": 64},
    "entries": [
        {"label": "no synthesis"},
        {"label": "CutPaste", "method": "cutpaste"},
        {"label": "FAST", "method": "fast"},
    ],
}


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda p: p.stem)
def test_every_protocol_is_read_and_its_labels_are_the_paper_s(path: Path) -> None:
    protocol = load_protocol(path)
    assert protocol.name == path.stem
    labels = {entry.label for entry in protocol.entries}
    for name in protocol.paper:
        table = paper.load(name)
        assert table.column == protocol.column
        missing = set(table.labels) - labels
        assert not missing or path.stem.startswith("mini"), missing
        assert set(table.backbones) == set(protocol.segmentation.networks) or path.stem.startswith("mini")


def test_the_papers_tables_all_have_a_protocol() -> None:
    assert {name for path in PROTOCOLS for name in load_protocol(path).paper} == set(paper.names())


def test_an_override_wins_and_an_unknown_key_is_refused() -> None:
    path = FOLDER / "mini_farm.yaml"
    assert load_protocol(path, ("pairs.per_type=7", "segmentation.seeds=[5]")).pairs.per_type == 7
    with pytest.raises(UserError, match="per_typ"):
        load_protocol(path, ("pairs.per_typ=7",))
    with pytest.raises(UserError, match=r"--protocol .*nothing.yaml does not exist"):
        load_protocol("protocols/nothing.yaml")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"entries": []}, "entries is empty"),
        ({"entries": 3}, "entries=3 must be a list"),
        ({"entries": [{"label": "a"}, {"label": "a"}]}, "entries has 'a' twice"),
        ({"entries": [{"label": "a", "method": "gan"}]}, r"entries\[0\]\.method='gan' must be one of fast, stage"),
        ({"entries": [{"label": "a", "real": "none"}]}, "nothing to train on"),
        ({"entries": [{"label": "a", "method": "cutpaste", "steps": 3}]}, "sampler, steps, scale, flags and windows"),
        ({"entries": [{"label": "a", "method": "cutpaste", "count": 5}]}, "count=5"),
        ({"entries": [{"label": "a", "method": "stage", "draft": "mixed"}]}, "draft=mixed is what method fast starts"),
        ({"entries": [{"label": "a", "method": "fast", "draft": "mixed", "sampler": "ddim"}]}, "is for sampler aias"),
        ({"entries": [{"label": "a", "method": "fast", "draft": "real"}]}, "draft='real' must be one of none, transpl"),
        ({"entries": [{"label": "a", "method": "fast", "strength": 0.5}]}, "strength is how much of a draft is made"),
        ({"entries": [{"method": "cutpaste"}]}, "label"),
        ({"entries": [{"label": "a", "count": 2}]}, "'a': count is for pairs; leave it out, or set method"),
        ({"entries": [{"label": "a", "options": ["x=1"]}]}, "'a': options is for pairs"),
        ({"entries": [{"label": "a", "train": ["x=1"]}]}, "'a': train is for pairs"),
        ({"entries": [{"label": "a", "recipe": "r.yaml"}]}, "'a': recipe is for pairs"),
        ({"entries": [{"label": "a", "real_share": 0.3}]}, "'a': real_share is for pairs"),
        (
            {"entries": [{"label": "a", "method": "draem", "train": ["x=1"]}]},
            "train is of a training, and draem learns",
        ),
        (
            {"entries": [{"label": "a", "method": "glass", "recipe": "r"}]},
            "recipe is of a training, and glass learns n",
        ),
        ({"entries": [{"label": "a", "method": "draem", "real": "none", "real_share": "merge"}]}, "and real is none"),
        (
            {"segmentation": {"real": "none"}, "entries": [{"label": "a", "method": "draem", "real_share": 0.3}]},
            "real_share=0.3 is for real defects beside pairs, and real is none",
        ),
        (
            {"segmentation": {"real_share": 0.3}, "entries": [{"label": "a", "method": "draem", "real": "none"}]},
            r"no entry merges pairs with real defects by segmentation\.real_share=0.3; leave it out",
        ),
        ({"segmentation": {"networks": ["fpn", "quick"], "start": {}}}, r"start is not for fpn, quick, whose encoder"),
        ({"segmentation": {"networks": ["quick"], "crop": 64}}, r"segmentation\.crop is not for quick"),
        ({"column": "colour"}, "column='colour' must be one of method, steps"),
        ({"paper": ["nature"]}, r"paper\[0\]='nature' must be one of"),
        ({"segmentation": {"networks": ["resnet"]}}, r"segmentation\.networks\[0\]='resnet' must be one of"),
        ({"segmentation": {"seeds": [1, 1]}}, r"segmentation\.seeds has 1 twice"),
        ({"segmentation": {"steps": "many"}}, "steps='many' must be a whole number"),
        ({"pairs": {"per_type": 0}}, r"pairs\.per_type=0 must be 1 or more"),
        ({"pairs": 3}, "must be a section"),
        ({"metrics": []}, "metrics is empty"),
        ({"metrics": ["mIoU", "KID"]}, r"metrics\[1\]='KID' must be one of mIoU, Acc"),
        ({"metrics": ["mIoU", "mIoU"]}, "metrics has 'mIoU' twice"),
        ({"metrics": ["Acc (classes)"]}, r"Acc \(classes\) needs segmentation\.classes: types"),
        ({"categories": [1]}, r"categories\[0\]=1 must be a word; put it in quotes"),
        ({"entries": [{"label": "a", "method": "fast", "flags": [3]}]}, r"entries\[0\]\.flags\[0\]=3 must be a word"),
        ({"paper": ["fast_table3_mvtec_steps"]}, "fast_table3_mvtec_steps compares steps, not method"),
        ({"name": "a/b"}, "name 'a/b' is no plain file name"),
        ({"name": ".."}, r"name '\.\.' is no plain file name"),
        ({"name": ""}, "name '' is no plain file name"),
        ({"split": {"fraction": 1.0}}, r"split\.fraction=1.0 must be below 1"),
        ({"pairs": {"size": 15}}, r"pairs\.size=15 must be 16 or more"),
        ({"training": {"max_steps": 0}}, r"training\.max_steps=0 must be 1 or more"),
        ({"training": {"max_minutes": 0}}, r"training\.max_minutes=0 must be above 0"),
        ({"entries": [{"label": "a", "method": "fast", "steps": 0}]}, r"entries\[0\]\.steps=0 must be 1 or more"),
        ({"entries": [{"label": "a", "method": "fast", "sampler": "euler"}]}, "sampler='euler' must be one of aias"),
        ({"segmentation": {"loss": "focal"}}, "segmentation.loss='focal' must be one of ce"),
        ({"segmentation": {"networks": []}}, "segmentation.networks is empty"),
        ({"segmentation": {"networks": ["mini", "mini"]}}, "segmentation.networks has 'mini' twice"),
        ({"segmentation": {"networks": ["stdc2", "mini"], "recipe": "published"}}, "published for segmenter mini"),
        ({"segmentation": {"networks": ["mini"], "loss": "published"}}, "published for segmenter mini"),
        ({"segmentation": {"seeds": []}}, "segmentation.seeds is empty"),
        ({"segmentation": {"seeds": [-1]}}, r"seeds\[0\]=-1 must be 0 or more"),
        ({"segmentation": {"seeds": [0.5]}}, r"seeds\[0\]=0.5 must be a whole number"),
        ({"segmentation": {"seeds": [True]}}, r"seeds\[0\]=True must be a whole number"),
        ({"segmentation": {"size": 8}}, r"segmentation\.size=8 must be 16 or more"),
        ({"segmentation": {"size": 64, "crop": 65}}, r"segmentation\.crop=65 must be within 16\.\.64"),
        ({"segmentation": {"size": 64, "crop": 15}}, r"segmentation\.crop=15 must be within 16\.\.64"),
        ({"segmentation": {"batch_size": 1}}, r"segmentation\.batch_size=1 must be 2 or more"),
        ({"segmentation": {"lr": 0.0}}, r"segmentation\.lr=0.0 must be above 0"),
        ({"segmentation": {"real_share": 1.0}}, r"real_share=1.0 must be below 1"),
        ({"segmentation": {"real_share": 0.0}}, r"real_share=0.0 must be above 0"),
        ({"segmentation": {"normals": 1.0}}, r"normals=1.0 must be below 1"),
        ({"segmentation": {"ema": float("nan")}}, r"ema=nan must be 0 or more"),
        ({"segmentation": {"start": {"shards": 0}}}, r"start\.shards=0 must be 1 or more"),
        ({"segmentation": {"start": {"steps": 0}}}, r"start\.steps=0 must be 1 or more"),
        ({"segmentation": {"start": {"real_steps": -1}}}, r"start\.real_steps=-1 must be 0 or more"),
        ({"segmentation": {"start": {"size": 64}}}, r"start\.crop=128 must be within 16\.\.64"),
        ({"segmentation": {"start": {"precision": "fp8"}}}, "start.precision='fp8' must be one of auto, fp32, bf16"),
    ],
)
def test_what_a_protocol_cannot_mean_is_one_line(change: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse({**SMALL, **change}, "p.yaml")


def test_a_key_that_is_unknown_is_told_those_there_are() -> None:
    with pytest.raises(UserError, match=r"p\.yaml: pairs\.sise is unknown; it takes: per_type, size, masks, own_masks"):
        parse({**SMALL, "pairs": {"sise": 64}}, "p.yaml")
    with pytest.raises(UserError, match=r"entries\[0\]\.methode is unknown; it takes: label, method"):
        parse({**SMALL, "entries": [{"label": "a", "methode": "cutpaste"}]}, "p.yaml")


def test_whole_numbers_stay_whole() -> None:
    """The key of a finished cell holds them as they were written; another key would do the work again."""
    found = parse({**SMALL, "training": {"max_minutes": 30}, "segmentation": {"normals": 0, "lr": 1}}, "p.yaml")
    assert '"max_minutes": 30,' in found.text
    assert '"normals": 0,' in found.text
    assert '"lr": 1,' in found.text


def test_what_is_left_empty_is_the_default() -> None:
    bare = {name: SMALL[name] for name in ("name", "title", "entries")}
    empty = dict.fromkeys(("split", "pairs", "training", "segmentation", "metrics", "paper", "categories"))
    assert parse({**bare, **empty}, "p.yaml") == parse(bare, "p.yaml")
    assert parse({**bare, "segmentation": {"start": None, "seeds": None}}, "p.yaml") == parse(bare, "p.yaml")
    whole = {"networks": ["mini"], "start": {"crop": None}}
    start = parse({**bare, "segmentation": whole}, "p.yaml").segmentation.start
    assert start is not None
    assert start.crop is None  # null there means whole pictures


def test_the_ends_of_what_is_allowed() -> None:
    ends = {"size": 16, "crop": 16, "batch_size": 2, "normals": 0.0, "ema": 0.0, "steps": 1, "seeds": [0]}
    start = {"shards": 1, "steps": 1, "size": 16, "crop": 16, "batch_size": 2, "real_steps": 0}
    more = {"networks": ["stdc2", "bisenetv2", "segformer"], "recipe": "published", "loss": "published"}
    found = parse({**SMALL, "segmentation": {**ends, **more, "start": start}, "training": {"max_steps": 1}}, "p.yaml")
    assert found.segmentation.start is not None
    told = {**SMALL, "segmentation": {"classes": "types"}, "metrics": ["mIoU (classes)", "Acc (classes)"]}
    assert parse(told, "p.yaml").metrics == ("mIoU (classes)", "Acc (classes)")


def test_a_protocol_made_in_code_is_checked_too() -> None:
    good = parse(SMALL, "p.yaml")
    check(good, "options")
    with pytest.raises(UserError, match=r"options: pairs\.per_type=0 must be 1 or more"):
        check(replace(good, pairs=replace(good.pairs, per_type=0)), "options")
    with pytest.raises(UserError, match="options: entries is empty"):
        check(replace(good, entries=()), "options")


def test_the_grid_of_a_protocol(drawn_root: Path, tmp_path: Path) -> None:
    found = plan(parse(SMALL, "p.yaml"), drawn_root, tmp_path)
    cells = found.cells
    kinds = [cell.kind for cell in cells]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"fit": 1, "pairs": 2, "segment": 6, "pictures": 2}
    assert all(cells.index(need) < cells.index(cell) for cell in cells for need in cell.needs)
    assert len({cell.folder for cell in cells}) == len(cells)
    (category,) = found.categories
    mark = hashlib.sha256(f"{category.split.hash} {category.content}".encode()).hexdigest()
    assert category.place.name == f"leather-{mark[:8]}"


def folders(protocol: dict[str, Any], root: Path, out: Path, kind: str, given: Given | None = None) -> set[str]:
    return {c.folder.name for c in plan(parse(protocol, "p"), root, out, given).cells if c.kind == kind}


def test_protocols_share_the_cells_they_have_in_common(drawn_root: Path, tmp_path: Path) -> None:
    def of(kind: str, **change: Any) -> set[str]:
        return folders({**SMALL, **change}, drawn_root, tmp_path, kind)

    seg = SMALL["segmentation"]
    assert of("pairs", segmentation={**seg, "steps": 3}) == of("pairs")
    assert of("segment", segmentation={**seg, "steps": 3}).isdisjoint(of("segment"))
    assert of("segment", segmentation={**seg, "seeds": [1, 2]}) & of("segment")
    assert of("fit", pairs={"per_type": 9, "size": 64}) == of("fit")
    assert of("fit", pairs={"per_type": 4, "size": 32}).isdisjoint(of("fit"))
    assert of("pairs", pairs={"per_type": 9, "size": 64}).isdisjoint(of("pairs"))
    assert of("fit", split={"seed": 1}).isdisjoint(of("fit"))
    entries = [*SMALL["entries"][:2], {"label": "FAST", "method": "fast", "train": ["model.params.lr=0.1"]}]
    assert of("fit", entries=entries).isdisjoint(of("fit"))
    start = {**seg, "start": {"steps": 2}}
    assert len(of("start", segmentation=start)) == 1
    assert of("segment", segmentation=start).isdisjoint(of("segment"))
    assert of("segment", segmentation={**seg, "prior": "real"}).isdisjoint(of("segment"))
    assert of("start", segmentation={**start, "prior": "real"}) == of("start", segmentation=start)
    assert of("segment", segmentation={**seg, "prior": "drawn"}) == of("segment")
    quick = {**seg, "networks": ["quick"]}
    assert of("segment", segmentation={**quick, "prior": "real"}) == of("segment", segmentation=quick)


def test_segmenters_are_set_right_as_the_protocol_says(drawn_root: Path, tmp_path: Path) -> None:
    """Initial weights never are: what goes on from them is."""
    for prior in ("real", "drawn"):
        seg = {**SMALL["segmentation"], "prior": prior, "start": {"steps": 2, "real_steps": 2}}
        cells = plan(parse({**SMALL, "segmentation": seg}, "p"), drawn_root, tmp_path).cells
        found = {(cell.kind, _networks(cell).training["prior"]) for cell in cells if cell.kind in ("segment", "warm")}
        assert found == {("segment", prior), ("warm", "drawn")}


def test_methods_that_place_defects_bring_their_own_masks(drawn_root: Path, tmp_path: Path) -> None:
    names = ("cutpaste", "procedural", "transplant")
    entries = [{"label": name, "method": name} for name in names]
    found = plan(parse({**SMALL, "entries": entries}, "p"), drawn_root, tmp_path)
    cells = {cell.key["method"]: cell for cell in found.cells if cell.kind == "pairs"}
    assert {name: cells[name].key["masks"] for name in names} == dict(
        zip(names, ("augmented", "own", "own"), strict=True)
    )
    assert not [cell for cell in found.cells if cell.kind == "fit"]
    (category,) = found.categories
    flags = _flags(cells["transplant"], category, category.types[0], 0, tmp_path / "out")
    options, _ = parse_synthesis(flags)
    check_options(options)
    assert (options.defects, options.split) == (str(drawn_root), str(category.split_file))
    assert options.overrides == ["category=leather"]  # of a root of many, as the split's names are
    assert options.mask_path is None


@pytest.mark.parametrize(("draft", "real"), [("mixed", True), ("transplant", True), ("procedural", False)])
def test_drafts_are_cut_from_the_training_side_and_bring_their_masks(
    draft: str, real: bool, drawn_root: Path, tmp_path: Path
) -> None:
    entries = [{"label": "FAST", "method": "fast", "draft": draft, "strength": 0.5, "steps": 7}]
    found = plan(parse({**SMALL, "entries": entries}, "p"), drawn_root, tmp_path)
    (cell,) = (cell for cell in found.cells if cell.kind == "pairs")
    assert cell.key["masks"] == "own"
    (category,) = found.categories
    flags = _flags(replace(cell, needs=()), category, category.types[0], 0, tmp_path / "out")
    options, _ = parse_synthesis(flags)
    check_options(replace(options, weights="mini"))  # those of a training that was not needed here
    assert (options.draft, options.strength, options.steps, options.mask_path) == (draft, 0.5, 7, None)
    where = (str(drawn_root), str(category.split_file)) if real else (None, None)
    assert (options.defects, options.split) == where
    assert options.overrides == (["draft_options.category=leather"] if real else [])
    plain = [{"label": "FAST", "method": "fast", "steps": 7}]
    (other,) = (
        c for c in plan(parse({**SMALL, "entries": plain}, "p"), drawn_root, tmp_path).cells if c.kind == "pairs"
    )
    assert {"draft", "strength"}.isdisjoint(other.key)  # what was made before there were drafts stays


def test_the_answer_takes_a_share_of_real_defects_and_sets_its_segmenters_right() -> None:
    found = [protocol_of(real_share=share).segmentation for share in (0.5, 0.75, "merge")]
    assert [seg.real_share for seg in found] == [0.5, 0.75, None]
    assert {seg.prior for seg in found} == {"real"}


def test_fast_s_answer_is_of_drafts_that_weights_of_the_part_make_new() -> None:
    found = {entry.label: entry for entry in protocol_of("fast").entries if entry.method}
    assert {(e.draft, e.strength, e.steps, e.windows) for e in found.values()} == {("mixed", 0.5, 10, True)}
    assert all("data.params.normal_share=0.25" in entry.train for entry in found.values())
    assert {(e.draft, e.train) for e in protocol_of("stage").entries} == {("none", ())}
    told = dict(_making(found[BOTH]))
    assert "drawn ones that look like them; strength 0.5" in told["pairs start from"]
    assert "data.params.drawn_share=0.25" in told["trained with"]
    assert "trained with" not in dict(_making(found[BOTH], given="fast-9.safetensors"))
    assert list(dict(_making(protocol_of("procedural").entries[-1]))) == []


def test_pictures_of_their_own_size_are_other_cells_and_need_methods_that_keep_it(
    drawn_root: Path, tmp_path: Path
) -> None:
    """Cells of squares keep the keys that they had before pictures could keep their size."""

    def keys(**more: Any) -> dict[str, list[dict[str, Any]]]:
        found = plan(protocol_of("fast", segmenter="quick", **more), drawn_root, tmp_path).cells
        return {kind: [c.key for c in found if c.kind == kind] for kind in ("pairs", "segment", "fit")}

    square, own = keys(), keys(native=True, looks={"crack": ["stain", "pit"]})
    assert all("native" not in key for key in square["segment"])
    assert all(key["native"] and "size" not in key for key in own["segment"])  # the quick judge sees them whole
    assert {(key["size"], *key["options"]) for key in square["pairs"]} == {(256,)}
    looks = 'method.draft_options.looks={"crack": ["stain", "pit"]}'
    assert {(key["size"], *key["options"]) for key in own["pairs"]} == {(None, looks)}
    assert square["fit"] == own["fit"]  # of windows at the pictures' own resolution in both
    with pytest.raises(UserError, match=r"pairs.size and segmentation.crop must be null"):
        parse({**SMALL, "segmentation": {**SMALL["segmentation"], "native": True}}, "p")
    sized = {**SMALL, "pairs": {"per_type": 4, "size": None}, "entries": [{"label": "CutPaste", "method": "cutpaste"}]}
    parse(sized, "p")
    with pytest.raises(UserError, match=r"stage makes pairs of a size of its own.*set windows: true"):
        parse({**sized, "entries": [{"label": "STAGE", "method": "stage"}]}, "p")
    parse({**sized, "entries": [{"label": "STAGE", "method": "stage", "windows": True}]}, "p")


def test_what_is_not_in_the_dataset_is_refused(drawn_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no category gold"):
        plan(replace(parse(SMALL, "p"), categories=("gold",)), drawn_root, tmp_path)
    with pytest.raises(UserError, match=r"no fast-<step>\.safetensors"):
        plan(parse(SMALL, "p"), drawn_root, tmp_path, Given(weights={"fast": tmp_path}))

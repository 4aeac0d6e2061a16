"""Protocols as files, and the cells that follow from them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fast.bench import paper
from fast.bench.plan import Given, plan
from fast.bench.protocol import load_protocol, parse
from ldm.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "protocols"
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
        assert set(table.backbones) & {*protocol.segmentation.networks, "segformer", "stdc", "bisenetv2"}


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
        ({"entries": []}, "entries must be a list"),
        ({"entries": [{"label": "a"}, {"label": "a"}]}, "two entries have the label 'a'"),
        ({"entries": [{"label": "a", "method": "gan"}]}, "method of 'a' is 'gan'"),
        ({"entries": [{"label": "a", "real": "none"}]}, "nothing to train on"),
        ({"entries": [{"label": "a", "method": "cutpaste", "steps": 3}]}, "sampler, steps, flags and windows"),
        ({"entries": [{"label": "a", "method": "cutpaste", "count": 5}]}, "count=5"),
        ({"entries": [{"method": "cutpaste"}]}, "label"),
        ({"column": "colour"}, "column is 'colour'"),
        ({"paper": ["nature"]}, "paper is 'nature'"),
        ({"segmentation": {"networks": ["resnet"]}}, "segmentation.networks is 'resnet'"),
        ({"segmentation": {"seeds": [1, 1]}}, "each seed once"),
        ({"segmentation": {"steps": "many"}}, "steps=many must be of type"),
        ({"pairs": {"per_type": 0}}, "per_type=0 must be above 0"),
        ({"pairs": 3}, "must be a section"),
    ],
)
def test_what_a_protocol_cannot_mean_is_one_line(change: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse({**SMALL, **change}, "p.yaml")


def test_the_grid_of_a_protocol(drawn_root: Path, tmp_path: Path) -> None:
    found = plan(parse(SMALL, "p.yaml"), drawn_root, tmp_path)
    cells = found.cells
    kinds = [cell.kind for cell in cells]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"fit": 1, "pairs": 2, "segment": 6, "pictures": 2}
    assert all(cells.index(need) < cells.index(cell) for cell in cells for need in cell.needs)
    assert len({cell.folder for cell in cells}) == len(cells)
    (category,) = found.categories
    assert category.place.name == f"leather-{category.split.hash[:8]}"


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


def test_what_is_not_in_the_dataset_is_refused(drawn_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no category gold"):
        plan(replace(parse(SMALL, "p"), categories=("gold",)), drawn_root, tmp_path)
    with pytest.raises(UserError, match=r"no fast-<step>\.safetensors"):
        plan(parse(SMALL, "p"), drawn_root, tmp_path, Given(weights={"fast": tmp_path}))

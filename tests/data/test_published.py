"""Published datasets as downloaded, in tiny: what is read, that physical parts stay together, that traps are told."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fast.cli import prepare_data
from fast.data.images import read_mask
from fast.data.index import DatasetIndex
from fast.data.known import DATASETS, known_dataset
from fast.data.layouts import check, open_dataset
from fast.runtime.command import run_cli

MASK = np.zeros((40, 60), np.uint8)
MASK[5:15, 10:30] = 1


def photo(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal((40, 60, 3))
    Image.fromarray(np.clip(130 + 25 * noise, 0, 255).astype(np.uint8)).save(path)


def mask(path: Path, values: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(MASK * np.uint8(255) if values is None else values).save(path)


def tree(root: Path, category: str, kinds: tuple[str, ...]) -> Path:
    photo(root / category / "train/good/000.png")
    for kind in kinds:
        photo(root / category / f"test/{kind}/000.png", 1)
        mask(root / category / f"ground_truth/{kind}/000_mask.png")
    return root


def mvtec(root: Path) -> Path:
    return tree(tree(root, "carpet", ("cut", "thread")), "metal_nut", ("flip",))


def loco(root: Path) -> Path:
    tree(root, "juice_bottle", ())
    for kind, value in (("logical_anomalies", 254), ("structural_anomalies", 250)):
        photo(root / f"juice_bottle/test/{kind}/000.png", 2)
        for i, part in enumerate((MASK, MASK[:, ::-1])):
            mask(root / f"juice_bottle/ground_truth/{kind}/000/{i:03d}.png", part * np.uint8(value - i))
    (root / "juice_bottle/defects_config.json").write_text("[]")
    return root


def visa(root: Path) -> Path:
    rows = ["image,label,mask"]
    for i in range(2):
        photo(root / f"pcb1/Data/Images/Normal/{i:04d}.JPG", i)
        rows.append(f"pcb1/Data/Images/Normal/{i:04d}.JPG,normal,")
    photo(root / "pcb1/Data/Images/Anomaly/000.JPG", 3)
    mask(root / "pcb1/Data/Masks/Anomaly/000.png", MASK * np.uint8(3))
    rows.append('pcb1/Data/Images/Anomaly/000.JPG,"bent,melt",pcb1/Data/Masks/Anomaly/000.png')
    (root / "pcb1/image_anno.csv").write_text("\n".join(rows))
    (root / "split_csv").mkdir()
    split = "object,split,label,image,mask\npcb1,test,normal,pcb1/Data/Images/Normal/0001.JPG,"
    (root / "split_csv/1cls.csv").write_text(split)
    return root


def btad(root: Path) -> Path:
    photo(root / "02/train/ok/0000.png")
    photo(root / "02/test/ko/0000.png", 1)
    mask(root / "02/ground_truth/ko/0000.png")
    return root


def mpdd(root: Path) -> Path:
    return tree(root, "metal_plate", ("major_rust", "scratches"))


def kolektor(root: Path) -> Path:
    for item in ("kos01", "kos02", "kos03"):
        for part in range(3):
            photo(root / f"{item}/Part{part}.jpg", part)
            mask(root / f"{item}/Part{part}_label.bmp", MASK * np.uint8(255 * (part > 0)))
    return root


def kolektor2(root: Path) -> Path:
    for i, half in enumerate(("train", "train", "test", "test")):
        photo(root / f"{half}/2000{i}.png", i)
        mask(root / f"{half}/2000{i}_GT.png", MASK * np.uint8(255 * (i % 2)))
    return root


def dagm(root: Path) -> Path:
    for half in ("Train", "Test"):
        for i in range(3):
            photo(root / f"Class1/{half}/{i + 10:04d}.PNG", i)
        mask(root / f"Class1/{half}/Label/0010_label.PNG")
        (root / f"Class1/{half}/Label/Labels.txt").write_text("1\n")
    return root


def magnetic_tile(root: Path) -> Path:
    for kind in ("Free", "Crack", "Uneven"):
        photo(root / f"MT_{kind}/Imgs/exp1_num_3.jpg", len(kind))
        mask(root / f"MT_{kind}/Imgs/exp1_num_3.png", MASK * np.uint8(255 * (kind == "Crack")))
    return root


def bsdata(root: Path) -> Path:
    corners = [[10, 5], [30, 5], [30, 15], [10, 15]]
    shape = {"label": "Pitting", "points": corners, "shape_type": "polygon", "group_id": None}
    for hour, marked in ((1, False), (2, True), (3, True)):
        name = f"01_20090{hour}041126_277500_315_crop_2"
        photo(root / f"data/{name}.jpg", hour)
        if marked:
            content = {"shapes": [shape], "imagePath": f"{name}.jpg", "imageHeight": 40, "imageWidth": 60}
            (root / "label").mkdir(exist_ok=True)
            (root / f"label/{name}.json").write_text(json.dumps(content))
    return root


# name, how it is made, normals, normals to test on, defect types
CASES = [
    ("MVTec AD", mvtec, 2, 0, {("carpet", "cut"), ("carpet", "thread"), ("metal_nut", "flip")}),
    ("MVTec LOCO AD", loco, 1, 0, {("juice_bottle", "logical_anomalies"), ("juice_bottle", "structural_anomalies")}),
    ("VisA", visa, 1, 1, {("pcb1", "bent+melt")}),
    ("BTAD", btad, 1, 0, {("02", "damaged")}),
    ("MPDD", mpdd, 1, 0, {("metal_plate", "major_rust"), ("metal_plate", "scratches")}),
    ("KolektorSDD", kolektor, 3, 0, {("root", "defect")}),
    ("KolektorSDD2", kolektor2, 1, 1, {("root", "defect")}),
    ("DAGM 2007", dagm, 2, 2, {("Class1", "defect")}),
    ("Magnetic tile", magnetic_tile, 1, 0, {("root", "crack"), ("root", "uneven")}),
    ("BSData", bsdata, 1, 0, {("root", "pitting")}),
]


def test_every_dataset_has_a_case() -> None:
    assert [case[0] for case in CASES] == [known.name for known in DATASETS]


@pytest.mark.parametrize(("name", "make", "normals", "tests", "types"), CASES, ids=[case[0] for case in CASES])
def test_it_is_known_by_its_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, make, normals: int, tests: int, types: set
) -> None:
    root = make(tmp_path / "root")
    index = open_dataset(root)
    known = known_dataset(index)
    assert known is not None
    assert known.name == name
    assert (len(index.normals), len(index.test_normals), set(index.types)) == (normals, tests, types)
    assert index.problems == []
    assert not [note for note in index.notes if note.startswith("not used") and "split_csv" not in note]
    capsys.readouterr()
    assert run_cli(prepare_data.main, [str(root), "--out", str(tmp_path / "split.json")]) == 0
    said = capsys.readouterr().out
    assert f"looks like {name}\nlicence: " in said
    assert said.count("\nmind: ") == len(known.traps) > 0
    for sample in check(index).usable.defects:
        assert sample.mask is not None
        assert read_mask(sample.mask)[5:15, 10:30].all()


def groups(index: DatasetIndex) -> list[set[str]]:
    found: dict[str, set[str]] = {}
    for sample in index.defects:
        found.setdefault(sample.group, set()).add(index.relative(sample.image))
    return list(found.values())


def test_pictures_of_one_part_stay_together(tmp_path: Path) -> None:
    assert sorted(map(len, groups(open_dataset(kolektor(tmp_path / "k"))))) == [2, 2, 2]
    assert list(map(len, groups(open_dataset(bsdata(tmp_path / "b"))))) == [2]


def test_an_empty_mask_of_a_tile_is_left_out_by_name(tmp_path: Path) -> None:
    report = check(open_dataset(magnetic_tile(tmp_path / "root")))
    assert any(line.startswith("MT_Uneven/Imgs/exp1_num_3.png: empty mask") for line in report.problems)


def test_labels_without_images_are_problems(tmp_path: Path) -> None:
    root = dagm(tmp_path / "d")
    mask(root / "Class1/Test/Label/0099_label.PNG")
    assert any("0099_label.PNG: label without image" in line for line in open_dataset(root).problems)
    root = bsdata(tmp_path / "b")
    next((root / "data").glob("*902041126*")).unlink()
    assert any("annotation without image" in line for line in open_dataset(root).problems)
    root = magnetic_tile(tmp_path / "m")
    (root / "MT_Crack/Imgs/exp1_num_3.jpg").unlink()
    assert any("mask without image" in line for line in open_dataset(root).problems)


def test_own_data_is_not_taken_for_a_published_set(tmp_path: Path) -> None:
    """A material of the same name as a category, with other defects."""
    for root in (tree(tmp_path / "a", "leather", ("burn",)), tree(tmp_path / "b", "bracket", ("scratches",))):
        assert known_dataset(open_dataset(root)) is None

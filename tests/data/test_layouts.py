import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fast.data.images import write_image, write_mask
from fast.data.layouts import DatasetIndex, check, open_dataset, require_defects
from fast.data.split import make_split
from ldm.errors import UserError
from support.images import plain


def image(path: Path, height: int = 6, width: int = 4) -> None:
    write_image(path, plain(path, height, width))


def mask(path: Path, height: int = 6, width: int = 4, empty: bool = False) -> None:
    values = np.zeros((height, width), np.uint8)
    values[1, 1] = not empty
    if path.suffix == ".png":
        write_mask(path, values)
    else:
        write_image(path, values * 255)


def mvtec(folder: Path, types: tuple[str, ...] = ("crack", "hole")) -> Path:
    for index in range(2):
        image(folder / "train" / "good" / f"{index:03d}.png")
    image(folder / "test" / "good" / "000.png")
    for kind in types:
        for index in (2, 10):
            image(folder / "test" / kind / f"{index}.png")
            mask(folder / "ground_truth" / kind / f"{index}_mask.png")
    return folder


def names(index: DatasetIndex) -> list[tuple[str, str]]:
    return [(index.relative(s.image), s.anomaly) for s in index.defects]


def test_mvtec_category(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "bottle")
    index = open_dataset(root)
    assert (index.root, index.layout, index.problems) == (root, "mvtec", [])
    assert [index.relative(s.image) for s in index.normals] == ["train/good/000.png", "train/good/001.png"]
    assert [index.relative(s.image) for s in index.test_normals] == ["test/good/000.png"]
    assert index.categories == ["bottle"]
    assert index.types == [("bottle", "crack"), ("bottle", "hole")]
    assert [n for n, _ in names(index)] == [f"test/{k}/{i}.png" for k in ("crack", "hole") for i in (2, 10)]
    first = index.defects[0]
    assert first.mask == root / "ground_truth" / "crack" / "2_mask.png"
    assert (first.category, first.group) == ("bottle", "test/crack/2.png")
    assert {s.anomaly for s in index.normals + index.test_normals} == {"good"}
    assert {s.mask for s in index.normals} == {None}


@pytest.mark.parametrize("half", ["test", "ground_truth"])
def test_mvtec_inside_a_category(tmp_path: Path, half: str) -> None:
    root = mvtec(tmp_path / "bottle")
    one = open_dataset(root / half / "hole")
    assert (one.root, one.types, len(one.normals)) == (root, [("bottle", "hole")], 2)
    assert open_dataset(root / half).types == open_dataset(root).types
    with pytest.raises(UserError, match="no usable defect of type 'crack'"):
        open_dataset(root / half / "hole", anomaly="crack")


def test_a_normal_that_is_a_copy_of_a_defects_image_is_left_out(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "bottle")
    for half, copy in (("train", "003.png"), ("test", "001.png")):
        shutil.copy(root / "test/hole/10.png", root / half / "good" / copy)
    index = open_dataset(root)
    assert [s.image.name for s in index.normals] == ["000.png", "001.png"]
    assert [s.image.name for s in index.test_normals] == ["000.png"]
    assert index.problems == [
        "train/good/003.png: a copy of test/hole/10.png, no normal; delete one",
        "test/good/001.png: a copy of test/hole/10.png, no normal; delete one",
    ]
    assert len(index.defects) == 4


def test_copies_of_a_defects_image_are_one_part(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "bottle")
    before = open_dataset(root)
    for kind, name in (("hole", "10b"), ("crack", "11")):
        shutil.copy(root / "test/hole/10.png", root / f"test/{kind}/{name}.png")
        mask(root / f"ground_truth/{kind}/{name}_mask.png")
    index = open_dataset(root)
    own = {s.image: s.group for s in before.defects}
    parts = {index.relative(s.image): s.group for s in index.defects if s.group != own.get(s.image)}
    assert parts == dict.fromkeys(("test/crack/11.png", "test/hole/10b.png"), "test/crack/11.png") | {
        "test/hole/10.png": "test/crack/11.png"
    }
    assert index.doubts == index.problems == []
    assert index.notes == [
        "2 images of defects are copies of another (test/hole/10.png of test/crack/11.png the first): both are one "
        "part; delete what is there twice by mistake"
    ]
    for seed in range(20):
        split = make_split(index, seed=seed)
        assert len({name in split.train for name in parts}) == 1


def test_a_copy_is_of_the_part_that_is_listed_and_two_that_are_listed_are_a_doubt(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "bottle", ("hole",))
    for name in ("1", "11"):  # before and after those that are listed
        shutil.copy(root / "test/hole/2.png", root / f"test/hole/{name}.png")
        mask(root / f"ground_truth/hole/{name}_mask.png")
    (root / "groups.csv").write_text("image,group\ntest/hole/2.png,p7\ntest/hole/10.png,p8\ntrain/good/000.png,p7\n")
    index = open_dataset(root)
    assert [s.group for s in index.defects] == ["p7", "p7", "p8", "p7"]
    assert (index.doubts, [s.group for s in index.normals]) == ([], ["p7", "train/good/001.png"])

    (root / "groups.csv").write_text("image,group\ntest/hole/2.png,p7\ntest/hole/10.png,p8\ntest/hole/11.png,p9\n")
    index = open_dataset(root)
    assert [s.group for s in index.defects] == ["p7", "p7", "p8", "p9"]  # as they are listed
    assert index.doubts == [
        "test/hole/1.png and test/hole/11.png are copies of one picture, listed as of two parts, p7 and p9: a split "
        "may train on one and test on the other; delete one, or say in groups.csv which part it is"
    ]


def test_pairs_that_were_made_inside_a_dataset_are_no_pictures_of_it(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "bottle")
    for part in ("image", "mask", "triptych"):
        image(root / "train/good/pairs" / part / "000000.png")
    assert len(open_dataset(root).normals) == 5  # folders in a folder of normals are read, too
    (root / "train/good/pairs/manifest.jsonl").write_text('{"image": "a.png", "label": 1}\n')
    assert len(open_dataset(root).normals) == 5  # somebody else's
    (root / "train/good/pairs/manifest.jsonl").write_text('{"image": "image/0.png", "mask": "mask/0.png"}\n')
    index = open_dataset(root)
    assert len(index.normals) == 2
    assert index.notes == ["not used: 4 files of pairs that were made in train/good/pairs"]  # the manifest is one


def test_an_export_inside_a_dataset_is_known_by_its_provenance(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "bottle")
    image(root / "train/good/exported/images/000000.png")
    note = root / "train/good/exported/provenance.jsonl"
    note.write_text('{"predicate": "a build", "file": "a.png"}\n')
    assert len(open_dataset(root).normals) == 3  # somebody else's
    row = '{"file": "images/000000.png", "index": 0, "image": "image/0.png", "mask": "mask/0.png", "type": "a/b"}\n'
    note.write_text(row)
    index = open_dataset(root)
    assert len(index.normals) == 2
    assert index.notes == ["not used: 1 file of pairs that were made in train/good/exported"]
    shutil.move(root / "train/good/exported", root / "test/exported")  # no defect type
    assert open_dataset(root).types == index.types
    assert open_dataset(root).problems == []


def test_pairs_among_labelme_files_are_no_pictures_of_the_dataset(tmp_path: Path) -> None:
    root = tmp_path / "part"
    for index in range(3):
        image(root / f"normal/{index}.png")
    image(root / "defects/a.png")
    shape = {"label": "dent", "points": [[0, 0], [3, 0], [3, 3]], "shape_type": "polygon"}
    (root / "defects/a.json").write_text(
        json.dumps({"shapes": [shape], "imagePath": "a.png", "imageHeight": 6, "imageWidth": 4})
    )
    image(root / "pairs/image/000000.png")
    (root / "pairs/manifest.jsonl").write_text('{"image": "image/000000.png", "mask": "mask/000000.png"}\n')
    index = open_dataset(root)
    assert (index.layout, index.types) == ("labelme", [("part", "dent")])
    assert [s.image.name for s in index.normals] == ["0.png", "1.png", "2.png"]


def test_mvtec_root_narrows(tmp_path: Path) -> None:
    mvtec(tmp_path / "bottle")
    mvtec(tmp_path / "cable", ("crack", "bent"))
    (tmp_path / "bottle" / "ground_truth" / "hole" / "2_mask.png").unlink()
    (tmp_path / "cable" / "ground_truth" / "crack" / "2_mask.png").unlink()
    index = open_dataset(tmp_path)
    assert index.categories == ["bottle", "cable"]
    assert names(index)[0] == ("bottle/test/crack/2.png", "crack")
    assert len(index.problems) == 2
    cable = index.narrow("cable")
    assert len(cable.problems) == 1
    assert cable.problems[0].startswith("cable/test/crack/2.png: defect without mask")
    assert cable.types == [("cable", "bent"), ("cable", "crack")]
    bent = index.narrow(anomaly="bent")
    assert ({s.category for s in bent.normals}, bent.problems) == ({"cable"}, [])
    assert open_dataset(tmp_path, category="bottle", anomaly="hole").types == [("bottle", "hole")]
    with pytest.raises(UserError, match="no category 'screw'; it holds: bottle, cable"):
        index.narrow("screw")
    with pytest.raises(UserError, match=r"type 'dent'; usable types: bent, crack$"):
        index.narrow("cable", "dent")


def test_problems_name_the_file(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "bottle", ("crack",))
    image(root / "test" / "crack" / "11.png")
    mask(root / "ground_truth" / "crack" / "12_mask.png")
    index = open_dataset(root)
    assert index.problems == [
        "test/crack/11.png: defect without mask; add ground_truth/crack/11[_mask].*",
        "ground_truth/crack/12_mask.png: mask without image; 'crack' has no image of that name",
    ]
    assert len(index.defects) == 2


def test_groups_name_the_part(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "data" / "bottle", ("crack",))
    (root / "groups.csv").write_text("\ufeffimage,group\ntest/crack/2.png,part1\ntrain/good/000.png,part9\n")
    index = open_dataset(root)
    assert [s.group for s in index.defects] == ["part1", "test/crack/10.png"]
    assert [s.group for s in index.normals] == ["part9", "train/good/001.png"]
    assert index.problems == [
        "groups.csv: 1 defect has no row (first: test/crack/10.png); each counts as a part of its own"
    ]
    (root.parent / "groups.csv").write_text("image,group\nbottle/test/crack/10.png,part2\n")
    assert [s.group for s in open_dataset(root.parent).defects] == ["part1", "part2"]
    (root / "groups.csv").write_text("image,part\n")
    with pytest.raises(UserError, match=r"groups\.csv: no column 'group'"):
        open_dataset(root)
    (root / "groups.csv").write_text("image,group\na.png,1\na.png,2\n")
    with pytest.raises(UserError, match=r"'a\.png' has two groups, 1 and 2"):
        open_dataset(root)


def test_btad_mixes_bmp_and_png(tmp_path: Path) -> None:
    folder = tmp_path / "03"
    image(folder / "train" / "ok" / "0.bmp")
    image(folder / "test" / "ok" / "0.bmp")
    image(folder / "test" / "ko" / "1.bmp")
    image(folder / "test" / "ko" / "2.png")
    mask(folder / "ground_truth" / "ko" / "1.png")
    mask(folder / "ground_truth" / "ko" / "2.bmp")
    for path in (tmp_path, folder, folder / "test" / "ko"):
        index = open_dataset(path)
        assert (index.layout, index.types, index.problems) == ("btad", [("03", "damaged")], [])
        assert [len(index.normals), len(index.test_normals), len(index.defects)] == [1, 1, 2]
        assert [s.mask.name for s in index.defects if s.mask] == ["1.png", "2.bmp"]


def visa(root: Path) -> Path:
    data = root / "candle" / "Data"
    for index in range(3):
        image(data / "Images" / "Normal" / f"{index}.JPG")
        image(data / "Images" / "Anomaly" / f"{index}.JPG")
        mask(data / "Masks" / "Anomaly" / f"{index}.png")
    return root


def test_visa_labels(tmp_path: Path) -> None:
    root = visa(tmp_path / "visa")
    here = "candle/Data/Images"
    rows = [f"{here}/Normal/{i}.JPG,normal," for i in range(3)]
    rows += [f"{here}/Anomaly/0.JPG,chip,candle/Data/Masks/Anomaly/0.png"]
    rows += [f'{here}/Anomaly/1.JPG,"damage, stuck",candle/Data/Masks/Anomaly/1.png']
    rows += [f"{here}/Anomaly/7.JPG,chip,candle/Data/Masks/Anomaly/7.png"]
    (root / "candle" / "image_anno.csv").write_text("\n".join(["image,label,mask", *rows]))
    for path in (root, root / "candle"):
        index = open_dataset(path)
        assert (index.layout, len(index.normals), len(index.test_normals)) == ("visa", 3, 0)
        assert index.types == [("candle", "chip"), ("candle", "damage+stuck")]
        start = "candle/" if path == root else ""
        assert [line.split(":")[0] for line in index.problems] == [
            f"{start}Data/Images/Anomaly/7.JPG",
            f"{start}Data/Images/Anomaly/2.JPG",
            f"{start}Data/Masks/Anomaly/2.png",
        ]


def test_visa_without_labels_and_with_a_split(tmp_path: Path) -> None:
    root = visa(tmp_path / "visa")
    index = open_dataset(root)
    assert (index.types, len(index.defects), index.problems) == ([("candle", "anomaly")], 3, [])
    lines = [f"candle/Data/Images/Normal/{i}.JPG,normal," for i in range(3)]
    (root / "candle" / "image_anno.csv").write_text("\n".join(["image,label,mask", *lines]))
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text(
        "object,split,label,image,mask\ncandle,test,normal,candle/Data/Images/Normal/1.JPG,\n"
        "candle,train,normal,candle/Data/Images/Normal/0.JPG,\n"
    )
    index = open_dataset(root)
    assert [s.image.name for s in index.normals] == ["0.JPG", "2.JPG"]
    assert [s.image.name for s in index.test_normals] == ["1.JPG"]


def test_folder_of_an_engineer(tmp_path: Path) -> None:
    folder = tmp_path / "gears"
    image(folder / "OK" / "a.png")
    image(folder / "defects" / "b.png")
    image(folder / "defects" / "scratch" / "c.jpg")
    mask(folder / "masks" / "b.png")
    mask(folder / "masks" / "scratch" / "c_mask.png")
    for path in (folder, tmp_path):
        index = open_dataset(path)
        assert (index.layout, index.problems, len(index.normals)) == ("folder", [], 1)
        assert index.types == [("gears", "defect"), ("gears", "scratch")]
    assert open_dataset(folder / "defects" / "scratch").types == [("gears", "scratch")]
    (tmp_path / "other" / "normal").mkdir(parents=True)
    image(tmp_path / "other" / "normal" / "z.png")
    assert open_dataset(tmp_path).categories == ["gears", "other"]


def test_a_folder_named_like_a_half_is_no_trap(tmp_path: Path) -> None:
    mvtec(tmp_path / "bad" / "line1" / "bottle")
    assert open_dataset(tmp_path / "bad" / "line1").layout == "mvtec"


def test_images_alone_are_normals(tmp_path: Path) -> None:
    image(tmp_path / "plain" / "a.png")
    index = open_dataset(tmp_path / "plain")
    assert (index.layout, len(index.normals), index.defects) == ("folder", 1, [])
    with pytest.raises(UserError, match=r"no usable defect.*normal images only"):
        require_defects(index)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="the folder is empty"):
        open_dataset(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"notes\.txt: not a folder"):
        open_dataset(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"no known layout.*mvtec: train/good.*visa: Data/Images"):
        open_dataset(tmp_path)
    with pytest.raises(UserError, match="layout='coco' is unknown; use one of auto, mvtec"):
        open_dataset(tmp_path, layout="coco")
    (tmp_path / "c" / "train" / "good").mkdir(parents=True)
    with pytest.raises(UserError, match="no usable image"):
        open_dataset(tmp_path / "c")
    with pytest.raises(UserError, match="no known layout"):
        open_dataset(tmp_path / "c", layout="visa")


def test_check_reports_and_drops(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "bottle", ("crack", "hole"))
    kind = root / "test" / "crack"
    for name in ("3", "4", "5"):
        image(kind / f"{name}.png", 8, 5)
        mask(root / "ground_truth" / "crack" / f"{name}_mask.png", 8, 5, empty=name == "3")
    mask(root / "ground_truth" / "crack" / "4_mask.png", 5, 8)
    (kind / "5.png").write_bytes((kind / "5.png").read_bytes()[:50])
    (root / "train" / "good" / "001.png").write_text("junk")
    for index in (2, 10):
        mask(root / "ground_truth" / "hole" / f"{index}_mask.png", empty=True)
    report = check(open_dataset(root))
    found = dict(line.split(": ", 1) for line in report.problems)
    assert list(found) == [
        "train/good/001.png",
        "ground_truth/crack/3_mask.png",
        "ground_truth/crack/4_mask.png",
        "test/crack/5.png",
        "ground_truth/hole/2_mask.png",
        "ground_truth/hole/10_mask.png",
        "test/hole",
    ]
    assert "empty mask" in found["ground_truth/crack/3_mask.png"]
    assert "8x5, its image 5x8" in found["ground_truth/crack/4_mask.png"]
    assert "none of the 2 samples of 'hole'" in found["test/hole"]
    assert [s.image.name for s in report.usable.defects] == ["2.png", "10.png"]
    assert len(report.usable.excluded) == 5
    assert [len(report.usable.normals), len(report.usable.test_normals)] == [1, 1]
    rows = {row.anomaly: row for row in report.rows}
    assert list(rows) == ["good", "good (test)", "crack", "hole"]
    crack = rows["crack"]
    assert (crack.images, crack.masks_ok, crack.groups) == (5, 2, 5)
    assert (crack.width, crack.height) == ((4, 5), (6, 8))
    with pytest.raises(UserError, match=r"no usable defect with a mask.*2_mask\.png: empty mask"):
        require_defects(check(open_dataset(root, anomaly="hole")).usable)

"""Annotations of other tools become a dataset: what is read, what is asked, what is left out by name."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fast.cli import prepare_data
from fast.data.formats.rle import pack, to_runs
from fast.data.images import read_labels, read_mask
from fast.data.layouts import check, open_dataset
from fast.data.split import make_split
from fast.runtime.command import run_cli

H, W = 40, 60


def picture(path: Path, height: int = H, width: int = W) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(str(path).encode())).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((H, W), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


CRACK, HOLE = box(5, 15, 10, 30), box(20, 30, 35, 50)


def coco(folder: Path, images: list[Any], annotations: list[Any], name: str = "all.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"id": i, "file_name": n, "height": H, "width": W} for i, n in enumerate(images, 1)]
    marked = [{"id": i, "image_id": a, "category_id": c, "segmentation": s, "iscrowd": 0}
              for i, (a, c, s) in enumerate(annotations, 1)]  # fmt: skip
    categories = [{"id": 7, "name": "crack"}, {"id": 9, "name": "hole"}]
    path.write_text(json.dumps({"images": entries, "annotations": marked, "categories": categories}))
    return path


def code(mask: np.ndarray, packed: bool = True) -> dict[str, Any]:
    runs = to_runs(mask, columns=True)
    return {"size": list(mask.shape), "counts": pack(runs) if packed else runs}


SQUARE = [10, 5, 30, 5, 30, 15, 10, 15]  # the corners of CRACK


def imported(source: Path, kind: str, *more: str, out: str = "out") -> Path:
    folder = source.parent / out
    assert run_cli(prepare_data.main, [str(source), "--import", kind, "--out", str(folder), *more]) == 0
    return folder


def refused(capsys: pytest.CaptureFixture[str], source: Path, kind: str, *more: str) -> str:
    folder = source.parent / "refused"
    assert run_cli(prepare_data.main, [str(source), "--import", kind, "--out", str(folder), *more]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not list(source.parent.glob("*refused*")) + list(source.parent.glob(".*refused*"))
    return said


def masks_of(folder: Path) -> dict[str, np.ndarray]:
    truth = folder / "ground_truth"
    return {p.relative_to(truth).as_posix(): read_mask(p) for p in sorted(truth.rglob("*.png"))}


def same(found: dict[str, np.ndarray], **true: np.ndarray) -> None:
    assert found.keys() == {name.replace("__", "/") + "_mask.png" for name in true}
    for name, mask in true.items():
        np.testing.assert_array_equal(found[name.replace("__", "/") + "_mask.png"], mask)


@pytest.fixture
def two_types(tmp_path: Path) -> Path:
    """Image a with both types, b with a crack in plain runs, n without annotation."""
    source = tmp_path / "source"
    for name in "abn":
        picture(source / f"images/{name}.png")
    coco(source, ["a.png", "b.png", "n.png"], [(1, 7, [SQUARE]), (1, 9, code(HOLE)), (2, 7, code(CRACK, False))])
    return source


def test_types_of_one_image_become_a_sample_each(two_types: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = imported(two_types, "coco", "--unmarked", "normal")
    said = capsys.readouterr().out
    assert "crack        2        2" in said
    assert "nothing left out" in said
    same(masks_of(out), crack__a=CRACK, crack__b=CRACK, hole__a=HOLE)
    labels = read_labels(out / "ground_truth/crack/a_mask.png")
    np.testing.assert_array_equal(labels, CRACK + 255 * HOLE)  # the other type: neither
    report = check(open_dataset(out))
    assert report.problems == []
    assert len(report.usable.normals) == 1
    for seed in range(4):  # both samples of a on one side
        split = make_split(report.usable, 0.5, seed)
        assert {"test/crack/a.png", "test/hole/a.png"} <= set(split.train) or (
            {"test/crack/a.png", "test/hole/a.png"} <= set(split.test)
        )
    assert (out / "test/crack/a.png").read_bytes() == (two_types / "images/a.png").read_bytes()


def test_one_mask_of_several_classes(two_types: Path) -> None:
    out = imported(two_types, "coco", "--unmarked", "leave", "--multiclass")
    assert json.loads((out / "classes.json").read_text()) == {"1": "crack", "2": "hole"}
    values = np.asarray(Image.open(out / "ground_truth/crack+hole/a_mask.png"))
    np.testing.assert_array_equal(values, CRACK + 2 * HOLE)
    np.testing.assert_array_equal(read_mask(out / "ground_truth/crack+hole/a_mask.png"), CRACK | HOLE)
    assert "| images/n.png | no annotation |" in (out / "README.md").read_text()


def test_types_are_renamed_left_out_or_ignored(two_types: Path) -> None:
    out = imported(two_types, "coco", "--unmarked", "leave", "--types", "crack=riss,hole=")
    same(masks_of(out), riss__a=CRACK, riss__b=CRACK)
    out = imported(two_types, "coco", "--unmarked", "leave", "--types", "hole=ignore", out="ignored")
    np.testing.assert_array_equal(read_labels(out / "ground_truth/crack/a_mask.png"), CRACK + 255 * HOLE)


def test_what_can_be_meant_in_two_ways_is_asked(two_types: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 image has no annotation (first: images/n.png)" in refused(capsys, two_types, "coco")
    coco(two_types, ["a.png"], [], "more/b.json")
    assert "holds 2 files of COCO annotations" in refused(capsys, two_types, "coco", "--unmarked", "leave")
    more = ("--unmarked", "leave", "--annotations", str(two_types / "all.json"))
    assert "'Riss' and 'riss' differ in case" in refused(capsys, two_types, "coco", *more, "--types",
                                                        "crack=Riss,hole=riss")  # fmt: skip
    for bad in ("good", "a/b", "..", "a:b"):
        assert "label 'crack'" in refused(capsys, two_types, "coco", *more, "--types", f"crack={bad}")
    same(masks_of(imported(two_types, "coco", *more)), crack__a=CRACK, crack__b=CRACK, hole__a=HOLE)
    assert run_cli(prepare_data.main, [str(two_types), "--unmarked", "leave"]) == 2
    assert run_cli(prepare_data.main, [str(two_types), "--import", "coco"]) == 2
    assert "is there already" in capsys.readouterr().err + _again(two_types, more, capsys)


def _again(source: Path, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    run_cli(prepare_data.main, [str(source), "--import", "coco", "--out", str(source.parent / "out"), *more])
    return capsys.readouterr().err


def test_a_dataset_is_not_written_among_what_it_is_made_of(
    two_types: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its pictures would be images without annotation to the next import."""
    (tmp_path / "link").symlink_to(two_types / "images")
    alone = coco(tmp_path / "alone", ["a.png"], [(1, 7, [SQUARE])])
    apart = ("--images", str(two_types / "images"))
    for path, out, more in (
        (two_types, two_types / "out", ()),
        (two_types, two_types, ()),
        (two_types / "all.json", two_types / "images/out", ()),
        (alone, two_types / "images/new/out", apart),
        (alone, tmp_path / "link/out", apart),
    ):
        argv = [str(path), "--import", "coco", "--out", str(out), "--unmarked", "leave", *more]
        before = sorted(tmp_path.rglob("*"))
        assert run_cli(prepare_data.main, argv) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: --out {out} lies in {two_types}")
        assert said.endswith(", whose images are imported; choose a folder outside\n")
        assert sorted(tmp_path.rglob("*")) == before
    argv = [str(alone), "--import", "coco", "--out", str(tmp_path / "alone/out"), "--unmarked", "leave", *apart]
    assert run_cli(prepare_data.main, argv) == 0  # no image is looked for there


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        (["a.png"], [(1, 8, [SQUARE])], "annotation 1 has category_id=8, which no entry of categories has"),
        (["a.png"], [(5, 7, [SQUARE])], "annotation 1 has image_id=5"),
        (["a.png", "images/a.png"], [], "is named in two annotations ('a.png' and 'images/a.png')"),
        (["z.png"], [(1, 7, [SQUARE])], "1 annotated images are not in it (first: z.png)"),
        (["../../secret.png"], [(1, 7, [SQUARE])], "not in it (first: ../../secret.png)"),
    ],
)
def test_files_that_contradict_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: list[str], annotations: list[Any], message: str
) -> None:
    picture(tmp_path / "source/images/a.png")
    picture(tmp_path / "secret.png")
    coco(tmp_path / "source", images, annotations)
    assert message in refused(capsys, tmp_path / "source", "coco", "--unmarked", "leave")


def test_no_name_leads_out_of_the_images(tmp_path: Path) -> None:
    """Not the absolute path of a file that is there, nor one with `..`; a path's end may name a file within."""
    picture(tmp_path / "source/images/a.png")
    outside = picture(tmp_path / "secret.png")
    coco(tmp_path / "source", [str(outside), "../../secret.png", "D:\\data\\images\\a.png"],
         [(1, 7, [SQUARE]), (2, 7, [SQUARE]), (3, 7, [SQUARE])])  # fmt: skip
    out = imported(tmp_path / "source", "coco", "--skip_missing")
    assert sorted(p.name for p in out.rglob("*.png")) == ["a.png", "a_mask.png"]
    page = (out / "README.md").read_text()
    assert page.count("no such image") == 2
    assert "1 image lies elsewhere than the annotation says" in page


def test_what_cannot_be_used_is_left_out_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    for name in "abcdefg":
        picture(source / f"{name}.png")
    picture(source / "c.png", H * 2, W)
    (source / "g.png").write_bytes(b"no image")
    coco(source, [f"{n}.png" for n in "abcdefg"], [
        (1, 7, [SQUARE]), (2, 7, {"size": [H, W], "counts": [5, 6]}), (3, 7, [SQUARE]), (4, 7, [[1, 2, 3]]), (5, 7, []),
        (6, 7, {"size": [W, H], "counts": "00"}), (7, 7, [SQUARE]),
    ])  # fmt: skip
    out = imported(source, "coco")
    same(masks_of(out), crack__a=CRACK)
    said = capsys.readouterr().out
    for name, why in (("b", "its runs hold 11 pixels, the picture 60x40"), ("c", "annotated on 60x40 pixels, the"),
                      ("d", "its outline"), ("e", "has neither outline nor box"), ("f", "was drawn on (height, width)"),
                      ("g", "cannot read")):  # fmt: skip
        assert f"{name}.png" in said
        assert why in said


def rectangle(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def test_shapes_that_reach_beyond_their_image_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    for name in "abcdef":
        picture(source / f"{name}.png")
    coco(source, [f"{n}.png" for n in "abcdef"], [
        (1, 7, [rectangle(-1.5, 5, 30, 15)]),  # rounding
        (2, 7, [rectangle(-50, 5, 300, 15)]),
        (3, 7, [SQUARE]), (3, 9, [rectangle(20, 30, 40, 42.5)]),
        (4, 7, [SQUARE]), (4, 9, [rectangle(W, 5, W + 9, 15)]),
        (5, 7, [SQUARE]), (5, 9, [rectangle(10, -9, 20, -1)]),
        (6, 7, [SQUARE, rectangle(-20, 5, -10, 15)]),  # of one annotation a part lies outside
    ])  # fmt: skip
    out = imported(source, "coco")
    crack = {"a": box(5, 15, 0, 30), "b": box(5, 15, 0, W), "c": CRACK, "f": CRACK}
    same(masks_of(out), **{f"crack__{n}": mask for n, mask in crack.items()}, hole__c=box(30, H, 20, 40))
    said = capsys.readouterr().out
    assert (
        "note: 3 shapes reach beyond the border of their image and are cut there (annotation 2 of b.png the first); "
        "was the image of another size when it was annotated?\n"
    ) in said
    for line in ("d.png     annotation 6 lies outside its image", "e.png     annotation 8 lies outside its image"):
        assert line in said
    out = imported(source, "coco", "--types", "hole=", out="cracks")
    assert sorted(masks_of(out)) == [f"crack/{n}_mask.png" for n in "abcdef"]
    assert "2 shapes reach beyond" in capsys.readouterr().out


def test_polygons_of_other_tools_are_cut_with_a_word_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "cvat/a.png")
    (tmp_path / "cvat/annotations.xml").write_text(
        f'<annotations><image id="0" name="a.png" width="{W}" height="{H}"><polygon label="crack" '
        'points="50,5;90,5;90,15;50,15"/></image></annotations>'
    )
    same(masks_of(imported(tmp_path / "cvat", "cvat", out="1")), crack__a=box(5, 15, 50, W))
    assert "1 shape reaches beyond the border of its image and is cut there (polygon 1 of a.png);" in (
        capsys.readouterr().out
    )
    picture(tmp_path / "studio/a.png")
    value = {"points": [[-50, 25], [50, 25], [50, 50], [-50, 50]], "polygonlabels": ["crack"]}
    region = {"type": "polygonlabels", "value": value, "original_width": W, "original_height": H}
    task = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 1, "result": [region]}]}
    (tmp_path / "studio/tasks.json").write_text(json.dumps([task]))
    same(masks_of(imported(tmp_path / "studio", "labelstudio", out="2")), crack__a=box(10, 20, 0, 30))
    assert "(region 1 of a.png); was the image" in capsys.readouterr().out


def test_boxes_count_only_if_told(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in "ab":
        picture(source / f"{name}.png")
    path = coco(source, ["a.png", "b.png"], [(1, 7, [SQUARE]), (2, 7, [])])
    content = json.loads(path.read_text())
    content["annotations"][1]["bbox"] = [10, 5, 20, 10]
    path.write_text(json.dumps(content))
    same(masks_of(imported(source, "coco")), crack__a=CRACK)
    same(masks_of(imported(source, "coco", "--boxes", out="boxes")), crack__a=CRACK, crack__b=CRACK)


def test_yolo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    for name in "abcd":
        picture(source / f"images/train/{name}.png")
    (source / "labels/train").mkdir(parents=True)
    corners = np.array([[10, 5], [29, 5], [29, 14], [10, 14]]) / (W, H)  # YOLO's readers fill with the edges
    line = " ".join(f"{v:.5f}" for v in corners.ravel())
    (source / "labels/train/a.txt").write_text(f"1 {line}\n")
    (source / "labels/train/b.txt").write_text("")
    (source / "labels/train/c.txt").write_text(f"1 {line}\n1 0.5 0.5 0.2 0.2\n")
    (source / "labels/train/d.txt").write_text("1 0.1 0.1 7 0.1 0.2 0.2\n")
    assert "--types 1=NAME" in refused(capsys, source, "yolo")
    (source / "data.yaml").write_text("path: /somewhere/else\ntrain: images/train\nnames: [hole, crack]\n")
    out = imported(source, "yolo")
    same(masks_of(out), crack__a=CRACK)
    assert (out / "train/good/b.png").is_file()
    page = (out / "README.md").read_text()
    assert "line 2 is a box" in page
    assert "outside 0..1" in page


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>
<image id="0" name="a.png" width="60" height="40">
<polygon label="crack" points="10.0,5.0;30.0,5.0;30.0,15.0;10.0,15.0" z_order="0"/>
<mask label="hole" rle="0, 150" left="35" top="20" width="15" height="10" z_order="0"/><tag label="seen"/></image>
<image id="1" name="b.png" width="60" height="40"><polyline label="crack" points="5,8;50,8"/></image>
<image id="2" name="c.png" width="60" height="40"><ellipse label="hole" cx="30" cy="20" rx="8" ry="5"/></image>
<image id="3" name="d.png" width="60" height="40"><mask label="hole" rle="0, 3" left="59" top="0" width="3" height="1"/>
</image></annotations>"""


def test_cvat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    for name in "abcd":
        picture(source / f"images/{name}.png")
    (source / "annotations.xml").write_text(CVAT)
    out = imported(source, "cvat")
    found = masks_of(out)
    ellipse = found.pop("hole/c_mask.png")
    assert abs(int(ellipse.sum()) - np.pi * 8 * 5) < 4
    np.testing.assert_array_equal(np.argwhere(ellipse).mean(axis=0), [19.5, 29.5])
    same(found, crack__a=CRACK, hole__a=HOLE)
    page = (out / "README.md").read_text()
    assert "has no area; --line_width PIXELS" in page
    assert "lies outside its image" in page
    out = imported(source, "cvat", "--line_width", "3", out="lines")
    np.testing.assert_array_equal(np.flatnonzero(masks_of(out)["crack/b_mask.png"][:, 20]), [7, 8, 9])
    (source / "annotations.xml").write_text("<!DOCTYPE a [<!ENTITY b 'c'>]>" + CVAT[38:])
    assert "defines entities" in refused(capsys, source, "cvat")
    (source / "annotations.xml").write_text("<annotations><track/></annotations>")
    assert "is of a video" in refused(capsys, source, "cvat")


def test_label_studio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    answers = json.loads((Path(__file__).parents[2] / "files/annotation_codes.json").read_text())
    mask = np.array(answers["mask"], np.uint8)
    height, width = mask.shape
    for name in "abc":
        picture(source / f"{name}.png", height, width)
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    brush = {
        **size,
        "type": "brushlabels",
        "value": {"format": "rle", "rle": answers["brush"], "brushlabels": ["crack"]},
    }
    corners = [[100 * x / width, 100 * y / height] for x, y in ((2, 1), (8, 1), (8, 5), (2, 5))]
    polygon = {**size, "type": "polygonlabels", "value": {"points": corners, "polygonlabels": ["hole"]}}

    def task(number: int, image: str, *annotations: list[Any]) -> dict[str, Any]:
        given = [{"id": i, "result": result} for i, result in enumerate(annotations)]
        return {"id": number, "data": {"image": image}, "annotations": given}

    def write(*tasks: dict[str, Any]) -> None:
        (source / "project.json").write_text(json.dumps(tasks))

    a = task(1, "/data/upload/3/0f1e2d3c-a.png", [brush])
    write(a, task(2, "/data/local-files/?d=parts/b.png", [polygon]), task(3, "s3://lot/c.png", []))
    out = imported(source, "labelstudio")
    expected = np.zeros_like(mask)
    expected[1:5, 2:8] = 1
    same(masks_of(out), crack__a=mask, hole__b=expected)
    assert (out / "train/good/c.png").is_file()
    write(a, task(2, "b.png", [polygon], [brush]), task(3, "c.png", []))
    assert "task 2 (b.png) has two annotations, 0 and 1" in refused(capsys, source, "labelstudio")


@pytest.mark.parametrize("indexed", [True, False])
def test_voc(tmp_path: Path, capsys: pytest.CaptureFixture[str], indexed: bool) -> None:
    source = tmp_path / "source"
    for name in "ab":
        picture(source / f"JPEGImages/{name}.jpg")
    values = CRACK + 2 * HOLE
    values[0] = 3
    colours = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0], [224, 224, 192]], np.uint8)
    (source / "SegmentationClass").mkdir()
    for name, labels in (("a", values), ("b", np.full_like(values, 3) * (CRACK > 0))):
        image = Image.fromarray(labels, "P") if indexed else Image.fromarray(colours[labels])
        if indexed:
            image.putpalette(colours.ravel().tolist())
        image.save(source / f"SegmentationClass/{name}.png")
    assert "has no labelmap.txt" in refused(capsys, source, "voc")
    (source / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncrack:200,0,0::\n")
    assert "nothing in it can be used" not in refused(capsys, source, "voc", "--images", str(tmp_path / "none"))
    green = "a.png has the value #00c800, which nothing names; say with --types '#00c800=NAME' if it is a defect, "
    imported(source, "voc", out="unnamed")
    assert f"{green}'#00c800=ignore' if neither, '#00c800=' if background" in capsys.readouterr().out
    for number, (what, value) in enumerate((("ignore", 255), ("", 0))):
        out = imported(source, "voc", "--types", f"#00c800={what}", out=f"out{number}")
        labels = read_labels(out / "ground_truth/crack/a_mask.png")
        np.testing.assert_array_equal(labels[1:], (CRACK + value * HOLE)[1:])
    with (source / "labelmap.txt").open("a") as file:
        file.write("hole:0,200,0::\n")
    out = imported(source, "voc")
    same(masks_of(out), crack__a=CRACK, hole__a=HOLE)
    assert (read_labels(out / "ground_truth/hole/a_mask.png")[0] == 255).all()


def test_label_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    (source / "masks").mkdir(parents=True)
    for name, labels in (("a", CRACK + 5 * HOLE), ("b", 0 * CRACK), ("c", 4 * HOLE)):
        picture(source / f"images/{name}.jpg")
        Image.fromarray(labels).save(source / f"masks/{name}.png")
    assert "--types 1=crack,2=hole" in refused(capsys, source, "labelmap")
    out = imported(source, "labelmap", "--types", "1=crack,5=hole")
    same(masks_of(out), crack__a=CRACK, hole__a=HOLE)
    assert (out / "train/good/b.jpg").is_file()
    told = (
        "c.png has the value 4, which nothing names; say with --types 4=NAME if it is a defect, 4=ignore if neither, "
    )
    assert f"{told}4= if background" in (out / "README.md").read_text()
    for number, (what, value) in enumerate((("ignore", 255), ("", 0))):
        Image.fromarray(CRACK + 4 * HOLE).save(source / "masks/c.png")
        out = imported(source, "labelmap", "--types", f"1=crack,5=hole,4={what}", out=f"out{number}")
        np.testing.assert_array_equal(read_labels(out / "ground_truth/crack/c_mask.png"), CRACK + value * HOLE)


def test_labelme_by_types(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shapes = [{"label": kind, "points": points, "shape_type": "rectangle", "group_id": None, "flags": {}}
              for kind, points in (("crack", [[10, 5], [29, 14]]), ("hole", [[35, 20], [49, 29]]))]  # fmt: skip
    for name, drawn in (("a", shapes), ("b", [])):
        picture(source / f"images/{name}.png")
        content = {"shapes": drawn, "imagePath": f"..\\images\\{name}.png", "imageHeight": H, "imageWidth": W}
        (source / "json").mkdir(exist_ok=True)
        (source / f"json/{name}.json").write_text(json.dumps(content))
    out = imported(source, "labelme")
    same(masks_of(out), crack__a=CRACK, hole__a=HOLE)
    assert (out / "train/good/b.png").is_file()


def test_names_that_differ_in_their_suffix_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("a.png", "a.bmp"):
        picture(source / name)
    coco(source, ["a.png", "a.bmp"], [(1, 7, [SQUARE]), (2, 7, code(HOLE))])
    out = imported(source, "coco")
    assert check(open_dataset(out)).problems == []
    assert len(masks_of(out)) == 2


def test_physical_parts_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in "abc":
        picture(source / f"images/{name}.png")
    (source / "images/groups.csv").write_text("image,group\na.png,part 1\nb.png,part 1\nc.png,part 2\n")
    coco(source, ["a.png", "b.png", "c.png"], [(1, 7, [SQUARE]), (2, 7, [SQUARE]), (3, 9, [SQUARE])])
    out = imported(source, "coco", "--images", str(source / "images"))
    index = open_dataset(out)
    assert index.problems == []
    assert {s.image.stem: s.group for s in index.defects} == {"a": "part 1", "b": "part 1", "c": "part 2"}

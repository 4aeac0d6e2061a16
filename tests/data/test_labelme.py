import base64
import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fast.data.images import read_mask, write_image
from fast.data.layouts import check, open_dataset
from fast.data.samples import Pictures
from fast.data.split import make_split
from fast.data.transforms import Augment
from fast.segmentation.data import from_samples
from ldm.errors import UserError
from support.images import plain

HEIGHT, WIDTH = 60, 80


def picture(path: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    write_image(path, plain(path, height, width))
    return path


def shape(points: list[list[float]], label: str = "scratch", kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def annotate(image: Path, *shapes: dict[str, Any], name: str | None = None, **more: Any) -> Path:
    content = {
        "version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": name or image.name, "imageData": None,
        "imageHeight": HEIGHT, "imageWidth": WIDTH, **more,
    }  # fmt: skip
    path = image.with_suffix(".json")
    path.write_text(json.dumps(content))
    return path


def drawn(tmp_path: Path, *shapes: dict[str, Any], **more: Any) -> np.ndarray:
    return read_mask(annotate(picture(tmp_path / "a.png"), *shapes, **more))


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def filled(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : bottom + 1, left : right + 1] = 1
    return mask


def test_polygon_and_rectangle_are_filled_edges_included(tmp_path: Path) -> None:
    np.testing.assert_array_equal(drawn(tmp_path, shape(box(10, 20, 30, 40))), filled(10, 20, 30, 40))
    for corners in ([[10, 20], [30, 40]], [[30, 40], [10, 20]], [[10, 40], [30, 20]], box(10, 20, 30, 40)):
        np.testing.assert_array_equal(drawn(tmp_path, shape(corners, kind="rectangle")), filled(10, 20, 30, 40))
    old = {k: v for k, v in shape(box(10, 20, 30, 40)).items() if k in ("label", "points")}  # files of LabelMe 3
    np.testing.assert_array_equal(drawn(tmp_path, old), filled(10, 20, 30, 40))


def test_a_polygon_of_any_form_covers_the_pixels_whose_centres_it_holds(tmp_path: Path) -> None:
    triangle = np.array([[10.0, 5.0], [70.0, 20.0], [25.0, 55.0]])
    mask = drawn(tmp_path, shape(triangle.tolist()))
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    sides = [
        (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
        for a, b in zip(triangle, np.roll(triangle, -1, 0), strict=True)
    ]
    least = np.min(sides, axis=0)
    assert mask[least > 60].all()  # a side is at most 62 long: everything a pixel inside
    assert not mask[least < -62].any()
    assert abs(int(mask.sum()) - 1462) < 90  # 1462.5 by the shoelace formula, give or take half its outline


def test_circle_of_centre_and_edge(tmp_path: Path) -> None:
    mask = drawn(tmp_path, shape([[40, 30], [52, 30]], kind="circle"))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    far = np.hypot(x - 40, y - 30)
    assert mask[far <= 11].all()
    assert not mask[far > 13].any()


def test_the_thinnest_polygon_keeps_pixels(tmp_path: Path) -> None:
    assert drawn(tmp_path, shape([[10, 10], [30, 10.2], [30, 10.3]])).sum() >= 20
    assert drawn(tmp_path, shape([[10.2, 10.2], [10.4, 10.2], [10.3, 10.4]])).sum() >= 1


def test_several_shapes_add_up_and_holes_are_cut(tmp_path: Path) -> None:
    two = drawn(tmp_path, shape(box(2, 2, 10, 10)), shape(box(40, 30, 60, 50), "crack"))
    np.testing.assert_array_equal(two, filled(2, 2, 10, 10) | filled(40, 30, 60, 50))
    outer, inner = filled(10, 10, 50, 50), filled(20, 20, 30, 30)
    for cut in (
        [shape(box(10, 10, 50, 50)), shape(box(20, 20, 30, 30), "_background_")],
        [shape(box(10, 10, 50, 50)), shape(box(20, 20, 30, 30), "__ignore__")],
        [shape(box(10, 10, 50, 50), group_id=1), shape(box(20, 20, 30, 30), group_id=1)],
        [shape(box(20, 20, 30, 30), group_id=1), shape(box(10, 10, 50, 50), group_id=1)],  # in whatever order
    ):
        np.testing.assert_array_equal(drawn(tmp_path, *cut), outer & ~inner & 1)
    island = [shape(box(10, 10, 50, 50), group_id=1), shape(box(20, 20, 30, 30), group_id=1)]
    island.append(shape(box(23, 23, 26, 26), group_id=1))
    np.testing.assert_array_equal(drawn(tmp_path, *island), (outer & ~inner & 1) | filled(23, 23, 26, 26))
    beside = drawn(tmp_path, shape(box(2, 2, 10, 10), group_id=1), shape(box(40, 30, 60, 50), group_id=1))
    np.testing.assert_array_equal(beside, filled(2, 2, 10, 10) | filled(40, 30, 60, 50))  # one object in two parts
    keyhole = [[10, 10], [50, 10], [50, 50], [10, 50], [10, 10], [20, 20], [20, 30], [30, 30], [30, 20], [20, 20]]
    mask = drawn(tmp_path, shape(keyhole))
    assert not mask[21:30, 21:30].any()
    assert mask[outer.astype(bool) & ~filled(19, 19, 31, 31).astype(bool)].all()


def png(mask: np.ndarray) -> str:
    buffer = BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_mask_shapes_are_pasted_at_their_box(tmp_path: Path) -> None:
    crop = (np.random.default_rng(0).random((11, 21)) > 0.5).astype(np.uint8)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[20:31, 10:31] = crop
    for values in (crop, crop * 255, crop.astype(bool)):
        one = shape([[10, 20], [30, 30]], kind="mask", mask=png(values))
        np.testing.assert_array_equal(drawn(tmp_path, one), expected)
    over = drawn(tmp_path, shape([[-5, -3], [15, 7]], kind="mask", mask=png(crop)))  # partly outside
    expected[...] = 0
    expected[:8, :16] = crop[3:, 5:]
    np.testing.assert_array_equal(over, expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (shape([[1, 1], [9, 9]], kind="linestrip"), "shape 1 'scratch' is a linestrip, which has no area"),
        (shape([[1, 1]], kind="point"), "is a point, which has no area"),
        (shape([[1, 1], [9, 9]]), "is a polygon of 2 points; it needs 3"),
        (shape([[1, 1]], kind="circle"), "is a circle of 1 points; it needs 2"),
        (shape(box(1, 1, 9, 9), kind="cuboid"), "is of kind 'cuboid'"),
        (shape([[1, 1], [9, 9]], kind="mask", mask="no png"), "its mask is no PNG"),
        (shape([[1, 1], [9, 9]], kind="mask"), "its mask is no PNG"),
        (shape([[1, 1], [19, 9]], kind="mask", mask=png(np.ones((4, 4), np.uint8))), "4x4 pixels, its box 19x9"),
        (shape([[1, float("nan")], [9, 9], [3, 4]]), "lies beyond every picture"),
        (shape([[1e9, 1], [9, 9], [3, 4]]), "lies beyond every picture"),
        ({"label": "a", "shape_type": "polygon"}, "points are no list"),
        (shape(box(1, 1, 9, 9), label=" "), "shape 1 has no label"),
        ("text", "shape 1 has no label"),
    ],
)
def test_bad_shapes_are_named(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"a\.json: .*{message}"):
        drawn(tmp_path, given)


def test_lines_and_points_get_a_width_where_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "reading.json").write_text('{"line_width": 5}')
    np.testing.assert_array_equal(
        drawn(tmp_path, shape([[10, 20], [30, 20]], kind="line"))[:, 12:28], filled(0, 18, 79, 22)[:, 12:28]
    )
    bent = drawn(tmp_path, shape([[10, 20], [30, 20], [30, 50]], kind="linestrip"))
    assert bent[20, 12:30].all()
    assert bent[20:49, 30].all()
    spot = drawn(tmp_path, shape([[40, 30]], kind="point"))
    assert 19 <= spot.sum() <= 32  # a disc of 5 pixels, about 20, and its edge
    assert spot[30, 40]


def test_sizes_must_agree(tmp_path: Path) -> None:
    square = shape(box(1, 1, 9, 9))
    with pytest.raises(UserError, match=r"a\.json: annotated on 80x61 pixels, its image has 80x60"):
        drawn(tmp_path, square, imageHeight=HEIGHT + 1)
    assert drawn(tmp_path, square, imageHeight=None, imageWidth=None).shape == (HEIGHT, WIDTH)
    with pytest.raises(UserError, match="imageHeight=-1"):
        drawn(tmp_path, square, imageHeight=-1)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown standing
    turned = tmp_path / "t.jpg"
    Image.new("RGB", (HEIGHT, WIDTH)).save(turned, exif=exif)  # upright: 80 wide, 60 high
    assert read_mask(annotate(turned, square)).sum() == 81
    annotate(turned, square, imageHeight=WIDTH, imageWidth=HEIGHT)
    with pytest.raises(UserError, match=r"annotated on 60x80 pixels, its image has 80x60 \(turned by EXIF\?\)"):
        read_mask(turned.with_suffix(".json"))


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = annotate(picture(tmp_path / "a.png"), shape(box(1, 1, 9, 9)))
    for text in (b"{", b"[" * 100_000, "{'ü'}".encode("latin-1")):
        path.write_bytes(text)
        with pytest.raises(UserError, match=r"a\.json: cannot read the annotation"):
            read_mask(path)
    path.write_text("{}")
    with pytest.raises(UserError, match=r"a\.json: no LabelMe annotation"):
        read_mask(path)


def part(root: Path) -> Path:
    """normal/ and defects/ of a part, one defect of two types."""
    for i in range(3):
        picture(root / "normal" / f"n{i}.png")
    for i in range(4):
        annotate(picture(root / "defects" / "pitting" / f"p{i}.jpg"), shape(box(1, 1, 9, 9 + i), "Pitting"))
    annotate(picture(root / "defects" / "x.png"), shape(box(1, 1, 9, 9), "crack"), shape(box(20, 20, 30, 30), "dent"))
    return root


def test_a_dataset_is_read_as_it_is(tmp_path: Path) -> None:
    root = part(tmp_path / "screw")
    annotate(root / "normal" / "n0.png")  # looked at, and nothing found
    index = open_dataset(root)
    assert (index.layout, index.problems, index.notes) == ("labelme", [], [])
    assert [s.image.name for s in index.normals] == ["n0.png", "n1.png", "n2.png"]
    assert index.types == [("screw", "crack+dent"), ("screw", "pitting")]
    report = check(index)
    assert report.problems == []
    assert {row.anomaly: row.masks_ok for row in report.rows} == {"good": 0, "crack+dent": 1, "pitting": 4}
    both = next(s for s in report.usable.defects if s.anomaly == "crack+dent")
    expected = filled(1, 1, 9, 9) | filled(20, 20, 30, 30)
    np.testing.assert_array_equal(from_samples([both])[0].read()[1], expected)
    np.testing.assert_array_equal(Pictures([both], [], 60, Augment(), native=True).images.plain(0)[1], expected)
    assert open_dataset(tmp_path).categories == ["screw"]
    assert open_dataset(root, layout="labelme").types == index.types
    inside = open_dataset(root / "defects" / "pitting")
    assert (inside.root, inside.types, len(inside.normals)) == (root, [("screw", "pitting")], 3)
    split = make_split(report.usable)
    assert sorted([*split.train, *split.test])[0] == "defects/pitting/p0.jpg"


def test_a_part_of_a_dataset_knows_all_of_it(tmp_path: Path) -> None:
    root = part(tmp_path)
    other = annotate(picture(root / "defects/dent/d0.png", 70), shape(box(1, 1, 9, 9), "dent"), imageHeight=70)
    shutil.copy(root / "defects/dent/d0.png", root / "normal/copy.png")
    inside = open_dataset(root / "defects" / "pitting")
    assert [s.image.name for s in inside.whole.defects] == [s.image.name for s in open_dataset(root).defects]
    assert len(inside.defects) < len(inside.whole.defects)
    assert inside.whole.whole is inside.whole
    assert len(inside.normals) == 3  # the copy shows a defect of another folder
    other.write_text(json.dumps({**json.loads(other.read_text()), "shapes": []}))
    for normal in (root / "normal").iterdir():
        normal.unlink()
    with pytest.raises(UserError, match="no usable image in it"):
        open_dataset(root / "defects" / "dent")


def test_one_folder_of_everything(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / "line1" / f"{name}.png")
    annotate(tmp_path / "line1" / "b.png", shape(box(1, 1, 9, 9)))
    annotate(tmp_path / "line1" / "c.png")
    (tmp_path / "line1" / "notes.json").write_text("{}")
    index = open_dataset(tmp_path / "line1")
    assert ([s.image.name for s in index.normals], index.types) == (["a.png", "c.png"], [("line1", "scratch")])
    assert index.notes == ["not used: notes.json"]


def test_annotations_in_a_folder_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels").mkdir()
    path = annotate(tmp_path / "images" / "b.png", shape(box(1, 1, 9, 9)), name="..\\images\\b.png")
    path.rename(tmp_path / "labels" / "b.json")
    index = open_dataset(tmp_path)
    assert [s.image.name for s in index.normals] == ["a.png"]
    assert [s.image.name for s in index.defects] == ["b.png"]
    assert check(index).problems == []


def test_contradictions_are_named_and_left_out(tmp_path: Path) -> None:
    root = part(tmp_path / "screw")
    annotate(root / "normal" / "n1.png", shape(box(1, 1, 9, 9)))
    picture(root / "defects" / "bare.png")
    annotate(root / "defects" / "pitting" / "p0.jpg", shape(box(1, 1, 9, 9)), name="p1.jpg")
    annotate(root / "defects" / "pitting" / "p2.jpg", shape(box(1, 1, 9, 9)), name="old.jpg")
    (root / "defects" / "lost.json").write_text((root / "defects" / "x.json").read_text().replace("x.png", "gone.png"))
    (root / "defects" / "pitting" / "p3.json").write_text("{")
    index = open_dataset(root)
    assert index.problems == [
        "defects/lost.json: annotation without image; 'gone.png' is not there",
        "defects/pitting/p0.json: imagePath names 'p1.jpg', beside it lies p0.jpg; correct one",
        "defects/pitting/p2.json: imagePath names 'old.jpg', beside it lies p2.jpg; correct one",
        "defects/pitting/p3.json: cannot read the annotation (Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)); save it as UTF-8 JSON",
        "defects/bare.png: defect without shapes; draw them in defects/bare.json or move the image to the normals",
        "normal/n1.json: has shapes, but lies among the normals; move one or the other",
    ]
    assert [s.image.name for s in index.defects] == ["x.png", "p1.jpg"]
    assert [s.image.name for s in index.normals] == ["n0.png", "n2.png"]


def test_what_was_exported_from_annotations_is_no_image(tmp_path: Path) -> None:
    root = part(tmp_path / "screw")
    before = open_dataset(root)
    for name in (
        "defects/x_json/img.png",
        "defects/x_json/label.png",
        "JPEGImages/x.jpg",
        "SegmentationClassPNG/x.png",
    ):
        picture(root / name)
    index = open_dataset(root)
    assert (index.normals, index.defects, index.problems) == (before.normals, before.defects, [])
    assert len(index.notes) == 3
    picture(root / "masks" / "x.png")
    with pytest.raises(UserError, match="has LabelMe files and masks/; say which are the masks"):
        open_dataset(root)
    assert open_dataset(root, layout="labelme").normals == before.normals
    masks = {s.image.name: s.mask.name for s in open_dataset(root, layout="folder").defects if s.mask}
    assert (masks["x.png"], masks["p0.jpg"]) == ("x.png", "p0.json")


def test_labels_that_name_the_normals(tmp_path: Path) -> None:
    annotate(picture(tmp_path / "a.jpg"), shape(box(1, 1, 9, 9), "good"))
    annotate(picture(tmp_path / "b.jpg"), shape(box(1, 1, 9, 9)))
    index = open_dataset(tmp_path)
    assert index.problems == ["a.json: label 'good' names the normals, yet shapes bear it; rename it"]
    assert [s.image.name for s in index.defects] == ["b.jpg"]


def test_shapes_inside_others_are_counted(tmp_path: Path) -> None:
    annotate(picture(tmp_path / "a.jpg"), shape(box(1, 1, 40, 40)), shape(box(10, 10, 20, 20)))
    notes = check(open_dataset(tmp_path)).usable.notes
    assert notes[-1].startswith("LabelMe: 1 shape lies inside another of its label and changes nothing")


def test_shapes_that_reach_beyond_their_image_are_counted(tmp_path: Path) -> None:
    annotate(picture(tmp_path / "a.jpg"), shape(box(-2, 1, 40, HEIGHT + 2)))  # rounding
    assert "beyond" not in "".join(check(open_dataset(tmp_path)).usable.notes)
    annotate(picture(tmp_path / "b.jpg"), shape(box(60, 1, WIDTH + 30, 20)), shape(box(1, -3, 9, 9)))
    report = check(open_dataset(tmp_path))
    assert [line for line in report.usable.notes if "reach beyond" in line] == [
        "LabelMe: 2 shapes reach beyond their image and are cut at its border; were they drawn on the image at another "
        "size?"
    ]
    assert len(report.usable.defects) == 2


def test_a_drawn_copy_beside_the_image_is_no_normal(tmp_path: Path) -> None:
    annotate(picture(tmp_path / "a.jpg"), shape(box(1, 1, 9, 9)))
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.jpg")
    index = open_dataset(tmp_path)
    assert [s.image.name for s in index.normals] == ["b.jpg"]
    assert index.problems == ["a.png: has the name of a.jpg, which is annotated; remove or rename it"]

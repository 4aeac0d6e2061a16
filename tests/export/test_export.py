"""Pairs in the formats of other tools; their own programs are asked by tools/check_formats.py (docs/formats.md)."""

import json
import re
import shutil
import tarfile
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from fast.cli import export as command
from fast.cli import prepare_data
from fast.data.formats.rle import from_runs, unpack
from fast.data.images import read_mask, write_image, write_mask
from fast.data.layouts import check, open_dataset
from fast.export.formats import FORMATS
from fast.runtime.command import run_cli

H, W = 30, 50


def hard_masks() -> list[np.ndarray]:
    """A ring with an island and a speck that touches a corner; two squares apart by a column; a hairline; dust."""
    masks = [np.zeros((H, W), np.uint8) for _ in range(4)]
    cv2.circle(masks[0], (20, 14), 11, 1, -1)
    cv2.circle(masks[0], (20, 14), 7, 0, -1)
    masks[0][13:16, 19:22] = 1
    masks[0][16, 22] = 1
    masks[1][5:12, 3:10], masks[1][5:12, 11:20], masks[1][12:15, 20:24] = 1, 1, 1
    cv2.line(masks[2], (2, 3), (47, 26), 1)
    masks[3][:] = np.random.default_rng(0).random((H, W)) < 0.3
    return masks


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run as generate_with_mask.py leaves it."""
    folder, lines = tmp_path / "run", []
    normal = tmp_path / "normals/0.png"
    write_image(normal, np.full((H, W, 3), 90, np.uint8))
    for i, mask in enumerate(hard_masks()):
        noise = np.random.default_rng(i).integers(0, 255, (H, W, 3), np.uint8)
        write_image(folder / f"image/{i:06d}.png", noise)
        write_mask(folder / f"mask/{i:06d}.png", mask)
        row = {"index": i, "image": f"image/{i:06d}.png", "mask": f"mask/{i:06d}.png", "normal_source": str(normal),
               "type": f"part/{'crack' if i % 2 else 'hole'}", "pair_seed": i + 100}  # fmt: skip
        lines.append(json.dumps(row) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("place", ["normal/out", "out", "defects/out"])
@pytest.mark.parametrize("kind", FORMATS)
def test_no_export_inside_a_dataset_is_taken_for_pictures_of_it(
    run: Path, tmp_path: Path, kind: str, place: str
) -> None:
    data = tmp_path / "data"
    for name in ("normal/0.png", "normal/1.png", "defects/dent/2.png"):
        write_image(data / name, np.full((H, W, 3), len(name), np.uint8))
    write_mask(data / "masks/dent/2.png", hard_masks()[0])
    before = open_dataset(data)
    shutil.move(exported(run, kind), data / place)
    after = open_dataset(data)
    assert (after.layout, after.normals, after.defects) == ("folder", before.normals, before.defects)
    assert after.problems == []
    assert [note.endswith(f" of pairs that were made in {place}") for note in after.notes] == [True]


def exported(run: Path, kind: str, *more: str) -> Path:
    out = run.parent / f"{kind}{''.join(more)}"
    assert run_cli(command.main, [str(run), "--format", kind, "--out", str(out), *more]) == 0
    rows = [json.loads(line) for line in (out / "provenance.jsonl").read_text().splitlines()]
    assert [row["pair_seed"] for row in rows] == [100, 101, 102, 103]
    if kind != "webdataset":
        for i, row in enumerate(rows):  # images are copied as they are
            assert (out / row["file"]).read_bytes() == (run / f"image/{i:06d}.png").read_bytes()
    return out


def parts_of(mask: np.ndarray) -> int:
    return cv2.connectedComponents(mask, connectivity=8)[0] - 1


def test_mvtec_is_read_again(run: Path) -> None:
    out = exported(run, "mvtec")
    report = check(open_dataset(out))
    assert report.problems == []
    assert not [note for note in report.usable.notes if note.startswith("not used")]
    assert len(report.usable.normals) == 1
    assert {(s.category, s.anomaly, s.image.stem) for s in report.usable.defects} == {
        ("part", "hole", "000000"), ("part", "crack", "000001"), ("part", "hole", "000002"), ("part", "crack", "000003")
    }  # fmt: skip
    for sample, mask in zip(sorted(report.usable.defects, key=lambda s: s.image.stem), hard_masks(), strict=True):
        assert sample.mask is not None
        np.testing.assert_array_equal(read_mask(sample.mask), mask)


def test_anomalib(run: Path) -> None:
    out = exported(run, "anomalib")
    names = sorted(p.name for p in (out / "abnormal").iterdir())
    assert names == ["crack_000001.png", "crack_000003.png", "hole_000000.png", "hole_000002.png"]
    assert names == sorted(p.name for p in (out / "mask").iterdir())
    assert [p.name for p in (out / "normal").iterdir()] == ["normal_000001.png"]
    given = yaml.safe_load((out / "anomalib.yaml").read_text())
    assert given["init_args"]["mask_dir"] == "mask"


@pytest.mark.parametrize("more", [[], ["--polygons"]])
def test_coco_holds_every_instance_with_its_holes(run: Path, more: list[str]) -> None:
    content = json.loads((exported(run, "coco", *more) / "annotations/instances_train.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["crack", "hole"]
    for image, mask in zip(content["images"], hard_masks(), strict=True):
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        assert len(own) == parts_of(mask)
        assert {a["category_id"] for a in own} == {1 if image["id"] % 2 == 0 else 2}
        assert image["fast"]["pair_seed"] == 99 + image["id"]
        whole = np.zeros_like(mask)
        for a in own:
            if more:  # polygons along the edges of pixels: drawn four times as large, every fourth centre
                part = np.zeros((H * 4, W * 4), np.uint8)
                for ring in a["segmentation"]:
                    points = np.reshape(ring, (-1, 2)) * 4 - 0.5
                    cv2.fillPoly(part, [np.round(points * 256).astype(np.int32)], 1, shift=8)
                part = part[2::4, 2::4]
            else:
                part = from_runs(unpack(a["segmentation"]["counts"]), (H, W), columns=True)
            x, y, width, height = a["bbox"]
            assert a["area"] == part.sum() == part[y : y + height, x : x + width].sum()
            assert part[y].any()
            assert part[:, x + width - 1].any()
            whole += part
        np.testing.assert_array_equal(whole, mask)


def test_yolo_holds_every_instance_with_its_holes(run: Path) -> None:
    """Read as supervision does (to the nearest pixel) and as ultralytics does (down)."""
    out = exported(run, "yolo")
    assert yaml.safe_load((out / "data.yaml").read_text())["names"] == {0: "crack", 1: "hole"}
    for i, mask in enumerate(hard_masks()):
        lines = (out / f"labels/train/{i:06d}.txt").read_text().splitlines()
        assert len(lines) == parts_of(mask)
        for rounded in (np.round, np.floor):
            whole = np.zeros_like(mask)
            for line in lines:
                number, *values = line.split()
                assert int(number) == (0 if i % 2 else 1)
                assert len(values) >= 6
                points = rounded(np.reshape(np.array(values, np.float32), (-1, 2)) * np.array([W, H], np.float32))
                part = np.zeros_like(mask)
                cv2.fillPoly(part, [points.astype(np.int32)], 1)
                whole += part
            np.testing.assert_array_equal(whole, mask)


@pytest.mark.parametrize("kind", ["labelme", "cvat", "coco", "yolo"])
@pytest.mark.parametrize("more", [[], ["--polygons"]])
def test_what_was_exported_can_be_imported(run: Path, kind: str, more: list[str]) -> None:
    if kind == "yolo" and more:
        assert run_cli(command.main, [str(run), "--format", kind, "--out", str(run.parent / "x"), *more]) == 2
        return
    back = run.parent / "back"
    assert run_cli(prepare_data.main, [str(exported(run, kind, *more)), "--import", kind, "--out", str(back)]) == 0
    for i, mask in enumerate(hard_masks()):
        found = read_mask(back / f"ground_truth/{'crack' if i % 2 else 'hole'}/{i:06d}_mask.png")
        np.testing.assert_array_equal(found, mask)


def test_label_maps_for_mmsegmentation(run: Path) -> None:
    out = exported(run, "mmseg")
    given: dict[str, dict] = {}
    exec((out / "dataset.py").read_text(), given)
    assert given["metainfo"]["classes"] == ("background", "crack", "hole")
    assert len(given["metainfo"]["palette"]) == 3
    for i, mask in enumerate(hard_masks()):
        labels = np.asarray(Image.open(out / f"ann_dir/train/{i:06d}.png"))
        np.testing.assert_array_equal(labels, mask * (1 if i % 2 else 2))


def test_imagefolder(run: Path) -> None:
    out = exported(run, "imagefolder")
    rows = [json.loads(line) for line in (out / "train/metadata.jsonl").read_text().splitlines()]
    for i, (row, mask) in enumerate(zip(rows, hard_masks(), strict=True)):
        assert (out / "train" / row["file_name"]).is_file()
        np.testing.assert_array_equal(read_mask(out / "train" / row["mask_file_name"]), mask)
        assert json.loads(row["provenance"])["pair_seed"] == 100 + i


def test_shards(run: Path) -> None:
    out = exported(run, "webdataset", "--shard_size", "3")
    shards = sorted(out.glob("*.tar"))
    assert [s.name for s in shards] == ["pairs-000000.tar", "pairs-000001.tar"]
    names = []
    for shard in shards:
        with tarfile.open(shard) as file:
            for entry in file:
                names.append(entry.name)
                if entry.name.endswith(".mask.png"):
                    data = file.extractfile(entry)
                    assert data is not None
                    values = np.asarray(Image.open(BytesIO(data.read())))
                    np.testing.assert_array_equal(values > 0, hard_masks()[int(entry.name[:6])] > 0)
    assert names[:3] == ["000000.image.png", "000000.mask.png", "000000.json"]
    assert len(names) == 12
    again = run.parent / "again"
    assert run_cli(command.main, [str(run), "--format", "webdataset", "--out", str(again), "--shard_size", "3"]) == 0
    assert (again / "pairs-000001.tar").read_bytes() == shards[1].read_bytes()


def test_bad_input_ends_in_one_line_and_leaves_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(folder: Path, *more: str) -> str:
        before = sorted(run.parent.iterdir())
        assert (
            run_cli(command.main, [str(folder), "--format", "coco", "--out", str(run.parent / "new/out"), *more]) == 2
        )
        assert sorted(run.parent.iterdir()) == before
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "no such folder" in refused(run / "nothing")
    assert "has no manifest.jsonl" in refused(run / "image")
    assert "--shard_size 0" in refused(run, "--format", "webdataset", "--shard_size", "0")
    assert "--shard_size is for webdataset, and coco has no shards" in refused(run, "--shard_size", "3")
    write_mask(run / "mask/000002.png", np.zeros((H, W)))
    assert "000002.png: the mask is empty" in refused(run)
    (run / "mask/000002.png").unlink()
    assert "the manifest names it, and it is not there" in refused(run)
    manifest = (run / "manifest.jsonl").read_text()
    (run / "manifest.jsonl").write_text(manifest.replace("part/crack", "../part/crack"))
    assert "names no folder" in refused(run)
    (run / "manifest.jsonl").write_text(manifest)
    (run / ".records").mkdir()
    (run / ".records/000009.json").write_text("{}")
    assert "is not finished" in refused(run)
    (run / ".records/000009.json").unlink()
    write_mask(run / "mask/000002.png", hard_masks()[2])
    normals = run.parent / "normals"
    for inside, told in (
        (run / "in", f"lies in {run}, whose pairs are exported"),
        (run, f"lies in {run}, whose pairs are exported"),
        (normals / "new/out", f"lies in {normals}, among the normal images that the pairs were made from"),
    ):
        assert f"--out {inside} {told}; choose a folder outside" in refused(run, "--out", str(inside))
        assert not (run / "in").exists()
        assert [p.name for p in normals.iterdir()] == ["0.png"]
    full = run.parent / "full"
    full.mkdir()
    (full / "mine.txt").write_text("x")
    assert run_cli(command.main, [str(run), "--format", "coco", "--out", str(full)]) == 2
    assert re.search("full is there already", capsys.readouterr().err)
    assert (full / "mine.txt").read_text() == "x"

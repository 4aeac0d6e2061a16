"""Run-length codes and polygons beside answers of pycocotools and Label Studio's own encoder."""

import json
from typing import Any

import cv2
import numpy as np
import pytest

from fast.data.formats.outlines import (
    borders,
    contours,
    fill,
    fill_with_edges,
    one_outline,
    parts,
    straightened,
    without_holes,
)
from fast.data.formats.rle import from_brush, from_runs, pack, to_runs, unpack
from support.paths import ROOT


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    return json.loads((ROOT / "tests/files/annotation_codes.json").read_text())


def masks() -> list[np.ndarray]:
    """Noise of all densities, blobs with holes, single pixels, a hairline."""
    rng, found = np.random.default_rng(0), []
    for i in range(60):
        height, width = rng.integers(2, 24, 2)
        mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
        found.append(mask if i % 2 else cv2.morphologyEx(np.pad(mask, 2), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)))
    line = np.zeros((20, 30), np.uint8)
    cv2.line(line, (1, 2), (28, 17), 1)
    return [mask for mask in [*found, line] if mask.any()]


def test_coco_codes_are_those_of_pycocotools(answers: dict[str, Any]) -> None:
    mask = np.array(answers["mask"], np.uint8)
    assert pack(to_runs(mask, columns=True)) == answers["coco"]
    np.testing.assert_array_equal(from_runs(unpack(answers["coco"]), mask.shape, columns=True), mask)
    circle = np.zeros((300, 400), np.uint8)  # runs of hundreds and negative differences
    cv2.circle(circle, (200, 150), 90, 1, -1)
    assert pack(to_runs(circle, columns=True)) == answers["circle"]
    np.testing.assert_array_equal(from_runs(unpack(answers["circle"]), circle.shape, columns=True), circle)


def test_runs_along_rows_and_columns() -> None:
    assert from_runs([1, 2, 1], (2, 2), columns=True).tolist() == [[0, 1], [1, 0]]
    assert from_runs([0, 3, 1], (2, 2), columns=False).tolist() == [[1, 1], [1, 0]]
    assert to_runs(np.ones((2, 3)), columns=False) == [0, 6]
    assert to_runs(np.zeros((2, 3)), columns=True) == [6]


@pytest.mark.parametrize("runs", [[1, 2], [5], [-1, 5], [[1], [3]], [0.5, 3.5]])
def test_runs_that_do_not_fit(runs: list[Any]) -> None:
    with pytest.raises(ValueError, match="run"):
        from_runs(runs, (2, 2), columns=True)


@pytest.mark.parametrize("text", ["é", "a", "`", " 1", "o" * 50])
def test_damaged_codes(text: str) -> None:
    with pytest.raises(ValueError, match=r"damaged|cut off"):
        unpack(text)


def test_brush_codes_are_those_of_label_studio(answers: dict[str, Any]) -> None:
    mask = np.array(answers["mask"], np.uint8)
    np.testing.assert_array_equal(from_brush(answers["brush"], mask.shape), mask)
    for code, why in ((answers["brush"][:-6], "cut off"), ([1, 2], "cut off"), ([300], "no list of bytes")):
        with pytest.raises(ValueError, match=why):
            from_brush(code, mask.shape)
    with pytest.raises(ValueError, match="126 pixels, the picture 14x10"):
        from_brush(answers["brush"], (10, 14))


def test_polygons_are_filled_like_pycocotools_but_for_edges(answers: dict[str, Any]) -> None:
    assert fill([np.reshape(answers["square"], (-1, 2))], (24, 30)).sum() == answers["square area"] == 9 * 7
    ring = np.reshape(answers["ring"], (-1, 2))
    theirs = from_runs(unpack(answers["ring mask"]), (24, 30), columns=True)
    ours = fill([ring], (24, 30))
    edge = np.zeros((24 * 8, 30 * 8), np.uint8)
    cv2.polylines(edge, [np.rint(ring * 8).astype(np.int32).reshape(-1, 1, 2)], isClosed=True, color=1, thickness=8)
    edge = edge.reshape(24, 8, 30, 8).max(axis=(1, 3))
    assert not ((ours != theirs) & (edge == 0)).any()
    assert (ours != theirs).sum() <= 12
    assert theirs.sum() > 300


def test_a_polygon_thinner_than_a_pixel_keeps_its_pixels() -> None:
    mask = fill([np.array([[2.6, 3.6], [20.4, 3.6], [20.4, 3.9], [2.6, 3.9]])], (10, 30))
    assert mask[3, 2:21].all()
    assert mask.sum() == 19
    assert not fill([np.array([[-9.0, -9], [-5, -9], [-5, -5]])], (10, 30)).any()


def test_a_polygon_beyond_the_picture_is_cut() -> None:
    mask = fill([np.array([[-5.0, -5], [4, -5], [4, 99], [-5, 99]])], (6, 8))
    np.testing.assert_array_equal(mask, np.arange(8)[None] * np.ones((6, 1)) < 4)


def test_borders_give_masks_again() -> None:
    for mask in masks():
        np.testing.assert_array_equal(fill(borders(mask), mask.shape), mask)


def test_one_outline_gives_a_part_with_holes_again() -> None:
    """By OpenCV's own filling, as programs that read YOLO do."""
    holes = 0
    for mask in masks():
        for _, part in parts(mask):
            again = np.zeros_like(part)
            cv2.fillPoly(again, [one_outline(part).astype(np.int32)], color=1)
            np.testing.assert_array_equal(again, part)
            holes += len(contours(part)) > 1
    assert holes > 20


def test_parts_without_holes_cover_a_part_once() -> None:
    for mask in masks():
        for _, part in parts(mask):
            again = np.zeros_like(part)
            for box, piece in without_holes(part):
                assert len(borders(piece)) == 1
                np.testing.assert_array_equal(fill(borders(piece), piece.shape), piece)
                line = straightened(contours(piece)[0][0])
                np.testing.assert_array_equal(fill_with_edges(line, piece.shape), piece)
                again[box] += piece
            np.testing.assert_array_equal(again, part)

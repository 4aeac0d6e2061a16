"""A segmenter as ONNX answers as torch does, for one who has its description alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fast.data.images import read_image, resize_image
from fast.data.tensors import to_tensor
from fast.metrics.segmentation import defect_score
from fast.segmentation import build
from fast.segmentation.evaluation import predict
from fast.segmentation.export import Described, export
from fast.segmentation.prior import Corrected
from fast.windows.tiling import starts

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height)
    rough = cv2.resize(rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8), (width, height))
    return np.clip(rough + rng.normal(0, 6, rough.shape), 0, 255).astype(np.uint8)


def prepared(image: np.ndarray, about: dict[str, Any]) -> np.ndarray:
    """By the description: (1,3,H,W) float32."""
    assert about["layout"] == "NCHW"
    assert about["colour_order"] == "RGB"
    if about["resize"]:
        width, height = about["resize"]["width"], about["resize"]["height"]
        for size, grows in (
            ((image.shape[1], height), height > image.shape[0]),
            ((width, height), width > image.shape[1]),
        ):
            image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)
    x = (image.astype(np.float32) - np.float32(about["mean"])) / np.float32(about["std"])
    missing = [-side % about["pad"]["multiple"] for side in image.shape[:2]]
    return np.pad(x, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge").transpose(2, 0, 1)[None]


def scores(session: Any, image: np.ndarray, about: dict[str, Any]) -> np.ndarray:
    """By the description: (H,W) of the resized image, or of the image where it is not resized."""
    given = prepared(image, about["input"])
    (found,) = session.run([about["output"]["name"]], {about["input"]["name"]: given})
    resize = about["input"]["resize"]
    height, width = (resize["height"], resize["width"]) if resize else image.shape[:2]
    return found[0, 0, :height, :width]


def by_torch(model: torch.nn.Module, image: np.ndarray, tile: int | None) -> np.ndarray:
    return torch.sigmoid(defect_score(predict(model, to_tensor(image)[None], tile=tile)))[0].numpy()


def opened(folder: Path) -> tuple[Any, dict[str, Any]]:
    about = json.loads((folder / "segmenter.json").read_text())
    return onnxruntime.InferenceSession(folder / about["model"]), about


@pytest.mark.parametrize("name", ["fpn", "quick"])
def test_onnx_answers_as_torch_from_the_description_alone(name: str, tmp_path: Path) -> None:
    model = build(name, 2, seed=1).eval()
    files = export(model, tmp_path, Described(96, False, ["part/crack", "part/hole"], name))
    assert [file.name for file in files] == ["segmenter.onnx", "segmenter.json", "segmenter.txt"]
    session, about = opened(tmp_path)
    assert about["types"] == ["part/crack", "part/hole"]
    for image in (picture(96, 96), picture(200, 72), picture(64, 160)):
        ours = scores(session, image, about)
        theirs = by_torch(model, resize_image(image, 96), None)
        assert np.abs(ours - theirs).max() < 1e-4
        threshold, clear = about["output"]["threshold"], np.abs(theirs - 0.5) > 1e-4
        logits = predict(model, to_tensor(resize_image(image, 96))[None])[0]
        assert ((ours > threshold) == (logits.argmax(0).numpy() > 0))[clear].all()
        assert 0 < (ours > threshold).mean() < 1


def test_odds_that_were_divided_are_in_the_file_and_told(tmp_path: Path) -> None:
    model = Corrected(build("mini", 2, seed=1).eval(), 5.25)
    export(model, tmp_path, Described(64, False, ["part/crack"], "mini"))
    session, about = opened(tmp_path)
    assert about["output"]["odds_divided_by"] == 5.25
    assert "defect pixels 5.25 times as often" in (tmp_path / "segmenter.txt").read_text()
    ours, plain = scores(session, picture(64, 64), about), by_torch(model.network, picture(64, 64), None)
    odds = plain / (1 - plain) / 5.25
    assert np.abs(ours - odds / (1 + odds)).max() < 1e-4
    export(model.network, tmp_path, Described(64, False, ["part/crack"], "mini"))
    assert opened(tmp_path)[1]["output"]["odds_divided_by"] is None
    assert "times as often" not in (tmp_path / "segmenter.txt").read_text()


def test_images_at_their_own_size_in_the_tiles_that_are_described(tmp_path: Path) -> None:
    model = build("fpn", 2, seed=1).eval()
    export(model, tmp_path, Described(64, True, ["part/crack"], "fpn"))
    session, about = opened(tmp_path)
    assert about["input"]["resize"] is None
    small = picture(40, 56)
    assert np.abs(scores(session, small, about) - by_torch(model, small, 64)).max() < 1e-4
    large, side = picture(64, 144), about["input"]["tiles"]["side"]
    places = starts(144, side, about["input"]["tiles"]["overlap"])
    length, count = 144 - side, len(places) - 1
    assert places == [k * length // count for k in range(count + 1)]
    found = by_torch(model, large, side)
    alone = [scores(session, large[:, s : s + side], about) for s in places]
    first = places[1]  # up to here the first tile is alone
    assert np.abs(found[:, :first] - alone[0][:, :first]).max() < 1e-4
    last = places[-2] + side
    assert np.abs(found[:, last:] - alone[-1][:, last - places[-1] :]).max() < 1e-4
    total, weight = np.zeros(144), np.zeros(144)
    for number, start in enumerate(places):  # "weights fall linearly over the overlap, to zero at the edge"
        ramp = np.ones(side)
        for edge, other in ((slice(None), number - 1), (slice(None, None, -1), number + 1)):
            if 0 <= other < len(places):
                shared = side - abs(places[other] - start)
                ramp[edge][:shared] *= (np.arange(shared) + 0.5) / shared
        total[start : start + side] += ramp * alone[number][20]
        weight[start : start + side] += ramp
    assert np.abs(found[20] - total / weight).max() < 1e-4


def test_the_quick_judge_s_network_sees_large_images_as_a_whole(tmp_path: Path) -> None:
    model = build("quick", 2, seed=1).eval()
    export(model, tmp_path, Described(64, True, ["part/crack"], "quick"))
    session, about = opened(tmp_path)
    assert about["input"]["tiles"] is None
    assert "As a whole" in (tmp_path / "segmenter.txt").read_text()
    image = picture(96, 160)
    assert np.abs(scores(session, image, about) - by_torch(model, image, None)).max() < 1e-4


def test_the_text_names_what_the_description_says(tmp_path: Path) -> None:
    export(build("quick", 2, seed=1).eval(), tmp_path, Described(64, False, ["part/crack"], "quick"))
    text = (tmp_path / "segmenter.txt").read_text()
    for said in ("RGB", "64 x 64", "127.5", "part/crack", "0.5", "'image'", "'score'"):
        assert said in text
    code = text.split("multiples of 32:\n")[1].replace("\n    ", "\n")
    image = picture(48, 80)
    cv2.imwrite(str(tmp_path / "part.png"), image[..., ::-1])
    known: dict[str, Any] = {}
    exec(code.replace('"segmenter.', f'"{tmp_path}/segmenter.').replace('"part.png"', f'"{tmp_path}/part.png"'), known)
    assert np.abs(known["score"] - scores(*opened(tmp_path)[:1], image, opened(tmp_path)[1])).max() < 1e-6
    deep = image.astype(np.uint16) * 16 + 5  # 12 bits
    cv2.imwrite(str(tmp_path / "part.png"), deep[..., ::-1])
    exec(code.replace('"segmenter.', f'"{tmp_path}/segmenter.').replace('"part.png"', f'"{tmp_path}/part.png"'), known)
    theirs = scores(*opened(tmp_path)[:1], read_image(tmp_path / "part.png"), opened(tmp_path)[1])
    assert np.abs(known["score"] - theirs).max() < 1e-6

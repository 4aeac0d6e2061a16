"""A trained segmenter as ONNX, with all that is done before and after it in a file beside it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from fast.data.images import write_bytes
from fast.segmentation.prior import Corrected
from ldm.errors import UserError

OPSET = 18
MULTIPLE = 32  # the sides of what goes in are multiples of it
LEVELS = (
    "8 bits, 0 to 255; a value v of b bits, the least of 10, 12, 14 and 16 that hold the image's highest value or what "
    "is known of the camera, is v * 255 / (2**b - 1), rounded"
)
LEVEL = 127.5  # mean and standard deviation of grey levels 0..255 that become -1..1


@dataclass(frozen=True)
class Described:
    """What somebody has to know to use an exported segmenter.

    Args:
        size: side in pixels of the square that images are resized to, or with `native` of the overlapping tiles.
        native: images keep their own size and are seen in tiles, by the network "quick" as a whole.
        types: what it was trained to find, "category/type", all of them in one class.
        network: its name, one of `fast.segmentation.networks.SEGMENTERS`.
        threshold: a pixel is defect where its score is above it.
        oversampling: what the odds of a defect were divided by after training, see `fast.segmentation.prior`. None:
            they were not.
    """

    size: int
    native: bool
    types: Sequence[str]
    network: str
    threshold: float = 0.5
    oversampling: float | None = None

    @property
    def tiled(self) -> bool:
        return self.native and self.network != "quick"

    def plain(self) -> dict[str, Any]:
        """As JSON: everything before and after the network, in order."""
        resized = {
            "width": self.size,
            "height": self.size,
            "interpolation": "area where a side shrinks, cubic where it grows; the height first, then the width",
        }
        tiles = {
            "side": self.size,
            "overlap": self.size // 4,
            "starts": "as few as cover a side with at least this overlap, evenly spread: with n + 1 tiles the k-th "
            "starts at floor(k * (length - side) / n)",
            "blending": "the weighted mean of scores; a tile's weight falls over what it shares with a neighbour to "
            "zero at its edge: (k + 1/2) / n for the k-th from the edge, from 0, of n shared pixels, in each direction",
        }
        return {
            "network": self.network,
            "model": "segmenter.onnx",
            "input": {
                "name": "image",
                "type": "float32",
                "layout": "NCHW",
                "colour_order": "RGB",
                "grey": "the one channel three times",
                "levels": LEVELS,
                "resize": None if self.native else resized,
                "tiles": tiles if self.tiled else None,
                "mean": [LEVEL] * 3,
                "std": [LEVEL] * 3,
                "pad": {"multiple": MULTIPLE, "sides": "right and bottom", "by": "repeating the edge"},
            },
            "output": {
                "name": "score",
                "type": "float32",
                "layout": "NCHW, one channel",
                "range": [0, 1],
                "meaning": "probability that the pixel is of a defect",
                "cut": "to the size before padding",
                "threshold": self.threshold,
                "odds_divided_by": self.oversampling,
                "mask": "1 where the score is above the threshold",
                "resize_back": None if self.native else "the mask to the image's own size, nearest neighbour",
            },
            "types": list(self.types),
        }


class Scores(nn.Module):
    """(N,3,H,W) in [-1, 1] to the probability of a defect (N,1,H,W), of any network of `fast.segmentation`."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return 1 - self.network(image).float().softmax(dim=1)[:, :1]


def export(network: nn.Module, folder: Path, described: Described) -> list[Path]:
    """Write a segmenter as `segmenter.onnx`, with `segmenter.json` and `segmenter.txt` that say how to use it.

    Args:
        network: any network of `fast.segmentation`. The oversampling of a `Corrected` goes into the description.
        folder: where the three files are written.
        described: what the other two files say.

    Returns:
        The three files.

    Raises:
        UserError: when the package onnx is missing.
    """
    require_onnx()
    files = [folder / f"segmenter.{ending}" for ending in ("onnx", "json", "txt")]
    if isinstance(network, Corrected):
        described = replace(described, oversampling=network.oversampling)
    about = described.plain()
    write_bytes(files[0], _bytes(network, described.size))
    write_bytes(files[1], (json.dumps(about, indent=1) + "\n").encode())
    write_bytes(files[2], text(described).encode())
    return files


def require_onnx() -> None:
    """UserError where the package that writes the file is missing."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise UserError("writing ONNX needs the package onnx; install it with pip install '.[onnx]'") from None


def _bytes(network: nn.Module, size: int) -> bytes:
    """The network for any number of images and any sides that are multiples of `MULTIPLE`."""
    device = next(network.parameters()).device
    side = -(-size // MULTIPLE) * MULTIPLE
    axes = {0: "images", 2: "height", 3: "width"}
    # The exporter by tracing: the other one takes 20 times as long and needs another package. It warns of sides that
    # are taken for constants, which only those of padding are, and nothing is padded here.
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "segmenter.onnx"
        torch.onnx.export(
            Scores(network).eval(),
            (torch.zeros(1, 3, side, side + MULTIPLE, device=device),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["score"],
            dynamic_axes={"image": axes, "score": axes},
        )
        return file.read_bytes()


def text(described: Described) -> str:
    """How to use the file, for people."""
    size, native = described.size, described.native
    seen = "8 bits a channel (segmenter.json says how deeper ones become that), RGB (a grey one three times)"
    before = (
        f"1. Resize the image, {seen}, to {size} x {size} px: by area where a side shrinks, cubic where it grows.\n"
    )
    if native:
        before = f"1. Take the image at its own size, {seen}."
        before += (
            f" Above {size} px a side, in tiles of {size} px that overlap by at least {size // 4}, blended as "
            "segmenter.json says.\n"
            if described.tiled
            else " As a whole, not in tiles.\n"
        )
    after = "" if native else " Resize the mask to the image's own size, by nearest neighbour."
    example = "" if native else EXAMPLE
    odds = (
        "" if described.oversampling is None else
        f"\nTraining showed defect pixels {described.oversampling:.3g} times as often, in odds, as real pictures with a"
        " defect do; the odds p / (1 - p)\nof the score p are divided by that already.\n"
    )  # fmt: skip
    return (
        f"segmenter.onnx finds defects pixel by pixel: {', '.join(described.types)}.\n"
        f"segmenter.json says the same as this text, for programs.\n\n{before}"
        f"2. Subtract {LEVEL} and divide by {LEVEL}; float32, channels first, images first: (N, 3, height, width).\n"
        f"3. Where a side is no multiple of {MULTIPLE}, repeat the right and the bottom edge until it is.\n"
        "4. Run it: the input is 'image', the output 'score', (N, 1, height, width), the probability of a defect.\n"
        f"5. Cut the score to the size before step 3. A pixel is defect where it is above {described.threshold}."
        f"{after}\n"
        f"{odds}{example}"
    )


EXAMPLE = """
In Python, for sides that are multiples of 32:

    import cv2, json, numpy as np, onnxruntime
    about = json.load(open("segmenter.json"))["input"]
    image = cv2.imread("part.png", cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)[..., ::-1]
    if image.dtype == np.uint16:
        bits = next(b for b in (8, 10, 12, 14, 16) if image.max() < 2**b)
        image = np.rint(image * (255 / (2**bits - 1))).astype(np.uint8)
    for size in ((image.shape[1], about["resize"]["height"]), (about["resize"]["width"], about["resize"]["height"])):
        grows = size[0] * size[1] > image.shape[0] * image.shape[1]
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)
    x = ((image - np.float32(about["mean"])) / np.float32(about["std"])).transpose(2, 0, 1)[None]
    score = onnxruntime.InferenceSession("segmenter.onnx").run(["score"], {"image": x.astype(np.float32)})[0][0, 0]
    mask = score > 0.5
"""

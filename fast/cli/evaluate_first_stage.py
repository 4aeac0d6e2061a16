"""PSNR of a first stage on images it was not trained on: the whole picture, and inside the defect masks.

%(prog)s WEIGHTS DATA [--size 128] [--split split.json]
"""

import argparse
import json
from pathlib import Path
from typing import Any

from fast.runtime.options import Parser


def main(argv: list[str]) -> None:
    p = Parser(
        prog="scripts/evaluate_first_stage.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("weights", type=Path, help="autoencoder-<step>.safetensors or ldm-<step>.safetensors of main.py")
    p.add_argument("data", help="dataset; its test normals and the held-out defects are measured")
    p.add_argument("--size", type=int, default=None, help="side in pixels (default: the training size)")
    p.add_argument("--split", default="third", help="the split in use in training: third or a split file")
    evaluate(p.parse_args(argv))


def first_stage(weights: Path) -> tuple[Any, dict[str, Any]]:
    """The first stage in a file of weights, of its own or of a whole model, and the config of its training. Raises
    `UserError`."""
    from ldm.checkpoint import load_strict, read_metadata, read_state_dict
    from ldm.errors import UserError
    from ldm.util import instantiate_from_config

    meta = read_metadata(weights)
    if "config" not in meta:
        raise UserError(f"{weights} carries no config; give a file that main.py wrote")
    config = json.loads(meta["config"])
    state, section = read_state_dict(weights), config["model"]
    prefix = "first_stage_model."
    if any(k.startswith(prefix) for k in state):
        section = section["params"]["first_stage_config"]
        state = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    keep = {k: v for k, v in section["params"].items() if k not in ("lossconfig", "ckpt_path", "scheduler_config")}
    model = instantiate_from_config(
        {"target": section["target"], "params": {**keep, "lossconfig": {"target": "torch.nn.Identity"}}}
    ).eval()
    load_strict(model, state, str(weights))
    return model, config


def evaluate(options: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from fast.cli.dataset_notes import tell_left_out
    from fast.data.images import read_image, read_mask, resize_image, resize_mask
    from fast.data.layouts import check, open_dataset
    from fast.data.module import DefectData
    from fast.data.tensors import to_tensor
    from fast.runtime.progress import followed
    from ldm.metrics import decibels

    model, config = first_stage(options.weights)
    size = options.size or (config.get("data") or {}).get("params", {}).get("size", 256)
    data = DefectData(path=options.data, split=options.split, size=size)
    whole: dict[str, list[float]] = {}
    inside: dict[str, list[float]] = {}
    usable = check(open_dataset(options.data)).usable
    tell_left_out(options.data, usable.left_out, usable.doubts)
    for sample in followed([*usable.test_normals, *data.held_out], "first stage", "image"):
        image = to_tensor(resize_image(read_image(sample.image), size))[None]
        with torch.no_grad():
            error = ((model.reconstruct(image).clamp(-1, 1) - image)[0] / 2).square().mean(0)
        key = f"{sample.category}/{sample.anomaly}"
        whole.setdefault(key, []).append(float(decibels(error.mean(), 1.0)))
        if sample.mask is not None:
            mask = resize_mask(read_mask(sample.mask), size).astype(bool)
            inside.setdefault(key, []).append(float(decibels(error[torch.from_numpy(mask)].mean(), 1.0)))
    print(f"{'type':32} images  PSNR whole  inside the mask (dB, mean over images, {size} pixels)")
    for key in sorted(whole):
        hole = f"{np.mean(inside[key]):10.2f}" if key in inside else "         -"
        print(f"{key:32} {len(whole[key]):6} {np.mean(whole[key]):11.2f} {hole}")
    every, masked = np.concatenate([*whole.values()]), np.concatenate([*inside.values(), []])
    print(f"{'all':32} {len(every):6} {np.mean(every):11.2f} {np.mean(masked) if len(masked) else float('nan'):10.2f}")

"""Answers of the published code, kept in tests/golden (its README says how they were made)."""

import json
import zlib
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from support.paths import ROOT

GOLDEN = ROOT / "tests" / "golden"


def golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Constructor arguments, and inputs and outputs by name, of one case."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def published_keys() -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of the published 1.45 B text-to-image checkpoint."""
    return {name: tuple(shape) for name, shape in json.loads((GOLDEN / "keys_txt2img.json").read_text()).items()}


@torch.no_grad()
def weigh(module: nn.Module) -> Any:
    """Fill each parameter by its name and shape alone: two codes with the same names get the same weights."""
    for name, p in module.named_parameters():
        # This old generator's numbers are promised never to change.
        drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(p.shape))
        if p.dim() > 1:
            drawn /= np.sqrt(p[0].numel())
        else:
            drawn = 0.1 * drawn + name.endswith("weight")
        p.copy_(torch.from_numpy(drawn))
    return module.eval()

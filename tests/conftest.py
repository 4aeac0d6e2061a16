"""A tiny dataset, a tiny base and a FAST artifact on it: random weights, made once per test run."""

import copy
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fast.model import FAST
from fast.procedural import draw_dataset
from ldm.checkpoint import read_metadata, read_state_dict, save_safetensors
from support.tiny import (
    BASE,
    DRAWN,
    MATERIALS,
    SIZE,
    STEPS,
    TYPES,
    fast_section,
    randomize,
    write_artifacts,
    write_base,
)

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them are about.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # rounding depends on their number, and a program under test may set it
os.environ["OMP_NUM_THREADS"] = "1"  # the same for programs that tests start


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Every test starts from the same random numbers, whichever tests its process ran before."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries draw from it
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn dataset of two materials in MVTec layout, 64 pixels. Shared: read only."""
    root = tmp_path_factory.mktemp("drawn") / "set"
    return draw_dataset(
        root, materials=MATERIALS, normals=3, test_normals=1, defects_per_type=3, size=SIZE, defects=DRAWN
    )


@pytest.fixture
def tiny_model_config() -> dict[str, Any]:
    """`model:` section of a tiny base: latents 4 x smaller, 4 channels; a two-level U-Net; the mini tokenizer."""
    return copy.deepcopy(BASE)


@pytest.fixture
def tiny_fast_config() -> dict[str, Any]:
    """`model:` section of FAST on the tiny base, without `types` and `ckpt_path`."""
    return fast_section()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base as main.py writes one. Its random network answers with about unit noise, not with zeros."""
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """Folder with `checkpoints/fast-3.safetensors` and `fast-7.safetensors`, as main.py writes them. Read only."""
    return write_artifacts(tmp_path_factory.mktemp("run"), tiny_base, *STEPS)


@pytest.fixture(scope="session")
def shipped(tiny_artifact: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the project ships one: a base, and an artifact on it that serves any words. Read only."""
    folder = tmp_path_factory.mktemp("models") / "mini"
    folder.mkdir()
    shutil.copy(tiny_base, folder / "base.safetensors")
    source = tiny_artifact / "checkpoints" / "fast-7.safetensors"
    metadata = {**read_metadata(source), "base": "nowhere/base.safetensors", "open_types": "true"}
    save_safetensors(read_state_dict(source), folder / "fast-7.safetensors", metadata)
    return folder


@pytest.fixture
def tiny_fast(tiny_base: Path) -> FAST:
    """A FAST model of its own for each test, with random FARM and prompts."""
    model = FAST(types=TYPES, ckpt_path=str(tiny_base), **fast_section()["params"])
    randomize(model.farm, 2)
    randomize(model.prompts, 2)
    return model


@pytest.fixture
def own_artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_artifact` that a test may change."""
    return Path(shutil.copytree(tiny_artifact, tmp_path / "run"))

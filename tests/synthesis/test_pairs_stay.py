"""Pairs stay as they are: every method that needs no training here makes the image-mask pairs that it made before.

Methods of numpy and OpenCV are held to the byte, by hashes in `golden/hashes.json`. Pairs of `models/mini` are held to
one grey level in the mean inside the mask, for processors round differently; their images lie in `golden/mini.npz`.
A change that is meant to change pairs, or new weights in `models/mini`, makes both files anew:

    python tests/synthesis/test_pairs_stay.py
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))  # where this file is run as a program

import generate_with_mask  # noqa: E402
from fast.data.images import read_image, read_mask, write_image, write_mask  # noqa: E402
from fast.generators import FREE, create  # noqa: E402
from fast.runtime.command import run_cli  # noqa: E402
from ldm.hashing import file_hash  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
MINI = PROJECT / "models" / "mini"
SIDE = 96
# Flags of `generate_with_mask.py`; one folder of pairs each. The dataset's flags come before them.
COMMANDS = {
    "cutpaste": ["--method", "cutpaste"],
    "cutpaste_masks": ["--method", "cutpaste", "--masks", "given", "--size", "64", "method.variant=scar"],
    "draem": ["--method", "draem", "--masks", "own"],
    "draem_augmented": ["--method", "draem", "--masks", "augmented", "--seed", "3"],
    "glass": ["--method", "glass", "--masks", "mixed", "--on_object", "auto"],
    "procedural": ["--method", "procedural", "--anomaly_name", "scratch,pit", "--material", "metal", "--masks", "own"],
    "transplant": ["--method", "transplant", "--split", "all"],
}
NO_FILES = ("draem", "glass", "procedural", "transplant")  # these are given no folder of masks
# Arguments of `create("fast", weights=models/mini)`.
MINI_OPTIONS: dict[str, dict[str, Any]] = {
    "aias": {"size": 64, "steps": 4},
    "ddim": {"size": 64, "steps": 3, "sampler": "ddim", "scale": 2.0},
    "plms": {"size": 64, "steps": 3, "sampler": "plms", "use_farm": False},
    "window": {"steps": 3, "region": "auto", "min_window": 64, "margin": 8, "scale": 1.0},
    "whole": {"size": 64, "steps": 2, "composite": False},
}
MINI_COMMAND = ["--pt_path", str(MINI), "--anomaly_name", "leather", "--steps", "3", "--size", "64"]
MINI_COMMAND += ["--precision", "fp32"]


def dataset(folder: Path) -> Path:
    """Three normal images of a round part on a dark ground, and two real defects with masks, made of whole numbers."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    part = (rows - 48) ** 2 + (columns - 46) ** 2 < 40**2
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 24, (SIDE, SIDE, 3))
        grain = (rows * (number + 2) // 3 + columns) % 9 * 4
        image = np.where(part[..., None], 120 + 12 * number + grain[..., None] + noise, 12 + noise // 4)
        write_image(folder / "leather" / "train" / "good" / f"{number}.png", image.astype(np.uint8))
        if number == 2:
            continue
        kind, mask = ("scratch", "hole")[number], np.zeros((SIDE, SIDE), np.uint8)
        if kind == "scratch":
            cv2.line(mask, (30, 35), (60, 55), 1, 2)
        else:
            mask[(rows - 50) ** 2 + (columns - 44) ** 2 < 81] = 1
        damaged = np.where(mask[..., None] > 0, 30 + noise, image).astype(np.uint8)
        write_image(folder / "leather" / "test" / kind / "0.png", damaged)
        write_mask(folder / "leather" / "ground_truth" / kind / "0_mask.png", mask)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("stay"))


def by_command(root: Path, out: Path, flags: list[str], masks: bool, count: int = 3) -> list[tuple[np.ndarray, ...]]:
    """The pairs that the command makes, as the files hold them."""
    given = ["--data_root", str(root / "leather"), "--sample_name", str(out), "--count", str(count), "--device", "cpu"]
    given += ["--mask_path", str(root / "leather" / "ground_truth")] if masks else []
    assert run_cli(generate_with_mask.main, [*given, *flags]) == 0
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    return [(read_image(out / row["image"]), read_mask(out / row["mask"])) for row in rows]


def by_program(root: Path, method: str) -> tuple[np.ndarray, np.ndarray]:
    """A pair of `create(method)` with its defaults and a mask of its own."""
    options = {"defects": str(root / "leather"), "split": "all"} if method == "transplant" else {}
    image = read_image(root / "leather" / "train" / "good" / "2.png")
    return create(method, **options).synthesize(image, None, np.random.default_rng(7))


def digest(*pairs: tuple[np.ndarray, ...]) -> str:
    """SHA-256 of the pixels, whatever file they come from."""
    return hashlib.sha256(b"".join(array.tobytes() for pair in pairs for array in pair)).hexdigest()


def by_mini(root: Path) -> dict[str, np.ndarray]:
    """Images of `models/mini`, one for each entry of `MINI_OPTIONS` from a program and one by the command."""
    image = read_image(root / "leather" / "train" / "good" / "0.png")
    mask = read_mask(root / "leather" / "ground_truth" / "hole" / "0_mask.png")
    made = {}
    for name, options in MINI_OPTIONS.items():
        method = create("fast", weights=MINI, types=["leather/hole", "/scratch"], precision="fp32", **options)
        made[name] = method.synthesize(image, mask, np.random.default_rng(3), "leather/hole")[0]
    with tempfile.TemporaryDirectory() as folder:
        made["command"] = by_command(root, Path(folder) / "out", MINI_COMMAND, masks=True, count=1)[0][0]
    return made


@pytest.mark.parametrize("name", COMMANDS)
def test_pairs_of_the_command(name: str, root: Path, tmp_path: Path) -> None:
    expected = json.loads((GOLDEN / "hashes.json").read_text())
    assert digest(*by_command(root, tmp_path / "out", COMMANDS[name], name not in NO_FILES)) == expected[name]


@pytest.mark.parametrize("method", FREE)
def test_pairs_of_a_program(method: str, root: Path) -> None:
    assert digest(by_program(root, method)) == json.loads((GOLDEN / "hashes.json").read_text())[f"create {method}"]


def test_pairs_of_the_shipped_weights(root: Path) -> None:
    hashes = json.loads((GOLDEN / "hashes.json").read_text())
    assert weights() == hashes["models/mini"], "models/mini is new: python tests/synthesis/test_pairs_stay.py"
    made = by_mini(root)
    with np.load(GOLDEN / "mini.npz") as golden:
        assert set(golden) == set(made)
        for name, image in made.items():
            change = np.abs(image.astype(int) - golden[name])
            assert change.mean() <= 1, name
            if change.any():  # of few changed pixels too: nearly all lie in a small mask
                assert change[change.any(axis=2)].mean() <= 2, name


def weights() -> list[str]:
    """SHA-256 of the shipped weights."""
    return [file_hash(path) for path in sorted(MINI.glob("*.safetensors"))]


def regenerate() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = dataset(Path(folder))
        hashes: dict[str, Any] = {"models/mini": weights()}
        for name, flags in COMMANDS.items():
            hashes[name] = digest(*by_command(root, root / "out" / name, flags, name not in NO_FILES))
        hashes |= {f"create {method}": digest(by_program(root, method)) for method in FREE}
        np.savez_compressed(GOLDEN / "mini.npz", **by_mini(root))
    (GOLDEN / "hashes.json").write_text(json.dumps(hashes, indent=1) + "\n")


if __name__ == "__main__":
    regenerate()

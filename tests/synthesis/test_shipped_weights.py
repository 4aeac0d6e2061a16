"""The weights that the repository ships, through the command: what a newcomer's first pair is made of."""

from pathlib import Path

import numpy as np
import pytest

from fast.data.images import read_image, read_mask
from support.paths import ROOT
from support.synthesis import arguments, leftovers, manifest, synthesize, whole_set

MINI = ROOT / "models" / "mini"


@pytest.fixture(scope="module")
def made(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs by words, two steps each. Read only."""
    out = tmp_path_factory.mktemp("mini") / "out"
    assert synthesize(arguments(drawn_root, MINI, out, "--count", "2", "--steps", "2", "--precision", "fp32")) == 0
    return out


def test_a_pair_differs_from_its_normal_inside_the_mask_alone(made: Path) -> None:
    rows = manifest(made)
    assert len(rows) == 2
    assert leftovers(made) == []
    for row in rows:
        normal, image, mask = (
            read_image(Path(row["normal_source"])),
            read_image(made / row["image"]),
            read_mask(made / row["mask"]),
        )
        change = np.abs(image.astype(int) - normal).max(axis=2)
        assert mask.any()
        assert not change[mask == 0].any()
        assert (change[mask == 1] > 2).mean() > 0.5
        assert row["prompt"] == row["type"].replace("/", " ")


def test_the_same_command_gives_the_same_bytes(drawn_root: Path, made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert synthesize(arguments(drawn_root, MINI, again, "--count", "2", "--steps", "2", "--precision", "fp32")) == 0
    assert whole_set(again) == whole_set(made)


def test_other_words_fill_a_mask_otherwise(drawn_root: Path, made: Path, tmp_path: Path) -> None:
    """The words reach the network: nothing else is different."""
    masks = next(iter(sorted((drawn_root / "wood" / "ground_truth").iterdir())))
    images = []
    for word in ("scratch", "stain"):
        out = tmp_path / word
        more = ("--mask_path", str(masks), "--anomaly_name", word, "--count", "1", "--steps", "2")
        assert synthesize(arguments(drawn_root, MINI, out, *more)) == 0
        (row,) = manifest(out)
        assert row["prompt"] == f"wood {word}"
        images.append(read_image(out / row["image"]))
    assert (images[0] != images[1]).any()

"""Pictures that may be masks."""

from pathlib import Path

import numpy as np
import pytest

from fast.cli.synthesis_notes import tell_sources
from fast.data.check import check, two_valued
from fast.data.images import write_image, write_mask
from fast.data.layouts import open_dataset
from fast.synthesis.sources import NormalSource, Sources

SAYS = "two values only, as masks have; if that is what they are, give the folder that the pictures lie in"


def test_two_values() -> None:
    picture = np.zeros((4, 5, 3), np.uint8)
    assert not two_valued(picture)  # one
    picture[1:3, 2] = 255
    assert two_valued(picture)
    picture[0, 0] = 254
    assert not two_valued(picture)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """A folder of masks, given where one of pictures is wanted."""
    for number in range(4):
        mask = np.zeros((8, 8), np.uint8)
        mask[number : number + 3, 2:4] = 1
        write_mask(tmp_path / "masks" / f"{number}.png", mask)
    return tmp_path / "masks"


def test_masks_that_pass_for_normal_pictures_are_told(masks: Path) -> None:
    found = check(open_dataset(masks)).usable
    assert any(note.endswith(f"4 normal pictures have {SAYS}") for note in found.notes)
    write_image(masks / "4.png", np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    assert not any(SAYS in note for note in check(open_dataset(masks)).usable.notes)


def test_the_synthesis_tells_of_them_too(masks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    normals = [NormalSource(path) for path in sorted(masks.iterdir())]
    tell_sources(Sources(normals, [], ["part/hole"], [0]))
    assert f"warning: the normal pictures have {SAYS}, with --data_root" in capsys.readouterr().out
    (masks / "0.png").write_bytes(b"no picture")
    tell_sources(Sources(normals, [], ["part/hole"], [0]))
    assert "warning" not in capsys.readouterr().out

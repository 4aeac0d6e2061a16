"""A mask is scaled to its image, never stretched: worked shapes, and the command before anything is written."""

from pathlib import Path

import numpy as np
import pytest

import generate_with_mask
from fast.cli import make_masks
from fast.data.images import write_image, write_mask
from fast.masks.proportions import alike
from fast.runtime.command import run_cli


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        ((40, 60), (40, 60)),
        ((20, 30), (40, 60)),
        ((80, 120), (40, 60)),
        ((123, 411), (246, 823)),  # half of 823 rounded
        ((41, 60), (40, 60)),  # a pixel off
        ((10, 104), (100, 1043)),  # 10 high is as near as whole pixels come: of 1043, 104
    ],
)
def test_scaled_by_one_factor(mask: tuple[int, int], image: tuple[int, int]) -> None:
    assert alike(mask, image)
    assert alike(image, mask)


@pytest.mark.parametrize(
    ("mask", "image"), [((60, 40), (40, 60)), ((256, 256), (256, 300)), ((43, 60), (40, 60)), ((100, 200), (300, 500))]
)
def test_stretched(mask: tuple[int, int], image: tuple[int, int]) -> None:
    assert not alike(mask, image)
    assert not alike(image, mask)


def a_part(folder: Path, masks: list[tuple[int, int]]) -> list[str]:
    """Two normals, 40 x 60 and 80 x 120, and masks of these shapes; the start of a command."""
    for number, side in enumerate((40, 80)):
        image = np.random.default_rng(number).integers(90, 160, (side, side * 3 // 2, 3), dtype=np.uint8)
        write_image(folder / "normal" / f"{number}.png", image)
    for number, shape in enumerate(masks):
        mask = np.zeros(shape, np.uint8)
        mask[8:20, 10:24] = 1
        write_mask(folder / "masks" / f"{number}.png", mask)
    given = ["--method", "draem", "--data_root", str(folder / "normal"), "--mask_path", str(folder / "masks")]
    return [*given, "--count", "4", "--sample_name", str(folder / "out")]


def test_masks_of_the_images_proportions_serve_all_of_them(tmp_path: Path) -> None:
    assert run_cli(generate_with_mask.main, a_part(tmp_path, [(40, 60), (81, 120)])) == 0


def test_another_proportion_is_refused_by_name_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = a_part(tmp_path, [(40, 60), (50, 50)])
    assert run_cli(generate_with_mask.main, command) == 2
    error = capsys.readouterr().err
    masks, normal = tmp_path / "masks", tmp_path / "normal"
    assert error.startswith(f"error: the mask {masks / '1.png'} (50 x 50 pixels) would be stretched over {normal}")
    assert "--masks augmented" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", [["--masks", "augmented"], ["--size", "32"], ["--on_object", "otsu"]])
def test_free_shapes_and_squares_go_on(tmp_path: Path, way: list[str]) -> None:
    assert run_cli(generate_with_mask.main, [*a_part(tmp_path, [(50, 50)]), *way]) == 0


def test_masks_that_make_masks_varied_are_free_shapes(tmp_path: Path) -> None:
    a_part(tmp_path, [(50, 50)])
    varied = ["--source", "augmented", "--masks", str(tmp_path / "masks"), "--size", "48", "--count", "3"]
    assert run_cli(make_masks.main, [*varied, "--out", str(tmp_path / "varied")]) == 0
    command = a_part(tmp_path, [(50, 50)])
    assert run_cli(generate_with_mask.main, [*command, "--mask_path", str(tmp_path / "varied")]) == 0

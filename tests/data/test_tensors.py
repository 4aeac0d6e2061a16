"""Masks on the way to latent cells, and pixels on the way to bytes."""

import numpy as np
import pytest
import torch

from fast.data.tensors import latent_mask, to_image, to_tensor


@pytest.mark.parametrize(("side", "cells"), [(16, 4), (16, 2), (12, 5), (7, 3), (5, 5), (6, 1)])
def test_no_pixel_is_lost_wherever_it_lies(side: int, cells: int) -> None:
    for row in range(side):
        for column in range(side):
            mask = torch.zeros(1, 1, side, side, dtype=torch.uint8)
            mask[0, 0, row, column] = 1
            small = latent_mask(mask, (cells, cells))[0, 0]
            assert set(small.unique().tolist()) <= {0.0, 1.0}
            assert small[row * cells // side, column * cells // side] == 1
            if side % cells == 0:
                assert small.sum() == 1


def test_a_latent_mask_by_hand() -> None:
    mask = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]])[None, None]
    assert latent_mask(mask, (2, 2)).tolist() == [[[[1, 0], [0, 1]]]]
    assert latent_mask(torch.zeros(1, 1, 8, 4), (4, 2)).sum() == 0
    assert latent_mask(torch.ones(1, 1, 8, 4), (4, 2)).shape == (1, 1, 4, 2)


def test_every_byte_survives_the_way_to_a_tensor_and_back() -> None:
    image = np.arange(256 * 3, dtype=np.uint32).reshape(16, 16, 3).astype(np.uint8)
    tensor = to_tensor(image)
    assert tensor.shape == (3, 16, 16)
    assert tensor.min() == -1
    assert tensor.max() == 1
    assert (to_image(tensor) == image).all()
    assert to_image(torch.tensor([-7.0, 7.0, 0.0])[:, None, None]).ravel().tolist() == [0, 255, 128]

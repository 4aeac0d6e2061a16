"""Evaluation in overlapping tiles against evaluation in one piece."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fast.windows.tiling import starts, tiled

SIZES = [(33, 70), (64, 64), (100, 31), (24, 129)]
TILES = [(32, 8), (32, 1), (16, 8), (24, 20), (40, 0)]


def plane(height: int, width: int, channels: int = 2, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(height + width))


@pytest.mark.parametrize("step", [1, 2, 8])
def test_starts_cover_the_length_evenly_with_as_few_tiles_as_can_be(step: int) -> None:
    for length, tile, overlap in itertools.product(range(step, 130, step), range(step, 60, step), (0, 1, 5, 8, 20)):
        shared = -(-overlap // step) * step
        if tile <= shared:
            continue
        found = starts(length, tile, overlap, step)
        if tile >= length:
            assert found == [0]
            continue
        gaps = [b - a for a, b in itertools.pairwise(found)]
        assert found[0] == 0
        assert found[-1] == length - tile
        assert all(s % step == 0 for s in found)
        assert min(gaps) > 0
        assert max(gaps) <= tile - shared
        assert max(gaps) - min(gaps) <= step
        fewer = len(found) - 1
        assert fewer * tile - (fewer - 1) * shared < length


def test_starts_by_hand() -> None:
    assert starts(10, 4, 1) == [0, 3, 6]
    assert starts(11, 4, 1) == [0, 2, 4, 7]
    assert starts(10, 4, 0) == [0, 3, 6]
    assert starts(96, 64, 8, 8) == [0, 32]
    assert starts(5, 8, 3) == [0]


def test_starts_that_cannot_be() -> None:
    for length, tile, overlap, step in [
        (100, 32, 8, 8),
        (96, 30, 8, 8),
        (96, 32, 32, 1),
        (96, 16, 9, 8),
        (96, 32, -1, 1),
    ]:
        with pytest.raises(ValueError, match=r"multiples|overlap"):
            starts(length, tile, overlap, step)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile", "overlap"), TILES)
def test_the_identity_and_a_constant_come_back(size: tuple[int, int], tile: int, overlap: int) -> None:
    x = plane(*size)
    before = x.clone()
    assert (tiled(lambda part, place: part, x, tile=tile, overlap=overlap) - x).abs().max() < 1e-6
    seven = tiled(lambda part, place: torch.full_like(part[:, :1], 7), x, tile=tile, overlap=overlap)
    assert seven.shape == (2, 1, *size)
    assert (seven - 7).abs().max() < 1e-5
    assert (x == before).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile", "overlap"), TILES)
def test_parts_are_what_their_place_says_and_no_larger_than_a_tile(
    size: tuple[int, int], tile: int, overlap: int
) -> None:
    x, places = plane(*size), []

    def look(part: Tensor, place: tuple[slice, slice]) -> Tensor:
        assert (part == x[:, :, place[0], place[1]]).all()
        assert part.shape[-2:] == (min(tile, size[0]), min(tile, size[1]))
        places.append((place[0].start, place[1].start))
        return part

    tiled(look, x, tile=tile, overlap=overlap)
    assert places == list(itertools.product(starts(size[0], tile, overlap), starts(size[1], tile, overlap)))


@pytest.mark.parametrize("tile", [40, 41, 1000])
def test_a_plane_that_fits_is_evaluated_once_and_handed_on_untouched(tile: int) -> None:
    x, made, calls = plane(40, 23), torch.rand(3), []

    def f(part: Tensor, place: tuple[slice, slice]) -> Tensor:
        calls.append((part, place))
        return made

    assert tiled(f, x, tile=tile, overlap=8, up=1, down=8) is made
    assert len(calls) == 1
    assert calls[0][0] is x
    assert calls[0][1] == (slice(0, 40), slice(0, 23))


@pytest.mark.parametrize(("tile", "overlap"), [(32, 8), (24, 16), (16, 1)])
def test_a_decoder_and_an_encoder_equal_the_whole(tile: int, overlap: int) -> None:
    latent = plane(40, 57, channels=4, batch=1)
    up = tiled(lambda part, _: F.interpolate(part[:, :3], scale_factor=8), latent, tile=tile, overlap=overlap, up=8)
    assert up.shape == (1, 3, 320, 456)
    assert (up - F.interpolate(latent[:, :3], scale_factor=8)).abs().max() < 2e-6
    picture = plane(120, 200, channels=3, batch=1)
    down = tiled(lambda part, _: F.avg_pool2d(part, 8), picture, tile=tile, overlap=overlap // 2, down=8)
    assert down.shape == (1, 3, 15, 25)
    assert (down - F.avg_pool2d(picture, 8)).abs().max() < 1e-6


def test_an_encoder_needs_sides_that_its_ratio_divides() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        tiled(lambda part, _: F.avg_pool2d(part, 8), plane(100, 96), tile=32, overlap=8, down=8)


def test_a_convolution_differs_only_near_the_borders_of_tiles_and_little_there() -> None:
    """What a tile does not see reaches `radius` pixels into it, where its weight is at most `radius / overlap`."""
    tile, overlap, radius = 48, 16, 3
    x = plane(80, 112)
    kernel = torch.randn(2, 2, 7, 7, generator=torch.Generator().manual_seed(1))
    wrong = torch.zeros(80, 112)
    worst = 0.0

    def f(part: Tensor, place: tuple[slice, slice]) -> Tensor:
        nonlocal worst
        made = F.conv2d(part, kernel, padding=radius)
        error = (made - wanted[:, :, place[0], place[1]]).abs().amax(dim=(0, 1))
        wrong[place] += error > 1e-4
        worst = max(worst, float(error.max()))
        return made

    wanted = F.conv2d(x, kernel, padding=radius)
    assert (starts(80, tile, overlap), starts(112, tile, overlap)) == ([0, 32], [0, 32, 64])
    error = (tiled(f, x, tile=tile, overlap=overlap) - wanted).abs().amax(dim=(0, 1))
    assert error[wrong == 0].max() < 1e-4
    assert 0 < (wrong > 0).float().mean() < 0.5
    assert worst > 1
    assert error.max() <= worst * 2 * radius / overlap


@pytest.mark.parametrize(("tile", "overlap", "up"), [(32, 8, 1), (32, 16, 1), (20, 4, 2)])
def test_tiles_that_disagree_are_blended_without_a_seam(tile: int, overlap: int, up: int) -> None:
    """Each tile its own constant: along an axis a step is at most the difference divided by the overlap."""

    def f(part: Tensor, place: tuple[slice, slice]) -> Tensor:
        made = torch.full_like(part, float((place[0].start + 3 * place[1].start) % 7))
        return F.interpolate(made, scale_factor=up)

    found = tiled(f, torch.zeros(1, 1, 70, 90), tile=tile, overlap=overlap, up=up)[0, 0]
    for axis in (0, 1):
        assert found.diff(dim=axis).abs().max() <= 6 / (overlap * up) + 1e-5
    assert found.min() >= -1e-5
    assert found.max() <= 6 + 1e-5
    assert found.std() > 0.1


def test_weights_by_hand() -> None:
    """Tiles 0..6 and 4..10 of a row: where both lie, over two pixels, the shares are 1/4 and 3/4."""
    found = tiled(
        lambda part, place: torch.full_like(part, float(place[1].start)), torch.zeros(1, 1, 1, 10), tile=6, overlap=2
    )
    assert found.flatten().tolist() == [0, 0, 0, 0, 1, 3, 4, 4, 4, 4]


def test_sums_are_float32_and_the_result_has_the_type_of_the_network() -> None:
    x = plane(50, 50).to(torch.bfloat16)
    found = tiled(lambda part, _: part, x, tile=32, overlap=8)
    assert found.dtype == torch.bfloat16
    assert (found == x).all()


def test_the_same_bytes_every_time() -> None:
    x = plane(70, 90)
    a, b = (tiled(lambda part, _: part.sin(), x, tile=32, overlap=8) for _ in range(2))
    assert (a == b).all()

"""The engine by itself: one pixel is enough, batches and threads change nothing, and it stops when told."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fast.synthesis.synthesizer
from fast.model import FAST
from fast.synthesis.batches import WINDOWS_PER_BATCH
from fast.synthesis.pair import Pair
from fast.synthesis.synthesizer import Synthesizer
from ldm.errors import UserError
from support.synthesis import plain_recipe

RECIPE = plain_recipe(64, steps=3)


def normal(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def a_picture(root: Path) -> Path:
    return min((root / "wood" / "train" / "good").iterdir())


def a_mask(root: Path) -> Path:
    return min((root / "wood" / "ground_truth" / "hole").iterdir())


def one_pixel(row: int, column: int) -> np.ndarray:
    mask = np.zeros((64, 64), np.uint8)
    mask[row, column] = 1
    return mask


@pytest.mark.parametrize("place", [(0, 0), (63, 63), (31, 32), (0, 63), (17, 5)])
@pytest.mark.parametrize("sampler", ["aias", "ddim"])
def test_a_one_pixel_mask_changes_that_pixel_and_no_other(
    tiny_fast: FAST, place: tuple[int, int], sampler: str
) -> None:
    engine = Synthesizer(tiny_fast, plain_recipe(64, sampler, steps=3))
    before = normal(1)
    made = engine.fill(before, one_pixel(*place), 0, 5)
    changed = (made != before).any(axis=2)
    assert changed[place]
    assert changed.sum() == 1


def test_a_pair_is_the_same_beside_others(tiny_fast: FAST) -> None:
    """To rounding: the command keeps batches of one shape, so that bytes agree as well."""
    engine = Synthesizer(tiny_fast, RECIPE)
    normals, masks = [normal(i) for i in range(3)], [one_pixel(9 * i, 20) for i in range(3)]
    together = engine.engine.generate(normals, masks, [0, 3, 5], [1, 2, 3])
    for i in range(3):
        alone = engine.engine.generate(normals[i : i + 1], masks[i : i + 1], [[0, 3, 5][i]], [i + 1])[0]
        assert abs(alone.astype(int) - together[i]).max() <= 1


def test_what_is_given_is_not_changed(tiny_fast: FAST) -> None:
    before, mask = normal(1), one_pixel(3, 3)
    copies = before.copy(), mask.copy()
    Synthesizer(tiny_fast, RECIPE).fill(before, mask, 0, 5)
    assert (before == copies[0]).all()
    assert (mask == copies[1]).all()


def test_numbers_that_overflow_are_no_picture(tiny_fast: FAST) -> None:
    with torch.no_grad():
        next(tiny_fast.farm.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="no numbers at --precision fp32"):
        Synthesizer(tiny_fast, RECIPE).fill(normal(1), one_pixel(3, 3), 0, 5)


def test_stopping_gives_up_what_is_under_way(
    tiny_fast: FAST, drawn_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Synthesizer(tiny_fast, plain_recipe(64, steps=500))
    evaluations = 0
    own = tiny_fast.model.forward

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal evaluations
        evaluations += 1
        if evaluations == 5:
            engine.stop()
        return own(*args, **kwargs)

    monkeypatch.setattr(tiny_fast.model, "forward", counted)
    image, mask = a_picture(drawn_root), a_mask(drawn_root)
    pairs = (Pair(i, image, mask, 0, i) for i in range(20))
    assert list(engine.make(pairs, 2)) == []
    assert evaluations < 10


def test_an_error_does_not_wait_for_what_is_under_way(
    tiny_fast: FAST, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Synthesizer(tiny_fast, plain_recipe(64, steps=300))
    monkeypatch.setattr(engine, "_workers", lambda in_flight: 2)
    begun, evaluations = threading.Event(), 0
    own_read, own_forward = fast.synthesis.synthesizer.read_image, tiny_fast.model.forward

    def read(path: Path) -> np.ndarray:
        if path.name == "gone.png":
            begun.wait(60)  # the other pair is in the middle of its steps
        return own_read(path)

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal evaluations
        evaluations += 1
        begun.set()
        return own_forward(*args, **kwargs)

    monkeypatch.setattr(fast.synthesis.synthesizer, "read_image", read)
    monkeypatch.setattr(tiny_fast.model, "forward", counted)
    image, mask = a_picture(drawn_root), a_mask(drawn_root)
    pairs = [Pair(0, image, mask, 0, 0), Pair(1, tmp_path / "gone.png", mask, 0, 1)]
    with pytest.raises(UserError, match=r"gone\.png"):
        list(engine.make(iter(pairs), 2))
    assert 0 < evaluations < 250
    monkeypatch.undo()
    assert len(list(engine.make(iter(pairs[:1]), 1))) == 1


def test_a_gpu_s_batch_is_padded_to_its_full_width(
    tiny_fast: FAST, drawn_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WINDOWS_PER_BATCH, "cpu", 4)
    engine = Synthesizer(tiny_fast, RECIPE)
    widths: list[int] = []
    tiny_fast.model.register_forward_pre_hook(lambda module, args: widths.append(len(args[0])))
    image = a_picture(drawn_root)
    masks = sorted((drawn_root / "wood" / "ground_truth" / "hole").iterdir())
    pairs = [Pair(i, image, masks[i % 3], i % 4, i) for i in range(6)]
    made = {m.pair.index: m.image for m in engine.make(iter(pairs), 8)}
    assert sorted(made) == list(range(6))
    assert set(widths) == {4}
    other_company = {m.pair.index: m.image for m in engine.make(iter(pairs[3:]), 8)}
    for i, image in other_company.items():
        assert (image == made[i]).all()

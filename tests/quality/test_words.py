"""The classifier of defect types: where it looks, what it is never shown, that it learns, and its file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fast.procedural import DEFECTS, draw_defect, draw_surface
from fast.quality.examples import UNTYPED, draw_examples
from fast.quality.windows import STORED, cut, fill_untyped, middle
from fast.quality.words import Classifier, WordNet, augmented, train_on_views
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError


def squares(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Grey images with a square that is dark or bright, called a hole and a fade."""
    rng = np.random.default_rng(seed)
    images = rng.normal(120, 5, (count, 128, 128, 3)).clip(0, 255).astype(np.uint8)
    masks, types = np.zeros((count, 128, 128), np.uint8), []
    for i in range(count):
        y, x = rng.integers(20, 80, 2)
        masks[i, y : y + 24, x : x + 24] = 1
        types.append(("hole", "fade")[i % 2])
        images[i][masks[i] > 0] = (10, 240)[i % 2]
    return images, masks, types


def test_views_are_centred_on_the_mask_and_lie_inside_the_image() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    mask = np.zeros((256, 256), np.uint8)
    mask[100:111, 140:151] = 1
    image[105, 145] = 255
    near, far = cut(image, mask)
    assert near.shape == far.shape == (STORED, STORED, 3)
    assert np.argwhere(near[..., 0]).tolist() == [[STORED // 2] * 2]
    assert 0 < far.max() < 255  # a quarter of a pixel
    corner = np.zeros_like(mask)
    corner[0, 0] = 1
    assert (cut(np.full((256, 256, 3), 7, np.uint8), corner) == 7).all()
    assert (cut(np.full((64, 80, 3), 7, np.uint8), corner[:64, :80]) == 7).all()  # smaller than a view: mirrored


def test_of_a_mask_nothing_but_its_middle_counts() -> None:
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    ring = np.zeros((256, 256), np.uint8)
    ring[100:141, 100:141] = 1
    square = ring.copy()
    ring[105:136, 105:136] = 0
    ring[120, 120] = 1
    assert middle(ring).tolist() == middle(square).tolist() == [120, 120]
    assert (cut(image, ring) == cut(image, square)).all()
    ring[120, 120] = 0
    assert ring[tuple(middle(ring))] == 1  # on the defect, wherever its centre of mass lies


def test_an_untyped_filling_stays_inside_the_mask() -> None:
    rng = np.random.default_rng(0)
    normal = draw_surface("leather", rng, 64)
    _, mask = draw_defect(normal, "leather", "hole", rng)
    fillings = [fill_untyped(normal, mask, rng) for _ in range(8)]
    for filled in fillings:
        assert (filled[mask == 0] == normal[mask == 0]).all()
        assert (filled[mask > 0] != normal[mask > 0]).any()
    assert len({filled.tobytes() for filled in fillings}) == 8


def test_examples_are_the_same_every_time() -> None:
    views, labels = draw_examples(2, ("leather", "wood"), seed=3, workers=1, size=64)
    assert views.shape == (10, 2, STORED, STORED, 3)
    assert (labels == UNTYPED).tolist() == ([False] * 4 + [True]) * 2
    again, same = draw_examples(2, ("leather", "wood"), seed=3, workers=2, size=64)
    assert (views == again).all()
    assert (labels == same).all()


def test_augmented_views_keep_their_order() -> None:
    levels = torch.arange(16, dtype=torch.uint8) * 16
    views = levels[:, None, None, None, None].expand(16, 2, STORED, STORED, 3)
    seen = torch.stack([augmented(views, torch.Generator().manual_seed(i))[0].mean((1, 2, 3)) for i in range(8)])
    assert torch.corrcoef(torch.stack([seen.mean(0), levels.float()]))[0, 1] > 0.98


def test_it_learns_what_fills_the_masks(tmp_path: Path) -> None:
    images, masks, types = squares(24)
    from fast.quality.windows import cut_all

    labels = np.array([DEFECTS.index(kind) for kind in types])
    found = train_on_views(cut_all(images, masks), labels, steps=16, batch=8)
    others, places, wanted = squares(12, seed=1)
    logits = found.logits(others, places)
    assert logits.shape == (12, len(DEFECTS))
    assert [found.types[i] for i in logits.argmax(1).tolist()] == wanted
    found.save(tmp_path / "words.safetensors")
    loaded = Classifier.load(tmp_path / "words.safetensors")
    assert loaded.types == DEFECTS
    assert torch.equal(loaded.logits(others, places), logits)


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    save_safetensors({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {})
    with pytest.raises(UserError, match="holds no classifier"):
        Classifier.load(tmp_path / "other.safetensors")
    network = WordNet(3)
    Classifier(network, ["a", "b", "c"]).save(tmp_path / "own.safetensors")
    assert Classifier.load(tmp_path / "own.safetensors").types == ("a", "b", "c")
    save_safetensors({"a": torch.zeros(1)}, tmp_path / "old.safetensors", {"word_types": '["a"]'})
    with pytest.raises(UserError, match="another make"):
        Classifier.load(tmp_path / "old.safetensors")

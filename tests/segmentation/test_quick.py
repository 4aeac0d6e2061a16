"""The quick judge: its shortcut against interpolation, its store, its folds, its threshold, and what it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fast.features.store import CELL, WIDTH, FeatureStore, shares
from fast.segmentation import build
from fast.segmentation.data import SegmentationSample, from_arrays, merged
from fast.segmentation.evaluation import evaluate
from fast.segmentation.pixel_head import PixelHead, Quick
from fast.segmentation.pool import PixelPool, allot, take
from fast.segmentation.quick import QuickJudge, folds
from ldm.errors import UserError


def image_of(seed: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(90, 160, (side, side, 3)).astype(np.uint8)


def spotted(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image with a dark square, and its mask."""
    image, mask = image_of(seed), np.zeros((64, 64), np.uint8)
    y, x = np.random.default_rng(seed).integers(8, 40, 2)
    mask[y : y + 14, x : x + 14] = 1
    image[mask > 0] = image[mask > 0] // 4
    return image, mask


def pairs(seeds: range) -> list[SegmentationSample]:
    return from_arrays(*zip(*(spotted(s) for s in seeds), strict=True), kind="part/spot")


def random_head() -> PixelHead:
    torch.manual_seed(0)
    head = PixelHead().eval()
    head.mean.normal_()
    head.std.uniform_(0.5, 2)
    return head


def test_cells_are_those_of_interpolated_maps() -> None:
    row, column = np.array([0, 5, 15, 13]), np.array([0, 9, 15, 2])
    for features in FeatureStore()([image_of(0), image_of(2, 96)]):
        found = features.read(row, column)
        assert found.shape == (4, WIDTH)
        maps = [F.interpolate(m, size=features.shape, mode="bilinear") for m in features.as_images()]
        torch.testing.assert_close(found, torch.cat(maps, dim=1)[0, :, row, column].T, atol=1e-3, rtol=1e-3)


def test_a_head_answers_for_an_image_as_for_its_cells() -> None:
    head, (features,) = random_head(), FeatureStore()([image_of(0)])
    rows, columns = (a.reshape(-1) for a in np.indices(features.shape))
    with torch.no_grad():
        each = head.cells(features.read(rows, columns))
        torch.testing.assert_close(head.image(features.as_images()).reshape(-1), each, atol=1e-3, rtol=1e-3)


def test_the_network_answers_as_the_judge_does_and_is_saved_with_its_threshold() -> None:
    judge = QuickJudge(size=64, augment="none", steps=30, batch=128, pool=1000, folds=2)
    head, test = judge.fit(pairs(range(6))), pairs(range(20, 24))
    network = Quick()
    network.head = head
    told, seen = judge.test(head, test), evaluate(network, test, size=64)
    assert told["miou"] == pytest.approx(seen["miou"], abs=0.02)  # features are kept in half precision
    assert told["ap"] == pytest.approx(seen["ap"], abs=0.02)
    assert {"head.threshold", "head.mean"} <= network.state_dict().keys()


def test_it_finds_what_it_was_shown() -> None:
    judge = QuickJudge(size=64, augment="classical", views=2, steps=120, batch=256, pool=4000)
    found = judge.score(pairs(range(8)), pairs(range(20, 26)))
    assert found["miou"] > 0.6
    assert found["auroc"] > 0.95
    assert set(found["types"]) == {"part/spot"}
    again = judge.score(pairs(range(8)), pairs(range(20, 26)))
    assert again == found


def test_features_are_computed_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = FeatureStore(tmp_path)([image_of(0)])
    other = FeatureStore(tmp_path)
    monkeypatch.setattr(FeatureStore, "_compute", lambda *_: pytest.fail("computed again"))
    (second,) = other([image_of(0)])
    assert second.shape == first.shape == (16, 16)
    assert all(torch.equal(a, b) for a, b in zip(first.maps, second.maps, strict=True))
    with pytest.raises(pytest.fail.Exception):
        other([image_of(1)])


def test_half_of_the_cells_hold_defect() -> None:
    (features,) = FeatureStore()([image_of(0)])
    mask = np.zeros((64, 64), np.uint8)
    mask[:8, :4] = 1
    found, share = take(features, shares(mask, features.shape), 50, 30, np.random.default_rng(0))
    assert found.shape == (80, WIDTH)
    assert (share[:50] == 1).all()
    assert share[50:].mean() < 0.1


def test_areas_count_by_their_root_within_a_weight_and_weights_keep_their_share() -> None:
    rng = np.random.default_rng(0)
    weights = np.array([1.0, 1.0, 1.0, 3.0])
    defect, other = allot(weights, np.array([1, 64, 0, 4000]), 18000, rng)
    assert defect.sum() == other.sum() == 9000
    np.testing.assert_allclose(defect / 9000, [2 / 45, 16 / 45, 0, 27 / 45], atol=0.02)  # 1 : 8 of 2, beside 3
    np.testing.assert_allclose(other / 9000, weights / 6, atol=0.02)


def test_real_defects_have_as_many_views_with_pairs_as_without() -> None:
    real = pairs(range(3))
    made = [replace(p, synthetic=True) for p in pairs(range(10, 12))] * 600
    assert QuickJudge(views=4)._counts(real).tolist() == [5, 5, 5]
    counts = QuickJudge(views=4)._counts(merged(made, real, real_share=0.5))
    assert sorted(counts.tolist()) == [2] * 1200 + [5] * 3


def test_folds_keep_groups_whole() -> None:
    samples = [
        SegmentationSample(np.zeros((8, 8, 3), np.uint8), None, f"a/{i % 2}", group=f"g{i // 4}") for i in range(40)
    ]
    parts = folds(samples, 3, 0)
    assert sorted(i for part in parts for i in part) == list(range(40))
    groups = [{samples[i].group for i in part} for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert max(map(len, parts)) - min(map(len, parts)) <= 4
    assert len(folds(samples[:4], 3, 0)) == 1


def test_pairs_made_from_a_fold_do_not_choose_its_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of real images 0..5 each has a pair made from it: where it is predicted, neither may have been trained on."""
    real = [replace(p, group=str(i)) for i, p in enumerate(pairs(range(6)))]
    paths = [Path(f"/nowhere/{i}.png").resolve() for i in range(6)]
    made = [replace(p, synthetic=True, sources=frozenset([path])) for p, path in zip(real, paths, strict=True)]
    named = [replace(p, image=path) for p, path in zip(real, paths, strict=True)]
    judge = QuickJudge(size=64, folds=3)
    owner = np.arange(12)
    seen: list[set[int]] = []
    monkeypatch.setattr(QuickJudge, "_train", lambda self, pool, seed: seen.append(set(pool.owner.tolist())))
    asked: list[set[int]] = []
    monkeypatch.setattr(
        QuickJudge, "answers", lambda self, head, part: asked.append({named.index(p) for p in part}) or []
    )
    judge._threshold(named + made, PixelPool(torch.zeros(12, 1), torch.ones(12), owner), 0)
    assert len(seen) == 3
    for trained, tested in zip(seen, asked, strict=True):
        assert not trained & (tested | {i + 6 for i in tested})
        assert len(trained) == 8


def test_a_head_s_seed_leaves_the_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seeded = torch.get_rng_state(), list[int]()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    pool = PixelPool(torch.zeros(8, WIDTH).half(), torch.ones(8), np.zeros(8, int))
    QuickJudge(batch=4)._train(pool, seed=1, steps=2)
    assert torch.equal(before, torch.get_rng_state())
    assert not seeded, "a card's neither"


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="no pairs with defects"):
        QuickJudge().fit(from_arrays([image_of(0)], [None], "a/good"))
    with pytest.raises(UserError, match="augment=all is unknown"):
        QuickJudge(augment="all")
    with pytest.raises(UserError, match="not 3 classes"):
        build("quick", 3)


def test_shares_of_cells() -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[0, :3], mask[5, 7] = 1, 1
    np.testing.assert_allclose(shares(mask, (8, 8))[:2, :2] * CELL * CELL, [[3, 0], [0, 1]])


def test_two_processes_may_fill_one_folder_of_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fast.features import store as module

    written: list[Path] = []
    save = module.save_safetensors
    monkeypatch.setattr(
        module, "save_safetensors", lambda state, path, about: (written.append(path), save(state, path, about))
    )
    for pid in (7, 8):
        monkeypatch.setattr(module.os, "getpid", lambda pid=pid: pid)
        store = FeatureStore(tmp_path / str(pid))
        store([image_of(0)])
        assert [p.suffix for p in (tmp_path / str(pid)).rglob("*") if p.is_file()] == [".safetensors"]
    assert [path.suffix for path in written] == [".7", ".8"]

"""The metrics of defect pixels against pictures worked by hand and against plain definitions."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fast.segmentation.data import Labelled, from_arrays
from fast.segmentation.metrics import Tally, defect_score, evaluate
from ldm.errors import UserError


class Brightness(nn.Module):
    """Defect where a picture is brighter than 0; remembers what sizes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape))
        value = image.mean(dim=1, keepdim=True)
        return torch.cat([-value, value], dim=1)


def picture(bright: np.ndarray) -> np.ndarray:
    return np.repeat(np.where(bright, 255, 0).astype(np.uint8)[..., None], 3, axis=2)


def tally(found: list[list[int]], mask: list[list[int]]) -> Tally:
    result = Tally()
    result.add(np.array(found, bool), np.array(mask, bool), np.array(found, np.float32))
    return result


def test_iou_and_acc_of_a_picture_worked_by_hand() -> None:
    found = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    mask = [[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    result = tally(found, mask)  # 2 in common, 4 found, 6 true
    assert result.iou == pytest.approx(2 / 8)
    assert result.acc == pytest.approx(2 / 6)


def test_areas_are_summed_before_they_are_divided() -> None:
    first = tally([[1, 1, 1, 1]], [[1, 1, 1, 1]])
    first.merge(tally([[0, 0, 1, 0]], [[1, 0, 0, 0]]))
    assert first.iou == pytest.approx(4 / 6)  # not the mean of 1 and 0
    assert first.acc == pytest.approx(4 / 5)
    assert first.images == 2


def test_ap_and_auroc_worked_by_hand() -> None:
    # By falling score: defect, good, defect, good: precision 1 at recall 1/2, 2/3 at recall 1.
    result = Tally()
    result.add(np.ones((1, 4), bool), np.array([[True, False, True, False]]), np.array([[4.0, 3.0, 2.0, 1.0]]))
    assert result.ap() == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert result.auroc() == pytest.approx(3 / 4)


def test_scores_that_tie_are_one_threshold() -> None:
    result = Tally()
    mask = np.array([[True, False, False, False]])
    result.add(mask, mask, np.array([[0.0, -0.0, 0.0, 0.0]]))
    assert result.ap() == pytest.approx(1 / 4)
    assert result.auroc() == pytest.approx(1 / 2)


def test_ap_and_auroc_against_their_definitions() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((2, 10, 12)) < 0.2
    score = (rng.normal(size=mask.shape) * 3 + mask).round()  # whole numbers: many ties, exact in half precision
    score[0, 0, :2] = 1e6, -1e6
    result = Tally()
    for m, s in zip(mask, score, strict=True):
        result.add(s > 0, m, s)
    good, bad = score[~mask], score[mask]
    wins = (bad[:, None] > good[None]).mean() + (bad[:, None] == good[None]).mean() / 2
    assert result.auroc() == pytest.approx(wins)
    ap, recall = 0.0, 0.0
    for threshold in np.unique(score)[::-1]:
        above = score >= threshold
        ap += (mask & above).sum() / above.sum() * ((mask & above).sum() / mask.sum() - recall)
        recall = (mask & above).sum() / mask.sum()
    assert result.ap() == pytest.approx(ap)


def test_score_of_more_classes_is_the_odds_of_any_defect() -> None:
    logits = torch.tensor([1.0, 0.5, -2.0]).view(1, 3, 1, 1)
    p = logits.softmax(dim=1)[0, 0, 0, 0]
    assert defect_score(logits).item() == pytest.approx(float(torch.log((1 - p) / p)), abs=1e-6)


def pairs() -> Iterator[Labelled]:
    """32 x 32: a type found by half, a type missed and confused, and a normal with a false alarm of 64 pixels."""
    left, top, corner = (np.zeros((32, 32), bool) for _ in range(3))
    left[:, :16], top[:16], corner[:8, :8] = True, True, True
    yield from from_arrays([picture(left & top)], [left], "a/scratch")
    yield from from_arrays([picture(~left)], [left], "a/hole")
    yield Labelled(picture(corner), None, "a/good")


def test_evaluation_by_type_and_in_all() -> None:
    result = evaluate(Brightness(), list(pairs()), size=32, batch_size=2)
    assert result["types"]["a/scratch"]["iou"] == pytest.approx(0.5)
    assert result["types"]["a/hole"]["iou"] == 0
    assert result["types"]["a/good"]["iou"] == 0
    assert result["types"]["a/good"]["acc"] is None
    assert result["miou_types"] == pytest.approx(0.25)
    assert result["acc_types"] == pytest.approx(0.25)
    assert result["miou"] == pytest.approx(256 / (512 + 512 + 512 + 64))
    assert result["acc"] == pytest.approx(256 / 1024)
    assert result["images"] == 3


def test_native_evaluation_keeps_the_pictures_and_sees_them_in_tiles() -> None:
    bright = np.zeros((70, 40), bool)
    bright[60:65, 3:9] = True
    model = Brightness()
    result = evaluate(model, from_arrays([picture(bright)], [bright]), size=32, native=True)
    assert result["miou"] == 1
    assert len(model.seen) > 4
    assert max(side for shape in model.seen for side in shape[2:]) == 32


def test_without_anything_to_say_the_figures_are_none() -> None:
    result = evaluate(Brightness(), [Labelled(picture(np.zeros((32, 32), bool)), None, "a/good")], size=32)
    assert [result[k] for k in ("miou", "acc", "ap", "auroc", "miou_types")] == [None] * 5


def test_bad_evaluations_are_refused() -> None:
    with pytest.raises(UserError, match="no pairs to test"):
        evaluate(Brightness(), [])
    mask = np.zeros((1, 2), bool)
    with pytest.raises(UserError, match="NaN"):
        Tally().add(mask, mask, np.array([[np.nan, 0.0]]))

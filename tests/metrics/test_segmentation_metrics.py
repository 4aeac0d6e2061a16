"""The metrics of defect pixels against pictures worked by hand and against plain definitions."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision, BinaryPrecisionRecallCurve, JaccardIndex

from fast.metrics.pro import shares
from fast.metrics.segmentation import ClassMetricAccumulator, MetricAccumulator, defect_score
from fast.segmentation.data import SegmentationSample, from_arrays
from fast.segmentation.evaluation import evaluate
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


def tally(found: list[list[int]], mask: list[list[int]]) -> MetricAccumulator:
    result = MetricAccumulator()
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
    result = MetricAccumulator()
    result.add(np.ones((1, 4), bool), np.array([[True, False, True, False]]), np.array([[4.0, 3.0, 2.0, 1.0]]))
    assert result.ap() == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert result.auroc() == pytest.approx(3 / 4)


def test_scores_that_tie_are_one_threshold() -> None:
    result = MetricAccumulator()
    mask = np.array([[True, False, False, False]])
    result.add(mask, mask, np.array([[0.0, -0.0, 0.0, 0.0]]))
    assert result.ap() == pytest.approx(1 / 4)
    assert result.auroc() == pytest.approx(1 / 2)


def test_ap_and_auroc_against_their_definitions() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((2, 10, 12)) < 0.2
    score = (rng.normal(size=mask.shape) * 3 + mask).round()  # whole numbers: many ties, exact in half precision
    score[0, 0, :2] = 1e6, -1e6
    result = MetricAccumulator()
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


def scored(masks: np.ndarray, scores: np.ndarray) -> MetricAccumulator:
    """masks bool, scores (N,H,W)."""
    result = MetricAccumulator()
    for mask, score in zip(masks, scores, strict=True):
        result.add(score > 0, mask, score)
    return result


def noisy(seed: int, shape: tuple[int, ...] = (4, 12, 14)) -> tuple[np.ndarray, np.ndarray]:
    """Masks with some regions and scores with many ties, exact in half precision."""
    rng = np.random.default_rng(seed)
    masks = rng.random(shape) < 0.15
    masks[0] = False
    return masks, (rng.normal(size=shape) * 2 + 3 * masks).round()


@pytest.mark.parametrize("seed", range(3))
def test_pooled_figures_against_torchmetrics(seed: int) -> None:
    masks, scores = noisy(seed)
    result = scored(masks, scores)
    odds, truth = torch.tensor(scores), torch.tensor(masks).long()
    assert result.ap() == pytest.approx(BinaryAveragePrecision()(odds, truth).item(), abs=1e-6)
    assert result.auroc() == pytest.approx(BinaryAUROC()(odds, truth).item(), abs=1e-6)
    precision, recall, _ = BinaryPrecisionRecallCurve()(odds, truth)
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    assert result.f1_max() == pytest.approx(f1.max().item(), abs=1e-6)
    at_half = JaccardIndex("binary")((odds > 0).long(), truth).item()
    assert result.iou == pytest.approx(at_half, abs=1e-6)
    assert result.f1 == pytest.approx(2 * at_half / (1 + at_half), abs=1e-6)
    assert result.aacc == pytest.approx(((scores > 0) == masks).mean())


def test_f1_max_worked_by_hand() -> None:
    # By falling score: defect, good, defect, good. F1 at the thresholds: 2/3, 2/4, 4/5, 4/6.
    result = scored(np.array([[[True, False, True, False]]]), np.array([[[4.0, 3.0, 2.0, -1.0]]]))
    assert result.f1_max() == pytest.approx(4 / 5)
    assert result.f1 == pytest.approx(4 / 5)  # found are the first three
    assert scored(np.array([[[True, False]]]), np.array([[[-1.0, -2.0]]])).f1_max() == 1
    assert scored(np.array([[[True, False]]]), np.array([[[-1.0, -2.0]]])).f1 == 0


def test_regions_touch_at_corners_and_share_their_pixels() -> None:
    mask = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]], bool)
    share, regions = shares(mask)
    third = 1 / 3
    assert regions == 2
    np.testing.assert_allclose(share, [[0.5, 0, 0, 0], [0, 0.5, 0, third], [0, 0, 0, third], [0, 0, 0, third]])


def test_pro_worked_by_hand() -> None:
    """Regions of 1 and 3 pixels, 12 good ones. Thresholds: 9 finds the pinhole; 8: 2 good ones; 7: two of three; 6: 4
    good ones and the last; 0: the rest. Points (FPR, PRO): (0, 1/2), (1/6, 1/2), (1/6, 5/6), (1/2, 1)."""
    mask = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]], bool)
    score = np.array([[9, 8, 8, 0], [0, 0, 0, 7], [6, 6, 6, 7], [0, 0, 6, 6]], float)
    at_limit = 5 / 6 + (0.3 - 1 / 6) / (1 / 2 - 1 / 6) / 6
    area = 1 / 6 * 1 / 2 + (0.3 - 1 / 6) * (5 / 6 + at_limit) / 2
    result = scored(mask[None], score[None] - 6.5)
    assert result.pro() == pytest.approx(area / 0.3)
    assert result.pro_at_half == pytest.approx((1 + 2 / 3) / 2)


def brute_pro(masks: np.ndarray, scores: np.ndarray, limit: float = 0.3) -> float:
    """Threshold by threshold, region by region; the curve on a grid so fine that lines and their ends are met."""
    regions = [(n, part) for n, mask in enumerate(masks) for part in parts(mask)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(scores)[::-1]:
        above = scores >= threshold
        recall = np.mean([above[n][part].mean() for n, part in regions])
        points.append((float(above[~masks].mean()), float(recall)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


def parts(mask: np.ndarray) -> list[np.ndarray]:
    """8-connected components, bool (H,W) each, by growing one pixel after another."""
    left, found = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        edge, part = [left.pop()], np.zeros(mask.shape, bool)
        while edge:
            y, x = edge.pop()
            part[y, x] = True
            near = left & {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
            left -= near
            edge += near
        found.append(part)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_pro_against_its_definition(seed: int) -> None:
    masks, scores = noisy(seed)
    result = scored(masks, scores)
    assert result.pro() == pytest.approx(brute_pro(masks, scores))
    found = [(scores[n] > 0)[part].mean() for n in range(len(masks)) for part in parts(masks[n])]
    assert result.pro_at_half == pytest.approx(np.mean(found))
    halves = scored(masks[:2], scores[:2])
    halves.merge(scored(masks[2:], scores[2:]))
    assert halves.pro() == pytest.approx(result.pro())


def test_pro_of_saturated_scores() -> None:
    """A softmax in single precision answers 0 and 1 alone: one threshold and two straight lines."""
    mask = np.zeros((1, 10, 10), bool)
    mask[0, :5, :4] = True
    score = np.where(mask, 1.0, 0.0)
    score[0, 0, :4] = 0  # a fifth of the region is missed, 8 of 80 good pixels are false alarms
    score[0, 9, :8] = 1
    expected = (0.1 * 0.8 / 2 + 0.2 * (0.8 + 0.8 + 0.2 * 0.2 / 0.9) / 2) / 0.3
    assert scored(mask, score).pro() == pytest.approx(expected)
    assert scored(mask, np.zeros_like(score)).pro() == pytest.approx(0.15)  # knows nothing
    assert scored(mask, mask * 1e6).pro() == 1


def test_without_defects_or_without_good_pixels() -> None:
    none, every = np.zeros((1, 4, 4), bool), np.ones((1, 4, 4), bool)
    score = np.arange(16.0).reshape(1, 4, 4)
    good, bad = scored(none, score).report(), scored(every, score).report()
    assert [good[k] for k in ("pro", "pro_at_half", "f1_max", "ap", "auroc")] == [None] * 5
    assert (good["f1"], good["aacc"]) == (0, pytest.approx(1 / 16))
    assert (bad["pro"], bad["auroc"]) == (None, None)
    assert (bad["f1_max"], bad["ap"], bad["pro_at_half"]) == (1, 1, pytest.approx(15 / 16))


def test_classes_against_torchmetrics() -> None:
    rng = np.random.default_rng(5)
    truth, predicted = rng.integers(0, 3, (2, 3, 9, 7))  # class 3 of 4 is nowhere
    tally = ClassMetricAccumulator(4)
    for p, t in zip(predicted, truth, strict=True):
        tally.add(p, t)
    report = tally.report({1: "a", 2: "b", 3: "c"})
    iou = JaccardIndex("multiclass", num_classes=4, average="none")(torch.tensor(predicted), torch.tensor(truth))
    assert report["classes"]["a"]["iou"] == pytest.approx(iou[1].item(), abs=1e-6)
    assert report["classes"]["b"]["acc"] == pytest.approx((predicted == 2)[truth == 2].mean())
    assert report["classes"]["c"] == {"iou": None, "acc": None}
    assert report["miou_classes"] == pytest.approx(iou[1:3].mean().item(), abs=1e-6)
    assert report["aacc_classes"] == pytest.approx((predicted == truth).mean())


class ThreeWay(nn.Module):
    """Class 1 where a picture is dark grey, class 2 where it is white."""

    def forward(self, image: Tensor) -> Tensor:
        value = image.mean(dim=1, keepdim=True)
        return torch.cat([-1 - value, 0.4 - 2 * value.abs(), value - 0.3], dim=1)


def test_a_network_of_several_classes_is_told_apart_and_stays_binary_otherwise() -> None:
    grey = np.zeros((32, 32, 3), np.uint8)
    grey[:16], grey[16:24] = 128, 255
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 1
    pairs = [SegmentationSample(grey, mask, "a/hole", label=1), SegmentationSample(grey, mask, "a/scratch", label=2)]
    result = evaluate(ThreeWay(), pairs, size=32, labels={1: "hole", 2: "scratch"})
    assert result["miou"] == pytest.approx(2 / 3)  # 16 rows of 24
    # Class 1: 16 rows true and 32 predicted, 16 in common; class 2: 16 true, 16 predicted, none in common.
    assert result["classes"] == {"hole": {"iou": pytest.approx(0.5), "acc": 1}, "scratch": {"iou": 0, "acc": 0}}
    assert (result["miou_classes"], result["acc_classes"]) == (pytest.approx(0.25), pytest.approx(0.5))
    assert result["aacc_classes"] == pytest.approx((16 + 8 + 8) / 64)
    assert "classes" not in evaluate(ThreeWay(), pairs, size=32)
    with pytest.raises(UserError, match=r"defect classes 1\.\.2"):
        evaluate(ThreeWay(), pairs, size=32, labels={3: "stain"})
    with pytest.raises(UserError, match="class 2, which labels do not name"):
        evaluate(ThreeWay(), pairs, size=32, labels={1: "hole"})


def test_score_of_more_classes_is_the_odds_of_any_defect() -> None:
    logits = torch.tensor([1.0, 0.5, -2.0]).view(1, 3, 1, 1)
    p = logits.softmax(dim=1)[0, 0, 0, 0]
    assert defect_score(logits).item() == pytest.approx(float(torch.log((1 - p) / p)), abs=1e-6)


def pairs() -> Iterator[SegmentationSample]:
    """32 x 32: a type found by half, a type missed and confused, and a normal with a false alarm of 64 pixels."""
    left, top, corner = (np.zeros((32, 32), bool) for _ in range(3))
    left[:, :16], top[:16], corner[:8, :8] = True, True, True
    yield from from_arrays([picture(left & top)], [left], "a/scratch")
    yield from from_arrays([picture(~left)], [left], "a/hole")
    yield SegmentationSample(picture(corner), None, "a/good")


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
    assert result["f1"] == pytest.approx(512 / (832 + 1024))
    assert result["types"]["a/scratch"]["pro"] == pytest.approx(0.5 + 0.3 * 0.5 / 2)
    assert result["pro_at_half"] == pytest.approx(0.25)
    assert {"f1_max", "pro"} <= result.keys()


def test_native_evaluation_keeps_the_pictures_and_sees_them_in_tiles() -> None:
    bright = np.zeros((70, 40), bool)
    bright[60:65, 3:9] = True
    model = Brightness()
    result = evaluate(model, from_arrays([picture(bright)], [bright]), size=32, native=True)
    assert result["miou"] == 1
    assert len(model.seen) > 4
    assert max(side for shape in model.seen for side in shape[2:]) == 32


def test_without_anything_to_say_the_figures_are_none() -> None:
    result = evaluate(Brightness(), [SegmentationSample(picture(np.zeros((32, 32), bool)), None, "a/good")], size=32)
    assert [result[k] for k in ("miou", "acc", "ap", "auroc", "pro", "f1_max", "miou_types")] == [None] * 7


def test_bad_evaluations_are_refused() -> None:
    with pytest.raises(UserError, match="no pairs to test"):
        evaluate(Brightness(), [])
    mask = np.zeros((1, 2), bool)
    with pytest.raises(UserError, match="NaN"):
        MetricAccumulator().add(mask, mask, np.array([[np.nan, 0.0]]))


def test_ignored_pixels_count_in_no_figure() -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random((20, 20)) < 0.3).astype(np.uint8)
    score = rng.random((20, 20)).astype(np.float16).astype(np.float32)
    labels[:, 12:14] = 255  # a wall: left and right of it nothing touches
    whole = MetricAccumulator()
    whole.add(score > 0.5, labels, score)
    halves = MetricAccumulator()
    for part in (slice(0, 12), slice(14, 20)):
        halves.add(score[:, part] > 0.5, labels[:, part], score[:, part])
    assert {**whole.report(), "images": 2} == pytest.approx(halves.report())

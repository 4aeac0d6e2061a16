"""What is found where nothing is marked is told, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fast.cli import segment
from fast.data.images import write_image, write_mask
from fast.segmentation.data import SegmentationSample
from fast.segmentation.evaluation import evaluate
from fast.segmentation.quick import QuickJudge
from fast.segmentation.unmarked import LISTED, Unmarked, away


def test_regions_that_touch_a_mark_or_come_near_it_are_its_own() -> None:
    found, labels = np.zeros((64, 128), bool), np.zeros((64, 128), np.uint8)
    found[10:20, 10:30] = True  # touches the mark
    labels[15:25, 25:40] = 1
    found[30:34, 25:30] = True  # five pixels above it is none: 4 = 128 / 32 are near
    found[40:50, 100:120] = True
    found[0:4, 60:64] = True  # to be ignored
    labels[0:2, 60:64] = 255
    assert away(found, labels) == (4 * 5 + 10 * 20) / (64 * 128)
    labels[27, 25] = 1
    assert away(found, labels) == 10 * 20 / (64 * 128)
    assert away(found, np.zeros_like(labels)) == found.sum() / (64 * 128)
    assert away(np.zeros_like(found), labels) == 0
    assert away(found, np.ones_like(labels)) == 0


def test_one_picture_of_a_part_is_listed_the_largest_first() -> None:
    tally, labels = Unmarked(), np.zeros((100, 100), np.uint8)
    for number, (part, pixels) in enumerate([("a", 30), ("a", 50), ("b", 40), ("", 21), ("", 20), ("c", 19)]):
        found = np.zeros((100, 100), bool)
        found[0, :pixels] = True
        sample = SegmentationSample(Path(f"{number}.png"), Path("m.png"), "part/dent", group=part)
        tally.add(sample, found, labels)
    assert tally.report() == [
        {"image": "1.png", "type": "part/dent", "share": 0.005},
        {"image": "2.png", "type": "part/dent", "share": 0.004},
        {"image": "3.png", "type": "part/dent", "share": 0.0021},
        {"image": "4.png", "type": "part/dent", "share": 0.002},
    ]
    for number in range(10, 20):
        tally.add(SegmentationSample(Path(f"{number}.png"), None, "part/good"), np.ones((100, 100), bool), labels)
    assert len(tally.report()) == LISTED


class Bright(nn.Module):
    """Finds what is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-x[:, :1], x[:, :1]], dim=1)


def test_figures_of_a_network_and_of_the_quick_judge_name_the_picture(tmp_path: Path) -> None:
    samples = []
    for number in range(4):
        image, mask = np.zeros((256, 256, 3), np.uint8), np.zeros((256, 256), np.uint8)
        image[40:80, 40:80], mask[40:80, 40:80] = 255, 1
        if number == 2:
            image[160:200, 160:200] = 255  # as bright, and not marked
        write_image(tmp_path / f"{number}.png", image)
        write_mask(tmp_path / f"{number}_mask.png", mask)
        paths = tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"
        samples.append(SegmentationSample(*paths, "part/dent"))
    told = {"image": str(tmp_path / "2.png"), "type": "part/dent"}
    assert evaluate(Bright(), samples, size=256)["unmarked"] == [{**told, "share": round(1600 / 65536, 4)}]
    judge = QuickJudge(size=256, augment="none")
    (row,) = judge.test(judge.fit(samples[:2] + samples[3:]), samples[1:])["unmarked"]
    assert row["image"] == told["image"]
    assert 0.5 < row["share"] * 65536 / 1600 < 2


def test_the_command_tells_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"image": "a.png", "type": "part/dent", "share": 0.0625}, {"image": "b.png", "type": "x", "share": 0.01}]
    segment.tell_unmarked(rows, Path("m.json"))
    segment.tell_unmarked(rows[:1], Path("m.json"))
    segment.tell_unmarked([], Path("m.json"))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("note: 6.2 % of a.png is found where nothing is marked: ")
    assert first.endswith("; 1 more picture under 'unmarked' in m.json")
    assert second.endswith("look at it")
    json.dumps(rows)

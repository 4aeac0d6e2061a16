"""The scores of a base, end to end with a tiny one: figures, tables in the page, going on, and what is refused."""

import json
import sys
from pathlib import Path

import pytest

from fast.door import open_door

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import evaluate_base  # noqa: E402

TINY = [
    *("--materials", "leather", "--size", "32", "--pairs", "3", "--normals", "2", "--evaluations", "2"),
    *("--variant_pairs", "3", "--ddpm_pairs", "1", "--workers", "1", "--device", "cpu", "--segmenter_pairs", "4"),
    *("--test_pairs", "3", "--steps", "2", "--batch_size", "2", "--seeds", "0", "1"),
]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text((ROOT / "docs" / "base_model.md").read_text())
    return path


def measure(base: Path, page: Path, *more: str) -> int:
    flags = ["--base", str(base), "--out", str(page.with_name("scores.json")), "--doc", str(page), *TINY, *more]
    return open_door(evaluate_base.main, flags)


def scores(page: Path) -> dict:
    return json.loads(page.with_name("scores.json").read_text())


def between(page: Path, name: str) -> str:
    begin, end = evaluate_base.marks(name)
    return page.read_text().split(begin)[1].split(end)[0]



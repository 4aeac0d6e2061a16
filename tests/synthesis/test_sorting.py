"""Pairs brought to rejected/ and back: whole or not at all, whenever the process ends."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fast.synthesis.output import OutputFolder
from fast.synthesis.pair import PairImages
from fast.synthesis.records import read_records
from support.synthesis import leftovers

Rows = list[dict[str, Any]]


class Killed(BaseException):
    """Ends a run where it stands, cleaning nothing up."""


def fill(out: Path, count: int) -> OutputFolder:
    output = OutputFolder(out, {"seed": 0})
    for index in range(count):
        rng = np.random.default_rng(index)
        image, normal = (rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(2))
        mask, name = rng.integers(0, 2, (8, 8), dtype=np.uint8), f"{index:06d}.png"
        record = {"index": index, "image": f"image/{name}", "mask": f"mask/{name}", "type": "a/b"}
        asked = {"mask_asked": f"mask_asked/{name}"} if index % 2 else {}
        images = PairImages(normal, image, mask, asked=1 - mask if asked else None)
        output.write(record | asked, images)
    output.gather()
    return output


def judged(rows: Rows, out: set[int]) -> Rows:
    return [
        {k: v for k, v in row.items() if k != "rejected"}
        | {"scores": {"visible": row["index"] / 2}}
        | ({"rejected": "rank"} if row["index"] in out else {})
        for row in rows
    ]


def everything(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_rejected_pairs_lie_apart_with_their_records_and_come_back(tmp_path: Path) -> None:
    output = fill(tmp_path, 5)
    before = everything(tmp_path)
    output.sort(judged(output.rows(), {1, 2}))
    assert [row["index"] for row in read_records(tmp_path)] == [0, 3, 4]
    rejected = read_records(tmp_path / "rejected")
    assert [row["index"] for row in rejected] == [1, 2]
    for row in rejected:
        for key in {"image", "mask", "mask_asked"} & row.keys():
            assert (tmp_path / "rejected" / row[key]).read_bytes() == before[row[key]]
            assert not (tmp_path / row[key]).exists()
    assert output.done() == set(range(5))
    assert output.gather() == 3
    output.sort(judged(output.rows(), {4}))
    assert [row["index"] for row in read_records(tmp_path)] == [0, 1, 2, 3]
    assert [row["index"] for row in read_records(tmp_path / "rejected")] == [4]
    output.sort([{k: v for k, v in row.items() if k not in ("rejected", "scores")} for row in output.rows()])
    after = everything(tmp_path)
    assert after.pop("rejected/manifest.jsonl") == b""
    assert after == before
    output.close()


def test_a_pair_rejected_from_the_start_is_complete(tmp_path: Path) -> None:
    output = fill(tmp_path, 2)
    picture = np.zeros((8, 8, 3), np.uint8)
    output.write({"index": 2, "rejected": "why"}, PairImages(picture, picture, picture[..., 0]))
    assert output.done() == {0, 1, 2}
    assert output.gather() == 2
    assert output.gather() == 2
    assert (tmp_path / "rejected" / "triptych" / "000002.png").is_file()
    assert leftovers(tmp_path) == []
    output.close()


@pytest.mark.parametrize("kind", ["replace", "unlink"])
def test_killed_at_any_moment_the_folder_is_the_same(tmp_path: Path, kind: str) -> None:
    whole = fill(tmp_path / "whole", 4)
    whole.sort(judged(whole.rows(), {1, 2}))
    whole.sort(judged(whole.rows(), {2, 3}))
    whole.close()
    # Of the second sorting: its plan, two manifests, four files of pair 1 and of pair 3 each.
    for moment in range(11 if kind == "replace" else 1):
        out = tmp_path / f"killed{moment}"
        output = fill(out, 4)
        output.sort(judged(output.rows(), {1, 2}))
        rows = judged(output.rows(), {2, 3})
        left, own = iter(range(moment)), os.replace

        def mortal(src: Path, dst: Path, left: Any = left, own: Any = own) -> None:
            if next(left, None) is None:
                raise Killed
            own(src, dst)

        def immortal(self: Path, missing_ok: bool = False) -> None:
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            if kind == "replace":
                patch.setattr(os, "replace", mortal)
                patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
            else:
                patch.setattr(Path, "unlink", immortal)
            with pytest.raises(Killed):
                output.sort(rows)
        output.close()
        again = OutputFolder(out, {"seed": 0})
        assert again.done() == set(range(4))
        again.sort(judged(again.rows(), {2, 3}))
        again.close()
        assert everything(out) == everything(tmp_path / "whole")

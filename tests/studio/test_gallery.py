"""The review half without a page: filters, sorting, and texts that stay texts."""

import json
from pathlib import Path

import numpy as np
import pytest

from fast.data.images import write_image, write_mask
from fast.data.shown import around, outlined
from fast.review.decisions import Decision, Review
from fast.studio.gallery import cards, chosen, counted, read_items, sortable
from fast.studio.pictures import difference, four
from fast.synthesis.accepted import export_accepted
from fast.synthesis.records import read_records
from ldm.errors import UserError

NASTY = "<img src=x onerror=alert(1)>.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pairs; the image of the last, its type and its normal have names that would be HTML."""
    rng, rows = np.random.default_rng(0), []
    for i in range(4):
        name = NASTY if i == 3 else f"{i:06d}.png"
        image, mask = rng.integers(0, 255, (60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
        mask[20 : 24 + i, 30:50] = 1
        for kind in ("image", "triptych"):
            write_image(tmp_path / "run" / kind / name, image)
            write_image(tmp_path / "run" / kind / f"{i:06d}.png", image)
        write_mask(tmp_path / "run/mask" / f"{i:06d}.png", mask)
        write_image(tmp_path / NASTY, image)
        rows.append({
            "index": i, "image": f"image/{name}", "mask": f"mask/{i:06d}.png", "normal_source": str(tmp_path / NASTY),
            "type": "wood/<script>alert(2)</script>" if i == 3 else ("wood/crack", "wood/hole")[i % 2],
            "defect_pixels": int(mask.sum()),
            "scores": {} if i == 1 else {"seam": [2.0, 0, 1.0, 3.0][i], "closest": "x"},
        })  # fmt: skip
    (tmp_path / "run/manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "run/settings.json").write_text(json.dumps({"training": {"split": "ab" * 32}}))
    return tmp_path / "run"


def test_pairs_are_filtered_and_sorted_and_those_without_a_score_come_last(folder: Path) -> None:
    Review(folder).decide({0: Decision("accepted"), 2: Decision("rejected", "not visible")})
    items = read_items(folder)
    assert sortable(items) == ["number", "seam", "defect pixels", "seconds"]
    assert [i.index for i in chosen(items, by="seam")] == [2, 0, 3, 1]
    assert [i.index for i in chosen(items, by="seam", descending=True)] == [3, 0, 2, 1]
    assert [i.index for i in chosen(items, by="defect pixels", descending=True)] == [3, 2, 1, 0]
    assert [i.index for i in chosen(items, kind="wood/crack")] == [0, 2]
    assert [i.index for i in chosen(items, decision="undecided")] == [1, 3]
    assert counted(items) == "1 accepted, 1 rejected, 2 undecided"


def test_names_of_files_types_and_reasons_are_text_and_never_html(folder: Path) -> None:
    Review(folder).decide({3: Decision("rejected", "<b onclick=alert(3)>")})
    html = cards(folder, read_items(folder), "seam")
    assert html.count("<figure") == 4
    for code in ("<script", "<b onclick", "<img src=x"):
        assert code not in html
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in html
    assert "&lt;b onclick=alert(3)&gt;" in html
    (folder / "image" / NASTY).unlink()  # the error names the file
    lost = cards(folder, read_items(folder), "seam")
    assert 'class="card lost"' in lost
    assert "<img src=x" not in lost


def test_the_cut_out_holds_the_largest_defect_and_stays_inside_the_picture() -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[5:10, 280:300] = 1
    mask[150, 20] = 1
    rows, columns = around(mask)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 96, 204, 300)
    assert around(np.zeros((5, 7), np.uint8)) == (slice(0, 5), slice(0, 7))


def test_an_outline_lies_outside_of_the_mask_and_a_difference_is_threefold() -> None:
    image, mask = np.full((30, 30, 3), 90, np.uint8), np.zeros((30, 30), np.uint8)
    mask[10:14, 10:14] = 1
    line = (outlined(image, mask) != image).any(axis=2)
    assert line.sum() == 6 * 6 - 4 * 4
    assert not line[mask == 1].any()
    changed = image.copy()
    changed[12, 12] = (90, 100, 70)
    changed[13, 13] = 255
    found = difference(image, changed)
    assert (found[12, 12], found[13, 13], found.sum() - found[12, 12] - found[13, 13]) == (60, 255, 0)


def test_a_pair_is_shown_with_its_normal_or_with_its_triptychs(folder: Path) -> None:
    row = read_records(folder)[0]
    normal, mask, image, change = four(folder, row)
    assert normal.shape == image.shape == (60, 80, 3)
    assert mask.max() == 255
    assert (change[(normal == image).all(axis=2)] == 0).all()
    assert four(folder, {**row, "normal_source": None})[0].shape == (60, 80, 3)


def test_only_accepted_pairs_are_exported_whole_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no pair is accepted yet"):
        export_accepted(folder, tmp_path / "out")
    Review(folder).decide({0: Decision("accepted"), 1: Decision("rejected"), 2: Decision("accepted")})
    assert export_accepted(folder, tmp_path / "out") == 2
    assert [row["index"] for row in read_records(tmp_path / "out")] == [0, 2]
    for kind in ("image", "mask", "triptych"):
        assert sorted(p.name for p in (tmp_path / "out" / kind).iterdir()) == ["000000.png", "000002.png"]
        assert (tmp_path / "out" / kind / "000002.png").read_bytes() == (folder / kind / "000002.png").read_bytes()
    with pytest.raises(UserError, match="is there already"):
        export_accepted(folder, tmp_path / "out")
    for name in ("settings.json", "manifest.jsonl"):
        assert (tmp_path / "out" / name).is_file()
    assert (tmp_path / "out/settings.json").read_bytes() == (folder / "settings.json").read_bytes()
    for inside in (folder / "good", folder / "deep/good", folder):
        with pytest.raises(UserError, match="choose a folder outside"):
            export_accepted(folder, inside)
    assert not (folder / "good").exists()
    assert not (folder / "deep").exists()
    (folder / "mask/000002.png").unlink()
    with pytest.raises(UserError, match="it is not there"):
        export_accepted(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()

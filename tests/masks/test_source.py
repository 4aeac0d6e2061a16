"""One object for every source of masks, and the picture of what it makes."""

from pathlib import Path

import numpy as np
import pytest

from fast.data.images import read_mask, resize_mask, write_mask
from fast.masks.preview import DEFECT, OBJECT, cell, overlay, preview_sheet
from fast.masks.source import KINDS, Masks
from ldm.errors import UserError


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two masks: a line of 1 px, and a square at the left border."""
    line, square = np.zeros((48, 48), np.uint8), np.zeros((48, 48), np.uint8)
    line[20, 5:40] = 1
    square[10:20, 0:10] = 1
    for name, mask in (("line", line), ("square", square)):
        write_mask(tmp_path / "files" / f"{name}.png", mask)
    return [tmp_path / "files" / "line.png", tmp_path / "files" / "square.png"]


def plate() -> tuple[np.ndarray, np.ndarray]:
    """A dark plate on a bright ground, 96 px, and where it is."""
    where = np.zeros((96, 96), np.uint8)
    where[30:80, 40:90] = 1
    noise = np.random.default_rng(0).normal(0, 3, (96, 96, 3))
    return np.clip(np.where(where[..., None] == 1, 60, 200) + noise, 0, 255).astype(np.uint8), where


def learned(rng: np.random.Generator, anomaly: str | None, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((8, 8), np.uint8)
    mask[0 if anomaly == "hole" else 7, int(rng.integers(8))] = 1
    return mask


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_lies_on_the_object_and_is_seeded(kind: str, files: list[Path]) -> None:
    image, where = plate()
    before = image.copy()
    for rule in ("auto", "otsu_dark"):
        masks = Masks(kind, files, rule, learned=learned)
        for seed in range(4):
            mask = masks.draw(image, np.random.default_rng(seed))
            assert mask.shape == (96, 96)
            assert mask.dtype == np.uint8
            assert mask.any()
            assert mask[where == 0].sum() <= 0.05 * mask.sum()
            assert (mask == masks.draw(image, np.random.default_rng(seed))).all()
    assert (image == before).all()
    assert any(
        (Masks(kind, files, "off", learned=learned).draw(image, np.random.default_rng(s)) & (1 - where)).any()
        for s in range(8)
    )


def test_a_given_mask_is_the_file(files: list[Path]) -> None:
    image, rng = plate()[0], np.random.default_rng(0)
    for size in (48, 96, 30):
        drawn = Masks("given", files).draw(image[:size, :size], rng, files[0])
        assert (drawn == resize_mask(read_mask(files[0]), size)).all()
    chosen = {Masks("given", files).draw(image, np.random.default_rng(s)).tobytes() for s in range(20)}
    assert chosen == {resize_mask(read_mask(f), 96).tobytes() for f in files}


def test_a_given_mask_on_the_object_stays_and_another_moves(files: list[Path], tmp_path: Path) -> None:
    image, where = plate()
    good = np.zeros((96, 96), np.uint8)
    good[50:60, 60:70] = 1
    write_mask(tmp_path / "good.png", good)
    masks = Masks("given", files, "auto")
    assert (masks.draw(image, np.random.default_rng(0), tmp_path / "good.png") == good).all()
    moved = masks.draw(image, np.random.default_rng(0), files[1])
    assert (moved != resize_mask(read_mask(files[1]), 96)).any()
    assert not (moved & (1 - where)).any()


def test_a_region_file_and_a_folder_of_them(files: list[Path], tmp_path: Path) -> None:
    image = np.full((96, 96, 3), 90, np.uint8)  # no rule finds anything here
    assert Masks("blob", on_object="auto").region(image).all()  # type: ignore[union-attr]
    strip = np.zeros((48, 48), np.uint8)
    strip[:, 36:] = 1
    write_mask(tmp_path / "regions" / "part.png", strip)
    for region in (tmp_path / "regions", str(tmp_path / "regions" / "part.png")):
        masks = Masks("mixed", files, region)
        for seed in range(6):
            mask = masks.draw(image, np.random.default_rng(seed), image_path=Path("part.jpg"))
            assert mask.any()
            assert not mask[:, :72].any()


def test_the_learned_generator_is_told_the_type() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    masks = Masks("learned", learned=learned)
    for seed in range(3):
        rows = [np.flatnonzero(masks.draw(image, np.random.default_rng(seed), anomaly=a).any(1)) for a in ("hole", "x")]
        assert [r.tolist() for r in rows] == [[0, 1], [14, 15]]
    empty = Masks("learned", learned=lambda rng, anomaly, shape: np.zeros(shape))
    with pytest.raises(UserError, match="made an empty mask"):
        empty.draw(image, np.random.default_rng(0))


def test_bad_sources(tmp_path: Path) -> None:
    image, rng = np.zeros((16, 16, 3), np.uint8), np.random.default_rng(0)
    with pytest.raises(UserError, match="'star' is unknown; use one of given, augmented, perlin"):
        Masks("star")
    with pytest.raises(UserError, match="needs a generator of masks"):
        Masks("learned")
    with pytest.raises(UserError, match="'augmented' needs mask files"):
        Masks("augmented").draw(image, rng)
    with pytest.raises(UserError, match="rule 'bright' is unknown"):
        Masks("blob", on_object="bright")
    with pytest.raises(UserError, match="no such region file"):
        Masks("blob", on_object=tmp_path / "absent")
    with pytest.raises(UserError, match=r"lie in \(0, 1\]"):
        Masks("blob", inside=1.5)
    write_mask(tmp_path / "empty.png", np.zeros((4, 4)))
    with pytest.raises(UserError, match=r"empty\.png: the mask is empty"):
        Masks("given").draw(image, rng, tmp_path / "empty.png")


def test_an_overlay_shows_what_is_below_a_defect_and_rings_a_speck() -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    mask, region = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    mask[30, 20] = mask[50, 10:50] = 1
    region[4:60, 4:60] = 1
    out = overlay(image, mask, region)
    assert (image == 100).all()
    tint = [162, 76, 76]  # 0.6 of grey 100 and 0.4 of the defect's colour
    assert out[30, 20].tolist() == out[50, 30].tolist() == tint
    assert out[29, 20].tolist() == out[49, 30].tolist() == list(DEFECT)
    assert out[4, 30].tolist() == list(OBJECT)
    assert out[5, 30].tolist() == [100] * 3
    assert out[18, 20, 0] > 200 > 60 > out[18, 20, 1]  # the ring, 12 px away, smoothed
    assert out[38, 40].tolist() == [100] * 3  # none around the line


def test_a_cell_says_where_everything_is_the_object() -> None:
    image, mask = np.full((128, 128, 3), 100, np.uint8), np.zeros((128, 128), np.uint8)
    whole, part = np.ones((128, 128), np.uint8), np.ones((128, 128), np.uint8)
    part[:40] = 0
    assert (cell(image, mask, whole, 128)[:20] != 100).any()
    assert (cell(image, mask, whole, 128)[24:] == 100).all()
    assert (cell(image, mask, None, 128) == 100).all()
    assert (cell(image, mask, part, 128)[:39] == 100).all()


def test_a_sheet_of_hairlines_shows_them() -> None:
    image, mask = np.full((600, 300, 3), 100, np.uint8), np.zeros((600, 300), np.uint8)
    mask[300, 50:250] = 1
    shown = cell(image, mask, None, 100)
    assert shown.shape == (100, 50, 3)
    assert (shown[50, 10:40] != 100).any(axis=1).all()
    one, five = (preview_sheet([("a name", shown)] * n, columns=3) for n in (1, 5))
    assert one.shape == (8 + 126, 8 + 58, 3)
    assert five.shape == (8 + 2 * 126, 8 + 3 * 58, 3)
    assert (five[8:108, 8:58] == shown).all()
    assert (five[134 + 8 :, 8 + 2 * 58 :] == 255).all()


def test_a_file_is_decoded_once(drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fast.data.kept_masks as kept
    from support.synthesis import synthesize

    decoded: list[str] = []

    def counting(path: str | Path) -> np.ndarray:
        decoded.append(Path(path).name)
        return read_mask(path)

    masks = tmp_path / "masks" / "hole"
    masks.mkdir(parents=True)
    odd = np.zeros((61, 83), np.uint8)  # no whole number of bytes
    odd[5, 7:50], odd[60, 82] = 1, 1
    write_mask(masks / "odd.png", odd)
    write_mask(masks / "square.png", np.eye(64, dtype=np.uint8))
    monkeypatch.setattr(kept, "read_mask", counting)
    read = kept.KeptMasks()
    for _ in range(2):
        assert (read(masks / "odd.png") == odd).all()
        read(masks / "odd.png")[:] = 1  # the caller's own
    decoded.clear()
    argv = ["--method", "draem", "--data_root", str(drawn_root / "wood"), "--mask_path", str(masks.parent)]
    assert (
        synthesize([*argv, "--sample_name", str(tmp_path / "out"), "--count", "6", "--size", "64", "--device", "cpu"])
        == 0
    )
    assert sorted(decoded) == ["odd.png", "square.png"]

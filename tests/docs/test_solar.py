"""The solar cell example's parts, on drawn cells: no network, no real image."""

import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from solar_cells import archive, drawing, pairs, scores
from solar_cells.archive import Photo

from ldm.errors import UserError

BARS = (50, 150, 250)


def cell(seed=0, level=160):
    """A lit cell with three busbars in a dark frame."""
    image = np.random.default_rng(seed).normal(level, 3, (300, 300))
    for row in BARS:
        image[row - 2 : row + 3] *= 0.4
    image[:4] = image[-4:] = 40
    image[:, :4] = image[:, -4:] = 40
    return np.clip(image, 0, 255).astype(np.uint8)


def photo(number=0, **given):
    return Photo(f"cell{number}", cell(number), **{"defective": 0.0, "mono": True, "half": 0, **given})


def package(folder, rows, images):
    folder.mkdir()
    path = folder / "elpv_dataset-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("elpv_dataset/data/labels.csv", "\n".join(rows))
        file.writestr("elpv_dataset/__init__.py", "raise SystemExit('never run')")
        for name, image in images.items():
            data = BytesIO()
            Image.fromarray(image).save(data, "PNG")
            file.writestr(f"elpv_dataset/data/images/{name}", data.getvalue())
    return path


def test_reads_the_package_as_data_and_halves_by_pixels(tmp_path):
    rows = ["images/a.png  1.0   mono", "images/b.png  0.3333333333333333  poly", "images/c.png 0.0 mono"]
    path = package(tmp_path / "one", rows, {"a.png": cell(1), "b.png": cell(2), "c.png": cell(1)})
    assert archive.fetch(tmp_path / "one") == path  # what is there is not fetched again
    a, b, c = archive.read(path)
    assert (a.name, a.defective, a.mono, b.mono, c.functional) == ("a", 1.0, True, False, True)
    assert b.defective == pytest.approx(1 / 3)
    assert np.array_equal(a.image, cell(1))
    assert a.half == c.half  # the same pixels, whatever the name
    assert {photo.half for photo in archive.read(many(tmp_path))} == {0, 1}


def many(tmp_path):
    names = [f"{i}.png" for i in range(12)]
    return package(
        tmp_path / "many", [f"images/{n} 0.0 poly" for n in names], {n: cell(i) for i, n in enumerate(names)}
    )


@pytest.mark.parametrize("rows", [["images/a.png 1.0 round"], ["images/b.png 1.0 mono"], ["images/a.png mono"]])
def test_a_damaged_package_is_one_clear_line(tmp_path, rows):
    path = package(tmp_path / "bad", rows, {"a.png": cell()})
    with pytest.raises(UserError, match=r"elpv_dataset-1\.0.*delete it and run again"):
        archive.read(path)


def test_looks_at_busbars_and_wafer():
    seen = drawing.look(cell(), mono=True)
    assert len(seen.bars) == 3
    assert np.abs(np.array(seen.bars) - BARS).max() <= 2
    assert [b - a for a, b in seen.strips[1:3]] == [seen.bars[1] - seen.bars[0], seen.bars[2] - seen.bars[1]]
    assert seen.wafer[20:280, 20:280].all()
    assert not seen.wafer[:3].any()


@pytest.mark.parametrize("name", list(drawing.DRAWINGS))
@pytest.mark.parametrize("mono", [True, False])
def test_a_drawing_darkens_inside_its_mask_and_nowhere_else(name, mono):
    image = cell()
    seen = drawing.look(image, mono)
    for seed in range(4):
        made, mask = drawing.draw(image, seen, name, np.random.default_rng(seed))
        again, _ = drawing.draw(image, seen, name, np.random.default_rng(seed))
        loss = image.astype(int) - made
        assert mask.sum() >= drawing.LEAST_AREA
        assert loss[mask > 0].min() >= drawing.LEAST_CHANGE
        assert not loss[mask == 0].any()
        assert np.array_equal(made, again)


def test_pairs_are_functional_cells_only_and_differ_where_the_mask_says():
    photos = [photo(i) for i in range(3)]
    made = pairs.pairs(photos, 6, seed=1)
    for image, mask, _ in made:
        flips = [np.ascontiguousarray(p.image[::y, ::x]) for p in photos for y in (1, -1) for x in (1, -1)]
        match = min(flips, key=lambda f: int((f != image).sum()))
        assert mask.any()
        assert np.array_equal(match[mask == 0], image[mask == 0])
        assert (match.astype(int) - image)[mask > 0].mean() > 0
    with pytest.raises(UserError, match="functional cells only"):
        pairs.pairs([photo(defective=1.0)], 1, seed=1)


def test_half_of_what_is_drawn_are_cells_as_they_are():
    samples = pairs.training_set([photo(i) for i in range(3)], 4, seed=0)
    normal = sum(s.weight for s in samples if s.mask is None)
    assert normal == pytest.approx(sum(s.weight for s in samples) / 2)


def test_second_channel_knows_no_busbars():
    image = cell()
    seen = pairs.channels(image)
    assert np.array_equal(seen[..., 0], np.minimum(image.astype(int) + 1, 255))
    rows = np.median(seen[..., 1], axis=1)
    assert np.ptp(rows[10:290]) <= 2 < np.ptp(np.median(image, axis=1)[10:290])


def test_scores_by_hand():
    assert scores.auroc(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)
    assert scores.highest(np.arange(100.0).reshape(10, 10), 0.03) == pytest.approx(98)
    image = np.full((100, 100), 100, np.uint8)
    image[40:60, 40:60] = 20
    assert scores.darkest_spot(image) == pytest.approx(-20, abs=1)
    assert scores.mean_darkness(image) == pytest.approx(-96.8)


def test_results_by_group_and_verdict():
    photos = [photo(i, mono=i % 2 == 0, defective=float(i >= 20)) for i in range(40)]
    order = np.arange(40.0)
    given = {scores.SEGMENTER: order, "darkest spot": -order, "mean darkness": np.zeros(40)}
    found = {r.group: r for r in scores.results(photos, given, threshold=29.5)}
    assert set(found) == {"mono", "poly", "all"}
    whole = found["all"]
    assert whole.auroc[scores.SEGMENTER] == (1, 1, 1)
    assert whole.auroc["darkest spot"][0] == 0
    assert whole.gain[0] == pytest.approx(0.5)  # over the better control
    assert (whole.found, whole.false, whole.cells) == (0.5, 0.0, (20, 20))
    assert "is reached" in scores.verdict(list(found.values()))
    turned = {**given, scores.SEGMENTER: -order}
    assert "not reached" in scores.verdict(scores.results(photos, turned, threshold=0))

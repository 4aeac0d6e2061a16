"""Windows around the defects: any picture keeps its size and every byte outside the mask, whoever makes it and how."""

import copy
import os
import signal
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import fast.synthesis.batches
import fast.synthesis.maker
import fast.synthesis.synthesizer
from fast.artifact import find_artifact, load_model
from fast.data.images import read_image, read_mask, resize_mask, write_image, write_mask
from fast.synthesis.batches import WindowedPair, batch_width
from fast.synthesis.engine import BACKGROUNDS
from fast.synthesis.output import OutputFolder
from fast.synthesis.pair import Pair, SynthesizedSample
from fast.synthesis.recent import Recent
from fast.synthesis.synthesizer import Synthesizer
from fast.synthesis.triptych import PANEL
from fast.windows.regions import Region
from ldm.hashing import file_hash
from support.synthesis import arguments, leftovers, manifest, plain_recipe, synthesize, whole_set

STRIDE = 8  # pixels, of the tiny network
LEAST = 64
Box = tuple[int, int, int, int]  # top, left, bottom, right, the ends excluded


@pytest.fixture(scope="module")
def synthesizer(tiny_artifact: Path) -> Synthesizer:
    """Shared: what a test sets in it, it sets in a `variant`."""
    recipe = plain_recipe(steps=2, region="auto", min_window=LEAST, margin=8)
    return Synthesizer(load_model(find_artifact(tiny_artifact)), recipe)


def variant(synthesizer: Synthesizer, windows: int = 1, **recipe: Any) -> Synthesizer:
    """The same networks under another recipe, as far as that is asked only when a picture is made."""
    other = copy.copy(synthesizer)
    other.engine = copy.copy(synthesizer.engine)
    other.engine.backgrounds = Recent(BACKGROUNDS)
    other.engine.recipe = replace(synthesizer.recipe, **recipe)
    other.windows_per_batch = windows
    return other


@pytest.fixture
def seen(synthesizer: Synthesizer) -> Iterator[dict[str, list[tuple[int, ...]]]]:
    """Shapes that the networks are shown, call by call."""
    engine = synthesizer.engine
    first_stage = engine.model.first_stage_model
    parts = {"unet": engine.unet, "encoder": first_stage.encoder, "decoder": first_stage.decoder}
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in parts}
    hooks = [
        part.register_forward_pre_hook(lambda m, given, own=shapes[name]: own.append(tuple(given[0].shape)))
        for name, part in parts.items()
    ]
    yield shapes
    for hook in hooks:
        hook.remove()


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    few = np.random.default_rng(seed).integers(40, 216, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)


def boxes(height: int, width: int, *given: Box) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    for top, left, bottom, right in given:
        mask[top:bottom, left:right] = 1
    return mask


def far(height: int, width: int) -> np.ndarray:
    """Two defects in opposite corners."""
    return boxes(height, width, (0, 0, 5, 9), (height - 6, width - 7, height, width))


def check_windows(windows: list[list[int]], mask: np.ndarray, least: int = LEAST) -> None:
    left = mask.copy()
    for top, first, height, width in windows:
        for start, side, length in ((top, height, mask.shape[0]), (first, width, mask.shape[1])):
            assert side % STRIDE == 0
            assert side >= min(least, length)
            assert start >= 0
            assert start + side <= max(length, -(-length // STRIDE) * STRIDE if start == 0 else 0)
        left[top : top + height, first : first + width] = 0
    assert not left.any()
    assert sum(h * w for _, _, h, w in windows) <= np.prod([-(-s // STRIDE) * STRIDE for s in mask.shape])


def check_pair(made: np.ndarray, normal: np.ndarray, mask: np.ndarray) -> None:
    assert made.shape == normal.shape
    assert made.dtype == np.uint8
    assert (made[mask == 0] == normal[mask == 0]).all()
    assert (made[mask == 1] != normal[mask == 1]).any(axis=1).mean() > 0.9


# one picture


@pytest.mark.parametrize("what", ["pixel", "far", "all"])
@pytest.mark.parametrize("shape", [(64, 64), (65, 130), (200, 312), (64, 1501), (333, 250)])
def test_every_size_and_every_mask(synthesizer: Synthesizer, shape: tuple[int, int], what: str) -> None:
    height, width = shape
    masks = {
        "pixel": boxes(height, width, (height - 1, width // 2, height, width // 2 + 1)),
        "far": far(height, width),
        "all": np.ones(shape, np.uint8),
    }
    normal = picture(height, width)
    before = normal.copy()
    made = variant(synthesizer, max_window=160).fill(normal, masks[what], 1, 7)
    check_pair(made, before, masks[what])
    assert (normal == before).all()


@pytest.mark.parametrize("region", ["auto", "full"])
def test_a_mask_of_another_size_is_brought_to_the_picture_s(synthesizer: Synthesizer, region: str) -> None:
    normal, mask = picture(150, 90), np.zeros((31, 400), np.uint8)
    mask[3, 50:60] = 255
    made = variant(synthesizer, region=region).fill(normal, mask, 0, 1)
    check_pair(made, normal, resize_mask(mask, (150, 90)))


@pytest.mark.parametrize("shape", [(64, 64), (61, 40), (96, 77), (20, 300)])
def test_where_the_window_covers_the_picture_it_is_full(synthesizer: Synthesizer, shape: tuple[int, int]) -> None:
    """Least windows of 96 and a margin of 300 pixels reach every side of these."""
    normal = picture(*shape)
    mask = boxes(*shape, (5, 5, 11, 9), (shape[0] - 9, 20, shape[0] - 2, 28))
    auto = variant(synthesizer, min_window=96, margin=300).fill(normal, mask, 0, 5)
    assert (auto == variant(synthesizer, region="full").fill(normal, mask, 0, 5)).all()


def test_a_window_is_made_as_its_cut_would_be(synthesizer: Synthesizer) -> None:
    """With the pair's own seed; the rest of a large picture does not reach into the window."""
    normal, mask = picture(300, 280), boxes(300, 280, (100, 120, 110, 126))
    made = synthesizer.fill(normal, mask, 2, 9)
    rows, columns = slice(73, 137), slice(91, 155)  # 64 x 64 around the defect's middle
    alone = synthesizer.engine.generate([normal[rows, columns]], [mask[rows, columns]], [2], [9])[0]
    alone = np.where(mask[rows, columns, None] > 0, alone, normal[rows, columns])
    assert (made[rows, columns] == alone).all()
    other = normal.copy()
    other[:60] = 0
    assert (synthesizer.fill(other, mask, 2, 9)[rows, columns] == alone).all()


def test_windows_of_one_picture_have_noise_of_their_own(synthesizer: Synthesizer) -> None:
    normal = np.full((64, 400, 3), 128, np.uint8)
    mask = boxes(64, 400, (28, 28, 36, 36), (28, 348, 36, 356))
    made = synthesizer.fill(normal, mask, 0, 3)
    assert (made[:, :64] != made[:, 320:384]).any()
    assert (made[28:36, 28:36] != made[28:36, 348:356]).any()


def test_networks_see_a_window_and_no_more(synthesizer: Synthesizer, seen: dict[str, list[tuple[int, ...]]]) -> None:
    synthesizer.fill(picture(900, 700), far(900, 700), 0, 1)
    assert seen["encoder"] == [(1, 3, 64, 64)] * 2
    assert seen["unet"] == [(1, 4, 16, 16)] * 4
    assert seen["decoder"] == [(1, 4, 16, 16)] * 2


def test_a_large_window_is_taken_in_tiles(synthesizer: Synthesizer, seen: dict[str, list[tuple[int, ...]]]) -> None:
    normal, mask = picture(300, 260), boxes(300, 260, (20, 20, 270, 24))
    made = variant(synthesizer, max_window=128).fill(normal, mask, 0, 1)
    check_pair(made, normal, mask)
    for name, limit in (("encoder", 128), ("unet", 32), ("decoder", 32)):
        assert len(seen[name]) > 1
        assert {max(shape[-2:]) for shape in seen[name]} == {limit}


def test_a_large_picture_is_held_a_few_times_at_most(synthesizer: Synthesizer) -> None:
    normal, mask = picture(2000, 1500), far(2000, 1500)
    synthesizer.fill(normal[:64, :64], mask[:64, :64], 0, 1)  # what is made once
    tracemalloc.start()  # numpy tells it of its arrays
    try:
        made = synthesizer.fill(normal, mask, 0, 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (made != normal).any(axis=2).sum() <= mask.sum()
    assert peak < 3 * normal.nbytes


def test_eight_thousand_pixels_a_side(synthesizer: Synthesizer, seen: dict[str, list[tuple[int, ...]]]) -> None:
    normal, mask = np.full((1200, 8000, 3), 100, np.uint8), boxes(1200, 8000, (1195, 7000, 1200, 7010))
    check_pair(synthesizer.fill(normal, mask, 0, 1), normal, mask)
    assert {shape[-2:] for shape in seen["unet"]} == {(16, 16)}


# the seam


def steps_at_the_border(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean grey levels between neighbours of which one lies in the mask."""
    steps = []
    for axis in (0, 1):
        step = abs(np.diff(image.astype(float), axis=axis)).mean(axis=2)
        steps.append(step[np.diff(mask, axis=axis) != 0])
    return float(np.concatenate(steps).mean())


@pytest.mark.parametrize("region", ["auto", "full"])
def test_a_network_that_repeats_what_it_sees_leaves_no_seam(
    synthesizer: Synthesizer, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is off by a pixel between cutting, decoding and pasting would show."""
    other = variant(synthesizer, region=region)
    monkeypatch.setattr(other.engine, "generate", lambda normals, *rest: [n.copy() for n in normals])
    for seed, shape in enumerate([(64, 64), (65, 130), (200, 312)]):
        normal = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
        assert (other.fill(normal, far(*shape), 0, 1) == normal).all()


def test_the_seam_is_no_worse_in_windows(synthesizer: Synthesizer, drawn_root: Path) -> None:
    """The tiny network's defects stand out by chance: averaged over many, windows do no more so than full pictures."""
    full = variant(synthesizer, region="full")
    ratios = []
    for number, path in enumerate(sorted((drawn_root / "wood" / "train" / "good").iterdir()) * 2):
        normal = cv2.resize(read_image(path), (160, 144), interpolation=cv2.INTER_CUBIC)
        mask = np.zeros((144, 160), np.uint8)
        cv2.circle(mask, (40 + 7 * number, 70), 14, 1, -1)
        auto = steps_at_the_border(synthesizer.fill(normal, mask, 0, number), mask)
        ratios.append(auto / steps_at_the_border(full.fill(normal, mask, 0, number), mask))
        assert steps_at_the_border(normal, mask) < 20 < auto
    assert np.mean(ratios) < 1


# batches of several windows, as on a GPU


def stored(folder: Path, number: int, normal: np.ndarray, mask: np.ndarray, kind: int = 0) -> Pair:
    write_image(folder / f"normal{number}.png", normal)
    write_mask(folder / f"mask{number}.png", mask)
    return Pair(number, folder / f"normal{number}.png", folder / f"mask{number}.png", kind, 50 + number)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Windows of three sizes, one to three a picture."""
    folder = tmp_path_factory.mktemp("pairs")
    masks = [
        boxes(200, 230, (50, 50, 60, 60)),
        boxes(200, 230, (50, 20, 60, 100)),
        far(200, 230),
        boxes(200, 230, (3, 100, 80, 103), (190, 5, 195, 9)),
        boxes(200, 230, (0, 0, 4, 4), (0, 220, 4, 230), (190, 0, 200, 90)),
    ]
    return [stored(folder, i, picture(200, 230, i), masks[i % 5], i % 4) for i in range(7)]


def together(synthesizer: Synthesizer, pairs: list[Pair]) -> dict[int, SynthesizedSample]:
    made = {m.pair.index: m for m in synthesizer.make(iter(pairs), 3)}
    assert sorted(made) == sorted(p.index for p in pairs)
    for pair in pairs:
        check_pair(made[pair.index].image, read_image(pair.normal), read_mask(pair.mask))
        check_windows([list(w) for w in made[pair.index].windows], made[pair.index].mask)
    return made


def test_lanes_hold_windows_of_one_size_at_full_width(
    synthesizer: Synthesizer, pairs: list[Pair], seen: dict[str, list[tuple[int, ...]]]
) -> None:
    made = together(variant(synthesizer, windows=4), pairs)
    windows = Counter(tuple(w[2:]) for m in made.values() for w in m.windows)
    assert len(windows) >= 3
    assert {len(m.windows) for m in made.values()} == {1, 2, 3}
    batches = {size: -(-count // 4) for size, count in windows.items()}
    assert Counter(seen["unet"]) == {(4, 4, h // 4, w // 4): 2 * n for (h, w), n in batches.items()}


def test_a_batch_of_larger_windows_is_narrower() -> None:
    for side, width in [(64, 32), (256, 32), (264, 30), (512, 8), (1024, 2), (2048, 1), (8000, 1)]:
        assert batch_width(32, side, side) == width


def test_a_pair_is_the_same_in_any_company(synthesizer: Synthesizer, pairs: list[Pair]) -> None:
    other = variant(synthesizer, windows=4)
    made = together(other, pairs)
    for company in (pairs[::-1], pairs[2:5], pairs[4:5]):
        for index, again in together(variant(other, windows=4), company).items():
            assert (again.image == made[index].image).all()
            assert again.windows == made[index].windows


def test_pictures_that_wait_are_bounded(
    synthesizer: Synthesizer,
    pairs: list[Pair],
    seen: dict[str, list[tuple[int, ...]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With room for none, no picture waits for another's windows; batches stay as wide."""
    plain = together(variant(synthesizer, windows=4), pairs)
    before = len(seen["unet"])
    monkeypatch.setattr(fast.synthesis.batches, "MOST_WAITING", 1)
    made = together(variant(synthesizer, windows=4), pairs)
    assert all((made[i].image == plain[i].image).all() for i in plain)
    assert {shape[0] for shape in seen["unet"]} == {4}
    assert len(seen["unet"]) - before > before


@pytest.mark.parametrize("width", [1, 4])
def test_a_file_is_read_once_a_pair(
    synthesizer: Synthesizer, pairs: list[Pair], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[Path] = Counter()
    for module, name in ((fast.synthesis.synthesizer, "read_image"), (fast.synthesis.maker, "read_mask")):
        own = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path, own=own: (read.update([path]), own(path))[1])
    list(variant(synthesizer, windows=width).make(iter(pairs), 2))
    assert read == Counter([p.normal for p in pairs] + [p.mask for p in pairs])


def test_a_window_that_comes_again_is_encoded_once(
    synthesizer: Synthesizer, tmp_path: Path, seen: dict[str, list[tuple[int, ...]]]
) -> None:
    one = stored(tmp_path, 0, picture(100, 100), boxes(100, 100, (70, 70, 75, 75)))
    same = [replace(one, index=i, seed=i, type_index=i) for i in range(4)]
    made = {m.pair.index: m.image for m in synthesizer.make(iter(same), 1)}
    assert len(seen["encoder"]) == 1
    for i, image in made.items():
        again = synthesizer.fill(read_image(one.normal), read_mask(one.mask), i, i)
        assert (image == again).all(), "kept or not, the picture is the same"
    other = [replace(one, index=9, mask=stored(tmp_path, 5, picture(8, 8), far(100, 100)).mask)]
    list(synthesizer.make(iter(other), 1))
    assert len(seen["encoder"]) > 5


# through the door


def door(root: Path, artifact: Path, out: Path, *more: str) -> list[str]:
    small = ("--region", "auto", "--min_window", "32", "--margin", "4", "--count", "6")
    return arguments(root, artifact, out, *small, *more)


@pytest.fixture(scope="module")
def reference(drawn_root: Path, tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    assert synthesize(door(drawn_root, tiny_artifact, out)) == 0
    return out


def test_the_manifest_tells_the_windows(reference: Path) -> None:
    rows = manifest(reference)
    assert [row["index"] for row in rows] == list(range(6))
    assert any(row["windows"] != [[0, 0, 64, 64]] for row in rows)
    for row in rows:
        assert (row["region"], row["size"], row["margin"], row["min_window"]) == ("auto", None, 4, 32)
        image, mask = read_image(reference / row["image"]), read_mask(reference / row["mask"])
        check_windows(row["windows"], mask, least=32)
        check_pair(image, read_image(row["normal_source"]), read_mask(row["mask_source"]))
        assert (mask == read_mask(row["mask_source"])).all()
        rows_, columns = slice(*_ends(row["windows"], 0)), slice(*_ends(row["windows"], 1))
        assert (read_image(reference / "triptych" / f"{row['index']:06d}.png")[:, -image[:, columns].shape[1] :]
                == image[rows_, columns]).all()  # fmt: skip


def _ends(windows: list[list[int]], axis: int) -> tuple[int, int]:
    return min(w[axis] for w in windows), max(w[axis] + w[axis + 2] for w in windows)


@pytest.mark.parametrize("batch", ["1", "4"])
def test_the_batch_size_changes_nothing(
    reference: Path, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, batch: str
) -> None:
    assert synthesize(door(drawn_root, tiny_artifact, tmp_path / "out", "--batch_size", batch)) == 0
    assert whole_set(tmp_path / "out") == whole_set(reference)


def test_two_processes_share_the_set_out(
    reference: Path, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert synthesize(door(drawn_root, tiny_artifact, tmp_path / "out")) == 0
    assert whole_set(tmp_path / "out") == whole_set(reference)


def test_a_stopped_run_goes_on(
    reference: Path,
    drawn_root: Path,
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, own = tmp_path / "out", OutputFolder.write

    def write(self: OutputFolder, record: dict[str, Any], *pictures: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        own(self, record, *pictures)

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "write", write)
        assert synthesize(door(drawn_root, tiny_artifact, out, "--batch_size", "1")) == 2
    assert "the same command goes on" in capsys.readouterr().err
    assert 0 < len(manifest(out)) < 6
    assert synthesize(door(drawn_root, tiny_artifact, out, "--margin", "5")) == 2
    assert "holds another run (differs in margin)" in capsys.readouterr().err
    assert synthesize(door(drawn_root, tiny_artifact, out)) == 0
    assert whole_set(out) == whole_set(reference)
    assert leftovers(out) == []


def test_a_window_over_the_whole_picture_makes_the_full_set(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    sets = {}
    for region in ("auto", "full"):
        out = tmp_path / region
        assert synthesize(door(drawn_root, tiny_artifact, out, "--region", region, "--min_window", "64")) == 0
        sets[region] = {str(p.relative_to(out)): file_hash(p) for p in out.rglob("*.png")}
        assert all(row["windows"] == [[0, 0, 64, 64]] for row in manifest(out))
    assert sets["auto"] == sets["full"]
    assert len(sets["auto"]) == 18


def test_pictures_keep_their_sizes(tiny_artifact: Path, tmp_path: Path, drawn_root: Path) -> None:
    for i, shape in enumerate([(64, 64), (65, 130), (200, 312), (640, 481), (1100, 1500)]):
        normals, masks, out = tmp_path / f"normals{i}", tmp_path / f"masks{i}", tmp_path / f"out{i}"
        write_image(normals / "0.png", picture(*shape, i))
        small = far(2 * shape[0], 2 * shape[1])
        write_mask(masks / "far.png", small)
        argv = door(drawn_root, tiny_artifact, out, "--data_root", str(normals), "--mask_path", str(masks))
        assert synthesize([*argv, "--count", "1", "--min_window", "64"]) == 0
        (row,) = manifest(out)
        image, mask = read_image(out / row["image"]), read_mask(out / row["mask"])
        assert image.shape[:2] == shape
        assert (mask == resize_mask(small, shape)).all()
        assert row["defect_pixels"] == mask.sum()
        check_pair(image, read_image(row["normal_source"]), mask)
        check_windows(row["windows"], mask)
        panel = read_image(out / "triptych" / f"{row['index']:06d}.png").shape
        assert max(panel[0], (panel[1] - 8) // 3) == min(max(shape), PANEL)
        if i < 2:
            continue
        assert len(row["windows"]) == 2
        for top, left, height, width in row["windows"]:
            part = slice(top, top + height), slice(left, left + width)
            assert (image[part] != read_image(row["normal_source"])[part]).any()


def test_a_triptych_shows_the_window(tiny_artifact: Path, tmp_path: Path, drawn_root: Path) -> None:
    normals, masks, out = tmp_path / "normals", tmp_path / "masks", tmp_path / "out"
    write_image(normals / "0.png", picture(700, 900))
    write_mask(masks / "0.png", boxes(700, 900, (600, 800, 610, 810)))
    argv = door(drawn_root, tiny_artifact, out, "--data_root", str(normals), "--mask_path", str(masks))
    assert synthesize([*argv, "--count", "1", "--min_window", "64"]) == 0
    assert manifest(out)[0]["windows"] == [[573, 773, 64, 64]]
    triptych, image = read_image(out / "triptych" / "000000.png"), read_image(out / "image" / "000000.png")
    assert triptych.shape == (64, 3 * 64 + 8, 3)
    assert (triptych[:, :64] == picture(700, 900)[573:637, 773:837]).all()
    assert (triptych[:, 136:] == image[573:637, 773:837]).all()
    assert (triptych[27:37, 95:105] == 255).all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_whole_windows_that_overlap_keep_each_others_defects(order: tuple[int, int]) -> None:
    """Whichever is finished last."""
    masks = [np.zeros((32, 32), np.uint8) for _ in range(2)]
    masks[0][4:8, 4:26], masks[1][24:28, 4:26] = 1, 1
    regions = [Region(0, 0, 32, 32, masks[0]), Region(8, 4, 32, 32, masks[1])]
    image = np.zeros((48, 48, 3), np.uint8)
    shown, pair = np.s_[:48, :48], Pair(0, None, None, 0, 1)
    windowed = WindowedPair(pair, image, np.zeros((48, 48), np.uint8), regions, [], shown, image, 2, 0.0)
    recipe = plain_recipe(composite=False)
    done = [windowed.finish(k, np.full((32, 32, 3), 100 + k, np.uint8), 0.0, recipe) for k in order]
    assert done == [False, True]
    assert (image[:16, :32] == 100).all()
    assert (image[32:36, 8:30] == 101).all()
    assert (image[40:] == 0).all()

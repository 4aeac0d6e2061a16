"""Pairs for segmenters, from where they come and what is made of them; and the door that trains on them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fast.cli import segment
from fast.data import content
from fast.data.content import Copies
from fast.data.images import write_image, write_mask
from fast.data.layouts import check, open_dataset
from fast.data.split import make_split
from fast.data.transforms import GreyLevels, Window
from fast.runtime.command import run_cli
from fast.segmentation.data import SegmentationSample, Views, from_arrays, from_output, from_samples, merged
from fast.segmentation.networks import build, load, save
from ldm.checkpoint import read_metadata
from ldm.errors import UserError


def output(folder: Path, sources: list[tuple[str, str]]) -> Path:
    """A synthesis output of one pair per (normal, mask) source."""
    rows = []
    for i, (normal, mask) in enumerate(sources):
        drawn = np.zeros((40, 40), np.uint8)
        drawn[10:20, 10 + i : 25] = 1
        write_image(folder / f"image/{i:06d}.png", np.full((40, 40, 3), 50 * i, np.uint8))
        write_mask(folder / f"mask/{i:06d}.png", drawn)
        names = {"image": f"image/{i:06d}.png", "mask": f"mask/{i:06d}.png", "type": "wood/hole"}
        for source in (normal, mask):
            there = folder / source  # an absolute name stays what it is
            there.parent.mkdir(parents=True, exist_ok=True)
            there.touch()
        rows.append({"index": i, **names, "normal_source": str(folder / normal), "mask_source": str(folder / mask)})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_pairs_of_an_output_without_those_that_the_test_knows(tmp_path: Path) -> None:
    tests = [tmp_path / "test" / "m.png", tmp_path / "test" / "n.png"]
    sources = [("a.png", "b.png"), ("a.png", str(tests[0])), (str(tests[1]), "b.png")]
    folder = output(tmp_path / "out", sources)
    pairs, left_out = from_output(folder, Copies(tests))
    assert (len(pairs), left_out) == (1, 2)
    image, mask = pairs[0].read()
    assert image.shape == (40, 40, 3)
    assert mask.sum() == 150
    assert pairs[0].kind == "wood/hole"
    assert len(from_output(folder)[0]) == 3
    (folder / "b.png").unlink()
    assert len(from_output(folder)[0]) == 3
    with pytest.raises(UserError, match=r"b\.png, which a pair was made from, is not there"):
        from_output(folder, Copies(tests))


def test_copies_of_what_is_tested_on_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes of an image, and the same mask under another name or in another format."""
    rng = np.random.default_rng(0)
    shape = np.zeros((40, 40), np.uint8)
    shape[5:20, 8:30] = 1
    folder = output(tmp_path / "out", [("n0.png", "m0.png")] + [(f"n{i}.png", f"m{i}.tif") for i in range(1, 4)])
    for i in range(4):
        write_image(folder / f"n{i}.png", rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    tests = [tmp_path / "test/mask.png", tmp_path / "test/normal.png"]
    write_mask(tests[0], shape)
    write_mask(folder / "m0.png", shape)  # the same bytes
    write_image(folder / "m1.tif", shape * 90)  # the same mask
    write_image(folder / "m2.tif", np.roll(shape, 1, axis=0) * 90)
    write_image(folder / "m3.tif", shape[::-1] * 90)
    tests[1].write_bytes((folder / "n3.png").read_bytes())
    pairs, left_out = from_output(folder, Copies(tests))
    assert (len(pairs), left_out) == (1, 3)
    assert pairs[0].image == folder / "image/000002.png"
    read: list[Path] = []
    mask_content = content.mask_content
    monkeypatch.setattr(content, "mask_content", lambda path: read.append(path) or mask_content(path))
    copies = Copies(tests)
    for _ in range(2):  # of two folders every file is read once
        again, left_out = from_output(folder, copies)
        assert ([pair.image for pair in again], left_out) == ([pairs[0].image], 3)
    assert set(tests) < set(read)
    assert len(read) == len(set(read))


def test_a_method_that_draws_its_own_has_no_files_to_leave_out(tmp_path: Path) -> None:
    folder = output(tmp_path / "out", [("a.png", "b.png"), ("a.png", "b.png")])
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    rows[0] |= {"normal_source": None, "mask_source": None}
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tested = Copies([folder / "b.png"])
    kept, left_out = from_output(folder, tested)
    assert (len(kept), left_out) == (1, 1)
    del rows[0]["normal_source"], rows[0]["mask_source"]  # says nothing: nobody can tell
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="a pair does not say its sources"):
        from_output(folder, tested)


def test_bad_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no manifest\.jsonl"):
        from_output(tmp_path)
    (tmp_path / "manifest.jsonl").write_text('{"image": "a.png"}\n')
    with pytest.raises(UserError, match="is damaged"):
        from_output(tmp_path)
    with pytest.raises(UserError, match="do not fit"):
        SegmentationSample(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9), np.uint8)).read()
    with pytest.raises(UserError, match="do not fit"):
        SegmentationSample(np.zeros((8, 8)), None).read()


def test_weights_give_the_asked_shares() -> None:
    one = from_arrays([np.zeros((8, 8, 3), np.uint8)], [None])
    plain = merged(one * 6, one * 2)
    assert [p.weight for p in plain] == pytest.approx([1 / 8] * 8)
    shared = merged(one * 6, one * 2, one * 4, real_share=0.5, normal_share=0.2)
    assert [p.weight for p in shared] == pytest.approx([0.2] * 2 + [0.4 / 6] * 6 + [0.05] * 4)
    assert len(merged(one, one, one)) == 2
    parts = merged(one * 6, one * 2, draw="parts")  # arrays of no known type or part
    assert [p.weight for p in parts] == pytest.approx([1 / 8] * 8)
    with pytest.raises(UserError, match=r"real_share=0\.5"):
        merged([], one, real_share=0.5)
    with pytest.raises(UserError, match="normal share"):
        merged(one, one, normal_share=0.5)


def test_types_and_of_each_its_parts_are_drawn_equally_often() -> None:
    """Half of what is drawn is a crack, though there are five times as many holes; of the holes half are of a part."""
    image, mask = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.uint8)
    real = [SegmentationSample(image, mask, f"tile/{kind}", group=part)
            for kind, part in [("hole", "a")] * 4 + [("hole", "b"), ("crack", "a")]]  # fmt: skip
    made = from_arrays([image] * 4, [mask] * 4, "tile/hole")
    weights = [p.weight for p in merged(made, real, made[:1], real_share=0.5, normal_share=0.2, draw="parts")]
    assert weights == pytest.approx([0.4 / 16] * 4 + [0.4 / 4, 0.4 / 2] + [0.1] * 4 + [0.2])
    alone = [p.weight for p in merged([], real, draw="parts")]
    assert alone == pytest.approx([1 / 16] * 4 + [1 / 4, 1 / 2])
    unknown = [replace(p, group="") for p in real]  # each image its own part
    assert [p.weight for p in merged([], unknown, draw="parts")] == pytest.approx([1 / 10] * 5 + [1 / 2])


def test_views_keep_the_mask_on_the_defect() -> None:
    """White where the mask is, black elsewhere: so it must stay in every view, but for the resized edge."""
    mask = np.zeros((60, 90), np.uint8)
    mask[20:40, 15:50] = 1
    pair = from_arrays([np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)], [mask])
    for native in (False, True):
        views = Views(pair, 48, native)
        shares = []
        for seed in range(12):
            image, seen = views.draw(0, np.random.default_rng(seed))
            assert image.shape == (48, 48, 3)
            assert seen.shape == (48, 48)
            assert ((image[..., 0] > 128) != (seen > 0)).mean() < 0.06
            shares.append(seen.mean())
        assert len(set(shares)) > 1


def test_hairlines_survive_resizing() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[101] = 1
    views = Views(from_arrays([np.zeros((200, 200, 3), np.uint8)], [mask]), 32)
    assert views.plain(0)[1].sum() == 32


def test_half_of_the_windows_hold_the_defect() -> None:
    mask = np.zeros((400, 400), np.uint8)
    mask[200, 200] = 1
    image = np.zeros((400, 400, 3), np.uint8)
    hits = [Window(20, 0.5)(image, mask, np.random.default_rng(seed))[1].any() for seed in range(200)]
    assert 80 <= sum(hits) <= 125
    image, mask = Window(16, 0.5)(np.ones((8, 30, 3), np.uint8), np.ones((8, 30), np.uint8), np.random.default_rng(0))
    assert image.min() == 1
    assert mask.shape == (16, 16)


def test_grey_levels_change_within_bounds() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    mask, change = np.zeros((4, 4), np.uint8), GreyLevels(0.2, 20)
    levels = {int(change(image, mask, np.random.default_rng(seed))[0][0, 0, 0]) for seed in range(30)}
    assert len(levels) > 10
    assert 80 <= min(levels) <= max(levels) <= 120
    np.testing.assert_array_equal(image, 100)


def test_door_merges_trains_tests_and_writes(drawn_root: Path, tmp_path: Path) -> None:
    index = check(open_dataset(drawn_root)).usable
    train, test = make_split(index).apply(index)
    pairs = [("n.png", str(train[0].mask)), ("n.png", str(test[0].mask))]
    folder, out = output(tmp_path / "pairs", pairs), tmp_path / "m.json"
    flags = ["--train", str(drawn_root), str(folder), "--test", str(drawn_root), "--segmenter", "mini", "--size", "32"]
    assert run_cli(segment.main, [*flags, "--steps", "2", "--batch_size", "2", "--test_normals", "--normals", "0.3",
                                    "--crop", "16", "--ema", "0.9",
                                    "--device", "cpu", "--out", str(out)]) == 0  # fmt: skip
    result = json.loads(out.read_text())
    assert result["counts"] == {"real": len(train), "synthetic": 1, "left out": 1, "normals": 6, "test": len(test) + 2}
    assert result["split"] == make_split(index).hash
    assert result["images"] == len(test) + 2
    used = {name: result["settings"][name] for name in ("crop", "ema", "recipe", "lr", "loss")}
    assert result["settings"]["prior"] == "real"
    assert result["oversampling"] == pytest.approx(load(tmp_path / "m.safetensors").oversampling, rel=1e-9)  # type: ignore[arg-type]
    assert used == {"crop": 16, "ema": 0.9, "recipe": "common", "lr": 5e-4, "loss": "ce+dice"}
    assert {kind for kind in result["types"] if not kind.endswith("/good")} == {p.kind for p in from_samples(test)}
    with torch.no_grad():
        assert load(tmp_path / "m.safetensors")(torch.zeros(1, 3, 32, 32)).shape == (1, 2, 32, 32)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--segmenter", "unet"], "segmenter 'unet' is unknown"),
        (["--split", "none.json"], "cannot read the split"),
        (["--steps", "0"], "steps=0"),
        (["--size", "x"], "--size"),
        (["--crop", "8"], "crop=8"),
        (["--recipe", "published"], "nothing is published for Mini"),
        (["--real_share", "1.5"], "--real_share"),
        (["--real_share", "half"], "--real_share"),
        (["--prior", "test"], "--prior"),
        (
            ["--real_share", "0.75"],
            "--real_share 0.75 is of real defects beside pairs, and there are real defects alone",
        ),
        (["--real_share", "merge"], "--real_share merge is of real defects beside pairs"),
        (["--augment", "all"], "augment=all is unknown"),
        (["--features", "there"], "--features there is for --segmenter quick"),
        (
            ["--segmenter", "stdc", "--recipe", "published", "--defect_weight", "7"],
            "defect_weight=7 is for ce and ce+dice",
        ),
        (["--segmenter", "quick", "--prior", "drawn"], "--prior is not for --segmenter quick"),
        (["--segmenter", "quick", "--steps", "5"], "--steps is not for --segmenter quick"),
        (["--out", "x.safetensors"], "--out x.safetensors"),
    ],
)
def test_door_refuses_in_one_line(
    flags: list[str], words: str, drawn_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--train", str(drawn_root), "--test", str(drawn_root), "--segmenter", "mini", "--device", "cpu", *flags]
    assert run_cli(segment.main, argv) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"split": "all"}, "was made for all real defects, not for the split"),
        ({"split": "0" * 64}, "was made for the split 000000000000"),
        ({"split": "drawn"}, ""),
        ({"split": "its own"}, ""),
    ],
)
@pytest.mark.parametrize("where", ["tested", "unnamed", "elsewhere"])
def test_door_refuses_pairs_whose_weights_may_have_seen_the_test_side(
    where: str,
    training: dict[str, str],
    told: str,
    drawn_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pairs that stand on the tested data, or do not say on what, are refused; of others it is told."""
    index = check(open_dataset(drawn_root)).usable
    split = make_split(index)
    write_image(other := tmp_path / "other.png", np.zeros((8, 8, 3), np.uint8))
    folder = output(tmp_path / "pairs", [("n.png", "m.png")])
    row = json.loads((folder / "manifest.jsonl").read_text())
    normal = {"tested": str(index.normals[0].image), "unnamed": None, "elsewhere": str(other)}[where]
    row |= {"normal_source": normal, "mask_source": None}
    (folder / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    own = split.hash if training["split"] == "its own" else training["split"]
    (folder / "settings.json").write_text(json.dumps({"method": "fast", "training": {"split": own}}))
    flags = ["--train", str(folder), "--test", str(drawn_root), "--segmenter", "mini", "--size", "32", "--steps", "1",
             "--batch_size", "2", "--device", "cpu", "--out", str(tmp_path / "m.json")]  # fmt: skip
    refused = bool(told) and where != "elsewhere"
    assert run_cli(segment.main, flags) == (2 if refused else 0)
    said = capsys.readouterr()
    assert told in (said.err if refused else said.out)
    assert ("note: " + str(folder) in said.out) == (bool(told) and not refused)
    if not refused:  # a network of one step finds much where nothing is
        assert json.loads((tmp_path / "m.json").read_text())["unmarked"]
        assert "is found where nothing is marked" in said.out
    assert (tmp_path / "m.json").exists() != refused


def test_door_tells_of_weights_that_learned_from_another_split(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = make_split(check(open_dataset(drawn_root)).usable).hash
    for number, split in enumerate((own, "0" * 64)):
        file = save(build("mini"), tmp_path / f"{number}.safetensors", "mini", split)
        assert run_cli(segment.main, ["--train", str(drawn_root), "--test", str(drawn_root), "--segmenter", "mini",
                                      "--weights", str(file), "--size", "32", "--steps", "1", "--batch_size", "2",
                                      "--device", "cpu", "--out", str(tmp_path / "m.json")]) == 0  # fmt: skip
        assert ("learned from the split 000000000000" in capsys.readouterr().out) == (split != own)
        assert read_metadata(tmp_path / "m.safetensors")["split"] == own


def test_door_refuses_an_output_made_from_the_test_alone(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = check(open_dataset(drawn_root)).usable
    folder = output(tmp_path / "pairs", [("n.png", str(make_split(index).apply(index)[1][0].mask))])
    assert run_cli(segment.main, ["--train", str(folder), "--test", str(drawn_root), "--segmenter", "mini"]) == 2
    assert "made from files that are tested on" in capsys.readouterr().err


def test_an_interrupted_training_says_that_it_begins_anew(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(segment, "run", stopped)
    argv = ["--train", str(drawn_root), "--test", str(drawn_root), "--out", str(tmp_path / "out" / "a.json")]
    assert run_cli(segment.main, argv) == 2
    assert capsys.readouterr().err == "error: interrupted; the same command begins anew\n"
    assert not list(tmp_path.rglob("*.json"))

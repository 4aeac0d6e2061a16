"""Every method through both doors and from a program, by its own recipe, on the embedded dataset."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fast.data.images import read_image, read_mask, resize_image
from fast.data.layouts import open_dataset
from fast.generators import FREE, LATENT, METHODS, create, method_class
from fast.generators.base import Generator, Learned
from fast.generators.latent import LatentGenerator
from fast.reports.contact_sheet import read_row
from ldm.errors import UserError
from support.paths import ROOT
from support.synthesis import leftovers, manifest, synthesize, whole_set
from support.training import door

CONFIGS = ROOT / "configs" / "methods"
# The recipes' networks, with as little training and sampling as shows that all parts meet.
ONE_VIEW = ["data.params.size=64", "data.params.views=1", "data.params.augment=null"]
TRAINING = {
    "fast": [*ONE_VIEW, "model.params.fit_decoder=null"],
    "stage": ONE_VIEW,
    "anomalydiffusion": ONE_VIEW,
    "realnet": ["data.params.size=32"],
    "dfmgan": ["model.params.resolution=32", "data.params.size=32", "model.params.backbone_steps=1"],
}
SAMPLING = {
    "fast": ["--steps", "2"],
    "stage": ["--steps", "2", "--sampler", "aias"],
    "anomalydiffusion": ["--steps", "2"],
    "realnet": ["method.pool=1", "method.steps=2", "method.min_change=0"],
    "dfmgan": ["method.max_tries=1000"],
    "draem": ["--size", "48"],
}
LEARNED = [m for m in METHODS if m in TRAINING]
STEPS = {"dfmgan": 5}


def test_each_method_is_either() -> None:
    assert sorted([*LEARNED, *FREE]) == sorted(METHODS)
    assert tuple(m for m in METHODS if issubclass(method_class(m), LatentGenerator)) == LATENT
    assert all(issubclass(method_class(m), Learned) for m in LEARNED)
    assert not any(issubclass(method_class(m), Learned) for m in FREE)
    assert all((CONFIGS / f"{m}.yaml").is_file() for m in METHODS)


def test_an_unknown_name_or_option() -> None:
    with pytest.raises(UserError, match="method 'gan' is unknown; use one of fast, stage"):
        create("gan")
    with pytest.raises(UserError, match="unknown config key alpha for method draem; it takes: textures"):
        create("draem", alpha=1)


@pytest.fixture(scope="module")
def runs(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder of a method's run, trained a few steps by its recipe on wood when it is first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    def run(method: str) -> Path:
        if not (folder / method).exists():
            flags = ["-t", "--mvtec_path", drawn_root / "wood", "-n", method, "-l", folder, "--devices", 1]
            flags += ["--max_steps", STEPS.get(method, 2), "lightning.images_every=0", "lightning.tensorboard=false"]
            assert door("--base", CONFIGS / f"{method}.yaml", *flags, *TRAINING[method]) == 0
        return folder / method

    return run


def flags(method: str, root: Path, out: Path, runs: Any, count: int = 3) -> list[str]:
    given = ["--method", method, "--sample_name", str(out), "--count", str(count), "--device", "cpu"]
    given += ["--data_root", str(root / "wood"), *SAMPLING.get(method, [])]
    if method in LEARNED:
        given += ["--pt_path", str(runs(method))]
    if method_class(method).takes_mask:
        given += ["--mask_path", str(root / "wood" / "ground_truth")]
    return given


@pytest.mark.parametrize("method", METHODS)
def test_training_and_pairs(method: str, drawn_root: Path, tmp_path: Path, runs: Any) -> None:
    argv = flags(method, drawn_root, tmp_path / "out", runs)
    assert synthesize(argv) == 0
    assert synthesize(argv) == 0  # all there: nothing to do
    rows = manifest(tmp_path / "out")
    assert [r["index"] for r in rows] == [0, 1, 2]
    assert leftovers(tmp_path / "out") == []
    for row in rows:
        assert row["method"] == method
        shown = read_row(tmp_path / "out", row)
        mask = read_mask(tmp_path / "out" / row["mask"])
        assert mask.any()
        assert row["type"].startswith("wood/")
        assert row["mask_kind"] == ("given" if method_class(method).takes_mask else "own")
        if method_class(method).takes_image:  # DFMGAN draws the rest of the picture too
            assert (shown.synthetic[shown.mask == 0] == shown.normal[shown.mask == 0]).all()
            assert row["normal_source"]
        else:
            assert (row["normal_source"], row["mask_source"], row["mask_kind"]) == (None, None, "own")
        assert ("defect_source" in row) == (method == "transplant")
    if method in LEARNED:
        budget = rows[0]["training"]
        assert budget["steps"] == str(STEPS.get(method, 2))
        assert float(budget["minutes"]) > 0
        assert budget["split"] == "all" if method == "realnet" else len(budget["split"]) == 64  # it sees normals alone


@pytest.mark.parametrize("method", METHODS)
def test_a_pair_from_a_program(method: str, drawn_root: Path, runs: Any) -> None:
    options: dict[str, Any] = dict(o[7:].split("=") for o in SAMPLING.get(method, []) if o.startswith("method."))
    options = {k: json.loads(v) for k, v in options.items()}
    if method in ("fast", "stage", "anomalydiffusion"):
        options = {"steps": 2, **({"sampler": "aias"} if method == "stage" else {})}
    options |= {"weights": runs(method)} if method in LEARNED else {}
    options |= {"defects": str(drawn_root / "wood")} if method == "transplant" else {}
    made: Generator = create(method, **options)
    wood = open_dataset(drawn_root / "wood")
    image, sample = read_image(wood.normals[0].image), wood.defects[0]
    assert sample.mask is not None
    mask = read_mask(sample.mask)
    before = image.copy(), mask.copy()
    one, two = (made.synthesize(image, mask, np.random.default_rng(5)) for _ in range(2))
    assert (one[0] == two[0]).all()
    assert (one[1] == two[1]).all()
    told = made.pair(image, mask, np.random.default_rng(5))
    assert (told.image == one[0]).all()
    assert (told.mask == one[1]).all()
    assert set(told.origin) == ({"defect_source"} if method == "transplant" else set())
    if made.takes_image:
        grey = made.pair(image[..., 0], mask, np.random.Generator(np.random.Philox(5)))
        again = made.synthesize(image[..., 0], mask, np.random.Generator(np.random.Philox(5)))
        assert grey.image.shape == (64, 64)
        assert (grey.image == again[0]).all()
        with pytest.raises(UserError, match="rng of type NoneType"):
            made.pair(image, mask, None)  # type: ignore[arg-type]
    assert (one[0].dtype, one[0].shape, one[1].dtype, one[1].shape) == (np.uint8, (64, 64, 3), np.uint8, (64, 64))
    assert (image == before[0]).all()
    assert (mask == before[1]).all()
    json.dumps(made.settings())
    if made.own_masks and made.takes_mask:
        own = made.synthesize(image, None, np.random.default_rng(6))[1]
        assert set(np.unique(own)) == {0, 1}
    elif made.takes_mask:
        with pytest.raises(UserError, match="needs a mask"):
            made.synthesize(image, None, np.random.default_rng(6))


def test_weights_that_serve_any_words(shipped: Path, tiny_artifact: Path) -> None:
    image, mask = np.full((64, 64, 3), 90, np.uint8), np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 1
    made = create("fast", weights=shipped, types=["wood/hole", "/scratch"], steps=2, size=64)
    assert list(made.types) == ["wood/hole", "/scratch"]
    one, two = (made.synthesize(image, mask, np.random.default_rng(1), t)[0] for t in made.types)
    assert (one != two).any()
    with pytest.raises(UserError, match="knows its own types only; leave types out"):
        create("fast", weights=tiny_artifact, types=["wood/hole"])


def test_fit_learns_what_the_split_holds(drawn_root: Path, tmp_path: Path) -> None:
    index = open_dataset(drawn_root).narrow("wood")
    index.defects = index.defects[::2]
    training: dict[str, Any] = {"max_steps": 2, "devices": 1}
    how: dict[str, Any] = {"folder": tmp_path / "run", "steps": 2, "sampler": "aias"}
    overrides = ["lightning.images_every=0", *TRAINING["stage"]]
    made = create("stage", overrides=overrides, training=training, **how)
    with pytest.raises(UserError, match="stage has learned nothing yet"):
        made.synthesize(np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.uint8), np.random.default_rng(0))
    made.fit(index)
    split = json.loads((tmp_path / "run.split.json").read_text())
    assert split["train"] == sorted(index.relative(s.image) for s in index.defects)
    assert list(made.types) == sorted({f"wood/{s.anomaly}" for s in index.defects})
    create("draem").fit(index)  # nothing to learn, nothing done
    for wrong, says in (
        ({"training": {"steps": 2}}, "unknown config key steps for training"),
        ({"training": {"max_steps": "many"}}, "training.max_steps=many must be of type int or nothing"),
        ({"training": {"name": "x"}}, "training.name is settled by fit"),
        ({"overrides": ["--max_steps=2"]}, "--max_steps=2 is not understood"),
    ):
        with pytest.raises(UserError, match=says):
            create("stage", **{**how, "folder": tmp_path / "none", **wrong}).fit(index)


@pytest.mark.parametrize("draft", ["transplant", "mixed"])
def test_fit_takes_drafts_from_the_defects_that_it_learned_from(
    draft: str, drawn_root: Path, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fast.generators.training.train", lambda *_: tiny_artifact)
    index = open_dataset(drawn_root).narrow("wood")
    index.defects = index.defects[::2]
    made = create("fast", draft=draft, draft_options={"on_object": "off"}, strength=0.5, steps=2)
    made.fit(drawn_root / "wood")  # which of its defects training saw, it does not say
    with pytest.raises(UserError, match="or call draft_from"):
        made.synthesize(read_image(index.normals[0].image), None, np.random.default_rng(0))
    made.fit(index)
    image = read_image(index.normals[0].image)
    pairs = [made.pair(image, None, np.random.default_rng(k)) for k in range(8)]
    origins = {Path(pair.origin["defect_source"]) for pair in pairs if "defect_source" in pair.origin}
    assert origins
    assert origins <= {s.image for s in index.defects}
    one, mask = made.synthesize(image, None, np.random.default_rng(0))
    assert (one == pairs[0].image).all()
    assert (mask == pairs[0].mask).all()
    assert (one != image).any(axis=2)[mask > 0].any()


def test_the_whole_decoded_picture_may_stay(drawn_root: Path, tmp_path: Path, runs: Any) -> None:
    assert synthesize([*flags("stage", drawn_root, tmp_path / "out", runs, 1), "--no_composite"]) == 0
    (row,) = manifest(tmp_path / "out")
    shown = read_row(tmp_path / "out", row)
    assert row["composite"] is False
    assert (shown.synthetic[shown.mask == 0] != shown.normal[shown.mask == 0]).any()


def test_processes_share_a_set_and_make_the_same_bytes(
    drawn_root: Path, tmp_path: Path, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ["--masks", "mixed", "--on_object", "auto"]
    argv = [f for f in flags("draem", drawn_root, tmp_path / "one", runs, 5) if not f.endswith("ground_truth")]
    argv.remove("--mask_path")
    assert synthesize([*argv, *base]) == 0
    argv[argv.index("--sample_name") + 1] = str(tmp_path / "two")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert synthesize([*argv, *base]) == 0
    assert whole_set(tmp_path / "one") == whole_set(tmp_path / "two")
    assert {r["mask_kind"] for r in manifest(tmp_path / "two")} == {"mixed"}


def test_options_come_from_the_recipe_and_the_command_line(drawn_root: Path, tmp_path: Path, runs: Any) -> None:
    argv = flags("draem", drawn_root, tmp_path / "out", runs, 1)
    assert synthesize([*argv, "method.beta=[0.3,0.3]", "method.keep_grey=false"]) == 0
    options = manifest(tmp_path / "out")[0]["options"]
    assert (options["beta"], options["keep_grey"], options["min_change"]) == ([0.3, 0.3], False, 3)


def test_bad_options(drawn_root: Path, tmp_path: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    argv = flags("draem", drawn_root, tmp_path / "out", runs, 1)
    for extra, says in (
        (["method.alpha=1"], "unknown config key alpha for method draem"),
        (["method.textures=nowhere"], "nowhere"),
        (["--mask_path", str(tmp_path / "gone")], "gone is not there; check the path"),
        (["method.beta=0.5"], "method.beta=0.5 must be of type a list of numbers"),
        (["method.min_change=abc"], "method.min_change=abc must be of type float"),
        (["method.textures=5"], "method.textures=5 must be of type str or nothing"),
        (["method.keep_grey=maybe"], "method.keep_grey=maybe must be of type bool"),
        (["method.device=cuda"], "method.device is set by --device; use that"),
        (["--steps", "3"], "--steps is not for draem; its own options are method.key=value"),
        (["--pt_path", "x"], "--pt_path is not for draem, which learns nothing"),
        (["--preview", str(tmp_path / "out" / "p.png")], "lies in --sample_name; choose a file outside"),
    ):
        assert synthesize([*argv, *extra]) == 2
        line = capsys.readouterr().err
        assert says in line
        assert line.count("\n") == 1
    assert door("--base", CONFIGS / "draem.yaml", "-t") == 2
    assert "draem learns nothing: make pairs with generate_with_mask.py --method draem" in capsys.readouterr().err
    argv = flags("stage", drawn_root, tmp_path / "out", runs, 1)
    assert synthesize([*argv, "--sampler", "plms"]) == 2
    assert "--sampler plms is none of stage's; use " in capsys.readouterr().err
    for extra, says in (
        ("method.margin=x", "method.margin=x must be of type int"),
        ("method.region=banana", "--region banana is unknown; use auto or full"),
        ("method.aif=maybe", "stage.aif=maybe is no switch"),
        ("method.own={aif: false}", "method.own is no option; give stage's switches by name: aif"),
    ):
        assert synthesize([*argv, extra]) == 2
        assert says in capsys.readouterr().err


def test_a_preview_shows_the_masks_and_a_region_file_holds_them(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fast.data.images import write_mask

    half = np.zeros((64, 64), np.uint8)
    half[:, :32] = 1
    write_mask(tmp_path / "half.png", half)
    argv = ["--method", "draem", "--data_root", str(drawn_root / "wood"), "--sample_name", str(tmp_path / "out")]
    argv += ["--masks", "blob", "--on_object", str(tmp_path / "half.png"), "--size", "40"]
    assert synthesize([*argv, "--count", "4", "--preview", str(tmp_path / "p.png")]) == 0
    assert read_image(tmp_path / "p.png").ndim == 3
    for row in manifest(tmp_path / "out"):
        assert not read_mask(tmp_path / "out" / row["mask"])[:, 20:].any()
    write_mask(tmp_path / "half.png", 1 - half)  # another region under the same name is another run
    assert synthesize([*argv, "--count", "5"]) == 2
    assert "holds another run (differs in on_object)" in capsys.readouterr().err


def test_the_preview_is_of_the_very_masks(drawn_root: Path, tmp_path: Path, runs: Any) -> None:
    from fast.cli.synthesis_job import prepare
    from fast.cli.synthesis_options import parse_synthesis

    argv = [f for f in flags("stage", drawn_root, tmp_path / "out", runs) if not f.endswith("ground_truth")]
    argv.remove("--mask_path")
    argv += ["--masks", "scratch", "--size", "48"]
    assert synthesize(argv) == 0
    job = prepare(parse_synthesis(argv)[0], say=False)
    assert job.mask_of is not None
    for row in manifest(tmp_path / "out"):
        pair = job.sources.pair(row["index"], 0)
        assert pair.normal is not None
        image = resize_image(read_image(pair.normal), job.maker.size or 64)
        assert (job.mask_of(image, pair) == read_mask(tmp_path / "out" / row["mask"])).all()


def test_a_limit_of_minutes_ends_a_run_that_goes_on_later(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["-t", "--mvtec_path", drawn_root / "wood", "-n", "r", "-l", tmp_path, "--devices", 1]
    quick = ["lightning.images_every=0", "lightning.tensorboard=false", *TRAINING["realnet"]]
    assert door("--base", CONFIGS / "realnet.yaml", *run, "--max_steps", 9, "--max_minutes", "1e-6", *quick) == 0
    assert "trained to step 1 at the limit of 1e-06 minutes" in capsys.readouterr().out
    assert door("-r", tmp_path / "r", "-t", "--max_minutes", "60", "--max_steps", 2) == 0
    assert "trained to step 2:" in capsys.readouterr().out
    assert door("--base", CONFIGS / "realnet.yaml", *run, "--max_minutes", "0") == 2
    assert "lightning.minutes=0" in capsys.readouterr().err


def test_learned_masks(
    drawn_root: Path,
    tmp_path: Path,
    runs: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import fast.anomalydiffusion.mask_model as masks

    run = ["-t", "--mvtec_path", drawn_root / "wood", "-n", "masks", "-l", tmp_path, "--devices", 1, "--max_steps", 2]
    quick = ["lightning.images_every=0", "lightning.tensorboard=false", "data.params.size=64", "model.params.steps=2"]
    assert door("--base", CONFIGS / "masks.yaml", *run, *quick) == 0
    argv = ["--method", "cutpaste", "--data_root", str(drawn_root / "wood"), "--sample_name", str(tmp_path / "out")]
    argv += ["--count", "2", "--masks", "learned", "--device", "cpu", "--mask_weights"]
    assert synthesize([*argv, str(tmp_path / "gone")]) == 2
    assert "--mask_weights" in capsys.readouterr().err
    monkeypatch.setattr(masks, "TRIES", 2)
    monkeypatch.setattr(masks, "THRESHOLD", 9.0)  # nothing is as bright as that
    assert synthesize([*argv, str(tmp_path / "masks")]) == 2
    assert "2 masks in a row for wood/" in capsys.readouterr().err
    monkeypatch.setattr(masks, "THRESHOLD", 0.0)  # after two steps it draws noise
    monkeypatch.setattr(masks, "acceptable", lambda mask: bool(mask.any()))
    assert synthesize([*argv, str(tmp_path / "masks")]) == 0
    rows = manifest(tmp_path / "out")
    assert {(r["mask_kind"], r["mask_source"], r["on_object"]) for r in rows} == {("learned", None, "auto")}
    assert len(rows[0]["mask_weights_sha256"]) == 64

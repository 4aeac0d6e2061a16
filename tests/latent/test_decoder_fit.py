"""The fit of the first stage's decoder: better pictures, the same latents, once a run."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fast.artifact import find_artifact, load_model
from fast.latent.decoder import FitOptions, fit_decoder, score
from fast.latent.prompted import DECODER
from fast.model import FAST
from fast.runtime.validated import validated
from ldm.checkpoint import read_state_dict, save_safetensors
from ldm.errors import UserError
from support.tiny import TYPES
from support.training import artifact as weights_of
from support.training import assert_same_run, door, recipe


def view(index: int, seed: int | None) -> np.ndarray:
    rough = np.random.default_rng(index).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(rough, (0, 0), 4)
    return smooth if seed is None else np.rot90(smooth, 2 * (seed % 2))


OPTIONS = FitOptions(steps=25, lr=2e-3, batch_size=2, crop=(16, 24))


def test_the_pictures_get_better_and_only_the_decoder_changes(tiny_fast: FAST) -> None:
    before = {k: v.clone() for k, v in tiny_fast.state_dict().items()}
    pictures = [view(i, None) for i in range(3)]
    first = score(tiny_fast, pictures)
    was, now = fit_decoder(tiny_fast, 3, view, OPTIONS, 1)
    # A fit looks with its weights in another memory layout, which rounds otherwise on some machines.
    assert was == pytest.approx(first, abs=1e-3)
    assert now == pytest.approx(score(tiny_fast, pictures), abs=1e-3)
    assert now > was + 1
    after = tiny_fast.state_dict()
    changed = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert changed
    assert all(k.startswith(DECODER) for k in changed)
    assert not any(p.requires_grad for p in tiny_fast.first_stage_model.parameters())


def test_the_score_is_psnr(tiny_fast: FAST) -> None:
    picture = view(0, None)
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        y = tiny_fast.first_stage_model.decode(tiny_fast.first_stage_mean(x)).clamp(-1, 1)
    error = np.square((x - y).numpy() / 2).mean()
    assert score(tiny_fast, [picture]) == pytest.approx(-10 * np.log10(error), abs=1e-4)


def test_the_same_seed_is_the_same_fit(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    made = []
    for seed in (1, 1, 2):
        model = FAST(types=TYPES, ckpt_path=str(tiny_base), **tiny_fast_config["params"])
        fit_decoder(model, 2, view, FitOptions(steps=2, batch_size=2, crop=(16, 24)), seed)
        made.append(model.first_stage_model.decoder.conv_out.weight)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_an_artifact_keeps_it(tiny_base: Path, tiny_fast_config: dict[str, Any], tmp_path: Path) -> None:
    params = {**tiny_fast_config["params"], "fit_decoder": {"steps": 2}}
    model = FAST(types=TYPES, ckpt_path=str(tiny_base), **params)
    fit_decoder(model, 2, view, FitOptions(steps=2, batch_size=2, crop=(16, 24)), 1)
    config = {"model": {**tiny_fast_config, "params": params}}
    metadata = {"step": "1", "config": json.dumps(config), "split": "s", **model.artifact_metadata()}
    save_safetensors(model.adapter_state(), tmp_path / "fast-1.safetensors", metadata)
    kept = [k for k in read_state_dict(tmp_path / "fast-1.safetensors") if k.startswith("first_stage_model.")]
    assert len(kept) == len(model.first_stage_model.decoder.state_dict())
    back = load_model(find_artifact(tmp_path))
    own, base = back.state_dict(), read_state_dict(tiny_base)
    assert all(torch.equal(own[k], v) for k, v in model.state_dict().items())
    assert any(not torch.equal(own[k], base[k]) for k in kept)
    for _ in range(2):  # the cache holds the base's own decoder, whatever artifact asks for it first
        cached = load_model(find_artifact(tmp_path), dtype=torch.bfloat16, cache=tmp_path / "cache")
        assert all(torch.equal(cached.state_dict()[k], own[k].bfloat16()) for k in kept)
    (file,) = (tmp_path / "cache").iterdir()
    assert all(torch.equal(read_state_dict(file)[k], base[k].bfloat16()) for k in kept)


def test_a_run_fits_once_and_a_resumed_one_goes_on_as_if_unbroken(
    drawn_root: Path, tiny_base: Path, tiny_fast_config: dict[str, Any], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fit = {"steps": 2, "batch_size": 2, "crop": [16, 32], "lr": 1e-3}
    tiny_fast_config["params"] |= {"ckpt_path": str(tiny_base), "fit_decoder": fit, "lora": {"rank": 2}}
    path = recipe(tmp_path, tiny_fast_config, drawn_root / "wood", steps=4)
    flags = ["-t", "-l", tmp_path, "--precision", "bf16"]
    assert door("-b", path, *flags, "-n", "whole") == 0
    said = capsys.readouterr().out
    count = len([*(drawn_root / "wood" / "train").rglob("*.png")])
    assert "fitting the first stage's decoder to " in said
    assert int(said.split("decoder to ")[1].split()[0]) > count, "normals and defects"
    assert " dB before the fit, " in said
    assert door("-b", path, *flags, "-n", "parts", "--max_steps", "3") == 0
    capsys.readouterr()
    assert door("-r", tmp_path / "parts", "-t", "--max_steps", "4") == 0
    assert "decoder" not in capsys.readouterr().out
    assert_same_run(tmp_path / "whole", tmp_path / "parts", 4)
    assert len([*(tmp_path / "parts" / "cache").iterdir()]) == 1, "the latents are those of before"
    trained, base = weights_of(tmp_path / "whole", 4), read_state_dict(tiny_base)
    assert any(v.any() for k, v in trained.items() if k.endswith(".up")), "the adapters have learned too"
    kept = [k for k in trained if k.startswith(DECODER)]
    assert any(not torch.equal(trained[k], base[k]) for k in kept)
    assert {trained[k].dtype for k in kept} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "fit_decoder: steps=0 must be 1 or more"),
        ({"batch_size": 1.5}, r"fit_decoder: batch_size=1\.5 must be a whole number"),
        ({"lr": 0}, "fit_decoder: lr=0 must be above 0"),
        ({"crop": [128, 64]}, r"fit_decoder: crop=\[128, 64\] must be \[least, most\]"),
        ({"step": 3}, "model.params.fit_decoder: step is unknown; it takes: steps, lr"),
    ],
)
def test_slips_are_named(tiny_fast_config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FAST(types=TYPES, **{**tiny_fast_config["params"], "fit_decoder": change})


def test_a_good_first_stage_is_left_alone(tiny_fast: FAST) -> None:
    state = {k: v.clone() for k, v in tiny_fast.state_dict().items()}
    first = score(tiny_fast, [view(i, None) for i in range(2)])
    options = FitOptions(steps=2, crop=(16, 24), enough=first - 1e-3)
    assert fit_decoder(tiny_fast, 2, view, options, 1) == pytest.approx((first, first), abs=1e-3)
    assert all(torch.equal(v, state[k]) for k, v in tiny_fast.state_dict().items())


def test_a_fit_ends_when_it_gains_nothing(tiny_fast: FAST, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is gained at a rate that only spoils; the weights are then the best that there were."""
    steps, own = [], torch.optim.Adam.step

    def counted(self: torch.optim.Adam, *args: Any, **named: Any) -> Any:
        steps.append(1)
        return own(self, *args, **named)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    spoiling = FitOptions(steps=100, lr=10.0, batch_size=1, crop=(16, 16))
    before, after = fit_decoder(tiny_fast, 2, view, spoiling, 1)
    assert len(steps) == 40  # four looks of a tenth
    assert after >= before - 1e-6
    steps.clear()
    fit_decoder(tiny_fast, 2, view, FitOptions(steps=20, lr=1e-6, batch_size=1, crop=(16, 16), gain=0), 1)
    assert len(steps) == 20


@pytest.mark.parametrize("options", [{"enough": -1}, {"gain": "much"}, {"gain": True}, {"lr": float("nan")}])
def test_odd_limits_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"fit_decoder: (enough|gain|lr)=.* must be"):
        validated(FitOptions, options, "fit_decoder")


def test_a_fit_keeps_to_its_time(tiny_fast: FAST, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by a second whenever it is asked: scoring takes one, and so does a step."""
    steps, own, times = [], torch.optim.Adam.step, iter(range(1000))

    def counted(self: torch.optim.Adam, *args: Any, **named: Any) -> Any:
        steps.append(1)
        return own(self, *args, **named)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    options = FitOptions(steps=50, batch_size=1, crop=(16, 16), gain=0)
    fit_decoder(tiny_fast, 2, view, options, 1, seconds=25, clock=lambda: float(next(times)))
    assert len(steps) == 21  # what scoring leaves of 25
    steps.clear()
    state = {k: v.clone() for k, v in tiny_fast.state_dict().items()}
    before, after = fit_decoder(tiny_fast, 2, view, options, 1, seconds=12, clock=lambda: float(next(times)))
    assert (len(steps), before) == (0, after)  # eight steps are not worth it
    assert all(torch.equal(v, state[k]) for k, v in tiny_fast.state_dict().items())


def test_a_fit_that_spoils_is_taken_back(tiny_fast: FAST) -> None:
    state = {k: v.clone() for k, v in tiny_fast.state_dict().items()}
    first = score(tiny_fast, [view(i, None) for i in range(2)])
    options = FitOptions(steps=2, lr=1.0, batch_size=1, crop=(16, 16), gain=0)
    before, after = fit_decoder(tiny_fast, 2, view, options, 1)
    assert before == after == pytest.approx(first, abs=1e-3)
    assert all(torch.equal(v, state[k]) for k, v in tiny_fast.state_dict().items())


def test_the_pictures_of_an_adaptation_are_the_real_ones(
    drawn_root: Path, tiny_base: Path, tiny_fast_config: dict[str, Any], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """However samples are made beside them, as `data.params` of the README's command says."""
    fit = {"steps": 1, "batch_size": 2, "crop": [16, 32]}
    tiny_fast_config["params"] |= {"ckpt_path": str(tiny_base), "fit_decoder": fit}
    made = {"normal_share": 0.25, "drawn_share": 0.25, "pool": 2, "drawn": ["procedural"], "drawn_words": "looks"}
    path = recipe(tmp_path, tiny_fast_config, drawn_root / "wood", steps=1, **made)
    path.write_text(
        path.read_text().replace("fast.data.module.DefectData", "fast.generators.adaptation.AdaptationData")
    )
    assert door("-b", path, "-t", "-l", tmp_path, "-n", "run") == 0
    real = len([*(drawn_root / "wood" / "train").rglob("*.png")])
    assert int(capsys.readouterr().out.split("decoder to ")[1].split()[0]) > real

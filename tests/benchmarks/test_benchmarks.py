"""The benchmarks' own arithmetic and text, and every case once on a tiny network."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as door
from benchmarks import machine, report
from benchmarks.cases import CASES
from benchmarks.cases.profile import PREFIX, by_part
from benchmarks.network import build_fast, build_unet, materialize, unet_operations
from benchmarks.original import as_original
from benchmarks.pictures import MASKS, blob, write_pairs
from benchmarks.rival import build_diffusers_unet
from benchmarks.runner import Job, Result, Setting, better, run_all
from benchmarks.sections import SECTIONS, pairs, unet
from fast.data.images import read_image, read_mask
from fast.runtime.command import run_cli
from fast.runtime.workers import cores
from ldm.modules.packed import has_int8

TINY = {"device": "cpu", "size": "tiny"}
SETTING = Setting("cpu", "full", 2, 256)


# text


@pytest.mark.parametrize(
    ("value", "text"),
    [(123.4, "123"), (0.04567, "0.0457"), (1234.0, "1234"), (0, "0"), (None, report.NONE)],
)
def test_number_has_three_digits(value: float | None, text: str) -> None:
    assert report.number(value) == text


def test_ratios_of_absent_figures_are_left_open() -> None:
    assert report.times(3.0, 2.0) == "1.5 x"
    assert report.share(1.0, 4.0) == "25 %"
    assert report.gigabytes(2_500_000_000) == "2.50"
    assert [report.times(None, 2.0), report.share(1.0, None), report.gigabytes(None)] == [report.NONE] * 3


def test_growth_exponent_of_a_square_law_is_two() -> None:
    assert math.isclose(report.exponent((64, 0.5), (256, 8.0)), 2.0)


def test_extrapolation_keeps_what_a_pair_costs_without_evaluations() -> None:
    seconds = {n: 3.0 + 0.5 * n for n in (10, 50, 1000)}
    assert math.isclose(report.extrapolated((10, seconds[10]), (50, seconds[50]), 1000), seconds[1000])


def test_a_page_keeps_its_prose_and_the_other_parts() -> None:
    page = report.with_parts("# Title\n", {"cpu/unet": "one", "cpu/machine": "two"}, ["machine", "unet"])
    page = page.replace("# Title", "# Title\n\nProse.") + "\nMore prose.\n"
    page = report.with_parts(page, {"cpu/unet": "three", "cuda/machine": "four"}, ["machine", "unet"])
    assert page.startswith("# Title\n\nProse.")
    assert page.endswith("More prose.\n")
    assert list(report.read_parts(page).items()) == [
        ("cpu/machine", "two"),
        ("cpu/unet", "three"),
        ("cuda/machine", "four"),
    ]
    assert report.with_parts(page, {}, ["machine", "unet"]) == page


# sections


def _figures(jobs: dict[str, Job]) -> dict[str, Result]:
    """Every case takes one second more than the one before and one GB."""
    found: dict[str, Result] = {}
    for number, label in enumerate(jobs, 1):
        common = {"seconds": float(number), "memory": number * 1e9, "operations": 2e12, "parameters": 872e6}
        found[label] = {**common, "pairs": 4, "ready": 1.0, "files": 0.1, "windows": [[128, 128]], "parts": {"x": 1.0}}
    return found


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_section_says_what_is_missing_and_still_has_its_table(name: str, device: str) -> None:
    setting = Setting(device, "full", 2, 256)
    jobs = SECTIONS[name].jobs(setting)
    whole = SECTIONS[name].text(_figures(jobs), setting)
    assert whole.startswith("#### ")
    assert "None" not in whole
    empty = SECTIONS[name].text({label: {"missing": "no such thing"} for label in jobs}, setting)
    assert empty.count("no such thing") == len(jobs)


def test_the_first_ratios_by_hand() -> None:
    results = {
        unet.ORIGINAL: {"seconds": 1.2, "memory": 5e9},
        unet.LOWERED: {"seconds": 0.4, "memory": 4e9},
        unet.DIFFUSERS: {"seconds": 0.8, "memory": 4e9},
        unet.DIFFUSERS_BF16: {"seconds": 0.36, "memory": 3e9},
        "FAST, bf16": {"seconds": 0.3, "memory": 2.5e9},
        "FAST, int8": {"missing": "no int8 here"},
    }
    rows = {line.split(" | ")[0][2:]: line.split(" | ")[1:] for line in unet.ratios(results).splitlines()}
    assert rows["FAST, bf16"] == ["4.0 x", "1.3 x", "1.2 x", "1.2 x", "50 % |"]
    assert set(rows["FAST, int8"]) == {report.NONE, f"{report.NONE} |"}


def test_ddpm_is_extrapolated_from_two_measurements_and_says_so() -> None:
    (shape, region), *_ = pairs.places(SETTING)
    results = _figures(pairs.jobs(SETTING))
    results[pairs.label(shape, region, "aias", 10)]["seconds"] = 4.0
    results[pairs.label(shape, region, "aias", 50)]["seconds"] = 12.0
    row = next(line for line in pairs.text(results, SETTING).splitlines() if "512 x 512, full, ddpm 1000" in line)
    assert "extrapolated from aias 10 and 50" in row
    assert f" {report.number(60 / (4 + 0.2 * 990))} " in row


def test_equal_measurements_are_made_once() -> None:
    jobs = [job for section in SECTIONS.values() for job in section.jobs(SETTING).values()]
    assert len({job.key for job in jobs}) < len(jobs)


# running


def test_rounds_take_turns_and_the_quickest_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seconds = iter([3.0, 2.0, 9.0, 1.0, 5.0])
    order: list[str] = []

    def fake(job: Job) -> Result:
        order.append(job.case)
        return {"seconds": next(seconds), "memory": len(order)}

    monkeypatch.setattr("benchmarks.runner.run_case", fake)
    known: dict[str, Result] = {"d {}": {"seconds": 0.0, "memory": 0}}
    jobs = [Job("a", {}), Job("b", {}), Job("c", {}, once=True), Job("a", {}), Job("d", {})]
    run_all(jobs, 2, known, tmp_path / "results.json")
    assert order == ["a", "b", "c", "a", "b"]
    assert known["a {}"] == {"seconds": 1.0, "memory": 4}
    assert known["b {}"] == {"seconds": 2.0, "memory": 5}
    assert json.loads((tmp_path / "results.json").read_text()) == known


def test_a_failed_round_does_not_undo_a_good_one() -> None:
    good: Result = {"operations": 5.0, "memory": 1}
    assert better(good, {"missing": "failed"}) == better({"missing": "failed"}, good) == good
    assert better(good, {"operations": 7.0, "memory": 0})["operations"] == 7.0


def test_the_command_writes_only_its_own_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "benchmarks.runner.run_case",
        lambda job: {**_figures({"x": job})["x"], "seconds": 2.0},
    )
    page = tmp_path / "page.md"
    page.write_text("Prose.\n")
    argv = ["--only", "unet,profile", "--size", "tiny", "--device", "cpu", "--out", str(page)]
    assert run_cli(door.main, argv) == 0
    parts = report.read_parts(page.read_text())
    assert list(parts) == ["cpu/machine", "cpu/ratios", "cpu/unet", "cpu/profile"]
    assert "1.0 x" in parts["cpu/ratios"]
    assert "torch" in parts["cpu/machine"]


@pytest.mark.parametrize("argv", [["--only", "nothing"], ["--repeat", "0"], ["--size", "huge"]])
def test_bad_flags_end_in_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(door.main, argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


# networks and pictures


def test_the_original_way_computes_the_same() -> None:
    plain, original = build_unet("tiny"), as_original(build_unet("tiny"))
    x, t, prompt = torch.randn(2, 8, 16, 16), torch.tensor([3, 700]), torch.randn(2, 5, 32)
    with torch.no_grad():
        expected, found = plain(x, t, context=prompt), original(x, t, context=prompt)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.bench
def test_diffusers_network_is_of_the_same_size() -> None:
    for size in ("tiny", "mini", "full"):
        counts = [
            sum(p.numel() for p in build(size, "meta").parameters()) for build in (build_unet, build_diffusers_unet)
        ]
        assert counts[0] == counts[1]


def test_random_weights_keep_numbers_at_their_size() -> None:
    layer = torch.nn.Linear(400, 300, device="meta")
    materialize(layer)
    given = torch.randn(50, 400, generator=torch.Generator().manual_seed(1))  # not what the weights were drawn by
    assert abs(float(layer(given).std()) - 1) < 0.1
    model = build_fast("tiny")
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())
    assert float(model.betas[0]) == pytest.approx(0.00085)


def test_operations_of_a_convolution_count_multiply_and_add() -> None:
    """The published layout's U-Net, 32 x 32 cells; four times the cells are more than four times the work."""
    assert unet_operations("full", 32, 32) == pytest.approx(182e9, rel=0.01)
    assert unet_operations("tiny", 32, 32) > 4 * unet_operations("tiny", 16, 16)


def test_a_blob_is_as_large_as_it_says() -> None:
    rows, columns = np.nonzero(blob(np.random.default_rng(3), (200, 300), 60))
    assert 54 <= np.ptp(rows) + 1 <= 60
    assert 54 <= np.ptp(columns) + 1 <= 60


def test_every_pair_has_a_normal_of_its_own(tmp_path: Path) -> None:
    made = write_pairs(tmp_path, (96, 700), 6)
    assert len({p.normal for p in made}) == 6
    assert len({p.mask for p in made}) == MASKS
    assert read_image(made[5].normal).shape == (96, 700, 3)
    assert read_mask(made[5].mask).shape == (96, 700)


def test_time_goes_to_the_nearest_mark_around_it() -> None:
    def event(name: str, seconds: float, parent: Any = None) -> Any:
        return SimpleNamespace(name=name, own=seconds, cpu_parent=parent)

    outer = event(PREFIX + "network", 1.0)
    layer = event("aten::conv2d", 2.0, outer)
    inner = event(PREFIX + "norm", 0.5, layer)
    events = [outer, layer, inner, event("aten::norm", 4.0, inner), event("elsewhere", 8.0)]
    assert by_part(events, lambda e: e.own) == {"network": 3.0, "norm": 4.5}


def test_peak_memory_and_machine_are_known() -> None:
    assert machine.peak_memory("cpu") > 50e6
    assert f"{cores()} cores" in machine.describe("cpu")


# cases

SMALL: list[tuple[str, dict[str, Any]]] = [
    ("rate", {"device": "cpu", "precision": "bf16", "side": 64}),
    ("unet", {**TINY, "kind": "original", "autocast": True, "times": 1}),
    ("unet", {**TINY, "kind": "ours", "precision": "bf16", "reuse": 2, "times": 1}),
    ("pairs", {**TINY, "shape": [64, 96], "region": "auto", "lanes": 1, "steps": 2}),
    ("pairs", {**TINY, "shape": [64, 64], "region": "full", "lanes": 1, "steps": 2, "sampler": "ddim"}),
    ("original_pairs", {**TINY, "shape": [64, 64], "steps": 2}),
    ("training", {**TINY, "kind": "ours", "batch": 2, "times": 1}),
    ("training", {**TINY, "kind": "original", "batch": 2, "times": 1}),
    ("profile", {**TINY, "steps": 2}),
]


@pytest.mark.parametrize(("name", "params"), SMALL, ids=lambda v: v if isinstance(v, str) else v.get("kind", ""))
def test_every_case_gives_plain_numbers(name: str, params: dict[str, Any]) -> None:
    before = torch.get_num_threads()
    result = CASES[name](**params)
    assert torch.get_num_threads() == before
    assert json.loads(json.dumps(result)) == result
    assert all(v > 0 for k, v in result.items() if k in ("seconds", "operations", "parameters", "pairs"))
    if name == "profile":
        assert {"reading", "writing", "FARM", "U-Net: convolutions", "first stage: decoder"} <= set(result["parts"])
        assert sum(result["parts"].values()) > 0


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "params"), SMALL, ids=lambda v: v if isinstance(v, str) else v.get("kind", ""))
def test_every_case_runs_on_a_gpu(name: str, params: dict[str, Any]) -> None:
    assert CASES[name](**{**params, "device": "cuda"})


@pytest.mark.bench
def test_the_diffusers_case_gives_plain_numbers() -> None:
    given = {**TINY, "kind": "diffusers", "precision": "bf16", "channels_last": True, "times": 1}
    assert CASES["unet"](**given)["seconds"] > 0


@pytest.mark.skipif(not has_int8(), reason="no 8-bit dot products here")
def test_the_int8_case_gives_plain_numbers() -> None:
    given = {**TINY, "kind": "ours", "precision": "int8", "times": 1}
    assert CASES["unet"](**given)["seconds"] > 0

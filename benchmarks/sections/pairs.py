"""Pairs end to end, by sampler and by how much of a picture is sampled."""

from typing import Any

from benchmarks.report import NONE, extrapolated, gigabytes, number, share, times
from benchmarks.runner import Job, Setting
from benchmarks.sections.section import Results, missing, paragraphs, value
from benchmarks.sections.unet import RATES
from fast.runtime.tables import markdown

SAMPLERS = [("aias", 10), ("aias", 50), ("ddim", 50)]
LONGEST = ("ddpm", 1000)
ORIGINAL = "as the original, full, aias 10"


def places(setting: Setting) -> list[tuple[tuple[int, int], str]]:
    """(height and width of the pictures, region) of the table's rows."""
    small = (2 * setting.side, 2 * setting.side)
    large = (2000, 3000) if setting.size == "full" else (3 * setting.side, 4 * setting.side)
    return [(small, "full"), (small, "auto"), (large, "auto")]


def pair_job(setting: Setting, shape: tuple[int, int], region: str = "auto", **more: Any) -> Job:
    """A measurement of the rate of pairs; fewer lanes where each takes long."""
    window = shape[0] * shape[1] if region == "full" else setting.side**2
    # One lane for every core makes about a minute at the full size; small ones need more to be steady.
    work = window / setting.side**2 * more.get("steps", 10) / 10
    least = {"cpu": 1, "cuda": 3}[setting.device]  # a GPU's are read and written while the others are computed
    lanes = 1 if setting.size == "tiny" else max(least, min(10, round(4 / work)))
    params = {"device": setting.device, "size": setting.size, "shape": list(shape), "region": region, "lanes": lanes}
    return Job("pairs", {**params, **more}, once=True)


def label(shape: tuple[int, int], region: str, sampler: str, steps: int) -> str:
    return f"{shape[1]} x {shape[0]}, {region}, {sampler} {steps}"


def jobs(setting: Setting) -> dict[str, Job]:
    found = {
        label(shape, region, sampler, steps): pair_job(setting, shape, region, sampler=sampler, steps=steps)
        for shape, region in places(setting)
        for sampler, steps in SAMPLERS
    }
    shape = places(setting)[0][0]
    original = {"device": setting.device, "size": setting.size, "shape": list(shape)}
    found[ORIGINAL] = Job("original_pairs", original, once=True)
    for precision in RATES:
        side = 4096 if setting.device == "cpu" else 16384
        side = side if setting.size == "full" else 256
        found[RATES[precision]] = Job("rate", {"device": setting.device, "precision": precision, "side": side})
    return found


def text(results: Results, setting: Setting) -> str:
    rows = []
    shape, _ = places(setting)[0]
    seconds, memory = value(results, ORIGINAL), value(results, ORIGINAL, "memory")
    rows.append([f"{shape[1]} x {shape[0]}, {ORIGINAL}", *_rate(seconds), NONE, "1", NONE, gigabytes(memory)])
    for shape, region in places(setting):
        for sampler, steps in SAMPLERS:
            rows.append(_row(results, label(shape, region, sampler, steps)))
        rows.append(_longest(results, shape, region))
    head = ["pictures, region, sampler", "pairs/min", "pairs/s", "of the bf16 rate", "pairs made", "ready after, s"]
    said = (
        "Files in, files out, as `generate_with_mask.py --precision bf16` makes them; every normal is another file, "
        "each mask one defect of 60 pixels. *Ready after* is the preparation of weights and prompts; neither it nor "
        "the reading of a base from its file is in the rate. *Of the bf16 rate* counts the U-Net's evaluations alone, "
        "against the matrix product of the U-Net's table."
    )
    return paragraphs("#### Pairs end to end", markdown([*head, "peak memory, GB"], rows), said, missing(results))


def summary(results: Results, setting: Setting) -> str:
    """A ratio for each way to make a pair of the smaller pictures, against the original's way."""
    shape, _ = places(setting)[0]
    before = value(results, ORIGINAL)
    rows = []
    for region in ("full", "auto"):
        name = label(shape, region, "aias", 10)
        memory = share(value(results, name, "memory"), value(results, ORIGINAL, "memory"))
        rows.append([f"FAST, bf16, region {region}", times(before, value(results, name)), memory])
    head = [
        f"pair of {shape[1]} x {shape[0]} end to end, aias 10",
        "as fast as the original",
        "memory of the original's",
    ]
    return markdown(head, rows)


def _row(results: Results, name: str) -> list[str]:
    seconds, operations = value(results, name), value(results, name, "operations")
    rate = operations / seconds if seconds and operations else None
    return [
        name,
        *_rate(seconds),
        share(rate, value(results, RATES["bf16"], "operations")),
        str(value(results, name, "pairs") or NONE),
        number(value(results, name, "ready"), 2),
        gigabytes(value(results, name, "memory")),
    ]


def _longest(results: Results, shape: tuple[int, int], region: str) -> list[str]:
    """ddpm: a thousand evaluations at the cost of those of aias."""
    sampler, steps = LONGEST
    few, many = (value(results, label(shape, region, s, n)) for s, n in SAMPLERS[:2])
    seconds = extrapolated((10, few), (50, many), steps) if few and many else None
    name = f"{label(shape, region, sampler, steps)}, extrapolated from aias 10 and 50"
    return [name, *_rate(seconds), NONE, NONE, NONE, NONE]


def _rate(seconds: float | None) -> tuple[str, str]:
    return number(seconds and 60 / seconds), number(seconds and 1 / seconds)

"""What the options that trade something for speed save. What they change in the pictures is measured elsewhere."""

from typing import Any

from benchmarks.report import gigabytes, number, times
from benchmarks.runner import Job, Setting
from benchmarks.sections.pairs import pair_job
from benchmarks.sections.section import Results, missing, paragraphs, value
from fast.runtime.tables import markdown

PLAIN = "--precision bf16"
OPTIONS: dict[str, dict[str, Any]] = {
    "--precision fp32": {"precision": "fp32"},
    PLAIN: {},
    "--precision int8": {"precision": "int8"},
    "--precision bf16 --reuse 2": {"reuse": 2},
    "--precision bf16 --reuse 3": {"reuse": 3},
    "--precision bf16 --stop_at 2": {"stop_at": 2},
    "--precision int8 --reuse 2 --stop_at 2": {"precision": "int8", "reuse": 2, "stop_at": 2},
}


def jobs(setting: Setting) -> dict[str, Job]:
    shape, common = (setting.side, setting.side), {"sampler": "aias", "steps": 10}
    return {name: pair_job(setting, shape, "full", **common, **more) for name, more in OPTIONS.items()}


def text(results: Results, setting: Setting) -> str:
    plain = value(results, PLAIN)
    rows = []
    for name in OPTIONS:
        seconds = value(results, name)
        ratio = times(plain, seconds)
        rows.append([f"`{name}`", ratio, number(seconds), gigabytes(value(results, name, "memory"))])
    head = ["options", "as fast as bf16", "s per pair", "peak memory, GB"]
    title = f"#### Options, pairs of {setting.side} x {setting.side}, full, aias 10"
    return paragraphs(title, markdown(head, rows), missing(results))

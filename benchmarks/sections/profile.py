"""Where the time of a pair goes."""

from benchmarks.report import number, share
from benchmarks.runner import Job, Setting
from benchmarks.sections.section import Results, missing, paragraphs, value
from fast.runtime.tables import markdown

NAME = "one pair"


def jobs(setting: Setting) -> dict[str, Job]:
    return {NAME: Job("profile", {"device": setting.device, "size": setting.size, "steps": 10}, once=True)}


def text(results: Results, setting: Setting) -> str:
    found: dict[str, float] = value(results, NAME, "parts") or {}
    total = sum(found.values())
    ordered = sorted(found.items(), key=lambda item: -item[1])
    rows = [[name, share(seconds, total), number(seconds)] for name, seconds in ordered]
    where = "on one thread" if setting.device == "cpu" else "on the GPU, without the time between its kernels"
    return paragraphs(
        f"#### Where the time goes: one pair of {setting.side} x {setting.side}, full, aias 10, bf16",
        markdown(["part", "share", "s"], rows) if rows else "",
        f"From torch's profiler, {where}; the profiler itself slows small parts down.",
        missing(results),
    )

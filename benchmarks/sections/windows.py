"""How time grows with the window, and that with `auto` a picture's size does not matter."""

from benchmarks.report import NONE, exponent, gigabytes, number, times
from benchmarks.runner import Job, Setting
from benchmarks.sections.pairs import pair_job
from benchmarks.sections.section import Results, missing, paragraphs, value
from fast.runtime.tables import markdown


def sides(setting: Setting) -> list[int]:
    """Sides in pixels of the pictures that are sampled in full."""
    if setting.size == "full":
        return [64, 128, 192, 256, 384, 512, 768]
    return [setting.side // 2, setting.side]


def pictures(setting: Setting) -> list[tuple[int, int]]:
    """Heights and widths of pictures with the same small defect."""
    if setting.size == "full":
        return [(256, 256), (1024, 1024), (2000, 3000)]
    return [(setting.side, setting.side), (3 * setting.side, 4 * setting.side)]


def jobs(setting: Setting) -> dict[str, Job]:
    options = {"sampler": "aias", "steps": 10}
    full = {f"window {side}": pair_job(setting, (side, side), "full", **options) for side in sides(setting)}
    return full | {_name(shape): pair_job(setting, shape, "auto", **options) for shape in pictures(setting)}


def text(results: Results, setting: Setting) -> str:
    rows, before = [], None
    for side in sides(setting):
        seconds = value(results, f"window {side}")
        grown = number(exponent(before, (side, seconds)), 2) if before and seconds else NONE
        memory, pairs = (value(results, f"window {side}", name) for name in ("memory", "pairs"))
        rows.append([f"{side} x {side}", number(seconds), grown, str(pairs or NONE), gigabytes(memory)])
        before = (side, seconds) if seconds else before
    growth = markdown(["window", "s per pair", "growth exponent", "pairs made", "peak memory, GB"], rows)
    base = value(results, _name(pictures(setting)[0]))
    rows = []
    for shape in pictures(setting):
        seconds = value(results, _name(shape))
        windows = value(results, _name(shape), "windows") or []
        sampled = ", ".join(f"{w} x {h}" for h, w in windows)
        files = value(results, _name(shape), "files")
        memory = gigabytes(value(results, _name(shape), "memory"))
        rows.append([_name(shape), sampled, number(seconds), times(seconds, base), number(files, 2), memory])
    head = ["picture with one defect of 60 pixels, auto", "window", "s per pair", "of the first", "s for its files"]
    same = markdown([*head, "peak memory, GB"], rows)
    return paragraphs(
        "#### Time and the size of the window, aias 10, bf16",
        growth,
        "The exponent is p in `seconds ~ side ** p` from the row above: 2 is the growth of the area, 4 that of its "
        "square.",
        same,
        "*For its files*: what one core needs to read a pair's PNG files and to write its own, a part of the time per "
        "pair.",
        missing(results),
    )


def _name(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]}"

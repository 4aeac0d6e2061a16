"""A step of FAST's training."""

from benchmarks.report import gigabytes, number, share, times
from benchmarks.runner import Job, Setting
from benchmarks.sections.section import Results, missing, paragraphs, value
from fast.runtime.tables import markdown

BATCH = 4
OURS, LEAN = "FAST, as the recipe says", "FAST, lightning.checkpointing=always"
ORIGINAL = "as the original, float32"


def jobs(setting: Setting) -> dict[str, Job]:
    common = {"device": setting.device, "size": setting.size, "batch": BATCH}
    return {
        OURS: Job("training", {**common, "kind": "ours", "times": 2}),
        LEAN: Job("training", {**common, "kind": "ours", "times": 2, "checkpointing": "always"}),
        ORIGINAL: Job("training", {**common, "kind": "original", "times": 1}, once=True),
    }


def text(results: Results, setting: Setting) -> str:
    slow, large = value(results, ORIGINAL), value(results, ORIGINAL, "memory")
    rows = []
    for name in (OURS, LEAN, ORIGINAL):
        seconds, memory = value(results, name), value(results, name, "memory")
        ratios = [times(slow, seconds), share(memory, large)]
        rows.append([name, *ratios, number(seconds), number(seconds and BATCH * seconds), gigabytes(memory)])
    head = ["training step", "as fast as the original", "memory of the original's", "s per image", "s per step"]
    return paragraphs(
        f"#### Training, batch {BATCH} of {setting.side} x {setting.side}",
        markdown([*head, "peak memory, GB"], rows),
        "Loss, backward and optimizer on cached latents. *The original* keeps every weight in float32 and computes the "
        "U-Net's activations again in the backward pass.",
        missing(results),
    )

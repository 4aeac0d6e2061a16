"""One evaluation of the U-Net, and the ratios that the page begins with."""

from benchmarks.report import NONE, gigabytes, number, share, times
from benchmarks.runner import Job, Setting
from benchmarks.sections.section import Results, missing, paragraphs, value
from fast.runtime.tables import markdown
from fast.synthesis.batches import WINDOWS_PER_BATCH

ORIGINAL, LOWERED = "original, float32", "original, bf16 autocast"
DIFFUSERS, DIFFUSERS_BF16 = "diffusers, float32", "diffusers, bf16 channels-last"
OURS = {"FAST, fp32": "fp32", "FAST, bf16": "bf16", "FAST, int8": "int8", "FAST, bf16, reuse 2": "bf16"}
RATES = {"fp32": "matrix product in float32", "bf16": "matrix product in bf16"}
CPU_BATCH = 4


def jobs(setting: Setting) -> dict[str, Job]:
    common = {"device": setting.device, "size": setting.size}
    side = {"cpu": 4096, "cuda": 16384}[setting.device] if setting.size == "full" else 256
    # The others have the whole machine for a batch; on a GPU one as large as ours.
    batch = CPU_BATCH if setting.device == "cpu" else WINDOWS_PER_BATCH["cuda"]
    other = {**common, "batch": batch}
    found = {RATES[p]: Job("rate", {"device": setting.device, "precision": p, "side": side}) for p in ("fp32", "bf16")}
    found |= {
        ORIGINAL: Job("unet", {**other, "kind": "original"}),
        LOWERED: Job("unet", {**other, "kind": "original", "autocast": True}),
        DIFFUSERS: Job("unet", {**other, "kind": "diffusers"}),
        DIFFUSERS_BF16: Job("unet", {**other, "kind": "diffusers", "precision": "bf16", "channels_last": True}),
    }
    for label, precision in OURS.items():
        reuse = 2 if "reuse" in label else 1
        found[label] = Job("unet", {**common, "kind": "ours", "precision": precision, "reuse": reuse})
    return found


def text(results: Results, setting: Setting) -> str:
    networks = [label for label in (ORIGINAL, LOWERED, DIFFUSERS, DIFFUSERS_BF16, *OURS) if label in results]
    rows = [_row(results, label) for label in networks]
    rates = [f"a {name} reaches {_giga(value(results, name, 'operations'))}" for name in RATES.values()]
    sizes = {value(results, label, "parameters") for label in networks} - {None}
    each = value(results, ORIGINAL, "operations")
    batch = CPU_BATCH if setting.device == "cpu" else WINDOWS_PER_BATCH["cuda"]
    lanes = (
        f"FAST has {setting.cores} lanes of one picture with a thread each, the others {setting.cores} threads for a "
        f"batch of {batch}"
        if setting.device == "cpu"
        else f"All have batches of {batch}; float32 is torch's default, with TF32 in convolutions"
    )
    on_cpu = "the process's, Python and libraries included"
    memory = on_cpu if setting.device == "cpu" else "the tensors' on the GPU"
    head = ["U-Net evaluation", "s per image", "GFLOP/s", "of the matrix product's rate", "peak memory, GB"]
    return paragraphs(
        f"#### One evaluation of the U-Net, {setting.side} x {setting.side} pixels",
        markdown(head, rows),
        f"{' or '.join(f'{n / 1e6:.0f} M' for n in sorted(sizes))} parameters, "
        f"{number(each and each / 1e9)} GFLOP for an image. Here {' and '.join(rates)}, to which autocast and int8 are "
        f"compared too. {lanes}. Peak memory is {memory}.",
        missing(results),
    )


def ratios(results: Results) -> str:
    """What the page begins with: how many times as fast as the others, and how much of their memory."""
    both = [value(results, label) for label in (DIFFUSERS, DIFFUSERS_BF16)]
    best = min((s for s in both if s), default=None)
    rows = []
    for label in OURS:
        seconds = value(results, label)
        same = DIFFUSERS if OURS[label] == "fp32" else DIFFUSERS_BF16
        rows.append(
            [
                label,
                times(value(results, ORIGINAL), seconds),
                times(value(results, LOWERED), seconds),
                times(value(results, same), seconds),
                times(best, seconds),
                share(value(results, label, "memory"), value(results, ORIGINAL, "memory")),
            ]
        )
    head = [
        *("U-Net evaluation", "as fast as the original", "as the original under autocast"),
        *("as diffusers in this precision", "as diffusers' best", "memory of the original's"),
    ]
    return markdown(head, rows)


def _row(results: Results, label: str) -> list[str]:
    seconds, operations = value(results, label), value(results, label, "operations")
    lowered = label == LOWERED or "bf16" in label
    whole = value(results, RATES["bf16" if lowered or "int8" in label else "fp32"], "operations")
    rate = operations / seconds if seconds and "reuse" not in label else None
    of_rate = share(rate, whole) + (" of bf16" if rate and "int8" in label else "")
    return [label, number(seconds), _giga(rate).split(" ")[0], of_rate, gigabytes(value(results, label, "memory"))]


def _giga(rate: float | None) -> str:
    return NONE if rate is None else f"{rate / 1e9:.0f} GFLOP/s"

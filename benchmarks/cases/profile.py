"""Where the time of a pair goes, by part, from torch's profiler."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.machine import threads
from benchmarks.network import build_fast, trained_side
from benchmarks.pictures import write_pairs
from fast.data.images import read_image, read_mask
from fast.synthesis.engine import Engine
from fast.synthesis.options import Recipe
from fast.synthesis.output import OutputFolder
from fast.synthesis.pair import Pair, PairImages
from ldm.modules.attention import CrossAttention
from ldm.modules.packed import Int8Conv2d, Int8Linear, PackedConv2d, PackedLinear

PREFIX = "part: "
SAMPLER = "sampler, noise and the rest"
UNET_PARTS: list[tuple[str, tuple[type[nn.Module], ...]]] = [
    ("U-Net: convolutions", (nn.Conv2d, PackedConv2d, Int8Conv2d)),
    ("U-Net: linear layers", (nn.Linear, PackedLinear, Int8Linear)),
    ("U-Net: norms", (nn.GroupNorm, nn.LayerNorm)),
    ("U-Net: attention without its linear layers", (CrossAttention,)),
]


def parts(device: str, size: str, steps: int = 10, precision: str = "bf16") -> dict[str, Any]:
    """Seconds of each part of one pair at the trained size, one thread on a CPU, the GPU's own time on a GPU."""
    side = trained_side(size)
    model = build_fast(size, frozen_precision="fp32" if precision == "fp32" else "bf16")
    engine = Engine(model, Recipe(size=side, steps=steps, precision=precision, detail=False, blend=0), device)
    for part, module in _modules(engine):
        _mark(part, module)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with TemporaryDirectory() as temporary, threads(1):
        first, second = write_pairs(Path(temporary), (side, side), 2)
        _pair(engine, first, Path(temporary) / "warm-up")
        with profile(activities=activities) as profiler:
            _pair(engine, second, Path(temporary) / "out")
    events = [e for e in profiler.events() or [] if e.device_type == DeviceType.CPU]
    own: Callable[[Any], float] = lambda e: e.self_cpu_time_total  # noqa: E731
    if device == "cuda":
        own = lambda e: e.self_device_time_total  # noqa: E731
    return {"parts": {name: us / 1e6 for name, us in by_part(events, own).items()}}


def by_part(events: Iterable[Any], own: Callable[[Any], float]) -> dict[str, float]:
    """Sums of the events' own times, each under the nearest mark around it; events outside all marks are left out."""
    sums: dict[str, float] = defaultdict(float)
    for event in events:
        around = event
        while around is not None and not around.name.startswith(PREFIX):
            around = around.cpu_parent
        if around is not None:
            sums[around.name.removeprefix(PREFIX)] += own(event)
    return dict(sums)


def _modules(engine: Engine) -> Iterator[tuple[str, nn.Module]]:
    first_stage = engine.model.first_stage_model
    yield "first stage: encoder", first_stage.encoder
    yield "first stage: decoder", first_stage.decoder
    for network, _ in engine.model.auxiliary_modules():
        yield type(network).__name__, network
    yield "U-Net: activations, sums and the rest", engine.unet
    for module in engine.unet.modules():
        for part, kinds in UNET_PARTS:
            if isinstance(module, kinds):
                yield part, module


def _mark(part: str, module: nn.Module) -> None:
    """Have the profiler see where the module begins and ends."""
    open_marks: list[record_function] = []

    def before(*_: Any) -> None:
        open_marks.append(record_function(PREFIX + part))
        open_marks[-1].__enter__()

    def after(*_: Any) -> None:
        open_marks.pop().__exit__(None, None, None)

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


def _pair(engine: Engine, pair: Pair, folder: Path) -> None:
    with record_function(PREFIX + "reading"):
        normal, mask = read_image(pair.files[0]), read_mask(pair.files[1])
    with record_function(PREFIX + SAMPLER):
        [made] = engine.generate([normal], [mask], [pair.type_index], [pair.seed])
    with record_function(PREFIX + "writing"), closing(OutputFolder(folder, {})) as output:
        output.write({"index": pair.index}, PairImages(normal, made, mask))

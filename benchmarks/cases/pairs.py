"""Pairs end to end: pictures read from files, windows sampled, pictures and manifest written."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.machine import threads, timed
from benchmarks.network import build_fast, trained_side, unet_operations
from benchmarks.original import as_original
from benchmarks.pictures import write_pairs
from fast.aias import AIASOptions, Guidance
from fast.data.images import read_image, read_mask
from fast.data.tensors import latent_mask, to_image, to_tensor
from fast.latent.sampling import sample_latents
from fast.model import FAST
from fast.runtime.workers import cores, overlapped
from fast.synthesis.batches import batch_width
from fast.synthesis.options import Recipe
from fast.synthesis.output import OutputFolder
from fast.synthesis.pair import Pair, PairImages, SynthesizedSample, record
from fast.synthesis.synthesizer import Synthesizer
from ldm.models.diffusion.ddim import bind
from ldm.rng import PairNoise

IN_FLIGHT = 8  # the command's default


def rate(
    device: str,
    size: str,
    shape: Sequence[int],
    region: str,
    lanes: int,
    sampler: str = "aias",
    steps: int = 10,
    precision: str = "bf16",
    reuse: int = 1,
    stop_at: int = 0,
) -> dict[str, Any]:
    """Seconds per pair at a steady rate, with `lanes` lanes of windows for every core (on a GPU for the GPU).

    `shape`: height and width of the pictures in pixels, which they keep. `ready`: seconds until the networks are
    prepared, without the reading of a base from its file. `files`: seconds of one core that it takes to read and write
    a pair, which are in the rate.
    """
    square = region == "full" and shape[0] == shape[1]  # as --size says: weights are packed for it
    recipe = Recipe(
        size=shape[0] if square else None,
        sampler=sampler,
        steps=steps,
        precision=precision,
        region=region,
        reuse=reuse,
        stop_at=stop_at,
        min_window=trained_side(size),
        detail=False,  # as the published figures were measured
        blend=0,
    )
    model = build_fast(size, frozen_precision="fp32" if precision == "fp32" else "bf16")
    start = time.perf_counter()
    synthesizer = Synthesizer(model, recipe, device)
    ready = time.perf_counter() - start
    height, width = int(shape[0]), int(shape[1])
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        first = write_pairs(folder, (height, width), 1)
        windows = _warm_up(synthesizer, first[0])
        together = lanes * (cores() if device == "cpu" else batch_width(synthesizer.windows_per_batch, *windows[0]))
        extra = folder / "more"
        extra.mkdir()
        pairs = write_pairs(extra, (height, width), together)
        start = time.perf_counter()
        _make(synthesizer, pairs, folder / "out")
        seconds = (time.perf_counter() - start) / together
        files = timed(lambda: _only_files(pairs[0], folder / "files", windows[0]), "cpu")
    factor = synthesizer.engine.prepared.factor
    operations = steps * sum(unet_operations(size, h // factor, w // factor) for h, w in windows)
    plain = reuse == 1 and stop_at == 0
    return {
        "seconds": seconds,
        "pairs": together,
        "ready": ready,
        "files": files,
        "windows": windows,
        "operations": operations if plain else None,
    }


def _warm_up(synthesizer: Synthesizer, pair: Pair) -> list[list[int]]:
    """Make a pair in one evaluation, which prepares the kernels. Returns the sizes of its windows in pixels."""
    engine = synthesizer.engine
    full = engine.recipe
    engine.recipe = replace(full, steps=1)
    [made] = synthesizer.make(iter([pair]), IN_FLIGHT)
    engine.recipe = full
    return [[height, width] for _, _, height, width in made.windows]


def _make(synthesizer: Synthesizer, pairs: list[Pair], folder: Path) -> None:
    """Fill an output folder as the command does."""
    with closing(OutputFolder(folder, {})) as output, closing(synthesizer.make(iter(pairs), IN_FLIGHT)) as making:

        def write(made: SynthesizedSample) -> None:
            output.write(record(made, "", {}), made)

        for _ in overlapped(write, making, workers=2, ahead=4):
            pass
        output.gather()


def _only_files(pair: Pair, folder: Path, window: Sequence[int]) -> None:
    """Read a pair's files and write as much as one with such a window takes."""
    image, mask = read_image(pair.files[0]), read_mask(pair.files[1])
    shown = slice(window[0]), slice(window[1])
    with closing(OutputFolder(folder, {})) as output:
        output.write({"index": pair.index}, PairImages(image[shown], image, mask, shown))


def original_rate(device: str, size: str, shape: Sequence[int], steps: int = 10) -> dict[str, Any]:
    """Seconds of one pair computed as the original does: full picture, float32, every core on one picture."""
    model = build_fast(size, frozen_precision="fp32").to(device).eval().requires_grad_(False)
    as_original(model.model)
    with TemporaryDirectory() as temporary, threads(cores()):
        folder = Path(temporary)
        pair = write_pairs(folder, (int(shape[0]), int(shape[1])), 1)[0]
        _original_pair(model, pair, 1, folder / "warm-up", device)
        start = time.perf_counter()
        _original_pair(model, pair, steps, folder / "out", device)
        return {"seconds": time.perf_counter() - start, "pairs": 1}


@torch.no_grad()
def _original_pair(model: FAST, pair: Pair, steps: int, folder: Path, device: str) -> None:
    normal, pixels = read_image(pair.files[0]), read_mask(pair.files[1])
    image = to_tensor(normal)[None].to(device)
    x0 = model.scale_factor * model.first_stage_mean(image)
    mask = latent_mask(torch.from_numpy(pixels)[None, None].to(device), x0.shape[-2:])
    prompt = model.prompts(model.cond_stage_model, torch.tensor([pair.type_index], device=device))
    guidance = Guidance(model.schedule, mask, x0, lambda x, t: model.farm(x, mask, t, prompt))
    noise = PairNoise([torch.Generator().manual_seed(pair.seed)])
    z = sample_latents(bind(model, prompt), guidance, x0, noise=noise, options=AIASOptions(steps=steps))
    made = to_image(model.decode_first_stage(z)[0].cpu())
    composed = normal.copy()
    composed[pixels > 0] = made[pixels > 0]
    with closing(OutputFolder(folder, {})) as output:
        output.write({"index": pair.index}, PairImages(normal, composed, pixels))

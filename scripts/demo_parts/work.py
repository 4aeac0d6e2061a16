"""The demo's work: pairs through the synthesis door, and two segmenters, without and with them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

from demo_parts.case import Plan, Real, handful, mask_folder, normals_of, tests, wait_for
from demo_parts.record import say, timed
from fast.data.images import read_image, write_mask
from fast.procedural import defects_of

SEGMENTERS = {"real": "real alone", "merged": "real + synthetic"}


def synthesize(plan: Plan, out: Path, material: str, weights: str) -> None:
    """Pairs of one material, as many as there are masks, through the synthesis door: by words and masks alone."""
    from fast.cli.synthesize import synthesize as fill
    from fast.runtime.flags import as_flags
    from fast.synthesis.options import SynthesisOptions

    target, count = out / "pairs" / material, plan.pairs * len(defects_of(material))
    if len(records(target)) == count:
        return
    options = SynthesisOptions(
        data_root=str(normals_of(plan, out, material)[0].parent),
        mask_path=str(mask_folder(out, material)),
        weights=weights,
        anomaly_name=material,
        sample_name=str(target),
        count=count,
        steps=plan.evaluations,
        seed=plan.seed,
    )
    say("python generate_with_mask.py " + shlex.join(as_flags(options)))
    with timed(out, "pairs"):
        fill(options)


def records(target: Path) -> list[dict[str, Any]]:
    """The manifest's lines, one for each pair that is made."""
    manifest = target / "manifest.jsonl"
    return [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.is_file() else []


def segment(plan: Plan, out: Path) -> None:
    """Train both segmenters side by side, a core each, and keep what they find in the test pictures."""
    import torch

    from fast.runtime.progress import Progress
    from fast.segmentation import build

    left = [name for name in SEGMENTERS if not all(found_path(out, name, job).is_file() for job in tests(plan, out))]
    if not left:
        return
    say(f"training: {' | '.join(SEGMENTERS[name] for name in left)}, {plan.steps} steps each")
    stopping = Event()
    # One after the other: the seed is the whole process's.
    models = {name: build("mini", seed=plan.seed) for name in left}
    with (
        timed(out, "segmenters"),
        Progress(len(left) * plan.steps, "training", "step") as bar,
        ThreadPoolExecutor(len(left), initializer=lambda: torch.set_num_threads(1)) as pool,
    ):

        def progress(*_: float) -> None:
            if stopping.is_set():
                raise KeyboardInterrupt
            bar.update()

        jobs = [pool.submit(_segment, plan, out, name, model, progress) for name, model in models.items()]
        wait_for(jobs, lambda: None, stopping.set)


def _segment(plan: Plan, out: Path, name: str, model: Any, progress: Callable[[int, float, float], None]) -> None:
    import torch

    from fast.data.tensors import to_tensor
    from fast.runtime.precision import has_bf16
    from fast.segmentation.data import Labelled, from_output, merged
    from fast.segmentation.evaluation import predict
    from fast.segmentation.train import train

    real = [Labelled(d.image, d.mask, f"{d.material}/{d.defect}") for d in handful(plan, out)]
    synthetic = [p for m in plan.materials for p in from_output(out / "pairs" / m)[0]] if name == "merged" else []
    normals = [Labelled(path, None, f"{m}/good") for m in plan.materials for path in normals_of(plan, out, m)]
    pairs = merged(synthetic, real, normals, plan.real_share if synthetic else None, plan.normal_share)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = has_bf16(device)
    # Windows, most of them around a defect, teach more in the same time than whole pictures.
    options: dict[str, Any] = {"steps": plan.steps, "size": plan.window, "native": True, "seed": plan.seed}
    train(model, pairs, bf16=fast, device=device, progress=progress, **options)
    for job in tests(plan, out):
        image = to_tensor(read_image(job.image))[None].to(device)
        found = predict(model, image, bf16=fast).argmax(dim=1)[0].cpu().numpy()
        write_mask(found_path(out, name, job), found)


def found_path(out: Path, name: str, job: Real) -> Path:
    return out / "found" / name / job.material / job.defect / f"{job.index:03d}.png"

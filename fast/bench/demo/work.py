"""The demo's work: pairs through the synthesis command, and two segmenters, without and with them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from fast.bench.demo.case import DemoPlan, Real, handful, mask_folder, normals_of, tests, wait_for
from fast.bench.demo.record import say, timed
from fast.data.images import read_image, write_mask
from fast.procedural import defects_of
from fast.runtime.command import command_line
from fast.runtime.flags import as_flags
from fast.synthesis.options import SynthesisOptions

if TYPE_CHECKING:
    from fast.bench.trial import NetworkJudge

SEGMENTERS = {"real": "real alone", "merged": "real + synthetic"}


def synthesize(
    plan: DemoPlan, out: Path, material: str, weights: str, fill: Callable[[SynthesisOptions], object]
) -> None:
    """Pairs of one material, as many as there are masks, by words and masks alone. `fill` is the synthesis command,
    which takes its options."""

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
    say(f"{command_line('generate_with_mask.py')} {shlex.join(as_flags(options))}")
    with timed(out, "pairs"):
        fill(options)


def records(target: Path) -> list[dict[str, Any]]:
    """The manifest's lines, one for each pair that is made."""
    manifest = target / "manifest.jsonl"
    return [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.is_file() else []


def segment(plan: DemoPlan, out: Path) -> None:
    """Train both segmenters side by side, a core each, and keep what they find in the test pictures."""
    import torch

    from fast.runtime.progress import Progress

    left = [name for name in SEGMENTERS if not all(found_path(out, name, job).is_file() for job in tests(plan, out))]
    if not left:
        return
    say(f"training: {' | '.join(SEGMENTERS[name] for name in left)}, {plan.steps} steps each")
    stopping = Event()
    # One after the other: the seed is the whole process's.
    judge = _judge(plan)
    models = {name: judge.start(plan.seed) for name in left}
    with (
        timed(out, "segmenters"),
        Progress(len(left) * plan.steps, "training", "step") as bar,
        ThreadPoolExecutor(len(left), initializer=lambda: torch.set_num_threads(1)) as pool,
    ):

        def progress(*_: float) -> None:
            if stopping.is_set():
                raise KeyboardInterrupt
            bar.update()

        judge = replace(judge, progress=progress)
        jobs = [pool.submit(_segment, plan, out, name, judge, model) for name, model in models.items()]
        wait_for(jobs, lambda: None, stopping.set)


def _judge(plan: DemoPlan) -> NetworkJudge:
    import torch

    from fast.bench.trial import NetworkJudge
    from fast.segmentation.networks import precision_of

    device = "cuda" if torch.cuda.is_available() else "cpu"
    bf16 = precision_of("mini", "auto", device) == "bf16"
    # Windows, most of them around a defect, teach more in the same time than whole pictures.
    seen = {"size": plan.window, "native": True, "bf16": bf16, "device": device}
    return NetworkJudge("mini", {"steps": plan.steps, "prior": plan.prior}, seen)


def _segment(plan: DemoPlan, out: Path, name: str, judge: NetworkJudge, model: Any) -> None:
    from fast.data.tensors import to_tensor
    from fast.segmentation.data import SegmentationSample, from_output, merged
    from fast.segmentation.evaluation import predict

    real = [SegmentationSample(d.image, d.mask, f"{d.material}/{d.defect}") for d in handful(plan, out)]
    synthetic = [p for m in plan.materials for p in from_output(out / "pairs" / m)[0]] if name == "merged" else []
    normals = [SegmentationSample(path, None, f"{m}/good") for m in plan.materials for path in normals_of(plan, out, m)]
    pairs = merged(synthetic, real, normals, plan.real_share if synthetic else None, plan.normal_share)
    model = judge.fit(pairs, plan.seed, model)
    for job in tests(plan, out):
        image = to_tensor(read_image(job.image))[None].to(judge.seen["device"])
        found = predict(model, image, bf16=judge.seen["bf16"]).argmax(dim=1)[0].cpu().numpy()
        write_mask(found_path(out, name, job), found)


def found_path(out: Path, name: str, job: Real) -> Path:
    return out / "found" / name / job.material / job.defect / f"{job.index:03d}.png"

"""What synthesized pairs are worth: segmenters trained on them, on true ones and on real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.base_scores.bench import PAIRS, TEST, Bench, Figures, Part, artifact_of, check_split
from benchmarks.base_scores.filling import pasted
from benchmarks.base_scores.tables import ScoreTable, mean_cell, percent
from fast.artifact import Artifact
from fast.bench.trial import NetworkJudge, trial
from fast.data.content import Copies
from fast.data.layouts import Sample
from fast.runtime.progress import Progress
from fast.segmentation.data import SegmentationSample, from_output, from_samples, merged
from ldm.errors import UserError
from ldm.hashing import file_hash

# Thin or faint, and so the hardest to make: the segmenter's figures of these types stand by themselves.
THIN = ("scratch", "crack", "fray", "pit", "misprint")

# 5. a segmenter on made pairs and on true ones


def segmenter(bench: Bench, part: Part) -> Figures:
    """The same normals, masks, types and steps; only what fills the masks differs."""
    options = bench.options
    test = [SegmentationSample(p.image, p.mask, p.kind) for p in bench.true(options.test_pairs, TEST)]

    def made() -> list[SegmentationSample]:
        truth, found = bench.made(bench.shipped, options.segmenter_pairs)
        return [SegmentationSample(pasted(p, w), p.mask, p.kind) for p, w in zip(truth, found.pictures, strict=True)]

    def true() -> list[SegmentationSample]:
        return [SegmentationSample(p.image, p.mask, p.kind) for p in bench.true(options.segmenter_pairs, PAIRS)]

    how = {"network": options.segmenter, "steps": options.steps}
    trials = _trials(bench, part, {"true pairs": true, "FAST pairs": made}, test, **how)
    rows = {name: _over_seeds(found) for name, found in trials.items()}
    real, fake = rows["true pairs"], rows["FAST pairs"]
    return {
        **rows,
        "ratio": _share(fake["miou"]["mean"], real["miou"]["mean"]),
        "ratio_types": {
            kind: _share(fake["types"][kind]["iou"]["mean"], row["iou"]["mean"]) for kind, row in real["types"].items()
        },
        "counts": {"train": options.segmenter_pairs, "test": len(test)},
    }


def _share(made: float | None, true: float | None) -> float | None:
    return made / true if true and made is not None else None


def _trials(
    bench: Bench,
    part: Part,
    sets: dict[str, Callable[[], list[SegmentationSample]]],
    test: Sequence[SegmentationSample],
    network: str,
    steps: int,
) -> dict[str, list[Figures]]:
    """The figures of a segmenter for each set to train on and each seed; a set is called for only if one is missing."""
    options, ready = bench.options, dict[str, list[SegmentationSample]]()

    def one(name: str, seed: int) -> Figures:
        if name not in ready:
            ready.clear()
            ready[name] = sets[name]()
        # Trainings in bfloat16 are slower than in float32 on CPUs without its matrix units.
        half = options.precision == "bf16" and bench.device == "cuda"
        seen = {"size": options.size, "bf16": half, "device": bench.device}
        weights = options.weights if network == "segformer" else None
        how = {"steps": steps, "batch_size": options.batch_size, "lr": options.lr}
        with Progress(steps, f"{name}, seed {seed}", "step", leave=False) as bar:

            def progress(step: int, share: float, loss: float) -> None:
                bar.update()

            judge = NetworkJudge(network, how, seen, weights, batch_size=options.batch_size, progress=progress)
            done = trial(judge, ready[name], test, seed)
        return {**done.figures, "pairs": len(ready[name]), "training_seconds": done.seconds}

    return {name: [part(f"{name}, seed {seed}", partial(one, name, seed)) for seed in options.seeds] for name in sets}


def _over_seeds(trials: list[Figures]) -> Figures:
    """Mean and sample standard deviation over seeds, and the figures of each."""
    result: Figures = {
        name: _spread_of([t[name] for t in trials]) for name in ("miou", "acc", "ap", "miou_types", "acc_types")
    }
    result["types"] = {
        kind: {name: _spread_of([t["types"][kind][name] for t in trials]) for name in ("iou", "acc")}
        for kind in trials[0]["types"]
    }
    return {**result, "pairs": trials[0]["pairs"], "trials": trials}


def _spread_of(values: list[float | None]) -> Figures:
    known = [v for v in values if v is not None]
    deviation = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return {"mean": float(np.mean(known)) if known else None, "std": deviation, "seeds": len(known)}


def segmenter_tables(result: Figures) -> list[ScoreTable]:
    rows = {name: result[name] for name in ("true pairs", "FAST pairs")}
    tables = _trial_tables(rows, f"tested on {result['counts']['test']} other true pairs")
    tables[0].rows.append(["FAST / true", "", percent(result["ratio"]), "", "", "", ""])
    tables[1].columns.append("FAST / true: IoU")
    for row in tables[1].rows:
        row.append(percent(result["ratio_types"][row[0]]))
    thin = [row for row in tables[1].rows if row[0] in THIN]
    return [*tables, ScoreTable("the thin and faint types", tables[1].columns, thin)] if thin else tables


def _trial_tables(rows: dict[str, Figures], title: str) -> list[ScoreTable]:
    names = ("miou", "acc", "ap", "miou_types", "acc_types")
    columns = ["trained on", "pairs", "mIoU, %", "Acc, %", "AP, %", "mean of types: IoU", "Acc"]
    whole = [[name, str(row["pairs"]), *(mean_cell(row[n]) for n in names)] for name, row in rows.items()]
    kinds = sorted({kind for row in rows.values() for kind in row["types"]})
    each = [
        [kind.rpartition("/")[2], *(mean_cell(row["types"][kind][n]) for n in ("iou", "acc") for row in rows.values())]
        for kind in kinds
    ]
    types = ["", *(f"{name}: {n}" for n in ("IoU", "Acc") for name in rows)]
    return [ScoreTable(title, columns, whole), ScoreTable("by type, %", types, each)]


# 6. real pictures


def real(bench: Bench, part: Part) -> Figures:
    """The real third alone against the real third and made pairs; the other two thirds, untouched, are the test."""
    options = bench.options
    _, train_side, test_side, split = bench.divided
    adapted = artifact_of("--adapted", options.adapted)
    check_split(adapted, split, "--adapted")
    types = sorted({(s.category, s.anomaly) for s in train_side})
    unknown = [f"{c}/{a}" for c, a in types if f"{c}/{a}" not in adapted.types]
    if unknown:
        raise UserError(f"--adapted {adapted.path.name} was not trained on {', '.join(unknown)}; adapt it to --real")
    made_how = f"{options.size}-{options.evaluations}-{options.precision}-{options.seed}"
    folder = options.out.with_suffix("") / f"real-{file_hash(adapted.path)[:12]}-{made_how}"
    held_out = Copies.of_samples(test_side)
    third = from_samples(train_side)

    @cache
    def synthetic() -> list[SegmentationSample]:
        with bench.own_threads():
            made = [
                _fill(bench, adapted, [s for s in train_side if (s.category, s.anomaly) == t], folder) for t in types
            ]
        return [pair for output in made for pair in from_output(output, held_out)[0][: options.per_type]]

    made_of = part("synthesis", lambda: {"pairs": len(synthetic()), "seconds_per_pair": _seconds(folder)})
    sets = {
        "real third": lambda: merged([], third),
        "real third + FAST": lambda: merged(synthetic(), third, real_share=options.real_share),
    }
    test = from_samples(test_side)
    trials = _trials(bench, part, sets, test, network=options.real_segmenter, steps=options.real_steps)
    return {
        **{name: _over_seeds(found) for name, found in trials.items()},
        "synthesis": made_of,
        "adapted": adapted.path.name,
        "adapted_sha256": file_hash(adapted.path),
        "split": split.hash,
        "counts": {"train": len(third), "test": len(test), "types": len(types)},
    }


def _fill(bench: Bench, adapted: Artifact, samples: Sequence[Sample], folder: Path) -> Path:
    """Pairs of one type through the synthesis command, which goes on where it was stopped: its masks of the training
    third in pictures of training normals. Returns the output folder."""
    from fast.cli.synthesize import synthesize
    from fast.synthesis.options import SynthesisOptions

    options, category, anomaly = bench.options, samples[0].category, samples[0].anomaly
    masks, output = folder / "masks" / category / anomaly, folder / category / anomaly
    masks.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        assert sample.mask is not None
        link = masks / sample.mask.name
        if not link.is_symlink():  # a link and no copy: the manifest's sources then name the real file
            link.symlink_to(sample.mask.resolve())
    synthesize(
        SynthesisOptions(
            data_root=str(bench.divided[0].root),
            mask_path=str(masks),
            weights=adapted.path,
            anomaly_name=f"{category}/{anomaly}",
            sample_name=str(output),
            device=bench.device,
            size=options.size,
            region="full",
            steps=options.evaluations,
            count=options.per_type,
            seed=options.seed,
            precision=options.precision,
        )
    )
    return output


def _seconds(folder: Path) -> float:
    """Mean seconds of one thread for a pair, from the manifests."""
    lines = [line for m in sorted(folder.glob("*/*/manifest.jsonl")) for line in m.read_text().splitlines()]
    return float(np.mean([json.loads(line)["seconds"] for line in lines]))


def real_tables(result: Figures) -> list[ScoreTable]:
    counts, made = result["counts"], result["synthesis"]
    rows = {name: result[name] for name in ("real third", "real third + FAST")}
    title = (
        f"{counts['train']} real and {made['pairs']} made to train, {counts['test']} real to test; split "
        f"{result['split'][:12]}; {made['seconds_per_pair']:.2f} s of one thread per pair"
    )
    return _trial_tables(rows, title)

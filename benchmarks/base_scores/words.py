"""Are the words visible? A classifier that learnt the types from true defects names those of synthesized ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.base_scores.bench import PAIRS, Bench, Figures, Part, Variant
from benchmarks.base_scores.filling import Truth, pasted
from benchmarks.base_scores.tables import ScoreTable, cell, percent
from fast.procedural import DEFECTS
from fast.quality.examples import TRAINING_MATERIALS, draw_examples
from fast.quality.windows import fill_untyped
from fast.quality.words import Classifier, train_on_views
from fast.runtime.progress import Progress
from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.rng import seed_of

TRUE, CODED = "true defects", "true defects, coded and decoded"
UNTYPED, FLOOR = "the outline filled with shades and clouds", "the normal image (floor)"


def ready_classifier(path: Path, surfaces: int, minutes: float, device: str, seed: int, workers: int | None) -> None:
    """Train the classifier that is not at `path` yet, on materials that the base is trained on. Raises `UserError`."""
    if path.is_file():
        return
    if path.suffix != ".safetensors":
        raise UserError(f"--classifier {path}: give the name of a .safetensors file")
    print(f"{path} is not there: drawing {4 * surfaces} defects and training on them for {minutes:g} minutes")
    views, labels = draw_examples(surfaces, TRAINING_MATERIALS, seed, workers)
    with Progress(100, "classifier", "percent point", leave=False) as bar:
        told = train_on_views(views, labels, device, minutes, seed, lambda share, _: bar.to(int(100 * share)))
    told.save(path)


def words(bench: Bench, part: Part) -> Figures:
    """Top-1 accuracy on the same normals, masks and types; only what fills the masks differs."""
    options = bench.options
    classifier = Classifier.load(options.classifier, bench.device)
    count, by_hash, default = options.word_pairs, file_hash(options.classifier)[:12], bench.scale
    scales = sorted({*options.scales, default})

    def row(name: str, images: Sequence[np.ndarray]) -> Figures:
        return {"name": name, **named(classifier, bench.true(len(images), PAIRS), images)}

    def true() -> list[Figures]:
        truth = bench.true(count, PAIRS)
        rng = np.random.default_rng(seed_of(options.seed, PAIRS))
        return [
            row(TRUE, [p.image for p in truth]),
            row(CODED, [pasted(p, bench.coded(p.image)) for p in truth]),
            row(UNTYPED, [fill_untyped(p.normal, p.mask, rng) for p in truth]),
            row(FLOOR, [p.normal for p in truth]),
        ]

    def synthesized(scale: float) -> Figures:
        variant = Variant(f"scale {scale:g}", steps=options.evaluations, scale=scale)
        truth, made = bench.made(variant, count if scale == default else min(count, options.scale_pairs))
        found = row(variant.name, [pasted(p, image) for p, image in zip(truth, made.pictures, strict=True)])
        return {**found, "seconds": made.seconds}

    references = part(f"true, {by_hash}", true)
    made = [part(f"scale {scale:g}, {by_hash}", partial(synthesized, scale)) for scale in scales]
    true_right = references[0]["right"]
    for found in [*references, *made]:
        known = float(np.mean(true_right[: found["pairs"]]))  # of the same pairs
        found["ratio"] = found["accuracy"] / known if known else None
    return {"references": references, "made": made, "classifier": by_hash, "default": default}


def named(classifier: Classifier, truth: Sequence[Truth], images: Sequence[np.ndarray]) -> Figures:
    """Which types the classifier sees in `images`, whose masks and wanted types are those of `truth`.

    `accuracy`: share of pairs named rightly; `right`: 1 for each of these, else 0; `types`: the share by type;
    `confusion`: for each wanted type how often each type was named; `sure`: mean probability of the wanted type.
    """
    logits = classifier.logits(np.stack(images), np.stack([p.mask for p in truth]))
    wanted = torch.tensor([classifier.types.index(p.kind) for p in truth])
    said = logits.argmax(1)
    confusion: dict[str, dict[str, int]] = {}
    for w, s in zip(wanted.tolist(), said.tolist(), strict=True):
        row = confusion.setdefault(classifier.types[w], {})
        row[classifier.types[s]] = row.get(classifier.types[s], 0) + 1
    return {
        "pairs": len(truth),
        "accuracy": float((said == wanted).float().mean()),
        "right": (said == wanted).int().tolist(),
        "sure": float(logits.softmax(1).gather(1, wanted[:, None]).mean()),
        "types": {kind: row.get(kind, 0) / sum(row.values()) for kind, row in confusion.items()},
        "confusion": confusion,
    }


def words_tables(result: Figures) -> list[ScoreTable]:
    references, made = result["references"], result["made"]
    true = references[0]
    whole = ScoreTable("", ["", "pairs", "named rightly", "of true ones", "mean of types", "probability of the type"])
    for row in [*references, *made]:
        types = float(np.mean(list(row["types"].values())))
        cells = [
            str(row["pairs"]),
            percent(row["accuracy"]),
            percent(row["ratio"]),
            percent(types),
            cell(row["sure"], 2),
        ]
        whole.rows.append([row["name"], *cells])
    kinds = [kind for kind in DEFECTS if kind in true["types"]]
    shown = min(made, key=lambda row: abs(float(row["name"].split()[-1]) - result["default"]))
    columns = ["", "pairs", "true", *(row["name"] for row in made), f"most often named at {shown['name']}"]
    each = ScoreTable("named rightly, by type", columns)
    for kind in kinds:
        values = [percent(row["types"].get(kind)) for row in (true, *made)]
        each.rows.append(
            [kind, str(sum(true["confusion"][kind].values())), *values, _most(shown["confusion"].get(kind, {}))]
        )
    return [whole, each, _confusion(f"confusion at {shown['name']}, pairs (rows: the word given)", shown, kinds)]


def _most(row: dict[str, int]) -> str:
    named = sorted(row.items(), key=lambda item: (-item[1], item[0]))[:3]
    return ", ".join(f"{kind} {count}" for kind, count in named)


def _confusion(title: str, row: Figures, kinds: Sequence[str]) -> ScoreTable:
    """Of what was named, columns of the types that were named at all."""
    columns = [kind for kind in DEFECTS if any(kind in found for found in row["confusion"].values())]
    rows = [[kind, *(str(row["confusion"].get(kind, {}).get(c, "")) for c in columns)] for kind in kinds]
    return ScoreTable(title, ["", *columns], rows)

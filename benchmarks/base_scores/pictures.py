"""What is seen in the pictures: the first stage, visible defects, samplers, the open questions of the papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.base_scores.bench import PAIRS, TEST, Bench, Figures, Part, Variant, artifact_of, check_split, coded
from benchmarks.base_scores.filling import Truth, pasted
from benchmarks.base_scores.tables import ScoreTable, cell, percent
from fast.artifact import load_fast
from fast.data.images import read_image, read_mask, resize_image, resize_mask
from fast.data.layouts import Sample
from fast.model import FAST
from fast.quality.measure import FEATURES, contrast, distance, features, noise_limit, psnr, set_distance, ssim
from fast.runtime.progress import followed
from ldm.errors import UserError


def visibility(bench: Bench, shown: Sequence[Truth], pictures: Sequence[np.ndarray], truth: Sequence[Truth]) -> Figures:
    """How visible the defects in decoded pictures (H,W,3) are, and how far from the true ones, in all and by type.

    `shown`: the normals and masks that the pictures were made with, usually those of `truth`.
    `inside`, `outside`: mean change in grey levels from the normal picture, before pasting, so that what lies outside
    is the decoder's error; `ratio` of the two; `below_noise`: share of pairs whose change inside is below the
    `noise_limit` of their mask. `distance`, and of each feature `features`: see `fast.quality.measure.distance`, after
    pasting;
    `set_distance`: the same of whole types.
    """
    rows = []
    for own, true, whole in zip(shown, truth, pictures, strict=True):
        seen = contrast(own.normal, whole, own.mask)
        below = seen.inside < noise_limit(bench.noise[own.material], own.mask)
        found = features(own.normal, pasted(own, whole), own.mask), features(true.normal, true.image, true.mask)
        rows.append((true.kind, seen.inside, seen.outside, below, *found))

    def summary(chosen: list[tuple[Any, ...]]) -> Figures:
        kinds, insides, outsides, below, made, real = zip(*chosen, strict=True)
        inside, outside = float(np.mean(insides)), float(np.mean(outsides))
        apart = distance(made, real, bench.unit)
        return {
            "pairs": len(chosen),
            "inside": inside,
            "outside": outside,
            "ratio": inside / outside if outside else None,
            "below_noise": float(np.mean(below)),
            "distance": float(apart.mean()),
            "set_distance": float(set_distance(made, real, kinds, bench.unit).mean()),
            "features": dict(zip(FEATURES, map(float, apart), strict=True)),
        }

    types = sorted({row[0] for row in rows})
    return {**summary(rows), "types": {kind: summary([r for r in rows if r[0] == kind]) for kind in types}}


# 1. the first stage


def first_stage(bench: Bench, part: Part) -> Figures:
    """PSNR in dB and SSIM, whole and inside the masks, means over pictures."""
    result: Figures = {"drawn": part("drawn", lambda: _first_stage_drawn(bench))}
    if bench.options.real:
        result["real"] = part("real", lambda: _first_stage_real(bench, bench.first_stage))
        if bench.options.fitted:
            artifact = artifact_of("--fitted", bench.options.fitted)
            if not artifact.config["model"]["params"].get("fit_decoder"):
                raise UserError(f"--fitted {artifact.path.name} holds no fitted decoder; adapt with fit_decoder")
            check_split(artifact, bench.divided[3], "--fitted")
            result["fitted"] = part("fitted", lambda: _first_stage_real(bench, load_fast(artifact).to(bench.device)))
    elif bench.options.fitted:
        raise UserError("--fitted is measured on the part it was fitted to; name its dataset with --real")
    return result


def _first_stage_drawn(bench: Bench) -> Figures:
    rows: list[tuple[str, np.ndarray, np.ndarray | None]] = []
    rows += [(m, n, None) for m in bench.options.materials for n in bench.normals(m)]
    rows += [(p.material, p.image, p.mask) for p in bench.true(bench.options.pairs, PAIRS)]
    return _quality(bench.first_stage, rows)


def _first_stage_real(bench: Bench, model: FAST) -> Figures:
    size = bench.options.size
    index, _, held_out, _ = bench.divided

    def read(sample: Sample) -> tuple[str, np.ndarray, np.ndarray | None]:
        mask = None if sample.mask is None else resize_mask(read_mask(sample.mask), size)
        return sample.anomaly, resize_image(read_image(sample.image), size), mask

    return _quality(model, [read(s) for s in [*index.test_normals, *held_out]])


def _quality(model: FAST, rows: list[tuple[str, np.ndarray, np.ndarray | None]]) -> Figures:
    """Of (name, picture, mask or None), by name and of all."""
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for name, image, mask in followed(rows, "first stage", "image", leave=False):
        back = coded(model, image)
        within = (psnr(image, back, mask), ssim(image, back, mask)) if mask is not None else (np.nan, np.nan)
        found.setdefault(name, []).append((psnr(image, back), ssim(image, back), *within))

    def summary(values: list[tuple[float, float, float, float]]) -> Figures:
        table = np.array(values)
        masked = table[~np.isnan(table[:, 2])]
        inside = masked[:, 2:].mean(0).tolist() if len(masked) else [None, None]
        return {
            "pictures": len(table),
            "psnr": float(table[:, 0].mean()),
            "ssim": float(table[:, 1].mean()),
            "psnr_inside": inside[0],
            "ssim_inside": inside[1],
        }

    rest = {name: summary(found[name]) for name in sorted(found)}
    return {**rest, "all": summary([row for values in found.values() for row in values])}


def first_stage_tables(result: Figures) -> list[ScoreTable]:
    titles = {
        "drawn": "Drawn materials that were held apart",
        "real": "Real pictures, never seen",
        "fitted": "The same real pictures after the brief fit of the decoder",
    }
    columns = ["", "pictures", "PSNR, dB", "inside masks", "SSIM", "inside masks"]
    names = ("psnr", "psnr_inside", "ssim", "ssim_inside")
    return [
        ScoreTable(
            titles[key],
            columns,
            [
                [name, str(row["pictures"]), *(cell(row[n], 2 if n.startswith("psnr") else 3) for n in names)]
                for name, row in figures.items()
            ],
        )
        for key, figures in result.items()
    ]


# 2. are the defects visible?


def visible(bench: Bench, part: Part) -> Figures:
    """Words-only pairs, the true drawn defects, and those after the first stage: what a latent can show at best."""
    made = part("made", partial(_measured, bench, bench.shipped, bench.options.pairs, bench.options.pairs))
    references = part("references", partial(_references, bench, bench.options.pairs))
    return {"made": made, **references, "device": bench.about()["device"]}


def _references(bench: Bench, count: int) -> Figures:
    """The ends of every scale."""
    truth, others = bench.true(count, PAIRS), bench.true(count, TEST)  # of the same materials and types, one by one
    return {
        "true": visibility(bench, truth, [p.image for p in truth], truth),
        "coded": visibility(bench, truth, [bench.coded(p.image) for p in truth], truth),
        "others": visibility(bench, others, [p.image for p in others], truth),
        "nothing": visibility(bench, truth, [bench.coded(p.normal) for p in truth], truth),
    }


def visible_tables(result: Figures) -> list[ScoreTable]:
    made, true, coded_ = result["made"], result["true"], result["coded"]
    columns = [
        "", "pairs", "inside", "outside", "ratio", "below noise", "distance", "set distance",
        "true: inside", "true, coded: inside", "outside", "below noise",
    ]  # fmt: skip

    def row(name: str, m: Figures, t: Figures, c: Figures) -> list[str]:
        cells = [cell(m["inside"], 1), cell(m["outside"], 1), cell(m["ratio"], 1), percent(m["below_noise"])]
        beside = [cell(t["inside"], 1), cell(c["inside"], 1), cell(c["outside"], 1), percent(c["below_noise"])]
        return [name, str(m["pairs"]), *cells, cell(m["distance"], 2), cell(m["set_distance"], 2), *beside]

    rows = [row(k, m, true["types"][k], coded_["types"][k]) for k, m in made["types"].items()]
    title = f"change in grey levels; {made['seconds']:.2f} s per pair ({result['device']})"
    return [ScoreTable(title, columns, [*rows, row("all", made, true, coded_)])]


# 3. samplers and 4. open questions: variants on the same pairs


def samplers(bench: Bench, part: Part) -> Figures:
    """All pairs by `aias`, and the few that `ddpm` can be waited for by both."""
    options = bench.options
    count, few = options.variant_pairs, min(options.ddpm_pairs, options.variant_pairs)
    many, small = [], []
    for farm in (True, False):
        word = "" if farm else ", no FARM"
        for steps in (options.evaluations, 5 * options.evaluations):
            variant = Variant(f"aias, {steps}{word}", steps=steps, farm=farm)
            many.append(part(f"{variant.name}", partial(_row, bench, variant, count, count)))
            if few:
                small.append(part(f"{variant.name}, few", partial(_row, bench, variant, count, few)))
        if few:
            ddpm = Variant(f"ddpm, {bench.timesteps}{word}", sampler="ddpm", steps=bench.timesteps, farm=farm)
            small.append(part(ddpm.name, partial(_row, bench, ddpm, few, few)))
    rows = [*many, *_reference_rows(bench, part, count)]
    return {"rows": [*rows, *small, *_reference_rows(bench, part, few)] if few else rows}


def _row(bench: Bench, variant: Variant, count: int, few: int) -> Figures:
    return {"name": variant.name, **_measured(bench, variant, count, few)}


def _measured(bench: Bench, variant: Variant, count: int, few: int) -> Figures:
    """Figures of the first `few` of `count` pairs that this variant makes."""
    truth, made = bench.made(variant, count)
    return {**visibility(bench, truth[:few], made.pictures[:few], truth[:few]), "seconds": made.seconds}


def _reference_rows(bench: Bench, part: Part, count: int) -> list[Figures]:
    names = {
        "coded": "the true defects, coded and decoded",
        "others": "other true defects",
        "nothing": "the normal picture, coded and decoded",
    }
    found = part(f"references, {count}", partial(_references, bench, count))
    return [{"name": name, **found[key]} for key, name in names.items()]


def open_questions(bench: Bench, part: Part) -> Figures:
    count, paper = bench.options.variant_pairs, Variant("", steps=bench.options.evaluations)
    plain = {
        "farm_mode": "replace",
        "farm_window": None,
        "background_window": None,
        "coefficients": "exact",
        "stop_at": 0,
    }

    def but(name: str, farm: bool = True, **changes: Any) -> Variant:
        return replace(paper, name=name, farm=farm, changes=tuple({**plain, **changes}.items()))

    variants = [
        bench.shipped,
        but("paper: FARM replaces, background always, exact"),
        but("(a) FARM steers (release)", farm_mode="steer"),
        but("(a) FARM off", farm=False),
        but("(a) FARM replaces at t > 500 only", farm_window=(500, bench.timesteps + 1)),
        but("(a) FARM replaces at 250 < t < 750 only", farm_window=(250, 750)),
        but("(b) background at 250 < t < 750 only (release)", background_window=(250, 750)),
        but("printed coefficients", coefficients="printed"),
    ]
    if bench.first_stage.model.conditioning_key == "hybrid":
        other = "around" if bench.first_stage.known == "full" else "full"
        what = {"full": "all of the normal picture", "around": "nothing of what lies under the mask"}
        variants.append(replace(but(f"the U-Net sees {what[other]}"), known=other))
    rows = [part(v.name, partial(_row, bench, v, count, count)) for v in variants]
    shipped = {**asdict(bench.first_stage.aias_options), "known": bench.first_stage.known}
    return {
        "rows": [*rows, *_reference_rows(bench, part, count)],
        "shipped": shipped,
        "noise_adapter": "not built",
    }


def variant_tables(result: Figures) -> list[ScoreTable]:
    columns = ["", "pairs", "s per pair", "inside", "outside", "below noise", "set distance", "distance", *FEATURES]
    rows = []
    for row in result["rows"]:
        change = [cell(row["inside"], 1), cell(row["outside"], 1), percent(row["below_noise"])]
        apart = [row["set_distance"], row["distance"], *(row["features"][name] for name in FEATURES)]
        first = [row["name"], str(row["pairs"]), cell(row.get("seconds"), 2)]
        rows.append([*first, *change, *(cell(value, 2) for value in apart)])
    shipped = ", ".join(f"{k} {v}" for k, v in result.get("shipped", {}).items() if k != "steps")
    return [ScoreTable(f"as shipped: {shipped}" if shipped else "", columns, rows)]

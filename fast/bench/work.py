"""The work of each kind of cell: train a method, make pairs, measure them, train and test a segmenter."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fast.artifact import find_weights
from fast.bench.grid import Cell, alone
from fast.bench.plan import CategoryPlan
from fast.bench.provenance import DRAWN, data_of, seen_besides
from fast.bench.trial import Judge, NetworkJudge, trial
from fast.data.content import Copies
from fast.data.images import read_mask, write_mask
from fast.data.normals import shares_parts
from fast.generators import LATENT, method_class
from fast.generators.base import Learned
from fast.pretraining.drawing import DrawingRecipe, draw_sheet, masks_of
from fast.runtime.device import pick_device
from fast.runtime.flags import as_flags
from fast.runtime.options import TrainingOptions
from fast.runtime.project import PROJECT
from fast.segmentation import build
from fast.segmentation.data import SegmentationSample, from_arrays, from_output, from_samples, is_normal, merged
from fast.segmentation.networks import save
from fast.segmentation.pixel_head import Quick
from fast.segmentation.quick import QuickJudge
from fast.segmentation.train import train
from fast.synthesis.options import SynthesisOptions, draft_methods
from fast.synthesis.records import read_records
from ldm.checkpoint import read_metadata, read_state_dict
from ldm.errors import UserError
from ldm.hashing import file_hash

WEIGHTS = "segmenter.safetensors"
PROGRAMS = {"main.py": "fast.cli.train", "generate_with_mask.py": "fast.cli.pairs"}
SHEETS = 32  # of a shard: as many surfaces with eight defects each


def work(cell: Cell) -> dict[str, Any]:
    """Do a cell, in its folder; returns what its manifest records. Raises `UserError`."""
    return KINDS[cell.kind](cell)


def fit(cell: Cell) -> dict[str, Any]:
    """Train a method by its recipe with main.py; a training that was stopped goes on."""
    key, category = cell.key, _prepared(cell.use["of"])
    folder, (steps, minutes) = cell.folder / "run", key["limits"]
    limits = TrainingOptions(train=True, max_steps=steps or None, max_minutes=minutes or None)
    if (folder / "config.yaml").is_file():
        _run(cell, "main.py", *as_flags(replace(limits, resume=str(folder))))
        return _artifact(key["method"], folder)
    options = replace(
        limits,
        base=[str(cell.use["recipe"])],
        logdir=str(cell.folder),
        name=folder.name,
        seed=key["seed"],
        data=str(category.root),
        category=category.name,
        split=str(category.split_file),
        actual_resume=str(cell.use["base"]) if cell.use.get("base") else None,
    )
    overrides = ["data.params.layout=auto"]
    if cell.use.get("tokenizer"):
        overrides.append(f"model.params.cond_stage_config.params.tokenizer={cell.use['tokenizer']}")
    if key["size"] is not None:
        overrides += ["data.params.native=false", f"data.params.size={key['size']}"]
    _run(cell, "main.py", *as_flags(options), *overrides, *key["overrides"])
    return _artifact(key["method"], folder)


def given(cell: Cell) -> dict[str, Any]:
    """A training that the user brings. It must know this split, or it may have seen what is tested on; one that saw
    normals alone knows no split."""
    file, category = Path(cell.use["file"]), _prepared(cell.use["of"])
    found = method_class(cell.name)
    assert issubclass(found, Learned)
    weights = find_weights(file, found.artifact)
    if what := seen_besides(weights, found, category.split.hash, category.parted):
        raise UserError(
            f"{file} was trained on {what}, not on {category.split.hash[:12]}: it may have seen what is tested on; "
            "train it on this split, or name its split in the protocol"
        )
    return _artifact(cell.name, file)


def _artifact(method: str, place: Path) -> dict[str, Any]:
    found = method_class(method)
    assert issubclass(found, Learned)
    file = find_weights(place, found.artifact)
    meta = read_metadata(file)
    return {
        "weights": os.path.abspath(file),
        "weights_sha256": file_hash(file),
        "parameters": sum(tensor.numel() for tensor in read_state_dict(file).values()),
        "steps": int(meta.get("step", 0)),
        "minutes": float(meta.get("minutes", 0)),
        "trained_at": data_of(meta).get("size"),
    }


def pairs(cell: Cell) -> dict[str, Any]:
    """Make the pairs of each defect type with generate_with_mask.py; what was stopped goes on."""
    key, category = cell.key, _prepared(cell.use["of"])
    seconds: list[float] = []
    for number, kind in enumerate(key["types"]):
        folder = pairs_folder(cell, kind)
        _run(cell, "generate_with_mask.py", *_flags(cell, category, kind, number, folder))
        records = read_records(folder)
        if len(records) < key["per_type"]:
            raise UserError(f"{folder} has {len(records)} of {key['per_type']} pairs; run the same command again")
        seconds += [float(r["seconds"]) for r in records]
    return {"pairs": len(seconds), "seconds_per_pair": float(np.median(seconds))}


def pairs_folder(cell: Cell, kind: str) -> Path:
    """Where the pairs of a type "category/type" lie."""
    return cell.folder / kind.split("/", 1)[1]


def _flags(cell: Cell, category: CategoryPlan, kind: str, number: int, folder: Path) -> list[str]:
    """The command line for the pairs of a type; a protocol's own flags come last and win."""
    key, latent, given = cell.key, cell.key["method"] in LATENT, cell.key["masks"] != "own"
    real = "transplant" in (key["method"], *draft_methods(key.get("draft", "none")))
    # Where groups name parts of normals it has to be said which may be used.
    divided = real or (method_class(key["method"]).takes_image and shares_parts(category.whole))
    sampling = ("precision", "sampler", "steps", "scale", "draft", "strength") if latent else ()
    options = SynthesisOptions(
        method=key["method"],
        data_root=str(category.root / _inside(category)),
        sample_name=str(folder),
        count=key["per_type"],
        anomaly_name=kind,
        device=cell.use["device"],
        seed=key["seed"] * 1000 + number,  # the noise of two types' pairs must not be the same
        size=None if key.get("windows") else key["size"],
        mask_path=str(category.masks) if given else None,
        masks=key["masks"] if given else None,
        weights=cell.needs[-1].result()["weights"] if cell.needs else None,
        defects=str(category.root) if divided else None,
        split=str(category.split_file) if divided else None,
        **{name: key[name] for name in sampling if key.get(name) is not None},
    )
    flags = [*as_flags(options), *(key["flags"] if latent else ())]
    if real and _inside(category) != ".":
        option = "category" if key["method"] == "transplant" else "draft_options.category"
        flags.append(f"method.{option}={category.name}")
    if "textures" in cell.use:
        flags.append(f"method.textures={cell.use['textures']}")
    return [*flags, *key["options"]]


def _inside(category: CategoryPlan) -> str:
    """The category's own folder in a root of many."""
    return category.name if (category.root / category.name).is_dir() else "."


def _prepared(category: CategoryPlan) -> CategoryPlan:
    """Write the split and the training side's masks, in folders by type, where they are not yet."""
    with alone(category.place):
        for i, sample in enumerate(category.train):
            target = mask_file(category, i)
            if sample.mask is not None and not target.is_file():
                write_mask(target, read_mask(sample.mask))
        if not category.split_file.is_file():
            category.split.save(category.split_file)
    return category


def _run(cell: Cell, script: str, *flags: str) -> None:
    """A program of the project, in the cell's folder."""
    run_program(cell.folder, script, *flags)


def run_program(folder: Path, script: str, *flags: str) -> None:
    """A program of the project; its words go to `log.txt` in the folder.

    A process and no call: synthesis settles the number of torch's threads and training the seeds of all that its
    process does after it, Lightning starts its helpers by the command line of the process it is in, all memory comes
    back at the end, and what still runs when the bench is killed keeps the cell's lock.
    """
    log = folder / "log.txt"
    # The project's modules, installed or not, and none of the current folder's.
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "100", "PYTHONSAFEPATH": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", PROGRAMS[script], *flags]
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"$ python {script} {shlex.join(flags)}\n")
        file.flush()
        # A session of its own: Ctrl-C reaches it through this process, once, and it is given the time to save. Open
        # files are the cell's lock, which it keeps should this process be killed.
        program = subprocess.Popen(
            command, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, close_fds=False,
            preexec_fn=_hear_interrupts,
        )  # fmt: skip
        try:
            code = program.wait()
        except BaseException:
            program.send_signal(signal.SIGINT)
            program.wait()
            raise
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
        raise UserError(f"{script} ended with {code}: {last.removeprefix('error: ')} ({log})")


def _hear_interrupts() -> None:
    """In a program that is about to begin: a shell's background jobs ignore Ctrl-C, and so would what they start, which
    has to hear it from here."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(cell: Cell) -> dict[str, Any]:
    """Initial weights of a segmenter from drawn materials and defects: nothing of the dataset is in them."""
    key = cell.key
    recipe = DrawingRecipe(size=key["size"], seed=key["seed"])
    drawn: list[SegmentationSample] = []
    for number in range(SHEETS * key["shards"]):
        sheet = draw_sheet(number, recipe)
        drawn += from_arrays(sheet.images[1:], masks_of(sheet), "drawn/defect")
        drawn += from_arrays(sheet.images[:1], [None], "drawn/good") if number % 2 == 0 else []
    network = build(key["network"], seed=key["seed"])
    how = {name: key[name] for name in ("steps", "batch_size", "lr", "seed", "size", "crop")}
    how["bf16"] = key["precision"] == "bf16"
    losses: list[float] = []
    network = train(network, drawn, progress=lambda _, __, loss: losses.append(loss), device=device_of(cell), **how)
    save(network, cell.folder / WEIGHTS, key["network"], DRAWN)
    return {"pairs": len(drawn), "last_loss": float(np.mean(losses[-50:]))}


def warm(cell: Cell) -> dict[str, Any]:
    """Those initial weights, trained on the real training side: where every method's training goes on."""
    key, category = cell.key, cell.use["of"]
    network = _networks(cell).fit(_merged(cell, [], from_samples(category.train)), key["seed"])
    _save(network, cell)
    return {"real": len(category.train)}


def segment(cell: Cell) -> dict[str, Any]:
    """Train a segmenter on the pairs, the real training side, or both; test it on the held-out side."""
    key, category = cell.key, cell.use["of"]
    made = next((need for need in cell.needs if need.kind == "pairs"), None)
    synthetic = [] if made is None else synthetic_pairs(made, category, key["count"])
    real = from_samples(category.train) if key["real"] == "merged" else []
    train_pairs = _merged(cell, synthetic, real)
    test = from_samples(category.test + (category.index.test_normals if key["test_normals"] else []))
    done = trial(_judge(cell), train_pairs, test, key["seed"])
    network = Quick.of(done.network) if key["network"] == "quick" else done.network
    if cell.use["keep"]:
        _save(network, cell)
    # As the dataset names them: what a cell found holds wherever the pictures lie.
    unmarked = [{**row, "image": category.index.relative(Path(row["image"]))} for row in done.figures["unmarked"]]
    return {
        "pairs": {"synthetic": len(synthetic), "real": len(real), "normals": len(_normals(cell))},
        "test": len(test),
        "metrics": {**done.figures, "unmarked": unmarked},
    }


def _judge(cell: Cell) -> Judge:
    key = cell.key
    if key["network"] != "quick":
        return _networks(cell)
    # The features are shared by all trainings of the sweep.
    size = None if key.get("native") else key["size"]  # it sees pictures of their own size as a whole
    return QuickJudge(size, key["augment"], cache=cell.use["features"], device=device_of(cell))


def _networks(cell: Cell) -> NetworkJudge:
    """Networks with the initial weights that the cell names."""
    key = cell.key
    begin = [need.folder / WEIGHTS for need in cell.needs if need.kind in ("start", "warm")] + [cell.use.get("weights")]
    names = ("steps", "batch_size", "lr", "loss", "recipe", "ema", "crop", "augment")
    seen = {"size": key["size"], "native": key.get("native", False)}
    seen |= {"bf16": key["precision"] == "bf16", "device": device_of(cell)}
    training = {**{name: key[name] for name in names}, "prior": key.get("prior", "drawn")}
    return NetworkJudge(key["network"], training, seen, weights=begin[0], labels=_labels(cell))


def _save(network: nn.Module, cell: Cell) -> None:
    classes = 1 + len(_labels(cell) or (1,))
    save(network, cell.folder / WEIGHTS, cell.key["network"], cell.use["of"].split.hash, classes)


def _labels(cell: Cell) -> dict[int, str] | None:
    """The type of each class, where there is more than one of defects."""
    return dict(enumerate(cell.use["of"].kinds, 1)) if cell.key.get("classes") == "types" else None


def _merged(
    cell: Cell, synthetic: list[SegmentationSample], real: list[SegmentationSample]
) -> list[SegmentationSample]:
    """All to train on; a dataset without normals has none to show, whatever share the protocol asks for."""
    normals, key = _normals(cell), cell.key
    share = key.get("real_share") if synthetic and real else None
    return merged(synthetic, real, normals, share, key["normals"] if normals else 0.0, key.get("draw", "images"))


def _normals(cell: Cell) -> list[SegmentationSample]:
    return from_samples(cell.use["of"].index.normals) if cell.key["normals"] else []


def synthetic_pairs(made: Cell, category: CategoryPlan, count: int | None) -> list[SegmentationSample]:
    """The first `count` pairs of each type (None: all) of a pairs cell, none made from what is tested on."""
    # Of a method that draws its own background the weights' split says what it has seen.
    tested = [*category.test, *category.index.test_normals] if made.key["method"] != "dfmgan" else []
    held_out = Copies.of_samples(tested)
    # Masks are given as copies: behind each stands a training sample.
    originals = {mask_file(category, i).resolve(): s for i, s in enumerate(category.train) if s.mask is not None}
    found: list[SegmentationSample] = []
    for kind in made.key["types"]:
        kept, _ = from_output(pairs_folder(made, kind), held_out)
        for pair in first(kept, count):
            real = [originals[path] for path in pair.sources if path in originals]
            behind = {path.resolve() for s in real for path in (s.image, s.mask) if path is not None}
            found.append(replace(pair, sources=pair.sources | behind))
    return found


def first(pairs: Sequence[SegmentationSample], count: int | None) -> list[SegmentationSample]:
    """The first `count` defects (None: all) and as large a share of the counterfeits behind them."""
    defects, fakes = ([p for p in pairs if is_normal(p) is fake] for fake in (False, True))
    kept = defects[:count]
    return [*kept, *fakes[: round(len(fakes) * len(kept) / max(1, len(defects)))]]


def mask_file(category: CategoryPlan, number: int) -> Path:
    """Where the mask of a training sample is copied to for synthesis."""
    return category.masks / category.train[number].anomaly / f"{number:04d}.png"


def pictures(cell: Cell) -> dict[str, Any]:
    """What can be said of the pairs without a network: each type's measures, and their means over the types."""
    from fast.bench.pictures import measures

    made, real = cell.needs[0], from_samples(cell.use["of"].train)
    types = {}
    for kind in made.key["types"]:
        found = measures(pairs_folder(made, kind), real)
        types[kind] = {name: value for name, value in found.items() if name != "types"}
    return {
        **_means(list(types.values())),
        "pairs": sum(t["pairs"] for t in types.values()),
        "real": _means([t["real"] for t in types.values() if t.get("real")]),
        "types": types,
    }


def _means(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """The mean of each number over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, dict))
    known = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}


def deep(cell: Cell) -> dict[str, Any]:
    """KID, IS and IC-LPIPS, as far as the user has the networks."""
    from fast.bench.deep import Options, load_inception, load_lpips, measures

    made, category, files = cell.needs[0], cell.use["of"], cell.use["networks"]
    inception = load_inception(files["inception"]) if "inception" in files else None
    embed = load_lpips(files["lpips"]).to(device_of(cell)).embed if "lpips" in files else None
    found = [pair for pair in synthetic_pairs(made, category, None) if not is_normal(pair)]
    options = Options(device=device_of(cell))
    return measures(found, from_samples(category.train), inception=inception, embed=embed, options=options)


def device_of(cell: Cell) -> str:
    return pick_device(cell.use["device"], "--device ").type


KINDS: dict[str, Callable[[Cell], dict[str, Any]]] = {
    "fit": fit,
    "given": given,
    "pairs": pairs,
    "start": start,
    "warm": warm,
    "segment": segment,
    "pictures": pictures,
    "deep": deep,
}

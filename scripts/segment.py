"""Do synthetic pairs help? Train a segmenter on pairs, test it on real defects that nothing was trained on.

python scripts/segment.py --train parts --test parts --out real.json
python scripts/segment.py --train parts samples/parts --test parts --out merged.json
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fast.signals import listen

listen(__name__)

import argparse  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from typing import Any  # noqa: E402

from fast.door import open_door  # noqa: E402
from fast.folders import sole  # noqa: E402
from fast.training.options import Parser  # noqa: E402

SHOWN = ("iou", "acc", "ap", "auroc")


def parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(prog="segment.py", description="Train a segmentation network on image-mask pairs and test it.")
    data = p.add_argument_group("data")
    data.add_argument("--train", nargs="+", required=True, type=Path, metavar="FOLDER",
                      help="synthesis outputs, and datasets, of which the training side of the split is taken")
    data.add_argument("--test", required=True, type=Path, metavar="DATASET",
                      help="dataset with defects; tests are done on the side of the split that is held out")
    data.add_argument("--split", default="third",
                      help="third: a third of each type trains; or a file of prepare_data.py (default: third)")
    data.add_argument("--category", help="only this category of the datasets")
    data.add_argument("--real_share", type=float, metavar="R",
                      help="share of the defects drawn that are real (default: all pairs equally often)")
    data.add_argument("--normals", type=float, default=0.0, metavar="R",
                      help="share of what is drawn that are training normals of the test dataset (default: 0)")
    data.add_argument("--test_normals", action="store_true", help="test on the held-out normals too")
    run = p.add_argument_group("training")
    run.add_argument("--segmenter", default="segformer",
                     help="segformer, bisenetv2, stdc, stdc2 or mini (default: segformer)")
    run.add_argument("--weights", type=Path, metavar="FILE",
                     help="what to start from: weights that this program wrote for the same segmenter, or ImageNet "
                          "weights of SegFormer's encoder or STDC's backbone")
    run.add_argument("--recipe", default="common",
                     help="optimizer, learning rate and schedule: common, the same for all segmenters, or published, "
                          "each one's own (default: common)")
    run.add_argument("--steps", type=int, help="optimiser steps (default: 1000, unless --minutes is given)")
    run.add_argument("--minutes", type=float, help="train by the clock; not the same twice")
    run.add_argument("--batch_size", type=int, help="default: the recipe's, 8 in the common one")
    run.add_argument("--lr", type=float, help="highest learning rate (default: the recipe's, 5e-4 in the common one)")
    run.add_argument("--loss", help="ce, ce+dice, or published: the segmenter's own (default: the recipe's, ce+dice in "
                                    "the common one)")
    run.add_argument("--defect_weight", type=float, default=3.0,
                     help="of a defect pixel in the cross-entropy of ce and ce+dice (default: 3)")
    run.add_argument("--ema", type=float, default=0.0, metavar="DECAY",
                     help="keep a running mean of the weights instead of the last ones, such as 0.999 (default: 0)")
    run.add_argument("--no_augment", action="store_true", help="leave flips, turns, zoom and brightness out")
    run.add_argument("--size", type=int, default=256, help="side in pixels that the network sees (default: 256)")
    run.add_argument("--crop", type=int, metavar="N",
                     help="train on windows of N pixels of the resized pictures; tests see the whole (default: off)")
    run.add_argument("--native", action="store_true", help="see windows of that side, and leave the pictures' scale")
    run.add_argument("--seed", type=int, default=0, help="default: 0")
    run.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto",
                     help="auto: bf16 where the machine computes in it, else fp32 (default: auto)")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    p.add_argument("--out", type=Path, default=Path("metrics.json"), metavar="FILE",
                   help="figures as JSON; the weights lie beside it as .safetensors (default: metrics.json)")
    # fmt: on
    return p


@dataclass
class Data:
    """Pairs to train and to test on, the split's hash, and how many there are of what."""

    train: list[Any]
    test: list[Any]
    split: str
    counts: dict[str, int]


def gather(options: argparse.Namespace) -> Data:
    """Raises `UserError` when a folder holds nothing of use or the training would see what is tested on."""
    from fast.segmentation.data import from_output, from_samples, merged
    from ldm.errors import UserError

    index, chosen = divide(options.test, options)
    real_train, real_test = chosen.apply(index)
    if not real_test:
        raise UserError(f"--split {options.split} leaves no defect of {options.test} to test on; use another split")
    held_out = {path for s in real_test for path in (s.image, s.mask) if path is not None}
    held_out |= {s.image for s in index.test_normals} if options.test_normals else set()
    held_out = {path.resolve() for path in held_out}
    synthetic, real, left_out = [], [], 0
    for folder in options.train:
        if (folder / "manifest.jsonl").is_file():
            pairs, without = from_output(folder, held_out)
            synthetic += pairs
            left_out += without
        elif folder.resolve() == options.test.resolve():
            real += real_train
        else:
            other, its_split = divide(folder, options)
            real += [s for s in its_split.apply(other)[0] if s.image.resolve() not in held_out]
    if not synthetic and not real:
        why = f"all {left_out} pairs were made from files that are tested on" if left_out else "no pair in it"
        raise UserError(f"--train {' '.join(map(str, options.train))}: {why}; synthesize from the training side")
    normals = from_samples(index.normals) if options.normals else []
    train = merged(synthetic, from_samples(real), normals, options.real_share, options.normals)
    test = real_test + (index.test_normals if options.test_normals else [])
    counts = {
        "real": len(real),
        "synthetic": len(synthetic),
        "left out": left_out,
        "normals": len(normals),
        "test": len(test),
    }
    return Data(train, from_samples(test), chosen.hash, counts)


def divide(path: Path, options: argparse.Namespace) -> tuple[Any, Any]:
    """(the usable part of a dataset, its split)"""
    from fast.data.layouts import check, open_dataset, require_defects
    from fast.data.split import Split, make_split

    index = check(open_dataset(path, category=options.category)).usable
    require_defects(index)
    return index, make_split(index) if options.split == "third" else Split.load(options.split)


def table(result: dict[str, Any]) -> str:
    """Percent, a line per type and one for all."""

    def cell(value: float | None) -> str:
        return f"{'-' if value is None else f'{100 * value:.2f}':>8}"

    width = max(len(kind) for kind in [*result["types"], "mean of types"])
    lines = [f"{'':{width}} {'images':>8}" + "".join(f"{name:>8}" for name in SHOWN)]
    rows = [*result["types"].items(), ("all", {**result, "iou": result["miou"]})]
    lines += [f"{kind:{width}} {row['images']:>8}" + "".join(cell(row[name]) for name in SHOWN) for kind, row in rows]
    lines.append(f"{'mean of types':{width}} {'':>8}{cell(result['miou_types'])}{cell(result['acc_types'])}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    with sole(options.out, "--out"):
        run(options)


def run(options: argparse.Namespace) -> None:
    import torch

    from fast.data.images import write_bytes
    from fast.precision import settled
    from fast.progress import Progress
    from fast.segmentation import build
    from fast.segmentation.metrics import evaluate
    from fast.segmentation.networks import save
    from fast.segmentation.recipes import find
    from fast.segmentation.train import train
    from ldm.errors import UserError

    if options.out.suffix == ".safetensors" or options.out.is_dir():
        raise UserError(f"--out {options.out}: give the name of a JSON file")
    cuda = torch.cuda.is_available()
    if options.device == "cuda" and not cuda:
        raise UserError("--device cuda: there is no GPU here; use --device cpu")
    device = "cuda" if cuda and options.device != "cpu" else "cpu"
    options.precision = settled(options.precision, device)
    if options.steps is None and options.minutes is None:
        options.steps = 1000
    model = build(options.segmenter, weights=options.weights, seed=options.seed)
    plan = find(options.recipe, model)
    options.batch_size = plan.batch_size if options.batch_size is None else options.batch_size
    options.lr = plan.lr if options.lr is None else options.lr
    options.loss = options.loss or ("published" if options.recipe == "published" else plan.loss)
    data = gather(options)
    print(
        ", ".join(f"{count} {what}" for what, count in data.counts.items()) + f"; split {data.split[:12]}", flush=True
    )
    seen = {"size": options.size, "native": options.native, "bf16": options.precision == "bf16", "device": device}
    start, losses = time.perf_counter(), []
    with Progress(100, "training", "percent point", leave=False) as bar:

        def progress(step: int, share: float, loss: float) -> None:
            losses.append(loss)
            bar.to(int(100 * share))
            bar.note(f"loss {loss:.4g}")

        train(
            model,
            data.train,
            steps=options.steps,
            minutes=options.minutes,
            batch_size=options.batch_size,
            lr=options.lr,
            seed=options.seed,
            loss=options.loss,
            defect_weight=options.defect_weight,
            augment=not options.no_augment,
            crop=options.crop,
            recipe=options.recipe,
            ema=options.ema,
            progress=progress,
            **seen,
        )
    trained = time.perf_counter() - start
    result = evaluate(model, data.test, batch_size=min(options.batch_size, 8), **seen)
    print(table(result))
    weights = save(model, options.out.with_suffix(".safetensors"), options.segmenter)
    settings = {k: [str(p) for p in v] if isinstance(v, list) else v for k, v in vars(options).items()}
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    about = {
        "settings": settings,
        "split": data.split,
        "counts": data.counts,
        "steps": len(losses),
        "training_seconds": round(trained, 1),
        "last_loss": losses[-1],
        "weights": weights.name,
    }
    write_bytes(options.out, (json.dumps({**result, **about}, indent=1) + "\n").encode())
    print(f"{len(losses)} steps in {trained:.0f} s -> {options.out}, {weights}")


if __name__ == "__main__":
    sys.exit(open_door(main))

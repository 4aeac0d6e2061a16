"""Do synthetic pairs help? Train a segmenter on pairs, test it on real defects that nothing was trained on.

fast-segment --train parts --test parts --out real.json
fast-segment --train parts samples/parts --test parts --out merged.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fast.runtime.counts import number_of
from fast.runtime.folders import sole
from fast.runtime.options import Parser
from fast.segmentation.names import require_name
from ldm.errors import UserError

if TYPE_CHECKING:
    from fast.cli.segment_data import Data

STEPS = 700  # unless the training goes by the clock
SHOWN = ("iou", "acc", "ap", "auroc")
# Flags of a network's training, as `fast.segmentation.train.train` knows them.
TRAINING = (
    "recipe", "steps", "minutes", "batch_size", "lr", "loss", "defect_weight", "ema", "crop", "augment", "prior",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(prog="scripts/segment.py", description="Train a segmentation network on image-mask pairs and test it.")
    data = p.add_argument_group("data")
    data.add_argument("--train", nargs="+", required=True, type=Path, metavar="FOLDER",
                      help="synthesis outputs, and datasets, of which the training side of the split is taken")
    data.add_argument("--test", required=True, type=Path, metavar="DATASET",
                      help="dataset with defects; tests are done on the side of the split that is held out")
    data.add_argument("--split", default="third",
                      help="third: a third of each type trains; or a file of prepare_data.py (default: third)")
    data.add_argument("--category", help="only this category of the datasets")
    data.add_argument("--real_share", type=share_of_real, default=0.5, metavar="R",
                      help="share of the defects drawn that are real where there are both; or merge: all pairs equally "
                           "often, as in the papers (default: 0.5)")
    data.add_argument("--normals", type=float, default=0.0, metavar="R",
                      help="share of what is drawn that are training normals of the test dataset (default: 0)")
    data.add_argument("--draw", choices=("parts", "images"), default="parts",
                      help="of the real defects: every type, and of it every physical part, equally often, or every "
                           "image (default: parts)")
    data.add_argument("--test_normals", action="store_true", help="test on the held-out normals too")
    run = p.add_argument_group("training")
    run.add_argument("--segmenter", default="fpn",
                     help="fpn: with the shipped ImageNet encoder; quick: a pixel classifier on that encoder's frozen "
                          "features, by a recipe of its own, in seconds; segformer, bisenetv2, stdc, stdc2, mini "
                          "(default: fpn)")
    run.add_argument("--features", type=Path, metavar="FOLDER",
                     help="with quick: keep the features here and take them from there (default: in memory alone)")
    run.add_argument("--weights", type=Path, metavar="FILE",
                     help="what to start from: weights that this program wrote for the same segmenter, or ImageNet "
                          "weights of SegFormer's encoder or STDC's backbone")
    run.add_argument("--recipe", default="common",
                     help="optimizer, learning rate and schedule: common, the same for all segmenters, or published, "
                          "each one's own (default: common)")
    run.add_argument("--steps", type=int, help=f"optimiser steps (default: {STEPS}, unless --minutes is given; "
                     "not for quick, whose training is fixed)")
    run.add_argument("--minutes", type=float, help="train by the clock; not the same twice")
    run.add_argument("--batch_size", type=int, help="default: the recipe's, 8 in the common one")
    run.add_argument("--lr", type=float, help="highest learning rate (default: the recipe's, 5e-4 in the common one)")
    run.add_argument("--loss", help="ce, ce+dice, or published: the segmenter's own (default: the recipe's, ce+dice in "
                                    "the common one)")
    run.add_argument("--defect_weight", type=float,
                     help="of a defect pixel in the cross-entropy of ce and ce+dice (default: 1 for fpn, else 3)")
    run.add_argument("--ema", type=float, default=0.0, metavar="DECAY",
                     help="keep a running mean of the weights instead of the last ones, such as 0.999 (default: 0)")
    run.add_argument("--prior", choices=("real", "drawn"),
                     help="how common defect pixels are taken to be: as in the real pictures with a defect to train "
                          "on, or as in what training draws; a network's default: real")
    run.add_argument("--augment", default="classical",
                     help="of all training images: classical: any angle, mirrors, scale, shift, grey levels; upright: "
                          "the same for parts that lie one way only; light: right angles, mirrors, zoom, grey levels; "
                          "none (default: classical)")
    run.add_argument("--size", type=int, default=256, help="side in pixels that the network sees (default: 256)")
    run.add_argument("--crop", type=int, metavar="N",
                     help="train on windows of N pixels of the resized pictures; tests see the whole (default: off)")
    run.add_argument("--native", action="store_true", help="see windows of that side, and leave the pictures' scale")
    run.add_argument("--seed", type=int, default=0, help="default: 0")
    run.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto",
                     help="auto: bf16 where the machine computes in it, else fp32, as for fpn on a CPU (default: auto)")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    p.add_argument("--out", type=Path, default=Path("metrics.json"), metavar="FILE",
                   help="figures as JSON; the weights lie beside it as .safetensors (default: metrics.json)")
    p.add_argument("--export", type=Path, metavar="FOLDER",
                   help="write the network there as ONNX too, with what is done before and after it described")
    # fmt: on
    return p


def share_of_real(text: str) -> float | None:
    """Of `--real_share`; None stands for merge."""
    if text == "merge":
        return None
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and 1, or be merge")
    return share


def table(result: dict[str, Any]) -> str:
    """Percent, a line per type and one for all."""
    from fast.runtime.tables import plain

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    rows = [*result["types"].items(), ("all", {**result, "iou": result["miou"]})]
    lines = [[kind, str(row["images"]), *(cell(row[name]) for name in SHOWN)] for kind, row in rows]
    means = [cell(result["miou_types"]), cell(result["acc_types"])]
    return plain(["", "images", *SHOWN], [*lines, ["mean of types", "", *means, *[""] * (len(SHOWN) - 2)]])


def tell_unmarked(found: list[dict[str, Any]], out: Path) -> None:
    """Where most was found away from every mark, for somebody to look at: no figure can tell what it is."""
    if found:
        most, others = found[0], len(found) - 1
        more = f"; {number_of(others, 'more picture', 'more pictures')} under 'unmarked' in {out}" if others else ""
        print(
            f"note: {100 * most['share']:.1f} % of {most['image']} is found where nothing is marked: a defect that "
            f"nobody marked, which makes IoU and AP too low, or a false alarm; look at it{more}",
            flush=True,
        )


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    require_name(options.segmenter)
    check_out(options)
    with sole(options.out, "--out"):
        try:
            run(options)
        except KeyboardInterrupt:  # a training keeps nothing on the way
            raise UserError("interrupted; the same command begins anew") from None


def run(options: argparse.Namespace) -> None:
    from fast.data.images import write_bytes
    from fast.runtime.device import pick_device
    from fast.segmentation.export import Described, export, require_onnx
    from fast.segmentation.networks import save

    if options.export:
        require_onnx()  # before anything is trained
    device = pick_device(options.device, "--device ").type
    model, result, about = (judge if options.segmenter == "quick" else learn)(options, device)
    print(table(result))
    tell_unmarked(result["unmarked"], options.out)
    weights = save(model, options.out.with_suffix(".safetensors"), options.segmenter, about["split"])
    settings = {k: [str(p) for p in v] if isinstance(v, list) else v for k, v in vars(options).items()}
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    about = {"settings": settings, **about, "weights": weights.name}
    write_bytes(options.out, (json.dumps({**result, **about}, indent=1) + "\n").encode())
    if options.export:
        types = [kind for kind, row in result["types"].items() if row["acc"] is not None]  # normals have none
        for file in export(model, options.export, Described(options.size, options.native, types, options.segmenter)):
            print(file)
    print(f"trained in {about['training_seconds']:.0f} s -> {options.out}, {weights}")


def check_out(options: argparse.Namespace) -> None:
    """UserError for a name that is not JSON's, or that would replace what the command reads, or lie among it."""
    from fast.data.images import list_images
    from fast.synthesis.records import is_output

    out = options.out.resolve()
    if out.suffix != ".json" or out.is_dir():
        raise UserError(f"--out {options.out}: give the name of a JSON file, which ends in .json")
    for file in (options.weights, None if options.split in ("third", "all") else Path(options.split)):
        if file is not None and file.resolve() in (out, out.with_suffix(".safetensors")):
            raise UserError(f"--out {options.out} would replace {file}, which is read; choose another name")
    for place in (options.test, *options.train):  # JSON beside pictures would be read as their annotation
        if place.resolve() in out.parents and (is_output(place) or list_images(out.parent)):
            raise UserError(f"--out {options.out} lies in {place}, which is read; choose another place")


def _gathered(options: argparse.Namespace) -> Data:
    """`gather`, and what was found is told."""
    from fast.cli.segment_data import gather

    data = gather(options)
    counts = ", ".join(f"{count} {what}" for what, count in data.counts.items())
    print(f"{counts}; split {data.split[:12]}", flush=True)
    return data


def judge(options: argparse.Namespace, device: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The quick judge: its network, figures, and what is to be said about them."""
    from fast.bench.trial import trial
    from fast.segmentation.pixel_head import Quick
    from fast.segmentation.quick import QuickJudge

    refuse_for_quick(options)
    data = _gathered(options)
    size = None if options.native else options.size
    judging = QuickJudge(size=size, augment=options.augment, cache=options.features, device=device)
    done = trial(judging, data.train, data.test, options.seed)
    about = {"split": data.split, "counts": data.counts, "training_seconds": round(done.seconds, 1)}
    return Quick.of(done.network), done.figures, about


def refuse_for_quick(options: argparse.Namespace) -> None:
    """UserError for options of the networks' training, which the quick judge's has not."""
    plain = parser()
    for name in ("weights", "precision", "batch_size", *sorted(set(TRAINING) - {"batch_size", "augment"})):
        if getattr(options, name) != plain.get_default(name):
            raise UserError(f"--{name} is not for --segmenter quick, whose training is fixed; leave it out or use fpn")


def complete(options: argparse.Namespace, device: str) -> None:
    """Set what the command line leaves open, by the machine and the segmenter's recipe. Raises `UserError`."""
    from fast.segmentation.networks import build, precision_of
    from fast.segmentation.recipes import find

    options.precision = precision_of(options.segmenter, options.precision, device)
    if options.steps is None and options.minutes is None:
        options.steps = STEPS
    recipe = find(options.recipe, build(options.segmenter, weights=options.weights, seed=options.seed))
    options.loss = options.loss or ("published" if options.recipe == "published" else recipe.loss)
    if options.loss == "published" and options.defect_weight is None:
        options.defect_weight = 1.0
    options.prior = options.prior or "real"
    for name in ("batch_size", "lr", "defect_weight"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(recipe, name))


def learn(options: argparse.Namespace, device: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A network trained and tested: itself, its figures, and what is to be said about them."""
    from fast.bench.trial import NetworkJudge, trial
    from fast.runtime.progress import Progress

    if options.features is not None:
        raise UserError(f"--features {options.features} is for --segmenter quick; leave it out")
    complete(options, device)
    data = _gathered(options)
    seen = {"size": options.size, "native": options.native, "bf16": options.precision == "bf16", "device": device}
    how = {name: getattr(options, name) for name in TRAINING}
    losses: list[float] = []
    with Progress(100, "training", "percent point", leave=False) as bar:

        def progress(step: int, share: float, loss: float) -> None:
            losses.append(loss)
            bar.to(int(100 * share))
            bar.note(f"loss {loss:.4g}")

        weights, batch = options.weights, min(options.batch_size, 8)
        judging = NetworkJudge(options.segmenter, how, seen, weights, batch_size=batch, progress=progress)
        done = trial(judging, data.train, data.test, options.seed)
    about = {
        "split": data.split,
        "counts": data.counts,
        "steps": len(losses),
        "training_seconds": round(done.seconds, 1),
        "last_loss": losses[-1],
    }
    return done.network, done.figures, about

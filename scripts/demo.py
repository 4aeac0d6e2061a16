"""The main job on surfaces that the project draws itself: draw, train the mini recipes, synthesize, show.

Everything lies in demo/ and is kept: a second run continues where the first stopped. Start over with `make clean`.
"""

import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fast.door import open_door  # noqa: E402
from fast.training.options import Parser  # noqa: E402

MATERIALS = ("brushed_metal", "leather", "wood")
STEPS = {"autoencoder": 1200, "base": 650, "fast": 240}


def main(argv: list[str]) -> None:
    p = Parser(prog="demo.py", description=__doc__)
    p.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything (default: demo)")
    p.add_argument("--pairs", type=int, default=8, help="pairs to synthesize for each material")
    options = p.parse_args(argv)
    start, out = time.perf_counter(), options.out
    data = draw(out / "data")
    first_stage = train(out, "autoencoder", data)
    base = train(
        out, "base", data, f"model.params.first_stage_config.params.ckpt_path={first_stage}", "model.params.lr=1e-3"
    )
    train(out, "fast", data, "--actual_resume", str(base), "data.params.views=8", "model.params.lr=3e-3")
    outputs = [synthesize(out, data, material, options.pairs) for material in MATERIALS]
    sheet = show(outputs, out / "contact_sheet.png")
    print(f"\nfinished in {(time.perf_counter() - start) / 60:.1f} minutes; look at {sheet.resolve()}")


def draw(folder: Path) -> Path:
    from tqdm import tqdm

    from fast.data.drawn import draw_dataset

    flags = f"--size 128 --normals 24 --defects 12 --products 1 --materials {' '.join(MATERIALS)}"
    say(f"scripts/draw_dataset.py --out {folder} {flags}")
    with tqdm(desc="drawing", unit="picture", mininterval=0.5, disable=None) as bar:

        def progress(done: int, total: int, path: object) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return draw_dataset(folder, materials=MATERIALS, defects_per_type=12, size=128, products=1, progress=progress)


def train(out: Path, recipe: str, data: Path, *extra: str) -> Path:
    """One recipe through the training door, or the rest of it. Returns its artifact."""
    from fast.training.options import parse_training
    from fast.training.run import train as run

    folder, steps = out / recipe, STEPS[recipe]
    found = list(folder.glob(f"checkpoints/*-{steps}.safetensors"))
    if not found:
        if (folder / "checkpoints" / "last.ckpt").is_file():
            flags = ["-t", "-r", str(folder)]
        else:
            recipe_file = ROOT / "configs" / "mini" / f"{recipe}.yaml"
            flags = ["--base", str(recipe_file), "-t", "-l", str(out), "-n", recipe, "--mvtec_path", str(data)]
            flags += ["--split", "all", "--max_steps", str(steps), *extra, "lightning.images_every=0"]
        say("main.py " + " ".join(flags))
        run(parse_training(flags))
        found = list(folder.glob(f"checkpoints/*-{steps}.safetensors"))
    return found[0]


def synthesize(out: Path, data: Path, material: str, pairs: int) -> Path:
    """Pairs of one material through the synthesis door: its test normals, the masks of its defects."""
    from fast.synthesis_door import parser
    from fast.synthesis_door import synthesize as run

    target = out / "pairs" / material
    flags = [
        "--data_root",
        f"{data / material / 'test' / 'good'}",
        "--mask_path",
        f"{data / material / 'ground_truth'}",
    ]
    flags += ["--pt_path", str(out / "fast"), "--anomaly_name", material, "--steps", "10"]
    flags += ["--count", str(pairs), "--sample_name", str(target)]
    say("generate_with_mask.py " + " ".join(flags))
    run(parser().parse_args(flags))
    return target


def show(outputs: list[Path], path: Path) -> Path:
    import json

    from fast.contact_sheet import contact_sheet, read_row

    records = [(o, json.loads(line)) for o in outputs for line in (o / "manifest.jsonl").read_text().splitlines()]
    return contact_sheet([read_row(o, r) for o, r in records], path)


def say(command: str) -> None:
    print(f"\n$ python {command}", flush=True)


if __name__ == "__main__":
    sys.exit(open_door(main))

"""Train the shipped base from nothing in a given time: first stage, latent diffusion, FARM, on data drawn meanwhile.

Everything under way lies in the folder of --out and is saved as it goes: stopped, the same command goes on. On a
machine with a GPU the card trains while all cores draw.

%(prog)s --minutes 8                      # a graphics card
%(prog)s --minutes 600 --batch_size 32    # two CPU cores, over night
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from fast.runtime.options import Parser
from ldm.errors import UserError


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="scripts/train_base.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("--minutes", type=float, required=True, help="of all stages together, over every resumption")
    add("--out", type=Path, default=Path("base"), help="folder of what is under way (default: base)")
    add("--ship", type=Path, default=Path("models/mini"), help="folder of the finished weights (default: models/mini)")
    add("--photos", default="", help="folder of photographed surfaces to mix in")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--batch_size", type=int, help="windows of half --size at a step (default: 1024 on a GPU, 32 on a CPU)")
    add("--size", type=int, default=256, help="side of the drawn images in pixels (default: 256)")
    add("--sheets", type=int, help="sheets of 8 defects held at once (default: 30000 on a GPU, 2500 on a CPU)")
    add("--first_sheets", type=int, help="sheets that the first stage begins with (default: 600; on a CPU 200)")
    add("--workers", type=int, help="processes that draw (default: the cores, but one)")
    add(
        "--start",
        type=Path,
        metavar="FILE",
        help="base to start from, with the FARM beside it; its first stage is taken as it is",
    )
    add("--no_graphs", action="store_true", help="on a GPU, launch the U-Net's kernels one by one, as they are: slower")
    add(
        "--no_compile",
        action="store_true",
        help="on a GPU, take the U-Net's kernels as they are: starts sooner, slower",
    )
    add("--precision", choices=("auto", "32", "bf16"), default="auto", help="bf16: mixed, where the processor has it")
    add("--seed", type=int, default=0)
    add("--sheet", type=Path, help="image of samples on held-out materials, written last (default: OUT/samples.png)")
    add(
        "--parts",
        type=float,
        metavar="MB",
        help="write the weights into the folder parts beside them too, in files of at most so many MB (join_parts.py)",
    )
    add("overrides", nargs="*", help="section.key=value for the recipes configs/mini/{base,farm}.yaml")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Raises `UserError`."""
    import torch

    from fast.pretraining.drawing import DrawingRecipe
    from fast.pretraining.loop import Interrupted
    from fast.pretraining.parts import split_file
    from fast.pretraining.samples import write_samples
    from fast.pretraining.settings import Settings, check_ship
    from fast.pretraining.stages import Pretraining
    from fast.runtime.device import pick_device
    from fast.runtime.project import of_project
    from fast.runtime.workers import cores

    _check(args)
    check_ship(args.ship)
    device = pick_device(args.device, "--device ")
    on_gpu = device.type == "cuda"
    capacity = args.sheets or (30000 if on_gpu else 2500)
    settings = Settings(
        out=args.out,
        ship=args.ship,
        minutes=args.minutes,
        device=device,
        recipe=DrawingRecipe(size=args.size, seed=args.seed, photos=args.photos),
        recipes=of_project("configs/mini"),
        batch=args.batch_size or (1024 if on_gpu else 32),
        capacity=capacity,
        first_capacity=min(capacity, 3000 if on_gpu else 400),
        first_sheets=args.first_sheets or (600 if on_gpu else 200),
        window=args.size // 2,
        workers=args.workers or max(1, cores() - 1),
        start=args.start,
        graphs=not args.no_graphs,
        fuse=not args.no_compile,
        bf16=args.precision == "bf16" or (args.precision == "auto" and (on_gpu or _has_bf16())),
        seed=args.seed,
        overrides=list(args.overrides),
    )
    if on_gpu:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    try:
        Pretraining(settings, report=lambda line: print(line, flush=True)).run()
    except Interrupted as stop:
        raise UserError(str(stop)) from None
    if args.parts:
        for path in sorted(args.ship.glob("*.safetensors")):
            for part in split_file(path, args.ship / "parts", int(args.parts * 1e6)):
                print(part)
    write_samples(settings, args.sheet or args.out / "samples.png")


def _check(args: argparse.Namespace) -> None:
    for name in ("minutes", "batch_size", "size", "sheets", "first_sheets", "workers", "parts"):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} {value} must be above 0")
    if args.start is not None and not args.start.is_file():
        raise UserError(f"--start {args.start} is no file; name a base.safetensors or leave it out")
    if args.size % 64:
        raise UserError(f"--size {args.size} is no multiple of 64; take 256")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed} must not be negative")
    wrong = [given for given in args.overrides if "=" not in given]
    if wrong:
        raise UserError(f"{wrong[0]} is neither a flag nor an override of the form model.params.lr=1e-3")


def _has_bf16() -> bool:
    """Whether the CPU computes in bfloat16 rather than imitating it."""
    import torch

    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def main(argv: Sequence[str]) -> None:
    run(parse_args(argv))

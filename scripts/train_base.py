"""Train the shipped base from nothing: draw a pool, then first stage, latents, base, FARM. Each stage can be resumed.

Everything lies in the folder of --out and is kept: a second run goes on where the first stopped. On a machine with
GPUs the trainings use them all; the pool is drawn on every core.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# Lets the script run from a checkout that is not installed.
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fast.door import open_door  # noqa: E402
from fast.training.options import Parser  # noqa: E402
from ldm.errors import UserError  # noqa: E402

STAGES = ("pool", "autoencoder", "latents", "base", "farm")
RECIPES = ROOT / "configs" / "mini"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("base"), help="folder for the pool and the runs")
    parser.add_argument("--ship", type=Path, default=Path("models/mini"), help="folder for the finished weights")
    parser.add_argument("--only", choices=STAGES, help="this stage alone; those before it must be done")
    parser.add_argument("--photos", default="", help="folder of photographed surfaces to mix in")
    parser.add_argument("--shards", type=int, default=48, help="shards of 256 defects each in the pool")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pool and of the trainings")
    for stage, steps in (("autoencoder", 4500), ("base", 10000), ("farm", 1000)):
        parser.add_argument(f"--{stage}_steps", type=int, default=steps, help=f"optimiser steps of the {stage}")
    parser.add_argument("overrides", nargs="*", help="section.key=value for the recipe of the stage in --only")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """All stages in turn, or the one that is asked for."""
    if args.overrides and args.only not in ("autoencoder", "base", "farm"):
        raise UserError(f"{args.overrides[0]} needs the stage it is for; add --only autoencoder, base or farm")
    stages = {"pool": _pool, "autoencoder": _autoencoder, "latents": _latents, "base": _base, "farm": _farm}
    for name in [args.only] if args.only else STAGES:
        print(f"\n== {name}", flush=True)
        stages[name](args)


def _bar(what: str) -> Callable[[int, int], None]:
    from tqdm import tqdm

    bar = tqdm(desc=what, unit="shard", mininterval=1.0, disable=None)

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return progress


def _pool(args: argparse.Namespace) -> None:
    from fast.data.pool import PoolRecipe, fill_pool

    recipe = PoolRecipe(seed=args.seed, photos=args.photos)
    fill_pool(args.out / "pool", args.shards, recipe, progress=_bar("drawing"))


def _autoencoder(args: argparse.Namespace) -> None:
    """Train the first stage, then give its latents mean 0 and variance 1 in every channel."""
    import torch

    from fast.data.pool import read_shard
    from ldm.checkpoint import save_safetensors
    from ldm.models.autoencoder import AutoencoderTiny

    trained = _train(args, "autoencoder", args.autoencoder_steps)
    model = _first_stage(trained)
    assert isinstance(model, AutoencoderTiny)
    pictures = read_shard(sorted((args.out / "pool").glob("pool-*"))[0]).normals
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        z = torch.cat([model.encode(part).mean for part in images.split(8)])
    model.standardize(z.mean((0, 2, 3)), z.std((0, 2, 3)))
    save_safetensors(model.state_dict(), _standard(args), {"trained": trained.name})


def _standard(args: argparse.Namespace) -> Path:
    path: Path = args.out / "first_stage.safetensors"
    return path


def _first_stage(path: Path):  # type: ignore[no-untyped-def]
    from omegaconf import OmegaConf

    from ldm.util import instantiate_from_config

    config = OmegaConf.load(RECIPES / "base.yaml").model.params.first_stage_config
    config.params.ckpt_path = str(path)
    return instantiate_from_config(config).eval().requires_grad_(False)


def _latents(args: argparse.Namespace) -> None:
    import torch

    from fast.data.pool import encode_pool
    from ldm.checkpoint import file_hash

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = _first_stage(_require(_standard(args), "autoencoder")).to(device).to(memory_format=torch.channels_last)

    def mean(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            return model.encode(images.to(device).contiguous(memory_format=torch.channels_last)).mean

    encode_pool(args.out / "pool", mean, file_hash(_standard(args)), progress=_bar("encoding"))


def _base(args: argparse.Namespace) -> None:
    """Train the base and write what ships: everything in bfloat16 but the tables of the noise schedule."""
    import torch

    from ldm.checkpoint import read_state_dict, save_safetensors

    first_stage = _require(_standard(args), "autoencoder")
    _same_first_stage(args)
    trained = _train(
        args, "base", args.base_steps, f"model.params.first_stage_config.params.ckpt_path={first_stage}", artifact="ldm"
    )
    state = read_state_dict(trained)
    tables = ("model.", "first_stage_model.", "cond_stage_model.")
    shipped = {k: v.to(torch.bfloat16) if k.startswith(tables) else v for k, v in state.items()}
    save_safetensors(shipped, args.ship / "base.safetensors", {"trained": trained.name})
    if (args.ship / "tokenizer").resolve() != (RECIPES / "tokenizer").resolve():
        shutil.copytree(RECIPES / "tokenizer", args.ship / "tokenizer", dirs_exist_ok=True)


def _farm(args: argparse.Namespace) -> None:
    """FARM and the vectors of the drawn types, upon the base as it ships; in bfloat16 too."""
    import torch

    from ldm.checkpoint import file_hash, read_metadata, read_state_dict, save_safetensors

    base = _require(args.ship / "base.safetensors", "base")
    trained = _train(args, "farm", args.farm_steps, f"model.params.ckpt_path={base}", artifact="fast")
    metadata = read_metadata(trained)
    if metadata.get("base_sha256") != file_hash(base):
        raise UserError(f"{args.out / 'farm'} was trained on another base than {base}; remove it and train it anew")
    state = {k: v.to(torch.bfloat16) for k, v in read_state_dict(trained).items()}
    save_safetensors(state, args.ship / trained.name, metadata)
    for old in set(args.ship.glob("fast-*.safetensors")) - {args.ship / trained.name}:
        old.unlink()


def _same_first_stage(args: argparse.Namespace) -> None:
    """Raise `UserError` if the latents, or a base under way, are of another first stage than the one there is."""
    from fast.data.images import write_bytes
    from ldm.checkpoint import file_hash, read_metadata

    present = file_hash(_standard(args))
    for shard in sorted((args.out / "pool").glob("pool-*.safetensors")):
        latents = _require(shard.with_name(shard.name.replace("pool-", "latents-")), "latents")
        if read_metadata(latents).get("first_stage") != present:
            raise UserError(f"{latents} is of another first stage; run the stage latents first")
    note = args.out / "base.first_stage"
    if (args.out / "base").is_dir() and note.is_file() and note.read_text() != present:
        raise UserError(f"{args.out / 'base'} was trained on another first stage; remove it or name another --out")
    write_bytes(note, present.encode())


def _require(path: Path, stage: str) -> Path:
    if not path.is_file():
        raise UserError(f"{path} is missing; run the stage {stage} first")
    return path


def _train(args: argparse.Namespace, recipe: str, steps: int, *extra: str, artifact: str = "autoencoder") -> Path:
    """A recipe through the training door, or the rest of it. Returns its last artifact."""
    from fast.training.options import parse_training
    from fast.training.run import train

    folder = args.out / recipe
    wanted = folder / "checkpoints" / f"{artifact}-{steps}.safetensors"
    going_on = (folder / "checkpoints" / "last.ckpt").is_file()
    if args.overrides and (going_on or wanted.is_file()):
        raise UserError(f"{folder} was begun without {args.overrides[0]}; remove it or name another --out")
    if not wanted.is_file():
        if going_on:
            flags = ["-t", "-r", str(folder), "--max_steps", str(steps)]
        else:
            flags = ["--base", str(RECIPES / f"{recipe}.yaml"), "-t", "-l", str(args.out), "-n", recipe]
            flags += ["-s", str(args.seed), "--max_steps", str(steps), f"data.params.path={args.out / 'pool'}"]
            flags += [f"data.params.shards={args.shards}"]
            flags += [*extra, *args.overrides]
        print("main.py " + " ".join(flags), flush=True)
        train(parse_training(flags))
    if not wanted.is_file():
        raise UserError(f"{folder} is trained beyond step {steps}; ask for no fewer steps, or name another --out")
    return wanted


def main(argv: Sequence[str] | None = None) -> int:
    return open_door(lambda given: run(parse_args(given)), None if argv is None else list(argv))


if __name__ == "__main__":
    sys.exit(main())

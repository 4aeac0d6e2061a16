"""The synthesis command: flags to a filled output folder."""

import argparse
import os
from dataclasses import asdict
from typing import Any

from fast.training.options import Parser
from ldm.errors import UserError


def parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(
        prog="generate_with_mask.py", allow_abbrev=False,
        description="Synthesize image-mask pairs: normal images and masks in, defects inside the masks out.",
    )
    source = p.add_argument_group("what from")
    source.add_argument("--data_root", required=True, metavar="FOLDER", help="normal images, or a dataset")
    source.add_argument("--mask_path", required=True, metavar="FOLDER",
                        help="masks, white = defect; folders inside it name defect types")
    source.add_argument("--pt_path", required=True, metavar="FOLDER",
                        help="folder of fast-<step>.safetensors, as main.py writes them (or one such file)")
    source.add_argument("--weight_idx", type=int, default=None, help="step of the weights (default: the last)")
    source.add_argument("--actual_resume", default=None, metavar="CKPT",
                        help="the base checkpoint, if it is no longer where training found it")
    source.add_argument("--anomaly_name", default=None,
                        help="defect type to make: a type, category/type, or a category for all of its types")
    source.add_argument("--init_word", default=None,
                        help="category to take if --anomaly_name names none; learned vectors replace the word itself")
    result = p.add_argument_group("what")
    result.add_argument("--sample_name", required=True, metavar="FOLDER",
                        help="output: image/, mask/, triptych/, manifest.jsonl")
    result.add_argument("--count", type=int, default=500, help="pairs in all (default 500)")
    result.add_argument("--size", type=int, default=None, help="side in pixels (default: the training size)")
    result.add_argument("--seed", type=int, default=0, help="pair i depends on this and i alone (default 0)")
    how = p.add_argument_group("how")
    how.add_argument("--sampler", default="aias", choices=["aias", "ddpm", "ddim", "plms"])
    how.add_argument("--steps", type=int, default=None, help="network evaluations (default: the recipe's aias.steps)")
    how.add_argument("--no_farm", action="store_true", help="leave FARM out (the paper's ablation)")
    how.add_argument("--batch_size", type=int, default=8, help="pairs in flight; does not change the pairs")
    how.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    how.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    # fmt: on
    return p


def check_options(options: argparse.Namespace) -> None:
    """Everything that can be refused before a heavy import."""
    for name in ("count", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)} must be at least 1")
    if options.steps is not None and options.steps < 1:
        raise UserError(f"--steps {options.steps} must be at least 1")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed} must not be negative")


def synthesize(options: argparse.Namespace) -> None:
    """Fill the output folder, or the part of it that this process of several is to make."""
    from tqdm import tqdm

    from fast.checkpoint import find_artifact, load_fast
    from fast.output import OutputFolder
    from fast.sources import find_masks, find_normals, match_types, plan_pair
    from fast.synthesis import Synthesizer, record
    from ldm.checkpoint import file_hash

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    artifact = find_artifact(options.pt_path, options.weight_idx)
    recipe = _recipe(options, artifact.config)
    normals, (masks, empty) = find_normals(options.data_root), find_masks(options.mask_path)
    allowed = match_types(artifact.types, options.anomaly_name, options.init_word)
    if rank == 0:
        for name in empty:
            print(f"refused: {name} is an empty mask", flush=True)
    common = {
        "seed": options.seed, **asdict(recipe), "weights": artifact.path.name,
        "weights_sha256": file_hash(artifact.path), "base_sha256": artifact.base_sha256,
    }  # fmt: skip
    model = load_fast(artifact, options.actual_resume)
    engine = Synthesizer(model, recipe, _device(options.device))
    common["lane"] = engine.lane
    sources = {"normals": [str(n) for n in normals], "masks": [str(m.path) for m in masks]}
    output = OutputFolder(options.sample_name, {**common, "types": [artifact.types[i] for i in allowed], **sources})
    done = output.done()
    todo = [i for i in range(rank, options.count, world) if i not in done]
    pairs = (plan_pair(i, normals, masks, artifact.types, allowed, options.seed) for i in todo)
    made = 0
    try:
        with tqdm(total=len(todo), desc="pairs", unit="pair", disable=rank > 0) as bar:
            for item in engine.make(pairs, options.batch_size):
                kind = artifact.types[item.pair.type_index]
                entry = record(item, model.prompts.text(item.pair.type_index), {"type": kind, **common})
                output.write(entry, item.normal, item.image, item.mask)
                made += 1
                bar.update()
    except KeyboardInterrupt:
        total = output.gather()
        raise UserError(f"interrupted: {total} of {options.count} pairs are made; the same command goes on") from None
    total = output.gather()
    print(f"{total} pairs in {options.sample_name}", flush=True)


def _recipe(options: argparse.Namespace, config: dict[str, Any]) -> Any:
    from fast.aias import boundaries
    from fast.synthesis import Recipe

    params = config["model"]["params"]
    timesteps = params.get("timesteps", 1000)
    steps = options.steps or (params.get("aias") or {}).get("steps", 10)
    if options.sampler == "ddpm":
        steps = timesteps
    try:
        boundaries(steps, timesteps)
    except UserError:
        raise UserError(f"--steps {steps} lies outside 1..{timesteps}, the steps this base knows") from None
    size = options.size or config["data"]["params"].get("size", 256)
    return Recipe(size, options.sampler, steps, not options.no_farm, options.precision)


def _device(name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no GPU here; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return "cuda"

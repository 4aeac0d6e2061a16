"""One training run: config and data to a fitted module, checkpoints and artifacts in LOGDIR/NAME."""

import json
import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from fast.training.callbacks import SampleGrid, Saver, StepSeeds, StopOnBadLoss, config_metadata
from fast.training.config import LIGHTNING, check_targets, merge, resolved
from fast.training.logs import MetricsFile
from fast.training.options import gpu_numbers
from ldm.checkpoint import read_checkpoint
from ldm.errors import UserError
from ldm.util import get_obj_from_str, instantiate_from_config

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Plan:
    """A run before it starts: its folder, the resolved config, the checkpoint it goes on from (None: a new run)."""

    folder: Path
    config: dict[str, Any]
    resume: Path | None
    seed: int


def plan(options: Namespace) -> Plan:
    """Merge recipes, flags and overrides. Raises `UserError` for what does not fit together."""
    resume = _resume_point(options.resume) if options.resume else None
    folder = resume.parent.parent if resume else Path(options.logdir) / _run_name(options)
    recipes = [folder / "config.yaml", *options.base] if resume else options.base
    if not recipes:
        raise UserError("no recipe: give --base RECIPE (configs/) or -r RUN")
    if not resume and (folder / "config.yaml").exists() and not _same_rank_start():
        raise UserError(f"{folder} holds another run; go on with -r {folder} or choose another name with -n")
    config = resolved(merge(recipes, [*_flags(options, recipes), *options.overrides]))
    check_targets(config)
    seed = options.seed if options.seed is not None else config.get("data", {}).get("params", {}).get("seed", 23)
    if "data" in config:
        config["data"].setdefault("params", {})["seed"] = seed
    return Plan(folder, config, resume, seed)


def _same_rank_start() -> bool:
    """A process that the launcher started beside rank 0 finds the folder that rank 0 has just made."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def _run_name(options: Namespace) -> str:
    if options.name:
        return options.name
    return Path(options.base[-1]).stem if options.base else "run"


def _resume_point(given: str) -> Path:
    path = Path(given)
    path = path if path.suffix == ".ckpt" else path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise UserError(f"-r {given}: there is no {path} to go on from")
    if not (path.parent.parent / "config.yaml").is_file():
        raise UserError(f"-r {given}: {path.parent.parent / 'config.yaml'} is missing; a run keeps its config there")
    return path


def _flags(options: Namespace, recipes: list[Any]) -> list[str]:
    """Flags as overrides, so that there is one way for a value to reach the config."""
    pairs = {
        "data.params.path": options.data,
        "data.params.category": options.category,
        "data.params.anomaly": options.anomaly,
        "data.params.split": options.split,
        "model.params.ckpt_path": options.actual_resume,
        "model.params.init_word": options.init_word,
        "lightning.trainer.max_steps": options.max_steps,
        "lightning.trainer.precision": options.precision,
    }
    return [f"{key}={json.dumps(value)}" for key, value in pairs.items() if value is not None]


def devices(options: Namespace) -> dict[str, Any]:
    """Accelerator, devices and strategy for the Lightning trainer."""
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if options.gpus is not None and options.accelerator != "cpu":
        wanted = gpu_numbers(options.gpus)
        if not available:
            print(f"--gpus {options.gpus}: no GPU here, training on the CPU", flush=True)
            return {"accelerator": "cpu", "devices": 1}
        absent = [n for n in wanted if n >= available]
        if absent:
            raise UserError(f"--gpus {options.gpus}: there is no GPU {absent[0]}; this machine has {available}")
        return {"accelerator": "gpu", "devices": wanted, "strategy": "ddp" if len(wanted) > 1 else "auto"}
    accelerator = options.accelerator or "auto"
    if accelerator == "gpu" and not available:
        raise UserError("--accelerator gpu: there is no GPU here; use --accelerator cpu")
    on_gpu = available > 0 and accelerator != "cpu"
    count = options.devices or 1
    if count < 1 or (on_gpu and count > available):
        raise UserError(f"--devices {count}: this machine has {available if on_gpu else os.cpu_count()}")
    strategy = "ddp" if count > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1 else "auto"
    return {"accelerator": "gpu" if on_gpu else "cpu", "devices": count, "strategy": strategy}


def build(run: Plan) -> tuple[Any, Any]:
    """(module, data) of a plan. FAST learns the data's types unless its config names them already."""
    config = run.config
    if "data" not in config:
        raise UserError("the recipe has no data: section; give a recipe from configs/ with --base")
    data = instantiate_from_config(config["data"])
    print("\n".join([f"data: {config['data']['params'].get('path')}", *data.describe()]), flush=True)
    model = config["model"]
    params = model.setdefault("params", {})
    if "lr" not in params and "base_learning_rate" in model:
        params["lr"] = model["base_learning_rate"]
    target = get_obj_from_str(model["target"])
    if getattr(target, "learns_types", False):
        params["types"] = params.get("types") or data.types
        absent = sorted(set(data.types) - set(params["types"]))
        if absent:
            raise UserError(
                f"the data has the types {', '.join(absent)}, which this run does not learn; start a new run"
            )
    return instantiate_from_config(model), data


def train(options: Namespace) -> Path:
    """Do what the flags say. Returns the run's folder."""
    run = plan(options)
    where = devices(options)
    module, data = build(run)
    if not options.train:
        print("checked the recipe and the data; nothing is trained without -t", flush=True)
        return run.folder
    folder, settings = run.folder, {**LIGHTNING, **run.config["lightning"]}
    folder.mkdir(parents=True, exist_ok=True)
    if not _same_rank_start():
        _write_config(folder, run.config)
    data.cache_folder = str(folder / "cache")
    metrics = MetricsFile(folder)
    if run.resume:
        metrics.continue_from(int(read_checkpoint(run.resume)["global_step"]))
    saver = Saver(
        folder,
        settings["checkpoint_every"],
        settings["keep_artifacts"],
        lambda: config_metadata(run.config, data.split_hash),
    )
    trainer = _trainer(settings, where, folder, run.seed, saver, metrics)
    trainer.fit(module, datamodule=data, ckpt_path=run.resume, weights_only=True)
    if saver.stopping:
        raise UserError(f"interrupted at step {trainer.global_step}; go on with -r {folder}")
    if trainer.is_global_zero:
        print(f"trained to step {trainer.global_step}: {saver.latest}", flush=True)
    return folder


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    part = folder / "config.yaml.part"
    part.write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    os.replace(part, folder / "config.yaml")


def _trainer(
    settings: dict[str, Any], where: dict[str, Any], folder: Path, seed: int, saver: Saver, metrics: MetricsFile
) -> pl.Trainer:
    options = {**(settings["trainer"] or {}), **where}
    precision = str(options.pop("precision", "32-true"))
    loggers: list[Any] = [metrics]
    if settings["tensorboard"]:
        loggers.append(pl.loggers.TensorBoardLogger(str(folder), name="", version="tensorboard"))
    pl.seed_everything(seed, verbose=False)
    return pl.Trainer(
        **{"log_every_n_steps": 10, "max_epochs": -1, **options},
        precision=PRECISIONS.get(precision, precision),  # type: ignore[arg-type]
        default_root_dir=str(folder),
        logger=loggers,
        callbacks=[StepSeeds(seed), StopOnBadLoss(), saver, SampleGrid(folder, settings["images_every"])],
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )

"""One training run: config and data to a fitted module, checkpoints and artifacts in LOGDIR/NAME."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from torch import distributed

from fast.artifact import find_base, find_farm
from fast.data.images import write_bytes
from fast.data.samples import Pictures
from fast.model import FAST
from fast.runtime.command import is_first_process
from fast.runtime.locks import locked
from fast.runtime.options import TrainingOptions
from fast.runtime.precision import settled
from fast.training.callbacks import (
    Clock,
    DecoderFit,
    Rate,
    SampleGrid,
    StepSeeds,
    StopOnBadLoss,
    Stopped,
    config_metadata,
)
from fast.training.logs import Log, LossTable
from fast.training.memory import Checkpointing
from fast.training.plan import CONFIG, RunPlan, plan
from fast.training.saver import CheckpointFile, Saver
from fast.training.trainer import computes_in_bf16, devices, make_trainer, quiet, say, settle_precision, strategy
from ldm.checkpoint import read_checkpoint, read_metadata
from ldm.errors import UserError
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.modules.encoders.modules import offline
from ldm.util import get_obj_from_str, instantiate_from_config

# Of `fast.generators.adaptation`: samples beside the real pictures.
MADE = ("normal_share", "drawn_share", "pool", "drawn", "drawn_words")


def build(run: RunPlan) -> tuple[Any, Any]:
    """(module, data) of a plan. FAST learns the data's types unless its config names them already.

    A run that computes in bfloat16 keeps FAST's frozen weights in it, unless the config gives a `frozen_precision`.
    """
    model, params = run.config["model"], run.config["model"]["params"]
    target = get_obj_from_str(model["target"])
    learns_types, on_base = getattr(target, "learns_types", False), getattr(target, "needs_base", False)
    if on_base and not params.get("ckpt_path"):
        raise UserError(f"{model['target']} needs a trained base; give --actual_resume CKPT")
    if params.get("ckpt_path"):  # before minutes of reading images
        params["ckpt_path"], beside = find_base(params["ckpt_path"])
        if issubclass(target, FAST) and beside:
            params.setdefault("farm_from", beside)
    if params.get("farm_from") and run.resume is None:
        params["farm_from"] = find_farm(params["farm_from"])
    if "base_learning_rate" in model:
        params.setdefault("lr", model["base_learning_rate"])
    data = instantiate_from_config(run.config["data"])
    say("\n".join([f"data: {run.config['data']['params'].get('path')}", *data.describe()]))
    if getattr(target, "learns_categories", False):
        params["categories"] = params.get("categories") or data.pictures.categories
        data.pictures.categories = list(params["categories"])
    if learns_types:
        params["types"] = params.get("types") or data.types
        absent = sorted(set(data.types) - set(params["types"]))
        if absent:
            raise UserError(
                f"the data has the types {', '.join(absent)}, which this run does not learn; start a new run"
            )
        data.types = data.pictures.types = list(params["types"])
        # Not those of a base in training: its artifact has them all.
        if on_base and computes_in_bf16(run.settings["trainer"]):
            model = {**model, "params": {"frozen_precision": "bf16", **params}}
    if params.get("farm_from") and run.resume is not None:  # its FARM comes with the resume point
        model = {**model, "params": {**model["params"], "farm_from": None}}
    module = instantiate_from_config(model)
    if data.pictures.made_types:
        module.teach(data.pictures.made_types)
    return module, data


def train(options: TrainingOptions) -> Path:
    """Do what the options say. Returns the run's folder."""
    run = plan(options)
    where = devices(options, run.settings["trainer"])
    flag = "--precision" if options.precision else "lightning.trainer.precision"
    settle_precision(run.config["lightning"]["trainer"], where["accelerator"], flag)
    if run.config["model"]["params"].get("frozen_precision") == "bf16":
        settled("bf16", "cuda" if where["accelerator"] == "gpu" else "cpu", "model.params.frozen_precision")
    with quiet():
        step = _step_of(run.resume)
        pl.seed_everything(run.seed, verbose=False)  # also the first weights are the seed's
        # A run's folder may come from somebody else; a recipe, or a flag, is what the user gives.
        with offline(run.going_on and not any("tokenizer=" in o for o in options.overrides)):
            module, data = build(run)
        if not options.train:
            say("checked the recipe and the data; nothing is trained without -t")
        elif 0 < run.settings["trainer"]["max_steps"] <= step:
            say(f"{run.folder} is trained to step {step}; give a larger --max_steps to go on")
        else:
            _check_base(run, step, module)
            trainer = _trainer(run, where, module, data)
            with _claimed(run):
                _fit(run, trainer, module, data, step)
    return run.folder


def _step_of(resume: Path | None) -> int:
    if resume is None:
        return 0
    kept = read_checkpoint(resume)
    step = kept.get("global_step")
    parts = ("state_dict", "loops", "callbacks", "optimizer_states", "pytorch-lightning_version")
    if not isinstance(step, int) or any(part not in kept for part in parts):
        raise UserError(f"-r {resume} is no checkpoint of a run; give the run's folder")
    return step


def _check_base(run: RunPlan, step: int, module: Any) -> None:
    """A resumed method goes on upon the very base that it began with."""
    artifact = run.folder / "checkpoints" / f"{getattr(module, 'name', '')}-{step}.safetensors"
    if step and artifact.is_file() and getattr(module, "needs_base", False):
        before = read_metadata(artifact).get("base_sha256")
        if before != module.base_hash:
            raise UserError(
                f"{module.base_path} is not the base that {run.folder} was trained on (sha256 {str(before)[:12]}...); "
                "give that one with --actual_resume"
            )


@contextlib.contextmanager
def _claimed(run: RunPlan) -> Iterator[None]:
    """The run's folder with its config in it, held by this process and those it launches."""
    if not is_first_process():
        yield
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    with locked(run.folder / ".lock") as mine:
        if mine is None:
            raise UserError(f"{run.folder}: another process trains there; choose another name with -n")
        text, file = yaml.safe_dump(run.config, sort_keys=False), run.folder / CONFIG  # ASCII: any path may be in it
        if not run.going_on and file.is_file() and file.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{run.folder} holds another run; go on with -t -r {run.folder} or choose another name with -n"
            )
        for part in run.folder.rglob("*.part"):  # of a run that was killed as it wrote them
            part.unlink(missing_ok=True)
        write_bytes(file, text.encode())
        yield


def _trainer(run: RunPlan, where: dict[str, Any], module: Any, data: Any) -> pl.Trainer:
    folder, settings, steps = run.folder, run.settings, run.settings["trainer"]
    file, table = CheckpointFile(), LossTable(folder / "metrics.csv", steps.get("log_every_n_steps", 10))
    log = Log(table, folder / "tensorboard" if settings["tensorboard"] else None)
    metadata, clock = config_metadata(run.config, data.split_hash), Clock(settings["minutes"])
    callbacks = [  # in the order in which they act on a step; the saver is the last
        clock,
        DecoderFit(lambda: _all_pictures(run), run.seed, settings["minutes"]),
        Rate(run.config["model"]["params"].get("lr")),
        Checkpointing(settings["checkpointing"]),
        StepSeeds(run.seed),
        StopOnBadLoss(folder),
        log,
        SampleGrid(folder, settings["images_every"]),
        Saver(folder, settings["checkpoint_every"], settings["keep_artifacts"], metadata, clock, log, file),
    ]
    where = {**where, "strategy": strategy(where, steps, all_used=isinstance(module, LatentDiffusion))}
    return make_trainer(steps, where, default_root_dir=str(folder), plugins=[file], callbacks=callbacks)


def _all_pictures(run: RunPlan) -> Pictures:
    """The training pictures with the normals among them, whatever the run itself trains on."""
    section = run.config["data"]
    real = {name: value for name, value in section["params"].items() if name not in MADE}
    return instantiate_from_config({**section, "params": {**real, "use": "both"}}).pictures


def _fit(run: RunPlan, trainer: pl.Trainer, module: Any, data: Any, step: int) -> None:
    folder = run.folder
    data.cache_folder = str(folder / "cache")
    say(f"training {folder} on {trainer.strategy.root_device.type}, step {step} to {trainer.max_steps}")
    try:
        trainer.fit(module, datamodule=data, ckpt_path=run.resume)
    except Stopped:
        # A launcher takes a non-zero exit of a process that it started for a crash and kills the others.
        if trainer.is_global_zero:
            raise
        return
    except (KeyboardInterrupt, SystemExit):  # Lightning makes SystemExit of Ctrl-C
        raise UserError(f"interrupted; go on with -t -r {folder}") if is_first_process() else SystemExit(1) from None
    except BaseException as error:
        _end_others(trainer)
        if not isinstance(error, RuntimeError) or "Error(s) in loading state_dict" not in str(error):
            raise
        raise UserError(f"{run.resume} does not fit the model that the config describes; start a new run") from None
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()  # threads of it that outlive the interpreter abort the process
    clock = next(c for c in trainer.callbacks if isinstance(c, Clock))  # type: ignore[attr-defined]
    limit = f" at the limit of {clock.limit:g} minutes" if trainer.global_step < trainer.max_steps else ""
    say(f"trained to step {trainer.global_step}{limit}: artifacts in {folder / 'checkpoints'}")


def _end_others(trainer: pl.Trainer) -> None:
    """Processes that this one launched would wait for it, or die with a traceback of their own."""
    for process in getattr(trainer.strategy.launcher, "procs", []):
        with contextlib.suppress(OSError):
            process.send_signal(signal.SIGKILL)

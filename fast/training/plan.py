"""A run before it starts: what recipes, flags and the run's folder say together."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fast.runtime.command import is_first_process
from fast.runtime.folders import held
from fast.runtime.options import TrainingOptions
from fast.runtime.terminal import is_utf8
from fast.training.config import LIGHTNING, check_config, merge, resolved
from fast.training.saver import LAST
from ldm.errors import UserError
from ldm.util import allow_targets

CONFIG = "config.yaml"


@dataclass(frozen=True)
class RunPlan:
    """A run before it starts: its folder, the resolved config, and the checkpoint it goes on from, if any."""

    folder: Path
    config: dict[str, Any]
    going_on: bool
    resume: Path | None
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """The lightning section, with defaults."""
        return {**LIGHTNING, **self.config["lightning"]}


def plan(options: TrainingOptions) -> RunPlan:
    """Merge recipes, flags and overrides. Raises `UserError` for what does not fit together."""
    allow_targets(*options.allow_target)
    given, going_on = options.resume, options.resume is not None
    resume = Path(options.logdir) / _run_name(options) / LAST if given is None else _resume_point(given)
    folder = resume.parent.parent
    recipes = [str(folder / CONFIG), *options.base] if going_on else options.base
    if not recipes:
        raise UserError("no recipe: give --base RECIPE (configs/) or -r RUN")
    config = resolved(merge(recipes, [*_flags(options), *options.overrides]))
    check_config(config)
    params = config["data"]["params"]
    seed = options.seed if options.seed is not None else params.get("seed", 23)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UserError(f"-s {seed}: a seed is a whole number from 0 to 4294967295")
    params["seed"] = seed
    if options.train and not going_on and is_first_process():
        _refuse_another_run(folder)
    return RunPlan(folder, config, going_on, resume if going_on and resume.is_file() else None, seed)


def _refuse_another_run(folder: Path) -> None:
    """A folder is free that is empty, or in which a run was stopped before its first checkpoint."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose another name with -n or another folder with -l")
    found = {name for name in held(folder) if not name.endswith(".part")}  # of a run that was killed as it wrote one
    if (folder / LAST).exists() or (CONFIG in found and any((folder / "checkpoints").glob("*.safetensors"))):
        raise UserError(f"{folder} holds another run; go on with -t -r {folder} or choose another name with -n")
    if found - {".lock"} and CONFIG not in found:
        raise UserError(f"{folder} holds other files; choose another name with -n")


def _run_name(options: TrainingOptions) -> str:
    if options.name:
        return options.name
    return Path(options.base[-1]).stem if options.base else "run"


def _resume_point(given: str) -> Path:
    """The checkpoint to go on from; it may be missing where a run was killed before it wrote one."""
    path = Path(given)
    if path.suffix == ".ckpt" and not path.is_file():
        raise UserError(f"-r {given}: there is no such checkpoint")
    path = path if path.suffix == ".ckpt" else path / LAST
    if not (path.parent.parent / CONFIG).is_file():
        raise UserError(f"-r {given}: {path.parent.parent / CONFIG} is missing; give the folder of a run, LOGDIR/NAME")
    return path


def _flags(options: TrainingOptions) -> list[str]:
    """Flags as overrides, so that there is one way for a value to reach the config."""
    pairs = {
        "data.params.path": options.data,
        "data.params.category": options.category,
        "data.params.anomaly": options.anomaly,
        "data.params.split": options.split,
        "model.params.ckpt_path": options.actual_resume,
        "model.params.init_word": options.init_word,
        "lightning.trainer.max_steps": options.max_steps,
        "lightning.minutes": options.max_minutes,
        "lightning.trainer.precision": options.precision,
    }
    given = {key: value for key, value in pairs.items() if value is not None}
    for key, value in given.items():
        if isinstance(value, str) and not is_utf8(value):
            raise UserError(
                f"{key}={value}: a run's config.yaml is UTF-8 and cannot hold this name; rename it, or give a symbolic "
                "link to it (ln -s) that has another name"
            )
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items()]

"""Recipes: YAML files, merged, with what the command line adds."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ldm.errors import UserError
from ldm.util import check_params, get_obj_from_str

SECTIONS = ("model", "data", "lightning")
LIGHTNING = {"trainer": {}, "checkpoint_every": 500, "images_every": 500, "keep_artifacts": 0, "tensorboard": True}
TRAINER = (
    "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val", "log_every_n_steps", "accelerator",
    "devices", "strategy", "num_nodes", "val_check_interval", "limit_val_batches", "enable_progress_bar", "benchmark",
    "deterministic",
)  # fmt: skip


def load_recipe(path: str | os.PathLike[str]) -> DictConfig:
    """One recipe; `include:` names recipes, relative to it, that it builds on."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--base {path} does not exist; recipes lie in configs/")
    try:
        config = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"--base {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, DictConfig):
        raise UserError(f"--base {path} is not a mapping of sections; see configs/ for examples")
    includes = config.pop("include", [])
    parts = [load_recipe(path.parent / name) for name in ([includes] if isinstance(includes, str) else includes)]
    return cast(DictConfig, OmegaConf.merge(*parts, config))


def merge(recipes: Sequence[str | os.PathLike[str]], overrides: Sequence[str] = ()) -> DictConfig:
    """Recipes in order, later ones winning, then `section.key=value` overrides."""
    for item in overrides:
        key, equals, _ = item.partition("=")
        if not equals or key.split(".")[0] not in SECTIONS:
            raise UserError(
                f"{item} is not understood; write an override as model.params.lr=1e-4 "
                f"(sections: {', '.join(SECTIONS)}) or see --help for flags"
            )
    try:
        config = OmegaConf.merge(*[load_recipe(r) for r in recipes], OmegaConf.from_dotlist(list(overrides)))
    except OmegaConfBaseException as error:
        raise UserError(f"recipes do not merge: {' '.join(str(error).split())}") from None
    return cast(DictConfig, config)


def resolved(config: DictConfig) -> dict[str, Any]:
    """The config as plain data, every interpolation done. Raises `UserError` for a section or key unknown here."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"config: {' '.join(str(error).split())}") from None
    assert isinstance(plain, dict)
    _known("section", plain, SECTIONS)
    lightning = plain.setdefault("lightning", {}) or {}
    _known("key in lightning:", lightning, tuple(LIGHTNING))
    _known("key in lightning.trainer:", lightning.get("trainer") or {}, TRAINER)
    if "model" not in plain:
        raise UserError("the recipe has no model: section; give a recipe from configs/ with --base")
    return cast(dict[str, Any], plain)


def _known(what: str, given: dict[Any, Any], known: Sequence[str]) -> None:
    unknown = sorted(str(k) for k in given if k not in known)
    if unknown:
        raise UserError(f"unknown config {what} {', '.join(unknown)}; known: {', '.join(known)}")


def check_targets(node: Any) -> None:
    """Every `target:` in a config exists and takes its params, nested ones included, before anything is built."""
    if isinstance(node, dict):
        if isinstance(node.get("target"), str):
            target = get_obj_from_str(node["target"])
            check_params(target, node.get("params") or {}, node["target"], complete=False)
        for value in node.values():
            check_targets(value)
    elif isinstance(node, list):
        for value in node:
            check_targets(value)

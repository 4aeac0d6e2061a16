"""Recipes: YAML files, merged, with what the command line adds."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType
from yaml import YAMLError

from fast.runtime.project import in_project
from ldm.errors import UserError
from ldm.util import check_params, check_target, check_values, get_obj_from_str

SECTIONS = ("model", "data", "lightning", "method")
LIGHTNING = {
    "trainer": {}, "checkpoint_every": 500, "images_every": 500, "keep_artifacts": 0, "tensorboard": True,
    "checkpointing": "auto", "minutes": None,
}  # fmt: skip
CHECKPOINTING = ("auto", "always", "never")  # see fast.training.memory
PRECISIONS = {
    "auto": "auto", "32": "32-true", "32-true": "32-true", "bf16": "bf16-mixed", "bf16-mixed": "bf16-mixed",
    "16-mixed": "16-mixed",
}  # fmt: skip
TRAINER = (
    "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val", "log_every_n_steps", "accelerator",
    "devices", "strategy", "num_nodes", "benchmark", "deterministic",
)  # fmt: skip


# What the readers of YAML and OmegaConf raise for content that makes no sense.
_UNREADABLE = (YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError, TypeError, ValueError)


def _reason(error: BaseException) -> str:
    """One line of at most 200 letters."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return " ".join(str(error).split())[:200]


@contextmanager
def no_resolvers() -> Iterator[None]:
    """OmegaConf without its resolvers: a recipe refers to its own keys, not to the environment (`${oc.env:...}`)."""
    resolvers = BaseContainer._resolvers
    kept = dict(resolvers)
    resolvers.clear()
    try:
        yield
    finally:
        resolvers.update(kept)


def plain(config: Any, what: str, **options: Any) -> Any:
    """A config as plain data, every `${key}` done. `what`: the name to complain about. Raises `UserError`, for any
    `${resolver:...}` too."""
    try:
        with no_resolvers():
            return OmegaConf.to_container(config, resolve=True, **options)
    except UnsupportedInterpolationType as error:
        raise UserError(
            f"{what}: {_reason(error)}; a recipe may refer to its own keys only, ${{section.key}}: write the value"
        ) from None
    except _UNREADABLE as error:
        raise UserError(f"{what}: {_reason(error)}") from None


def load_recipe(path: str | os.PathLike[str], within: tuple[Path, ...] = ()) -> DictConfig:
    """One recipe; `include:` names recipes, relative to it, that it builds on."""
    path = in_project(Path(path))
    if not path.is_file():
        by = f" (included by {within[-1]})" if within else ""
        raise UserError(f"--base {path}{by} does not exist; recipes lie in configs/")
    if path.resolve() in within:
        raise UserError(f"--base {path} includes itself; remove it from include:")
    try:
        config = OmegaConf.load(path)
    except OSError as error:
        if error.errno is not None:
            raise
        raise UserError(f"--base {path} is not a mapping of sections; see configs/ for examples") from None
    except _UNREADABLE as error:
        raise UserError(f"--base {path} is not valid YAML: {_reason(error)}") from None
    if not isinstance(config, DictConfig):
        raise UserError(f"--base {path} is not a mapping of sections; see configs/ for examples")
    includes = cast(dict[Any, Any], OmegaConf.to_container(config)).get("include", [])
    config.pop("include", None)
    includes = [includes] if isinstance(includes, str) else includes
    if not isinstance(includes, list) or not all(isinstance(name, str) for name in includes):
        raise UserError(f"--base {path}: include: {includes} must name recipes; write include: other.yaml, or a list")
    parts = [load_recipe(path.parent / name, (*within, path.resolve())) for name in includes]
    try:
        return _merged([*parts, config])
    except _UNREADABLE as error:
        raise UserError(f"--base {path} does not fit the recipes that it includes: {_reason(error)}") from None


def _merged(recipes: Sequence[DictConfig]) -> DictConfig:
    """Later ones win; one that names another class of data starts that section anew, for its params are its own."""
    whole = OmegaConf.create()
    for recipe in recipes:
        now, then = _data_of(whole), _data_of(recipe)
        if now and then and now != then:
            whole.pop("data")
        whole = cast(DictConfig, OmegaConf.merge(whole, recipe))
    return whole


def _data_of(recipe: DictConfig) -> Any:
    """The `target:` of a recipe's data, as it is written."""
    section = cast(dict[Any, Any], OmegaConf.to_container(recipe)).get("data")
    return section.get("target") if isinstance(section, dict) else None


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
        return _merged([*[load_recipe(r) for r in recipes], OmegaConf.from_dotlist(list(overrides))])
    except _UNREADABLE as error:
        raise UserError(f"recipes do not merge: {_reason(error)}") from None


def resolved(config: DictConfig) -> dict[str, Any]:
    """The config as plain data, every interpolation done, each section there. Raises `UserError` for unknown keys, and
    for a method that learns nothing."""
    whole = plain(config, "config", throw_on_missing=True)
    assert isinstance(whole, dict)
    _known("section", whole, SECTIONS)
    method = whole["method"] = _mapping("method", whole.get("method"))
    _known("key in method:", method, ("name", "params"))
    method["params"] = _mapping("method.params", method.get("params"))
    for name in ("model", "data"):
        section = whole.get(name)
        if section is None and name == "model" and method.get("name"):
            raise UserError(
                f"{method['name']} learns nothing: make pairs with generate_with_mask.py --method {method['name']}"
            )
        if not isinstance(section, dict) or "target" not in section:
            raise UserError(
                f"the recipe has no {name}: section with a target:; give a recipe from configs/ with --base"
            )
        section["params"] = _mapping(f"{name}.params", section.get("params"))
    lightning = whole["lightning"] = _mapping("lightning", whole.get("lightning"))
    lightning["trainer"] = _mapping("lightning.trainer", lightning.get("trainer"))
    _known("key in lightning:", lightning, tuple(LIGHTNING))
    _known("key in lightning.trainer:", lightning["trainer"], TRAINER)
    return cast(dict[str, Any], whole)


def _mapping(name: str, value: Any) -> dict[Any, Any]:
    if value is not None and not isinstance(value, dict):
        raise UserError(f"config {name}={value} must be a mapping of keys to values")
    return value or {}


def _known(what: str, given: dict[Any, Any], known: Sequence[str]) -> None:
    unknown = sorted(str(k)[:40] for k in given if k not in known)[:5]
    if unknown:
        raise UserError(f"unknown config {what} {', '.join(unknown)}; known: {', '.join(known)}")


def check_config(config: dict[str, Any]) -> None:
    """Everything in a resolved config that can be judged before anything is built."""
    for target in targets(config):  # all of them, before the first is imported
        check_target(target)
    for name in ("model", "data"):
        check_targets(config[name], name)
    lightning = config["lightning"]
    others = ("trainer", "tensorboard", "checkpointing", "minutes")
    counts = {f"lightning.{k}": v for k, v in lightning.items() if k not in others}
    minutes = lightning.get("minutes")
    if minutes is not None and not (isinstance(minutes, int | float) and not isinstance(minutes, bool) and minutes > 0):
        raise UserError(f"lightning.minutes={minutes} must be a number above 0, or nothing for no limit of time")
    if lightning.get("checkpointing", "auto") not in CHECKPOINTING:
        raise UserError(
            f"lightning.checkpointing={lightning['checkpointing']} is unknown; use {', '.join(CHECKPOINTING)}"
        )
    trainer = lightning["trainer"]
    if str(trainer.get("precision", "auto")) not in PRECISIONS:
        raise UserError(f"lightning.trainer.precision={trainer['precision']} is unknown; use {', '.join(PRECISIONS)}")
    if "max_steps" not in trainer:
        raise UserError("lightning.trainer.max_steps is not set; give --max_steps N")
    keys = [k for k in ("max_steps", "log_every_n_steps", "accumulate_grad_batches", "num_nodes") if k in trainer]
    counts |= {f"lightning.trainer.{k}": trainer[k] for k in keys}
    for name, value in counts.items():
        least = 0 if name.startswith(("lightning.images", "lightning.keep")) else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{name}={value} must be a whole number, {least} or more")
    for name, value in (
        ("lr", config["model"]["params"].get("lr")),
        ("base", config["model"].get("base_learning_rate")),
    ):
        if value is not None and not (isinstance(value, (int, float)) and 0 < value < math.inf):
            key = "params.lr" if name == "lr" else "base_learning_rate"
            raise UserError(f"model.{key}={value} must be a number above 0")


def targets(node: Any) -> Iterator[Any]:
    """Every `target:` of a config, nested ones included."""
    if isinstance(node, dict) and "target" in node:
        yield node["target"]
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from targets(child)


def check_targets(node: Any, name: str = "config") -> None:
    """Every `target:` exists and takes its params, nested ones included, each of its type."""
    if isinstance(node, dict):
        if "target" in node:
            target, params = get_obj_from_str(node["target"]), _mapping(f"{name}.params", node.get("params"))
            check_params(target, params, node["target"], complete=False)
            check_values(target, params, f"{name}.params")
        for key, value in node.items():
            check_targets(value, f"{name}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_targets(value, f"{name}[{i}]")

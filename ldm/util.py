"""Objects from `target:` / `params:` configs."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ldm.errors import UserError

KINDS: dict[Any, str] = {
    int: "int", float: "float", str: "str", bool: "bool", type(None): "nothing", Sequence[float]: "a list of numbers",
}  # fmt: skip


def get_obj_from_str(path: str) -> Any:
    """Return what a dotted path such as `ldm.models.autoencoder.AutoencoderKL` names. Raises `UserError`."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise UserError(f"target: {path} is not a dotted path; write package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that exists but fails on an import of its own is a bug, not bad input.
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise
        raise UserError(f"target: {path} does not exist (no module {error.name}); check the spelling") from None
    if not hasattr(module, name):
        raise UserError(f"target: {path} does not exist ({module_name} has no {name}); check the spelling")
    return getattr(module, name)


def instantiate_from_config(config: Mapping[str, Any], **extra: Any) -> Any:
    """Build `target(**params, **extra)`. An unknown or missing parameter is a `UserError` that names it."""
    if "target" not in config:
        raise UserError(f"config section with keys {sorted(config)} has no target:")
    unknown = sorted(set(config) - {"target", "params", "base_learning_rate"})
    if unknown:
        raise UserError(f"unknown config key {', '.join(unknown)} beside target: {config['target']}")
    target = get_obj_from_str(config["target"])
    params = dict(config.get("params") or {})
    params.update(extra)
    check_params(target, params, config["target"])
    return target(**params)


def check_params(target: Any, params: Mapping[str, Any], name: str, complete: bool = True) -> None:
    """Raise `UserError` when `target` does not take one of `params` or, if `complete`, misses one it needs."""
    parameters = _parameters(target)
    if parameters is None:
        return
    unknown = sorted(set(params) - set(parameters))
    if unknown:
        raise UserError(f"unknown config key {', '.join(unknown)} for {name}; it takes: {', '.join(parameters)}")
    if not complete:
        return
    required = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    missing = [p for p in required if p not in params]
    if missing:
        raise UserError(f"{name} needs the config key {', '.join(missing)}")


def check_values(target: Any, params: Mapping[str, Any], name: str) -> None:
    """Raise `UserError` for a number, word, switch or list of numbers in `params` that is not what the signature of
    `target` says. Other kinds of parameters are not looked at."""
    hints: dict[str, Any] = {}
    for owner in reversed(target.__mro__ if inspect.isclass(target) else [target]):
        with suppress(NameError, TypeError, KeyError):
            hints |= get_type_hints(vars(owner)["__init__"] if inspect.isclass(target) else owner)
    for key, value in params.items():
        hint = hints.get(key)
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if not all(kind in KINDS for kind in kinds):
            continue
        if not any(_is_a(value, kind) for kind in kinds):
            wanted = " or ".join(KINDS[kind] for kind in kinds)
            raise UserError(f"{name}.{key}={value} must be of type {wanted}")


def _is_a(value: Any, kind: Any) -> bool:
    if kind == Sequence[float]:
        return isinstance(value, list | tuple) and all(_is_a(v, float) for v in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def not_offered(**options: Any) -> None:
    """Raise `UserError` for an option that is set. Published configs name it, at the value that asks for nothing."""
    for name, value in options.items():
        if value:
            raise UserError(f"{name}={value} is not offered; leave the key out")


def _parameters(target: Any) -> dict[str, inspect.Parameter] | None:
    """Named parameters of a callable; a class whose **kwargs go to its parent has the parent's too. None: takes all."""
    found: dict[str, inspect.Parameter] = {}
    for owner in target.__mro__ if inspect.isclass(target) else [target]:
        if inspect.isclass(target) and "__init__" not in vars(owner):
            continue
        own = inspect.signature(owner).parameters
        open_ended = any(p.kind == p.VAR_KEYWORD for p in own.values())
        for name, p in own.items():
            if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
                found.setdefault(name, p)
        if not open_ended:
            return found
    return None

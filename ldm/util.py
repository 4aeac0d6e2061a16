"""Objects from `target:` / `params:` configs."""

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ldm.errors import UserError

KINDS: dict[Any, str] = {
    int: "int", float: "float", str: "str", bool: "bool", type(None): "nothing", Sequence[float]: "a list of numbers",
}  # fmt: skip


# A config is data, not a program: what it may name are networks, losses, data and schedules of these packages.
PACKAGES = ("fast", "ldm", "taming", "torch", "transformers")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_BASES = (
    ("torch.nn.modules.module", "Module"), ("torch.utils.data.dataset", "Dataset"),
    ("torch.optim.optimizer", "Optimizer"), ("torch.optim.lr_scheduler", "LRScheduler"),
    ("pytorch_lightning.core.datamodule", "LightningDataModule"),
)  # fmt: skip
_SCHEDULES = "ldm.lr_scheduler"
_allowed: list[str] = []


def allow_targets(*prefixes: str) -> None:
    """Let configs name what lies under these dotted prefixes, in this process, beside `PACKAGES`.

    Whatever they name there is imported and called. Raises `UserError` for a prefix that is no dotted name.
    """
    for prefix in prefixes:
        name = prefix.rstrip(".")
        if not _NAME.fullmatch(f"{name}.x"):
            raise UserError(f"--allow-target {prefix} is no package; write package or package.module")
        _allowed.append(name)


def check_target(path: object) -> str:
    """`path` if a config may name it, decided by the name alone: nothing is imported. Raises `UserError`."""
    if not isinstance(path, str) or not _NAME.fullmatch(path):
        raise UserError(f"target: {str(path)[:80]} is not a dotted path; write package.module.Class")
    if any(part.startswith("__") for part in path.split(".")):
        raise UserError(f"target: {path} is no class; write package.module.Class")
    package = path.split(".")[0]
    if package not in PACKAGES and not _is_allowed(path):
        if find_spec(package) is None:  # looks for it, imports nothing
            raise UserError(f"target: {path} does not exist (no module {package}); check the spelling")
        raise UserError(
            f"target: {path} lies outside {', '.join(PACKAGES)} and was not loaded; "
            f"if you trust it, add --allow-target {path.rpartition('.')[0]}"
        )
    return path


def _is_allowed(path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in _allowed)


def get_obj_from_str(path: str) -> Any:
    """Return the class that a dotted path such as `ldm.models.autoencoder.AutoencoderKL` names.

    It is a network, a loss, data, an optimizer or a schedule of `PACKAGES`, or what lies under a prefix of
    `allow_targets`. Raises `UserError`.
    """
    module_name, _, name = check_target(path).rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that exists but fails on an import of its own is a bug, not bad input.
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise
        raise UserError(f"target: {path} does not exist (no module {error.name}); check the spelling") from None
    if not hasattr(module, name):
        raise UserError(f"target: {path} does not exist ({module_name} has no {name}); check the spelling")
    found = getattr(module, name)
    if not _is_allowed(path) and not _is_part(found):
        raise UserError(
            f"target: {path} is no network, loss, data or schedule of {', '.join(PACKAGES)} and was not loaded; "
            "name one that is"
        )
    return found


def _is_part(found: Any) -> bool:
    """Whether an object is a class that a config may build, itself of `PACKAGES` and not one that they import."""
    if not inspect.isclass(found) or found.__module__.split(".")[0] not in PACKAGES:
        return False
    bases = {(base.__module__, base.__name__) for base in found.__mro__}
    return found.__module__ == _SCHEDULES or any(base in bases for base in _BASES)


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

"""Objects from `target:` / `params:` configs."""

import importlib
from collections.abc import Mapping
from typing import Any

from ldm.errors import UserError


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


def check_params(target: Any, params: Mapping[str, Any], name: str) -> None:
    """Raise `UserError` when `target` does not take one of `params` or misses one it needs."""
    import inspect

    signature = inspect.signature(target)
    kinds = {p.kind for p in signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        unknown = sorted(set(params) - set(signature.parameters))
        if unknown:
            known = ", ".join(p for p in signature.parameters if p != "self")
            raise UserError(f"unknown config key {', '.join(unknown)} for {name}; it takes: {known}")
    required = [
        p.name
        for p in signature.parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    missing = [p for p in required if p not in params]
    if missing:
        raise UserError(f"{name} needs the config key {', '.join(missing)}")

"""Options declared once: fields of a dataclass that carry their help and limits, and the flags made from them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ldm.errors import UserError

Function = TypeVar("Function", bound=Callable[..., Any])


def option(
    default: Any, help: str | None, *flags: str, least: int | None = None, most: int | None = None, **extra: Any
) -> Any:
    """A field of a dataclass of options.

    Args:
        default: its value when nobody gives one; `MISSING` for one that must be given.
        help: the flag's help; None for an argument of Python alone.
        flags: what the command line calls it, the name for messages last (default: `--` and the field's name).
        least, most: limits of a number, see `check_limits`.
        extra: for `argparse.add_argument`, such as `choices`, `metavar` or `nargs`.
    """
    metadata = {"help": help, "flags": flags, "least": least, "most": most, "extra": extra}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def flag_of(cls: Any, name: str) -> str:
    """What the command line calls a field."""
    return _flags(_field(cls, name))[-1]


def add_flags(parser: argparse._ActionsContainer, cls: Any, names: Iterable[str], **extra: Mapping[str, Any]) -> None:
    """The flags of some fields of a dataclass, in this order. A switch that is on by default is turned off by its.
    `extra`: by field, what `argparse.add_argument` is told beside, such as choices that lower layers do not know."""
    hints = get_type_hints(cls)
    for name in names:
        own = _field(cls, name)
        argument = _argument(own, hints[name], extra.get(name, {}))
        parser.add_argument(*_flags(own), dest=name, help=own.metadata["help"], **argument)


def flagged(cls: Any) -> list[str]:
    """The fields of a dataclass that the command line knows."""
    return [f.name for f in fields(cls) if f.metadata.get("help") is not None or f.metadata.get("flags")]


def given(options: Any, cls: Any | None = None) -> dict[str, Any]:
    """The values of a dataclass, or of those fields that it has of its parent `cls`, that are not the default."""
    whole = {f.name: getattr(options, f.name) for f in fields(cls or options)}
    return {name: value for name, value in whole.items() if value != default_of(_field(options, name))}


def as_flags(options: Any) -> list[str]:
    """The command line that means these options: a flag for each value that is not the default."""
    line: list[str] = []
    names = flagged(options)
    for name, value in given(options).items():
        if name not in names:
            continue
        flag = flag_of(options, name)
        if isinstance(value, bool):
            line.append(flag)
        elif isinstance(value, list | tuple):
            line += [flag, *map(str, value)]
        else:
            line.append(f"{flag}={value}")
    return line


def check_limits(options: Any) -> None:
    """Raise `UserError` for the first number of a dataclass of options that lies outside its limits."""
    for own in fields(options):
        value, least, most = getattr(options, own.name), own.metadata.get("least"), own.metadata.get("most")
        if value is None or least is None:
            continue
        if value < least:
            says = "must not be negative" if least == 0 else f"must be at least {least}"
            raise UserError(f"{_flags(own)[-1]} {value} {says}")
        if most is not None and value > most:
            raise UserError(f"{_flags(own)[-1]} {value} is larger than any picture; give at most {most} pixels")


def takes(cls: Any) -> Callable[[Function], Function]:
    """Gives a function that ends in `**options` the fields of a dataclass as arguments, with their types and defaults:
    what `help` shows and what checks of names and values go by."""

    def decorate(function: Function) -> Function:
        own, hints = signature(function), get_type_hints(cls)
        *first, rest = own.parameters.values()
        added = [
            Parameter(f.name, Parameter.KEYWORD_ONLY, default=default_of(f), annotation=hints[f.name])
            for f in fields(cls)
        ]
        function.__annotations__ = {**{p.name: p.annotation for p in added}, **function.__annotations__}
        function.__signature__ = own.replace(parameters=[*first, *added, rest])  # type: ignore[attr-defined]
        return function

    return decorate


def default_of(own: Field[Any]) -> Any:
    """A field's default; `Parameter.empty` for one that must be given."""
    if own.default_factory is not MISSING:
        return own.default_factory()
    return Parameter.empty if own.default is MISSING else own.default


def _field(cls: Any, name: str) -> Field[Any]:
    return next(f for f in fields(cls) if f.name == name)


def _flags(own: Field[Any]) -> tuple[str, ...]:
    return own.metadata.get("flags") or (f"--{own.name}",)


def _argument(own: Field[Any], hint: Any, more: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `add_argument` is told of a field beside its name and help."""
    extra = {**own.metadata["extra"], **more}
    if own.default is MISSING and own.default_factory is MISSING:
        extra["required"] = True
    else:
        extra["default"] = default_of(own)
    kind = _kind(hint)
    if kind is bool and "nargs" not in extra:
        return {**extra, "action": "store_false" if own.default else "store_true"}
    if "choices" not in extra:
        extra.setdefault("metavar", _flags(own)[-1].lstrip("-").upper())
    return extra if kind is str else {"type": kind, **extra}


def _kind(hint: Any) -> Any:
    """The type that a flag's text is turned into: `int` for `int | None`, `str` for a path or a list of words."""
    parts = [part for part in get_args(hint) if part is not NoneType] if get_origin(hint) is UnionType else [hint]
    return parts[0] if parts[0] in (int, float, bool) else str

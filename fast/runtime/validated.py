"""Options from plain values, checked by pydantic: an error is one line that names the key, its value and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar, cast, get_args, get_type_hints

from annotated_types import Ge, Gt, Lt
from pydantic import AfterValidator, Strict, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from ldm.errors import UserError

T = TypeVar("T")
STRICT = {"extra": "forbid"}  # as `__pydantic_config__` of a dataclass: a key that it lacks is an error

# A whole number stays one where a fraction may stand: keys of finished work hold it as it was written.
Number: TypeAlias = Annotated[float, Strict()] | Annotated[int, Strict()]
Whole: TypeAlias = Annotated[int, Strict()]
Switch: TypeAlias = Annotated[bool, Strict()]
FromZero: TypeAlias = Annotated[Whole, Ge(0)]
FromOne: TypeAlias = Annotated[Whole, Ge(1)]
Positive: TypeAlias = Annotated[Number, Gt(0), Lt(float("inf"))]
Share: TypeAlias = Annotated[Number, Gt(0), Lt(1)]
ShareOrZero: TypeAlias = Annotated[Number, Ge(0), Lt(1)]

SAID = {
    "missing": "is missing; give it a value",
    "dataclass_type": "must be a section of key: value",
    "tuple_type": "must be a list",
    "too_short": "is empty; give one or more",
    "string_type": "must be a word; put it in quotes",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "greater_than_equal": "must be {ge:g} or more",
    "greater_than": "must be above {gt:g}",
    "less_than": "must be below {lt:g}",
}


def one_of(*names: str) -> AfterValidator:
    """A word that is one of `names`."""

    def known(word: str) -> str:
        if word not in names:
            raise PydanticCustomError("one_of", "must be one of {names}", {"names": ", ".join(names)})
        return word

    return AfterValidator(known)


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        twice = max(values, key=values.count)
        raise PydanticCustomError("twice", "has {twice} twice; give each once", {"twice": repr(twice)})
    return values


EACH_ONCE = AfterValidator(_each_once)


def validated(cls: type[T], values: Any, where: str) -> T:
    """A dataclass, its sections and lists from plain values. Raises `UserError` that begins with `where`."""
    try:
        values = dict(values) if isinstance(values, Mapping) else values
        return cast(T, _adapter(cls).validate_python(values))  # type: ignore[arg-type]
    except ValidationError as error:
        raise UserError(f"{where}: {_said(cls, error.errors(include_url=False)[0])}") from None


@cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _said(cls: type[Any], error: Mapping[str, Any]) -> str:
    path = ""
    for name in error["loc"]:
        if isinstance(name, int):
            path += f"[{name}]"
        elif cls is not None and name in (hints := get_type_hints(cls, include_extras=True)):
            path, cls = f"{path}.{name}".lstrip("."), _dataclass_in(hints[name]) or cls
        elif error["type"] == "unexpected_keyword_argument":
            known = ", ".join(field.name for field in fields(cls))
            return f"{path}.{name} is unknown; it takes: {known}".lstrip(".")
        else:  # which of several kinds of value was tried
            break
    kind = error["type"]
    said = SAID[kind].format(**error.get("ctx", {})) if kind in SAID else error["msg"].replace("Input should", "must")
    value = f"{path}={error['input']!r}" if path else repr(error["input"])
    return f"{value} {said}" if said.startswith("must") else f"{path} {said}"


def _dataclass_in(hint: Any) -> Any:
    """The dataclass that a hint such as `tuple[Entry, ...]` or `Start | None` speaks of, if any."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next(filter(None, map(_dataclass_in, get_args(hint))), None)

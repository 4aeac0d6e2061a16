"""What was computed last, kept while it fits in memory."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Array(Protocol):
    """A tensor or an array of numpy."""

    @property
    def nbytes(self) -> int: ...


Value = TypeVar("Value", bound=Array)


class Recent(Generic[Value]):
    """The last values by their keys, `most` bytes of them; the oldest go first. Safe to use from several threads."""

    def __init__(self, most: int):
        self.most = most
        self._kept: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = Lock()

    def all_of(self, keys: Sequence[Hashable]) -> list[Value] | None:
        """The values of all these keys; None where one is missing."""
        found = [self._kept.get(key) for key in keys]
        return None if any(value is None for value in found) else found  # type: ignore[return-value]

    def keep(self, keys: Sequence[Hashable], values: Sequence[Value]) -> None:
        """Keep values under their keys; those whose key is None are not kept."""
        with self._lock:
            self._kept.update({key: value for key, value in zip(keys, values, strict=True) if key is not None})
            while sum(value.nbytes for value in self._kept.values()) > self.most:
                self._kept.popitem(last=False)

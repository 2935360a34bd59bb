"""What a read gives back, and how its siblings become one value."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, cast

from typing_extensions import TypeVar

from kvstore.client.guidance import missing
from kvstore.errors import KVError
from kvstore.protocol.client import Explain, Stored

__all__ = [
    "D",
    "Explain",
    "K",
    "Key",
    "Resolver",
    "Result",
    "Sibling",
    "Stored",
    "UndecodableValue",
    "UnresolvedSiblings",
    "V",
]

Key = str | bytes
"""Text means its UTF-8 bytes: `"a"` and `b"a"` are one key."""

K = TypeVar("K", bound=Key)

V = TypeVar("V", default=bytes)
"""What the values of a bucket are: bytes, unless it has a serializer."""

D = TypeVar("D", default=None)
"""What stands for a value where there is none."""


class UndecodableValue(KVError):
    """What is stored under `key` in `bucket` is none of the values of the bucket's serializer.

    `stored` has its bytes. The read that met it has the context with which a `put` replaces it.
    """

    def __init__(self, bucket: str, key: bytes, stored: bytes, reason: str) -> None:
        super().__init__(
            f"key {key!r} of bucket {bucket!r} holds what the serializer cannot decode: {reason}"
        )
        self.bucket = bucket
        self.key = key
        self.stored = stored
        self.reason = reason


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Sibling(Generic[V]):
    """One of the concurrent values of a key; times are in milliseconds since 1970, expiry 0: never."""

    _value: V
    content_type: str
    time: int
    expiry: int
    _problem: UndecodableValue | None

    def __init__(
        self,
        value: V,
        content_type: str = "",
        time: int = 0,
        expiry: int = 0,
        problem: UndecodableValue | None = None,
    ) -> None:
        assign = object.__setattr__
        assign(self, "_value", value)
        assign(self, "content_type", content_type)
        assign(self, "time", time)
        assign(self, "expiry", expiry)
        assign(self, "_problem", problem)

    @property
    def value(self) -> V:
        """The value, decoded; raises UndecodableValue when it cannot be."""
        if self._problem is not None:
            raise self._problem.with_traceback(None)
        return self._value

    def __repr__(self) -> str:
        shown = self._value if self._problem is None else self._problem
        fields = f"content_type={self.content_type!r}, time={self.time}, expiry={self.expiry}"
        return f"Sibling({shown!r}, {fields})"


Resolver: TypeAlias = Callable[[tuple[Sibling[V], ...]], V | None]
"""Makes one value of several siblings; None means that the key should have no value.

It must keep what each sibling has to say, give the same for any order, and not do I/O.
"""


@dataclass(frozen=True, slots=True)
class Result(Generic[V, D]):
    """One key as it was read. True when the key has a value.

    `siblings` are its concurrent values, usually one; `context` is opaque: a write that passes it
    back replaces exactly these siblings. `explain` is there when the read asked for it.
    """

    key: bytes
    siblings: tuple[Sibling[V], ...]
    context: bytes
    explain: Explain | None = None
    resolver: Resolver[V] | None = field(default=None, repr=False, compare=False)
    default: D | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without its resolver, which is a function and perhaps of one process only."""
        return Result, (self.key, self.siblings, self.context, self.explain, None, self.default)

    def __copy__(self) -> Self:
        return self  # it never changes

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return replace(self, siblings=deepcopy(self.siblings, memo))  # decoded values may change

    if not TYPE_CHECKING:
        __getattr__ = missing

    @property
    def exists(self) -> bool:
        """Whether the key has a value."""
        return bool(self.siblings)

    def __bool__(self) -> bool:
        return bool(self.siblings)

    @property
    def value(self) -> V | D:
        """The value; when there is none, the `default` of the read, which is None if none was given.

        Of several siblings the resolver makes one; without a resolver raises UnresolvedSiblings. Raises
        UndecodableValue for what the bucket's serializer does not understand.
        """
        if not self.siblings:
            return cast(D, self.default)
        if len(self.siblings) == 1:
            return self.siblings[0].value
        if self.resolver is None:
            raise UnresolvedSiblings(self)
        resolved = self.resolver(self.siblings)
        return cast(D, self.default) if resolved is None else resolved


class UnresolvedSiblings(KVError):
    """A key has several concurrent values and nothing says how to make one of them.

    `result` is the read: its `.siblings` are the values, its `.context` lets a write replace them.
    """

    def __init__(self, result: Result[Any, Any]) -> None:
        count = len(result.siblings)
        super().__init__(
            f"key {result.key!r} has {count} concurrent values: look at .siblings, or pass resolver="
        )
        self.result = result

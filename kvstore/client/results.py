"""What a read gives back, and how its siblings become one value."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, cast

import msgspec
from msgspec.structs import replace
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


class Sibling(msgspec.Struct, Generic[V], frozen=True):
    """One of the concurrent values of a key; times are in milliseconds since 1970, expiry 0: never.

    To look at the `value` of one that the bucket's serializer does not understand raises UndecodableValue.
    """

    value: V
    content_type: str = ""
    time: int = 0
    expiry: int = 0

    def __repr__(self) -> str:
        return self._shown(self.value)

    def _shown(self, value: object) -> str:
        fields = f"content_type={self.content_type!r}, time={self.time}, expiry={self.expiry}"
        return f"Sibling({value!r}, {fields})"


class Undecodable(Sibling[Any], frozen=True, kw_only=True):
    """A sibling without a value that its bucket's program understands."""

    problem: UndecodableValue

    @property  # type: ignore[misc]  # in place of the field: to look at it raises
    def value(self) -> Any:
        """There is none; raises the `problem`."""
        raise self.problem.with_traceback(None)

    def __repr__(self) -> str:
        return self._shown(self.problem)


Resolver: TypeAlias = Callable[[tuple[Sibling[V], ...]], V | None]
"""Makes one value of several siblings; None means that the key should have no value.

It must keep what each sibling has to say, give the same for any order, and not do I/O.
"""


class Result(msgspec.Struct, Generic[V, D], frozen=True):
    """One key as it was read. True when the key has a value.

    `siblings` are its concurrent values, usually one; `context` is opaque: a write that passes it
    back replaces exactly these siblings. `explain` is there when the read asked for it.
    """

    key: bytes
    siblings: tuple[Sibling[V], ...]
    context: bytes
    explain: Explain | None = None
    resolver: Resolver[V] | None = None
    default: D | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without its resolver, which is a function and perhaps of one process only."""
        return Result, (self.key, self.siblings, self.context, self.explain, None, self.default)

    def __eq__(self, other: object) -> bool:
        return self.__reduce__() == other.__reduce__() if isinstance(other, Result) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.__reduce__())

    def __repr__(self) -> str:
        known = f"key={self.key!r}, siblings={self.siblings!r}, context={self.context!r}"
        return f"Result({known}, explain={self.explain!r})"

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
            f"key {result.key!r} has {count} concurrent values: look at .siblings, or pass resolver=; "
            "a put after this read replaces them"
        )
        self.result = result

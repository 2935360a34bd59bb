"""What a read gives back, and how its siblings become one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from kvstore.errors import KVError
from kvstore.protocol.client import Explain, Stored
from kvstore.protocol.client import Value as Sibling

__all__ = ["Explain", "K", "Key", "Resolver", "Result", "Sibling", "Stored", "UnresolvedSiblings"]

Key = str | bytes
"""Text means its UTF-8 bytes: `"a"` and `b"a"` are one key."""

K = TypeVar("K", bound=Key)

Resolver = Callable[[tuple[Sibling, ...]], bytes | None]
"""Makes one value of several siblings; None means that the key should have no value.

It must keep what each sibling has to say, give the same for any order, and not do I/O.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """One key as it was read. True when the key has a value.

    `siblings` are its concurrent values, usually one; `context` is opaque: a write that passes it
    back replaces exactly these siblings. `explain` is there when the read asked for it.
    """

    key: bytes
    siblings: tuple[Sibling, ...]
    context: bytes
    explain: Explain | None = None
    resolver: Resolver | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without its resolver, which is a function and perhaps of one process only."""
        return Result, (self.key, self.siblings, self.context, self.explain)

    def __copy__(self) -> Self:
        return self  # it never changes

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self

    @property
    def exists(self) -> bool:
        """Whether the key has a value."""
        return bool(self.siblings)

    def __bool__(self) -> bool:
        return bool(self.siblings)

    @property
    def value(self) -> bytes | None:
        """The value, None when there is none.

        Of several siblings the resolver makes one; without a resolver raises UnresolvedSiblings.
        """
        if len(self.siblings) <= 1:
            return self.siblings[0].value if self.siblings else None
        if self.resolver is None:
            raise UnresolvedSiblings(self)
        return self.resolver(self.siblings)


class UnresolvedSiblings(KVError):
    """A key has several concurrent values and nothing says how to make one of them.

    `result` is the read: its `.siblings` are the values, its `.context` lets a write replace them.
    """

    def __init__(self, result: Result) -> None:
        count = len(result.siblings)
        super().__init__(
            f"key {result.key!r} has {count} concurrent values: look at .siblings, or pass resolver="
        )
        self.result = result

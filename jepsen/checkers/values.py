"""Values and functions of operations, in the forms in which the checkers compare them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from jepsen.history import Operation

READS = frozenset({"read", "get"})
WRITES = frozenset({"write", "put", "add", "append"})
DELETES = frozenset({"delete"})


def freeze(value: Any) -> Hashable:
    """A JSON value as something that can be a member of a set: lists become tuples, dicts sorted pairs."""
    if isinstance(value, (list, tuple)):
        return tuple(map(freeze, value))
    if isinstance(value, dict):
        return tuple(sorted((key, freeze(item)) for key, item in value.items()))
    if isinstance(value, (set, frozenset)):
        return frozenset(map(freeze, value))
    return value  # type: ignore[no-any-return]  # a scalar


def seen_values(value: Any) -> tuple[Hashable, ...]:
    """What a read returned: a list of siblings or elements, one value, or None for nothing."""
    if value is None:
        return ()
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(map(freeze, value))
    return (freeze(value),)


def described(operation: Operation) -> str:
    """An operation for people: `read of x by process 3 = [1, 2]`."""
    invocation, completion = operation
    key = "" if invocation.key is None else f" of {invocation.key}"
    value = invocation.value if completion is None or completion.type != "ok" else completion.value
    return f"{invocation.f}{key} by process {invocation.process} = {shown(value)}"


def shown(value: Any) -> str:
    """A value for people, at most 80 characters."""
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."

"""Several keys at once: requests in, and results or a PartialFailure out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from kvstore.client.errors import PartialFailure
from kvstore.client.requests import key_bytes
from kvstore.client.results import K, Result, Stored, V
from kvstore.errors import InvalidRequest, KVError

R = TypeVar("R", Result[Any], Stored)
T = TypeVar("T")

Items: TypeAlias = Mapping[K, V | str] | Iterable[tuple[K, V | str]]
"""Keys and values: a mapping, or pairs."""


def several(keys: Iterable[K]) -> list[K]:
    """Each of the keys once; raises InvalidRequest for one text, whose letters are hardly meant."""
    if isinstance(keys, str | bytes):
        raise InvalidRequest("keys", f"{keys!r} is one key: pass a list of keys")
    listed = list(iterated("keys", keys))
    for key in listed:
        if not isinstance(key, str | bytes):
            raise InvalidRequest("key", f"must be str or bytes, not {type(key).__name__}")
    return list(dict.fromkeys(listed))


def iterated(field: str, given: Iterable[T]) -> Iterable[T]:
    """What can be iterated over; raises InvalidRequest."""
    if not isinstance(given, Iterable):
        raise InvalidRequest(field, f"must be several, not one {type(given).__name__}")
    return given


def by_name(contexts: Mapping[K, bytes] | None) -> Mapping[K, bytes]:
    """The contexts of keys; raises InvalidRequest."""
    if contexts is None:
        return {}
    if not isinstance(contexts, Mapping):
        raise InvalidRequest("contexts", f"must be by key, in a mapping, not {type(contexts).__name__}")
    return contexts


def pairs(items: Items[K, V]) -> list[tuple[K, V | str]]:
    """The pairs of `items`; raises InvalidRequest if a key is there twice, since one would hide the other.

    And for a text, which has neither keys nor values.
    """
    if isinstance(items, str | bytes):
        raise InvalidRequest("items", f"{items!r} is one text: pass a mapping or pairs of keys and values")
    listed = list(items.items() if isinstance(items, Mapping) else map(_pair, iterated("items", items)))
    seen: set[bytes] = set()
    for key, _ in listed:
        encoded = key_bytes(key)
        if encoded in seen:
            raise InvalidRequest("key", f"{key!r} is given twice")
        seen.add(encoded)
    return listed


def _pair(item: object) -> tuple[Any, Any]:
    if not isinstance(item, Sequence) or isinstance(item, str | bytes) or len(item) != 2:
        raise InvalidRequest("items", f"{item!r} is no pair of a key and a value")
    return item[0], item[1]


def by_key(keys: Sequence[K], outcomes: Iterable[R | KVError]) -> dict[K, R]:
    """What became of each key; raises PartialFailure unless all went well."""
    succeeded: dict[K, R] = {}
    failed: dict[K, KVError] = {}
    for key, outcome in zip(keys, outcomes, strict=True):
        if isinstance(outcome, KVError):
            failed[key] = outcome
        else:
            succeeded[key] = outcome
    if failed:
        raise PartialFailure(succeeded, failed)
    return succeeded

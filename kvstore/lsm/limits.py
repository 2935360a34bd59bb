"""What the engine takes: checked once, before anything of a batch is logged or applied.

What the log's encoder cannot write, or no reader can read again, must not get as far as the log: there it
would make all that follows it unreadable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Entries = tuple[tuple[bytes, bytes | None], ...]


def checked_batch(batch: Iterable[Any]) -> Entries:
    """The entries of a batch, in a form that its caller cannot change any more.

    Keys and values must be of the type `bytes` itself, which alone the log's encoder takes as such; a value
    may be None. Raises TypeError.
    """
    entries = tuple(batch)
    for entry in entries:
        if type(entry) is not tuple:
            return checked_batch(map(_pair, entries))
        if len(entry) != 2:
            raise TypeError(f"an entry of a batch must be a key and a value, not {len(entry)} objects")
        key, value = entry
        if type(key) is not bytes:
            raise TypeError(f"a key must be bytes, not {type(key).__name__}")
        if type(value) is not bytes and value is not None:
            raise TypeError(f"a value must be bytes or None, not {type(value).__name__}")
    return entries


def _pair(entry: object) -> tuple[object, ...]:
    if not isinstance(entry, tuple | list):
        raise TypeError(f"an entry of a batch must be a (key, value) tuple, not {type(entry).__name__}")
    return tuple(entry)


def check_key(key: object) -> None:
    """Raises TypeError unless it is bytes: any other key would merely not be found."""
    if not isinstance(key, bytes):
        raise TypeError(f"a key must be bytes, not {type(key).__name__}")


def check_range(start: object, end: object) -> None:
    """Raises TypeError unless both are keys; `end` may be None."""
    check_key(start)
    if end is not None:
        check_key(end)

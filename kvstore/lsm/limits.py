"""What the engine takes: checked once, before anything of a batch is logged or applied.

What the log's encoder cannot write, or no reader can read again, must not get as far as the log: there it
would make all that follows it unreadable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kvstore.config import KIB, MIB
from kvstore.errors import InvalidRequest

KEY_BYTES = 64 * KIB
"""The longest key. The index has a key of each block, and the manifest two of each table."""

MOST_VALUE_BYTES = 256 * MIB
"""The most that `Options.value_bytes` may be: a block with it is far below 2 GiB, which lz4 takes."""

BATCH_BYTES = MOST_MEMTABLE_BYTES = 1024 * MIB
"""A record of the log, whose length is a number of 32 bits, has what a memtable may and a batch more."""

MOST_BLOCK_BYTES = 1 * MIB
MOST_MANIFEST_BYTES = 1024 * MIB

_ENTRY_BYTES = 16
"""What an entry takes at most beside its key and value: 11 bytes in the log, 12 in a block."""

Entries = tuple[tuple[bytes, bytes | None], ...]


def checked_batch(batch: Iterable[Any], value_bytes: int) -> tuple[Entries, int]:
    """The entries of a batch, in a form that its caller cannot change any more, and their bytes in the log.

    Keys and values must be of the type `bytes` itself, which alone the log's encoder takes as such; a value
    may be None. Raises TypeError, InvalidRequest for a key, a value or a batch that is too large.
    """
    entries = tuple(batch)
    size = _ENTRY_BYTES * len(entries)
    for entry in entries:
        if type(entry) is not tuple:
            return checked_batch(map(_pair, entries), value_bytes)
        if len(entry) != 2:
            raise TypeError(f"an entry of a batch must be a key and a value, not {len(entry)} objects")
        key, value = entry
        if type(key) is not bytes:
            raise TypeError(f"a key must be bytes, not {type(key).__name__}")
        size += len(key)
        if type(value) is bytes:
            size += len(value)
        elif value is not None:
            raise TypeError(f"a value must be bytes or None, not {type(value).__name__}")
    if size > KEY_BYTES or size > value_bytes:  # else nothing in it can be too large
        _check_sizes(entries, size, value_bytes)
    return entries, size


def batch_bytes(batch: Iterable[tuple[bytes, bytes | None]]) -> int:
    """What `checked_batch` says of a batch that need not be checked, as it was read."""
    return sum(len(key) + len(value or b"") + _ENTRY_BYTES for key, value in batch)


def _check_sizes(entries: Entries, size: int, value_bytes: int) -> None:
    _check_size("key", max((len(key) for key, _ in entries), default=0), KEY_BYTES)
    _check_size("value", max((len(value or b"") for _, value in entries), default=0), value_bytes)
    _check_size("batch", size, BATCH_BYTES)


def _check_size(what: str, size: int, most: int) -> None:
    if size > most:
        raise InvalidRequest(what, f"has {size} bytes, the limit is {most}")


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

"""Quarantine: what a damaged block, or a table that cannot be opened, might hold is fenced off.

Of a key behind a fence nobody here can say what it has: reading it raises Corruption, never "not found",
unless something newer is known or the table's filter denies it. A fence is not kept on the disk: whoever
meets the block again, after a restart, puts it up again. `Engine.lift` takes it down when all that it
might hold has been written anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kvstore.errors import Corruption
from kvstore.lsm.merge import Chunk
from kvstore.lsm.sstable import WHOLE, Table, TableInfo


class Fence(NamedTuple):
    """The keys from `first` to `last`, both included, that `block` of a table (WHOLE: all) might hold."""

    table: int
    block: int
    first: bytes
    last: bytes


class LostTable(Table):
    """A table that cannot be opened: it might hold anything between its first and its last key."""

    def __init__(self, directory: str, info: TableInfo, error: Corruption) -> None:
        self._keep(directory, info, None)
        self._reason = error.reason

    def close(self) -> None:
        """There is no file."""

    def get(self, key: bytes, hashed: int, default: bytes | None) -> bytes | None:
        """See Table; `hashed` is of no use without a filter."""
        return self.look_up(key, default)

    def look_up(self, key: bytes, default: bytes | None) -> bytes | None:
        """See Table."""
        if self._smallest <= key <= self._largest:
            raise self._error()
        return default

    def chunks(
        self, start: bytes, end: bytes | None, reverse: bool = False, around: bool = False
    ) -> Iterator[Chunk]:
        """See Table."""
        if not around:
            raise self._error()
        yield from ()

    def fence(self, i: int) -> None:
        """There is a fence around all of it."""

    def _error(self) -> Corruption:
        return Corruption(self.path, self._reason)


def whole(info: TableInfo) -> Fence:
    """Around all that a table might hold."""
    return Fence(info.number, WHOLE, info.smallest, info.largest)

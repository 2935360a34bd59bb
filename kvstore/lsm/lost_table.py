"""In the place of a table that cannot be opened."""

from __future__ import annotations

from collections.abc import Iterator

from kvstore.errors import Corruption
from kvstore.lsm.merge import Chunk
from kvstore.lsm.messages import TableInfo, table_name


class LostTable:
    """It might hold anything between its first and its last key, so that reading it raises Corruption.

    What else it shares with `Table` is that of one without a filter that was never asked.
    """

    holds_hash = None
    filter_useful = filter_false = filter_true = 0
    left_out: tuple[int, ...] = ()

    def __init__(self, directory: str, info: TableInfo, reason: str) -> None:
        self.info = info
        self.path = f"{directory}/{table_name(info.number)}"
        self._reason = reason

    def close(self) -> None:
        """There is no file."""

    def leave_cache(self) -> None:
        """Nothing of it is there."""

    def get(self, key: bytes, hashed: int, default: bytes | None) -> bytes | None:
        """See Table; `hashed` is of no use without a filter."""
        return self.look_up(key, default)

    def look_up(self, key: bytes, default: bytes | None) -> bytes | None:
        """See Table."""
        if self.info.smallest <= key <= self.info.largest:
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

    def leave_out(self, i: int) -> None:
        """None of its blocks can be read anyway."""

    def _error(self) -> Corruption:
        return Corruption(self.path, self._reason)

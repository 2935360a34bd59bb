"""The memtable: the newest entries, in memory and in order of their keys."""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedDict

from kvstore.lsm.wal import Batch

Entry = tuple[bytes, bytes | None]

_ENTRY_OVERHEAD = 128
_CHUNK = 256


class Memtable:
    """Entries by key; None marks a deletion, which hides what lies in older tables."""

    __slots__ = ("_entries", "bytes")

    def __init__(self) -> None:
        self._entries: SortedDict[bytes, bytes | None] = SortedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def apply(self, batch: Batch) -> None:
        """Put a batch in; its bytes are counted even where it replaces, as the log grows all the same."""
        entries = self._entries
        for key, value in batch:
            entries[key] = value
            self.bytes += len(key) + len(value or b"") + _ENTRY_OVERHEAD

    def get(self, key: bytes, default: bytes | None) -> bytes | None:
        """The value, None for a deletion, `default` when the key is not here."""
        result: bytes | None = self._entries.get(key, default)
        return result

    def scan(self, start: bytes, end: bytes | None) -> Iterator[Entry]:
        """Entries of [start, end) in order; later writes may or may not be seen."""
        # in chunks, because the dict must not change under its iterator
        inclusive = True
        while True:
            chunk = self._chunk(start, end, inclusive)
            yield from chunk
            if len(chunk) < _CHUNK:
                return
            start, inclusive = chunk[-1][0], False

    def _chunk(self, start: bytes, end: bytes | None, inclusive: bool) -> list[Entry]:
        chunk: list[Entry] = []
        for key in self._entries.irange(start, end, (inclusive, False)):
            chunk.append((key, self._entries[key]))
            if len(chunk) == _CHUNK:
                break
        return chunk

    def items(self) -> Iterator[Entry]:
        """All entries in order; nothing may be written meanwhile."""
        return iter(self._entries.items())

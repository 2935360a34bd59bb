"""Writing SSTables (docs/sstable.md)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import add

import google_crc32c
import msgspec

from kvstore.config import MIB
from kvstore.lsm.block import encode_entries, present, seal
from kvstore.lsm.bloom import BloomFilter
from kvstore.lsm.config import Options
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.merge import Chunk
from kvstore.lsm.messages import TableInfo, table_name
from kvstore.lsm.pace import Pace, full_speed
from kvstore.lsm.sstable import FOOTER, MAGIC, Index, Properties

_encoder = msgspec.msgpack.Encoder()

INDEX_STEP = 128 * MIB
"""Each time an index has grown by so much, the blocks that follow are twice as large.

A table may be of any size. Its index would be a share of it otherwise, nearly all of it with the longest
keys, and soon more than the numbers of the footer can hold.
"""

_LARGEST_BLOCK = 64 * MIB
_INDEX_ENTRY = 19
"""What the index takes at most for a block beside its last key."""

WRITE_BACK_BYTES = 64 * 1024
"""So much is handed to the disk at a time: a log's sync that comes meanwhile waits for no more than this."""


def write_tables(
    fs: FileSystem,
    directory: str,
    numbers: Sequence[int],
    chunks: Iterable[Chunk],
    level: int,
    last_lsn: int,
    entries: int,
    options: Options,
    pace: Pace = full_speed,
) -> tuple[TableInfo, ...]:
    """Write chunks, at most `entries`, as tables of about `options.table_bytes`; synced, names too.

    There are as many tables as `numbers` at most, and none when there is nothing to write.
    """
    written: list[TableInfo] = []
    free = list(numbers)
    writer: TableWriter | None = None
    try:
        for chunk in chunks:
            rest = chunk
            while rest[0]:
                if writer is None:
                    writer = TableWriter(fs, directory, free.pop(0), entries, options, pace)
                rest = writer.add(rest, options.table_bytes if free else None)
                if rest[0]:
                    written.append(writer.finish(level, last_lsn))
                    writer = None
        if writer is not None:
            written.append(writer.finish(level, last_lsn))
    finally:
        if writer is not None:
            writer.close()
    if written:
        fs.sync_directory(directory)
    return tuple(written)


class TableWriter:
    """One table being written. `entries` is the most that it will hold: it sizes the filter."""

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        number: int,
        entries: int,
        options: Options,
        pace: Pace = full_speed,
    ) -> None:
        self._number = number
        self._pace = pace
        self._file = fs.create(f"{directory}/{table_name(number)}")
        self._block_bytes = options.block_bytes
        self._filter = BloomFilter.empty(entries, options.false_positive_rate)
        self._index = Index([], [], [])
        self._index_bytes, self._index_step = 0, INDEX_STEP
        self._keys: list[bytes] = []
        self._values: list[bytes | None] = []
        self._smallest: bytes | None = None
        self._entries = self._deletions = 0
        self.size = self._written_back = 0

    def add(self, chunk: Chunk, most: int | None = None) -> Chunk:
        """Add entries behind those that are there; cuts as many blocks as they fill.

        Returns those for which there is no room, once the table has grown to `most` bytes.
        """
        keys, values = self._keys + chunk[0], self._values + chunk[1]
        ends = list(accumulate(map(add, map(len, keys), map(len, present(values)))))
        first = begin = 0
        while (last := bisect_left(ends, begin + self._block_bytes, first) + 1) <= len(ends):
            self._cut(keys[first:last], values[first:last])
            first, begin = last, ends[last - 1]
            if most is not None and self.size >= most:
                self._keys, self._values = [], []
                return keys[first:], values[first:]
        self._keys, self._values = keys[first:], values[first:]
        return [], []

    def _cut(self, keys: list[bytes], values: list[bytes | None]) -> None:
        if self._smallest is None:
            self._smallest = keys[0]
        self._entries += len(keys)
        self._deletions += values.count(None)
        self._filter.update(keys)
        offset, length = self._append(seal(encode_entries(keys, values)))
        self._index.last_keys.append(keys[-1])
        self._index.offsets.append(offset)
        self._index.lengths.append(length)
        self._index_bytes += len(keys[-1]) + _INDEX_ENTRY
        if self._index_bytes >= self._index_step:
            self._index_step += INDEX_STEP
            self._block_bytes = min(2 * self._block_bytes, _LARGEST_BLOCK)

    def _append(self, data: bytes) -> tuple[int, int]:
        self._file.append(data)
        offset = self.size
        self.size += len(data)
        if self.size - self._written_back >= WRITE_BACK_BYTES:
            self._file.write_back()
            self._written_back = self.size
        self._pace(len(data))
        return offset, len(data)

    def finish(self, level: int, last_lsn: int) -> TableInfo:
        """Write what leads to the entries, and sync; at least one entry has been added."""
        if self._keys:
            self._cut(self._keys, self._values)
        smallest, largest = self._smallest or b"", self._index.last_keys[-1]
        properties = Properties(self._entries, self._deletions, smallest, largest, last_lsn)
        filter_at = self._append(seal(self._filter.encode()))
        index_at = self._append(seal(_encoder.encode(self._index)))
        properties_at = self._append(seal(_encoder.encode(properties)))
        footer = FOOTER.pack(*filter_at, *index_at, *properties_at)
        self._append(footer + int(google_crc32c.value(footer)).to_bytes(4, "little") + MAGIC)
        self._file.sync()
        self._file.close()
        return TableInfo(
            self._number, level, self.size, self._entries, self._deletions, smallest, largest, last_lsn
        )

    def close(self) -> None:
        """Close the file of a table that was not finished."""
        self._file.close()

"""SSTables: sorted, immutable files of entries (docs/sstable.md).

Layout: data blocks, filter block, index block (last key, offset, length of each data block),
properties block, footer. Every block has its checksum; the footer has its own, a version and a magic.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import TypeVar

import google_crc32c
import msgspec

from kvstore.errors import Corruption, UnsupportedFormat
from kvstore.lsm.block import DELETED, ENTRY, DamagedBlock, DataBlock, seal, unseal
from kvstore.lsm.bloom import BloomFilter
from kvstore.lsm.filesystem import FileSystem, WritableFile
from kvstore.lsm.memtable import Entry

MAGIC = b"kvsst\x00\x00\x01"
_FOOTER = struct.Struct("<QIQIQI")  # offset and length of filter, index, properties
_FOOTER_BYTES = _FOOTER.size + 4 + len(MAGIC)


class TableInfo(msgspec.Struct, frozen=True, array_like=True):
    """What the manifest knows of a table. `last_lsn` is of its newest entry: it orders tables by age."""

    number: int
    size: int
    entries: int
    smallest: bytes
    largest: bytes
    last_lsn: int


class Properties(msgspec.Struct, frozen=True, array_like=True):
    """What a table says of itself."""

    entries: int
    deletions: int
    smallest: bytes
    largest: bytes
    last_lsn: int


T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_index_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, int, int]])
_properties_decoder = msgspec.msgpack.Decoder(Properties)


def table_name(number: int) -> str:
    """File name of a table."""
    return f"{number:08d}.sst"


def write_table(
    fs: FileSystem,
    directory: str,
    number: int,
    entries: Iterable[Entry],
    last_lsn: int,
    block_bytes: int,
    false_positive_rate: float,
) -> TableInfo | None:
    """Write sorted entries as a table, synced, its name too; None (and no file) when there are none."""
    path = f"{directory}/{table_name(number)}"
    writer = _TableWriter(fs, path, block_bytes)
    try:
        writer.add(entries)
        if not writer.keys:
            return None
        size = writer.finish(last_lsn, false_positive_rate)
    finally:
        writer.close()
    fs.sync_directory(directory)
    return TableInfo(number, size, len(writer.keys), writer.keys[0], writer.keys[-1], last_lsn)


class _TableWriter:
    def __init__(self, fs: FileSystem, path: str, block_bytes: int) -> None:
        self._fs = fs
        self._path = path
        self._file: WritableFile | None = None
        self._block_bytes = block_bytes
        self._offset = 0
        self._index: list[tuple[bytes, int, int]] = []
        self._deletions = 0
        self.keys: list[bytes] = []

    def add(self, entries: Iterable[Entry]) -> None:
        """One plain loop: everything that is written passes here, and again with each compaction."""
        keys, pack, block_bytes = self.keys, ENTRY.pack, self._block_bytes
        block: list[bytes] = []
        size = 0
        for key, value in entries:
            keys.append(key)
            if value is None:
                self._deletions += 1
                block += (pack(len(key), DELETED), key)
                size += len(key)
            else:
                block += (pack(len(key), len(value)), key, value)
                size += len(key) + len(value)
            if size >= block_bytes:
                self._cut(block)
                block.clear()
                size = 0
        if block:
            self._cut(block)

    def _cut(self, block: list[bytes]) -> None:
        offset, length = self._append(seal(b"".join(block)))
        self._index.append((self.keys[-1], offset, length))

    def _append(self, data: bytes) -> tuple[int, int]:
        if self._file is None:
            self._file = self._fs.create(self._path)
        self._file.append(data)
        offset = self._offset
        self._offset += len(data)
        return offset, len(data)

    def finish(self, last_lsn: int, false_positive_rate: float) -> int:
        bloom = BloomFilter.build(self.keys, len(self.keys), false_positive_rate)
        properties = Properties(len(self.keys), self._deletions, self.keys[0], self.keys[-1], last_lsn)
        filter_at = self._append(seal(bloom.encode()))
        index_at = self._append(seal(_encoder.encode(self._index)))
        properties_at = self._append(seal(_encoder.encode(properties)))
        footer = _FOOTER.pack(*filter_at, *index_at, *properties_at)
        self._append(footer + int(google_crc32c.value(footer)).to_bytes(4, "little") + MAGIC)
        assert self._file is not None
        self._file.sync()
        return self._offset

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class BlockCache:
    """The data blocks read last, up to a number of bytes, for all tables of an engine."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[tuple[int, int], DataBlock] = OrderedDict()
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, table: int, offset: int) -> DataBlock | None:
        """The block of a table at an offset, if it is here."""
        block = self._blocks.get((table, offset))
        if block is None:
            self.misses += 1
            return None
        self.hits += 1
        self._blocks.move_to_end((table, offset))
        return block

    def put(self, table: int, offset: int, block: DataBlock) -> None:
        """Keep a block, and let go of those used longest ago."""
        self._blocks[table, offset] = block
        self._bytes += block.bytes
        while self._bytes > self._capacity and self._blocks:
            _, oldest = self._blocks.popitem(last=False)
            self._bytes -= oldest.bytes


class Table:
    """An open table: index and filter in memory, blocks read when needed."""

    def __init__(self, fs: FileSystem, directory: str, info: TableInfo, cache: BlockCache | None) -> None:
        self.info = info
        self._path = f"{directory}/{table_name(info.number)}"
        self._cache = cache
        self.filter_useful = 0
        self.filter_false = 0
        try:
            self._file = fs.open(self._path)
        except FileNotFoundError:
            raise Corruption(self._path, "the manifest names this table, but it is missing") from None
        filter_at, index_at, properties_at = self._footer()
        self.properties = _decoded(_properties_decoder, self._block(*properties_at), self._path)
        index = _decoded(_index_decoder, self._block(*index_at), self._path)
        self._last_keys = [last for last, _, _ in index]
        self._places = [(offset, length) for _, offset, length in index]
        self._filter = self._load_filter(*filter_at)

    @property
    def filter_damaged(self) -> bool:
        """Whether the filter could not be read: then every lookup reads a block."""
        return self._filter is None

    def close(self) -> None:
        """Close the file; nothing may be read any more."""
        self._file.close()

    def _footer(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        size = self._file.size()
        data = self._file.read(max(0, size - _FOOTER_BYTES), _FOOTER_BYTES)
        magic = data[-len(MAGIC) :]
        if size < _FOOTER_BYTES or magic[:-1] != MAGIC[:-1]:
            raise Corruption(self._path, "has no footer: it is no table, or its end is missing")
        if magic != MAGIC:
            raise UnsupportedFormat(self._path, f"is of format {magic[-1]}, this program reads {MAGIC[-1]}")
        footer = data[: _FOOTER.size]
        if google_crc32c.value(footer) != int.from_bytes(data[_FOOTER.size : _FOOTER.size + 4], "little"):
            raise Corruption(self._path, "its footer is damaged")
        a, b, c, d, e, f = _FOOTER.unpack(footer)
        return (a, b), (c, d), (e, f)

    def _block(self, offset: int, length: int) -> bytes:
        try:
            return unseal(self._file.read(offset, length))
        except DamagedBlock as error:
            raise Corruption(self._path, f"block at {offset}: {error}") from error

    def _load_filter(self, offset: int, length: int) -> BloomFilter | None:
        try:
            return BloomFilter.decode(self._block(offset, length))
        except (Corruption, ValueError):
            return None  # only slower: a damaged filter must never answer "absent"

    def _data_block(self, i: int) -> DataBlock:
        offset, length = self._places[i]
        number = self.info.number
        if self._cache and (block := self._cache.get(number, offset)):
            return block
        try:
            block = DataBlock(self._block(offset, length))
        except DamagedBlock as error:
            raise Corruption(self._path, f"block at {offset}: {error}") from error
        if self._cache:
            self._cache.put(number, offset, block)
        return block

    def get(self, key: bytes, default: bytes | None) -> bytes | None:
        """The value, None for a deletion, `default` when the key is not here; raises Corruption."""
        if not self.info.smallest <= key <= self.info.largest:
            return default
        if self._filter is not None and key not in self._filter:
            self.filter_useful += 1
            return default
        i = bisect_left(self._last_keys, key)
        value = self._data_block(i).get(key, default)
        if value is default:
            self.filter_false += 1
        return value

    def scan(self, start: bytes, end: bytes | None) -> Iterator[Entry]:
        """Entries of [start, end) in order; raises Corruption."""
        for i in range(bisect_left(self._last_keys, start), len(self._places)):
            block = self._data_block(i)
            first = bisect_left(block.keys, start)
            last = len(block.keys) if end is None else bisect_left(block.keys, end)
            yield from zip(block.keys[first:last], block.values[first:last], strict=True)
            if last < len(block.keys):
                return


def _decoded(decoder: msgspec.msgpack.Decoder[T], data: bytes, path: str) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corruption(path, str(error)) from error

"""SSTables: sorted, immutable files of entries (docs/sstable.md). This is the reader.

Layout: data blocks, filter block, index block (last key, offset, length of each data block),
properties block, footer. Every block has its checksum; the footer has its own, a version and a magic.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TypeVar

import google_crc32c
import msgspec

from kvstore.config import MIB
from kvstore.errors import Corruption
from kvstore.lsm.block import DamagedBlock, DataBlock, unseal
from kvstore.lsm.bloom import BloomFilter
from kvstore.lsm.cache import BlockCache
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.magic import check_magic
from kvstore.lsm.merge import Chunk

MAGIC = b"kvsst\x00\x00\x02"
FOOTER = struct.Struct("<QIQIQI")  # offset and length of filter, index, properties
FOOTER_BYTES = FOOTER.size + 4 + len(MAGIC)

WHOLE = -1
"""In the place of a block's number: the whole table."""

_IN_PIECES, _FIRST_PIECE = 2, 16
"""Blocks at the beginning of a scan that are decoded piece by piece, and the entries of their first piece."""

_MOST_READ_AHEAD = 16
_READ_AHEAD_OF_JOBS = 4
"""Less, as a job should make small steps: 8% more work for it."""

_READ_AHEAD_BYTES = MIB
"""As stored: they may stand for 255 times as much. A block alone may be larger."""

_KEY_MEMORY = 54
"""What a block's last key takes beside its bytes, with the numbers of the block."""


class TableInfo(msgspec.Struct, frozen=True, array_like=True):
    """What the manifest knows of a table. `last_lsn` is of its newest entry: it orders tables by age."""

    number: int
    level: int
    size: int
    entries: int
    deletions: int
    smallest: bytes
    largest: bytes
    last_lsn: int

    def meets(self, smallest: bytes, largest: bytes) -> bool:
        """Whether it may hold keys of a range, both ends included."""
        return self.smallest <= largest and smallest <= self.largest


class Properties(msgspec.Struct, frozen=True, array_like=True):
    """What a table says of itself."""

    entries: int
    deletions: int
    smallest: bytes
    largest: bytes
    last_lsn: int


class Index(msgspec.Struct, frozen=True, array_like=True):
    """The last key, the offset and the length of each data block."""

    last_keys: list[bytes]
    offsets: list[int]
    lengths: list[int]


class PackedIndex:
    """An index as it is kept in memory: a number takes what it needs, and not an object."""

    __slots__ = ("last_keys", "lengths", "offsets")

    def __init__(self, index: Index) -> None:
        self.last_keys = index.last_keys
        self.offsets = array("Q", index.offsets)
        self.lengths = array("I", index.lengths)


class Guide:
    """What leads to an entry of a table: its filter, None if that is damaged, and its index."""

    __slots__ = ("filter", "index", "memory")

    def __init__(self, bloom: BloomFilter | None, index: Index) -> None:
        self.filter = bloom
        self.index = PackedIndex(index)
        self.memory = sum(map(len, index.last_keys)) + _KEY_MEMORY * len(index.last_keys)
        self.memory += bloom.memory if bloom else 0


T = TypeVar("T")

_index_decoder = msgspec.msgpack.Decoder(Index)
_properties_decoder = msgspec.msgpack.Decoder(Properties)


def table_name(number: int) -> str:
    """File name of a table."""
    return f"{number:08d}.sst"


class Table:
    """An open table. Without a `cache` it keeps its index to itself and no data block: for one pass."""

    def __init__(self, fs: FileSystem, directory: str, info: TableInfo, cache: BlockCache | None) -> None:
        """Raises Corruption, UnsupportedFormat."""
        self._keep(directory, info, cache)
        try:
            self._file = fs.open(self.path)
        except FileNotFoundError:
            raise Corruption(self.path, "the manifest names this table, but it is missing") from None
        try:
            self._filter_at, self._index_at, self._properties_at = self._footer()
            self.properties = self._decoded(_properties_decoder, self._block(*self._properties_at))
            self._guide()
        except BaseException:
            self._file.close()
            raise

    def _keep(self, directory: str, info: TableInfo, cache: BlockCache | None) -> None:
        self.info = info
        self._smallest, self._largest = info.smallest, info.largest
        self.path = f"{directory}/{table_name(info.number)}"
        self._cache = cache
        self._own_guide: Guide | None = None
        self.holds_hash: Callable[[int], bool] | None = None
        """The test of the filter, as long as that is at hand."""
        self.filter_useful = 0
        self.filter_false = 0
        self.filter_true = 0
        self.on_damage: Callable[[Table, int], None] = _nobody_cares
        """Told of each block that turns out to be damaged, or of WHOLE."""
        self._fenced: set[int] = set()
        self._left_out: set[int] = set()

    def close(self) -> None:
        """Close the file; nothing may be read any more."""
        self._file.close()
        self.leave_cache()

    def leave_cache(self) -> None:
        """The table has been replaced: scans under way read on past the cache."""
        if self._cache:
            self._cache.forget(self.info.number)
            self._cache = None

    # parts

    def _footer(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        size = self._file.size()
        data = self._file.read(max(0, size - FOOTER_BYTES), FOOTER_BYTES)
        if size != self.info.size or size < FOOTER_BYTES:
            raise Corruption(self.path, f"has {size} bytes, the manifest says {self.info.size}")
        check_magic(self.path, data[-len(MAGIC) :], MAGIC, "table")
        footer = data[: FOOTER.size]
        if google_crc32c.value(footer) != int.from_bytes(data[FOOTER.size : FOOTER.size + 4], "little"):
            raise Corruption(self.path, "its footer is damaged")
        a, b, c, d, e, f = FOOTER.unpack(footer)
        if max(a + b, c + d, e + f) > size:
            raise Corruption(self.path, "its footer points beyond its end")
        return (a, b), (c, d), (e, f)

    def _block(self, offset: int, length: int) -> bytes:
        return self._unsealed(self._file.read(offset, length), offset)

    def _unsealed(self, data: bytes, offset: int) -> bytes:
        try:
            return unseal(data)
        except DamagedBlock as error:
            raise Corruption(self.path, f"block at {offset}: {error}", offset) from error

    def _decoded(self, decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
        try:
            return decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corruption(self.path, str(error)) from error

    def _guide(self) -> Guide:
        if self._own_guide:
            return self._own_guide
        number, (offset, length) = self.info.number, self._index_at
        known = self._cache.get(number, offset, Guide) if self._cache is not None else None
        try:
            guide = known or self._load_guide(offset, length)
        except Corruption:
            self.on_damage(self, WHOLE)
            raise
        # every lookup needs it: only where indexes and filters are too many, it has to be found each time
        if self._cache is None or self._cache.pin(number, offset, guide.memory):
            self._own_guide = guide
            self.holds_hash = guide.filter.holds_hash if guide.filter else None
        elif not known:
            self._cache.put(number, offset, guide)
        return guide

    def _load_guide(self, offset: int, length: int) -> Guide:
        index = self._decoded(_index_decoder, self._block(offset, length))
        if not len(index.last_keys) == len(index.offsets) == len(index.lengths) > 0:
            raise Corruption(self.path, "its index is incomplete")
        ends = list(accumulate(index.lengths, initial=0))
        if index.offsets != ends[:-1] or ends[-1] != self._filter_at[0] or min(index.lengths) < 1:
            raise Corruption(self.path, "its index does not cover the data blocks one after another")
        if index.last_keys[-1] != self.info.largest:
            raise Corruption(self.path, "its index does not end with the key that the manifest names")
        try:
            return Guide(self._load_filter(), index)
        except OverflowError:
            raise Corruption(self.path, "its index names places beyond any file") from None

    def read_filter(self) -> BloomFilter:
        """The filter, from the disk; raises Corruption."""
        offset, length = self._filter_at
        try:
            return BloomFilter.decode(self._block(offset, length))
        except ValueError as error:
            raise Corruption(self.path, f"block at {offset} is no filter: {error}", offset) from error

    def _load_filter(self) -> BloomFilter | None:
        try:
            return self.read_filter()
        except Corruption:
            return None  # only slower: a damaged filter must never answer "absent"

    def _data_block(self, index: PackedIndex, i: int) -> DataBlock:
        offset = index.offsets[i]
        number = self.info.number
        if i in self._fenced:  # also if a good copy is in the cache still: it may go at any time
            raise Corruption(self.path, f"block at {offset} is quarantined", offset)
        if self._cache is not None and (block := self._cache.get(number, offset, DataBlock)):
            return block
        block = self._sound(self._file.read(offset, index.lengths[i]), offset, i)
        if self._cache:
            self._cache.put(number, offset, block)
        return block

    def _sound(self, data: bytes, offset: int, i: int) -> DataBlock:
        try:
            return self._parsed(data, offset)
        except Corruption:
            self.fence(i)
            raise

    def _parsed(self, data: bytes, offset: int) -> DataBlock:
        try:
            return DataBlock(unseal(data))
        except DamagedBlock as error:
            raise Corruption(self.path, f"block at {offset}: {error}", offset) from error

    # reading

    @property
    def filter_damaged(self) -> bool:
        """Whether the filter could not be read: then every lookup reads a block."""
        return self._guide().filter is None

    def get(self, key: bytes, hashed: int, default: bytes | None) -> bytes | None:
        """The value, None for a deletion, `default` when the key is not here; raises Corruption.

        `hashed` is `hash_key(key)`.
        """
        bloom = (self._own_guide or self._guide()).filter
        if bloom is not None and not bloom.holds_hash(hashed):
            self.filter_useful += 1
            return default
        return self.look_up(key, default)

    def look_up(self, key: bytes, default: bytes | None) -> bytes | None:
        """As `get`, of a key that the filter lets pass."""
        if not self._smallest <= key <= self._largest:
            return default
        guide = self._own_guide or self._guide()
        i = bisect_left(guide.index.last_keys, key)
        if i in self._left_out:
            return default
        value = self._data_block(guide.index, i).get(key, default)
        if value is default:
            self.filter_false += 1
        else:
            self.filter_true += 1
        return value

    def chunks(
        self, start: bytes, end: bytes | None, reverse: bool = False, around: bool = False
    ) -> Iterator[Chunk]:
        """Entries of [start, end) in order; raises Corruption, or goes `around` what is damaged."""
        index = self._guide().index
        first = bisect_left(index.last_keys, start)
        last = len(index.offsets)
        if end is not None:
            last = min(last, bisect_left(index.last_keys, end, first) + 1)
        ahead, most = (2, _MOST_READ_AHEAD) if self._cache else (_READ_AHEAD_OF_JOBS, _READ_AHEAD_OF_JOBS)
        for _ in range(min(_IN_PIECES, last - first) if self._cache else 0):
            last -= reverse
            if block := self._if_sound(index, last if reverse else first, around):
                yield from _pieces(block, start, end, reverse)
            first += not reverse
        while first < last:
            count = self._ahead(index, first, last, ahead, reverse)
            if reverse:
                blocks = self._blocks(index, last - count, last, around)
                last -= count
            else:
                blocks = self._blocks(index, first, first + count, around)
                first += count
            if chunk := _joined(blocks, start, end):
                yield chunk
            ahead = min(2 * ahead, most)

    def _ahead(self, index: PackedIndex, first: int, last: int, most: int, reverse: bool) -> int:
        """How many of the blocks [first, last) should be read at a time, from the end that comes first."""
        lengths = (
            index.lengths[max(first, last - most) : last]
            if reverse
            else index.lengths[first : min(last, first + most)]
        )
        ends = accumulate(reversed(lengths) if reverse else lengths)
        return max(1, sum(end <= _READ_AHEAD_BYTES for end in ends))

    def _blocks(self, index: PackedIndex, first: int, last: int, around: bool) -> list[DataBlock]:
        """The data blocks [first, last), `around` those that are damaged."""
        if not self._fenced and not self._left_out:
            try:
                return self._all_blocks(index, first, last)
            except Corruption:
                if not around:
                    raise
        return [block for i in range(first, last) if (block := self._if_sound(index, i, around))]

    def _all_blocks(self, index: PackedIndex, first: int, last: int) -> list[DataBlock]:
        """One alone through the cache, several by one read past it."""
        if last - first == 1 and self._cache:
            return [self._data_block(index, first)]
        begin = index.offsets[first]
        data = self._file.read(begin, index.offsets[last - 1] + index.lengths[last - 1] - begin)
        return [
            self._sound(data[offset - begin : offset - begin + length], offset, i)
            for i, offset, length in zip(
                range(first, last), index.offsets[first:last], index.lengths[first:last], strict=True
            )
        ]

    def _if_sound(self, index: PackedIndex, i: int, around: bool) -> DataBlock | None:
        if i in self._left_out:
            return None
        try:
            return self._data_block(index, i)
        except Corruption:
            if around:
                return None
            raise

    # quarantine

    def fence(self, i: int) -> None:
        """Block `i` is damaged: from now on it cannot be read, even if it can."""
        if i not in self._left_out:
            self._fenced.add(i)
            self.on_damage(self, i)

    def leave_out(self, i: int) -> None:
        """Block `i` counts as if it held nothing: all that it might hold is known better elsewhere."""
        self._fenced.discard(i)
        self._left_out.add(i)

    @property
    def left_out(self) -> tuple[int, ...]:
        """The blocks that count as if they held nothing."""
        return tuple(sorted(self._left_out))

    def key_range(self, i: int) -> tuple[bytes, bytes]:
        """The first and the last key that block `i` might hold; raises Corruption."""
        last_keys = self._guide().index.last_keys
        return last_keys[i - 1] + b"\0" if i else self._smallest, last_keys[i]

    def damaged_blocks(self) -> Iterator[int]:
        """Read all blocks: which are damaged, and not left out; raises Corruption."""
        for i in range(len(self._guide().index.offsets)):
            if i not in self._left_out:
                try:
                    self.read_block(i)
                except Corruption:
                    yield i

    def places(self) -> Iterator[tuple[int, int, bytes]]:
        """Offset, length and last key of each data block, for reports of damage."""
        index = self._guide().index
        return zip(index.offsets, index.lengths, index.last_keys, strict=True)

    def other_places(self) -> tuple[tuple[int, int], ...]:
        """Offset and length of the blocks of filter, index and properties."""
        return self._filter_at, self._index_at, self._properties_at

    def read_block(self, number: int) -> DataBlock:
        """The data block of that number, from the disk; raises Corruption."""
        index = self._guide().index
        offset = index.offsets[number]
        return self._parsed(self._file.read(offset, index.lengths[number]), offset)


def _nobody_cares(table: Table, block: int) -> None:
    """For tables that are read once: their reader sees the error."""


def _pieces(block: DataBlock, start: bytes, end: bytes | None, reverse: bool) -> Iterator[Chunk]:
    """The entries of [start, end) in a block: a few at first, then twice as many, and so on."""
    first = block.position(start)
    last = len(block) if end is None else block.position(end)
    size = _FIRST_PIECE
    while first < last:
        if reverse:
            yield block.entries(max(first, last - size), last)
            last -= size
        else:
            yield block.entries(first, min(last, first + size))
            first += size
        size *= 2


def _joined(blocks: Sequence[DataBlock], start: bytes, end: bytes | None) -> Chunk | None:
    """The entries of [start, end) in neighbouring blocks; None when there are none."""
    keys: list[bytes] = []
    values: list[bytes | None] = []
    for block in blocks:
        there = block.keys()
        first, last = 0, len(there)
        if there[0] < start:
            first = bisect_left(there, start)
        if end is not None and there[-1] >= end:
            last = bisect_left(there, end)
        keys += there[first:last]
        values += block.values(first, last)
    return (keys, values) if keys else None

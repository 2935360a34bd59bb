"""The file of a table: each part of it is read from the disk and checked, nothing is kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

import google_crc32c
import msgspec

from kvstore.errors import Corruption
from kvstore.lsm.block import DamagedBlock, DataBlock, unseal
from kvstore.lsm.bloom import BloomFilter
from kvstore.lsm.magic import check_magic
from kvstore.lsm.messages import TableInfo, table_name
from kvstore.lsm.readable_files import ReadableFiles
from kvstore.lsm.sstable import FOOTER, FOOTER_BYTES, MAGIC, Index, Properties
from kvstore.lsm.table_index import Guide, PackedIndex

T = TypeVar("T")

_index_decoder = msgspec.msgpack.Decoder(Index)
_properties_decoder = msgspec.msgpack.Decoder(Properties)


class TableFile:
    """The open file of a table. Footer and properties are read when it is opened."""

    def __init__(self, fs: ReadableFiles, directory: str, info: TableInfo) -> None:
        """Raises Corruption, UnsupportedFormat."""
        self.info = info
        self.path = f"{directory}/{table_name(info.number)}"
        try:
            self._file = fs.open(self.path)
        except FileNotFoundError:
            raise Corruption(self.path, "the manifest names this table, but it is missing") from None
        self.read: Callable[[int, int], bytes] = self._file.read
        """Bytes as they are stored, by offset and length."""
        try:
            self.filter_at, self.index_at, self.properties_at = self._footer()
            self.properties = self._decoded(_properties_decoder, *self.properties_at)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close it; nothing may be read any more."""
        self._file.close()

    def other_places(self) -> tuple[tuple[int, int], ...]:
        """Offset and length of the blocks of filter, index and properties."""
        return self.filter_at, self.index_at, self.properties_at

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
        try:
            return unseal(self._file.read(offset, length))
        except DamagedBlock as error:
            raise self._damaged(error, offset) from error

    def _damaged(self, error: DamagedBlock, offset: int) -> Corruption:
        return Corruption(self.path, f"block at {offset}: {error}", offset)

    def _decoded(self, decoder: msgspec.msgpack.Decoder[T], offset: int, length: int) -> T:
        data = self._block(offset, length)
        try:
            return decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corruption(self.path, str(error)) from error

    def read_guide(self) -> Guide:
        """Index and filter; raises Corruption for a damaged index."""
        index = self.read_index()
        return Guide(self._sound_filter(), index)

    def read_index(self) -> PackedIndex:
        """The index; raises Corruption, also when it does not belong to this table."""
        index = self._decoded(_index_decoder, *self.index_at)
        if not len(index.last_keys) == len(index.offsets) == len(index.lengths) > 0:
            raise Corruption(self.path, "its index is incomplete")
        ends = list(accumulate(index.lengths, initial=0))
        if index.offsets != ends[:-1] or ends[-1] != self.filter_at[0] or min(index.lengths) < 1:
            raise Corruption(self.path, "its index does not cover the data blocks one after another")
        if index.last_keys[-1] != self.info.largest:
            raise Corruption(self.path, "its index does not end with the key that the manifest names")
        try:
            return PackedIndex(index)
        except OverflowError:
            raise Corruption(self.path, "its index names places beyond any file") from None

    def read_filter(self) -> BloomFilter:
        """The filter; raises Corruption."""
        offset, length = self.filter_at
        try:
            return BloomFilter.decode(self._block(offset, length))
        except ValueError as error:
            raise Corruption(self.path, f"block at {offset} is no filter: {error}", offset) from error

    def _sound_filter(self) -> BloomFilter | None:
        try:
            return self.read_filter()
        except Corruption:
            return None  # only slower: a damaged filter must never answer "absent"

    def read_data_block(self, index: PackedIndex, i: int) -> DataBlock:
        """Data block `i`; raises Corruption."""
        offset = index.offsets[i]
        return self.data_block(self.read(offset, index.lengths[i]), offset)

    def data_block(self, data: bytes, offset: int) -> DataBlock:
        """A data block of its bytes as they are stored at an offset; raises Corruption."""
        try:
            return DataBlock(unseal(data))
        except DamagedBlock as error:
            raise self._damaged(error, offset) from error

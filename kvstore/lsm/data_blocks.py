"""The data blocks of one table, through the cache; a damaged one is fenced (kvstore.lsm.quarantine)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kvstore.errors import Corruption
from kvstore.lsm.block import DataBlock
from kvstore.lsm.cache import BlockCache
from kvstore.lsm.quarantine import Fence
from kvstore.lsm.table_file import TableFile
from kvstore.lsm.table_index import PackedIndex


class DataBlocks:
    """A block is named by its number in the index. Without a `cache` each is read from the disk."""

    __slots__ = ("_fenced", "_file", "_number", "_read", "cache", "left_out", "on_damage")

    def __init__(self, file: TableFile, cache: BlockCache | None) -> None:
        self._file = file
        self._number = file.info.number
        self._read = file.read
        self.cache = cache
        self.on_damage: Callable[[Fence], None] = _ignore
        """Told of what a block that turns out to be damaged might hold."""
        self._fenced: set[int] = set()
        self.left_out: set[int] = set()
        """The blocks that count as if they held nothing."""

    def get(self, index: PackedIndex, i: int) -> DataBlock:
        """Block `i`; raises Corruption: then it is fenced."""
        offset = index.offsets[i]
        number = self._number
        if i in self._fenced:  # also if a good copy is in the cache still: it may go at any time
            raise Corruption(self._file.path, f"block at {offset} is quarantined", offset)
        cache = self.cache
        if cache is not None and (block := cache.get(number, offset, DataBlock)):
            return block
        block = self._sound(self._read(offset, index.lengths[i]), index, i)
        if cache is not None:
            cache.put(number, offset, block)
        return block

    def _sound(self, data: bytes, index: PackedIndex, i: int) -> DataBlock:
        try:
            return self._file.data_block(data, index.offsets[i])
        except Corruption:
            self.fence(index, i)
            raise

    def get_sound(self, index: PackedIndex, i: int, around: bool) -> DataBlock | None:
        """Block `i`, None when it is left out, or damaged and to be gone `around`; raises Corruption."""
        if i in self.left_out:
            return None
        try:
            return self.get(index, i)
        except Corruption:
            if around:
                return None
            raise

    def neighbours(self, index: PackedIndex, first: int, last: int, around: bool) -> list[DataBlock]:
        """The blocks [first, last), `around` those that are damaged; raises Corruption."""
        if not self._fenced and not self.left_out:
            try:
                return self._all(index, first, last)
            except Corruption:
                if not around:
                    raise
        return [block for i in range(first, last) if (block := self.get_sound(index, i, around))]

    def _all(self, index: PackedIndex, first: int, last: int) -> list[DataBlock]:
        """One alone through the cache, several by one read past it."""
        if last - first == 1 and self.cache:
            return [self.get(index, first)]
        begin = index.offsets[first]
        data = self._read(begin, index.offsets[last - 1] + index.lengths[last - 1] - begin)
        return [
            self._sound(data[offset - begin : offset - begin + length], index, i)
            for i, offset, length in zip(
                range(first, last), index.offsets[first:last], index.lengths[first:last], strict=True
            )
        ]

    # damage

    def fence(self, index: PackedIndex, i: int) -> None:
        """Block `i` is damaged: from now on it cannot be read, even if it can."""
        if i not in self.left_out:
            self._fenced.add(i)
            first, last = index.key_range(i, self._file.info.smallest)
            self.on_damage(Fence(self._number, i, first, last))

    def leave_out(self, i: int) -> None:
        """Block `i` counts as if it held nothing: all that it might hold is known better elsewhere."""
        self._fenced.discard(i)
        self.left_out.add(i)

    def damaged(self, index: PackedIndex) -> Iterator[int]:
        """Read all blocks from the disk: which are damaged, and not left out."""
        for i in range(len(index)):
            if i not in self.left_out:
                try:
                    self._file.read_data_block(index, i)
                except Corruption:
                    yield i


def _ignore(fence: Fence) -> None:
    """For tables that are read once: the reader gets the error."""

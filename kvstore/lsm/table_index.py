"""The index of a table in memory, and the filter beside it: what leads to the blocks of a key or a range."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from kvstore.config import MIB
from kvstore.lsm.bloom import BloomFilter
from kvstore.lsm.sstable import Index

_READ_AHEAD_BYTES = MIB
"""As stored: they may stand for 255 times as much. A block alone may be larger."""

_KEY_MEMORY = 54
"""What a block's last key takes beside its bytes, with the numbers of the block."""


class PackedIndex:
    """An index as it is kept in memory: a number takes what it needs, and not an object."""

    __slots__ = ("last_keys", "lengths", "offsets")

    def __init__(self, index: Index) -> None:
        """Raises OverflowError for a place that no file can have."""
        self.last_keys = index.last_keys
        self.offsets = array("Q", index.offsets)
        self.lengths = array("I", index.lengths)

    def __len__(self) -> int:
        return len(self.offsets)

    def blocks_of(self, start: bytes, end: bytes | None) -> tuple[int, int]:
        """The blocks [first, last) that may have keys of [start, end)."""
        first = bisect_left(self.last_keys, start)
        last = len(self.offsets)
        if end is not None:
            last = min(last, bisect_left(self.last_keys, end, first) + 1)
        return first, last

    def read_ahead(self, first: int, last: int, most: int, reverse: bool) -> int:
        """How many of the blocks [first, last) should be read at a time, from the end that comes first."""
        lengths = (
            self.lengths[max(first, last - most) : last]
            if reverse
            else self.lengths[first : min(last, first + most)]
        )
        ends = accumulate(reversed(lengths) if reverse else lengths)
        return max(1, sum(end <= _READ_AHEAD_BYTES for end in ends))

    def key_range(self, i: int, smallest: bytes) -> tuple[bytes, bytes]:
        """The first and the last key that block `i` might hold; `smallest` is that of the table."""
        return self.last_keys[i - 1] + b"\0" if i else smallest, self.last_keys[i]

    def places(self) -> Iterator[tuple[int, int, bytes]]:
        """Offset, length and last key of each data block."""
        return zip(self.offsets, self.lengths, self.last_keys, strict=True)


class Guide:
    """What leads to an entry of a table: its filter, None if that is damaged, and its index."""

    __slots__ = ("filter", "index", "memory")

    def __init__(self, bloom: BloomFilter | None, index: PackedIndex) -> None:
        self.filter = bloom
        self.index = index
        self.memory = sum(map(len, index.last_keys)) + _KEY_MEMORY * len(index.last_keys)
        self.memory += bloom.memory if bloom else 0

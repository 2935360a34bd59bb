"""Scanning a table: the entries of a range in order, a few at first, then in large pieces read ahead."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from kvstore.lsm.block import DataBlock
from kvstore.lsm.data_blocks import DataBlocks
from kvstore.lsm.merge import Chunk
from kvstore.lsm.table_index import Guide

_IN_PIECES, _FIRST_PIECE = 2, 16
"""Blocks at the beginning of a scan that are decoded piece by piece, and the entries of their first piece."""

_MOST_READ_AHEAD = 16
_READ_AHEAD_OF_JOBS = 4
"""Less, as a job should make small steps: 8% more work for it."""


def scan_table(
    guide: Callable[[], Guide],
    blocks: DataBlocks,
    start: bytes,
    end: bytes | None,
    reverse: bool,
    around: bool,
) -> Iterator[Chunk]:
    """Entries of [start, end) in order; raises Corruption, or goes `around` what is damaged.

    The `guide` is asked for when the scan begins: it may have to be read. Blocks without a cache are read by
    a job, which does nothing else: it wants no piece early.
    """
    index = guide().index
    first, last = index.blocks_of(start, end)
    ahead, most = (2, _MOST_READ_AHEAD) if blocks.cache else (_READ_AHEAD_OF_JOBS, _READ_AHEAD_OF_JOBS)
    for _ in range(min(_IN_PIECES, last - first) if blocks.cache else 0):
        last -= reverse
        if block := blocks.get_sound(index, last if reverse else first, around):
            yield from _pieces(block, start, end, reverse)
        first += not reverse
    while first < last:
        count = index.read_ahead(first, last, ahead, reverse)
        if reverse:
            read = blocks.neighbours(index, last - count, last, around)
            last -= count
        else:
            read = blocks.neighbours(index, first, first + count, around)
            first += count
        if chunk := _joined(read, start, end):
            yield chunk
        ahead = min(2 * ahead, most)


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

"""Verifying one table: every byte of it, against itself and against the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import pairwise

from kvstore.errors import Corruption, StorageError, UnsupportedFormat
from kvstore.lsm.block import DataBlock
from kvstore.lsm.bloom import BloomFilter
from kvstore.lsm.messages import TableInfo, table_name
from kvstore.lsm.pace import Pace
from kvstore.lsm.problems import Counts, Kind, Problem
from kvstore.lsm.readable_files import ReadableFiles
from kvstore.lsm.sstable import FOOTER_BYTES
from kvstore.lsm.table_file import TableFile
from kvstore.lsm.table_index import PackedIndex


def problem_of(error: StorageError | OSError, file: str, keys: tuple[bytes, bytes] | None = None) -> Problem:
    """What an error in reading says is wrong with a file."""
    kind = Kind.FORMAT if isinstance(error, UnsupportedFormat) else Kind.DAMAGED
    offset = error.offset if isinstance(error, Corruption) else None
    what = error.reason if isinstance(error, Corruption | UnsupportedFormat) else str(error)
    return Problem(kind, file, what, offset, keys)


def verify_table(
    fs: ReadableFiles, directory: str, info: TableInfo, counts: Counts, pace: Pace
) -> Iterator[Problem]:
    """What is wrong with a table; counts what is read, and tells `pace` of it."""
    file, keys = table_name(info.number), (info.smallest, info.largest)
    counts.files += 1
    with ExitStack() as opened:
        try:
            table = opened.enter_context(closing(TableFile(fs, directory, info)))
            index = table.read_index()
        except (StorageError, OSError) as error:
            pace(info.size)
            yield problem_of(error, file, keys)
            return
        yield from _TableCheck(table, index, file, counts, pace).run()


class _TableCheck:
    """One table that could be opened: footer, properties and index are whole."""

    def __init__(self, table: TableFile, index: PackedIndex, file: str, counts: Counts, pace: Pace) -> None:
        self._table = table
        self._index = index
        self._file = file
        self._counts = counts
        self._pace = pace
        self._entries = self._deletions = 0
        self._readable = True

    def run(self) -> Iterator[Problem]:
        yield from self._layout()
        yield from self._blocks()
        if self._readable:
            yield from self._totals()
        self._read(self._table.info.size - sum(length for _, length, _ in self._index.places()))

    def _read(self, size: int) -> None:
        self._counts.bytes += size
        self._pace(size)

    def _wrong(
        self, what: str, offset: int | None = None, keys: tuple[bytes, bytes] | None = None
    ) -> Problem:
        info = self._table.info
        return Problem(Kind.WRONG, self._file, what, offset, keys or (info.smallest, info.largest))

    def _layout(self) -> Iterator[Problem]:
        """Blocks must leave no byte of the file uncovered by a checksum."""
        places = [(offset, length) for offset, length, _ in self._index.places()]
        places += [*self._table.other_places(), (self._table.info.size - FOOTER_BYTES, FOOTER_BYTES)]
        expected = 0
        for offset, length in places:
            if offset != expected:
                yield self._wrong(f"a block begins at {offset}, the one before it ends at {expected}", offset)
            expected = offset + length

    def _blocks(self) -> Iterator[Problem]:
        info = self._table.info
        bloom = None
        try:
            bloom = self._table.read_filter()
        except StorageError as error:
            yield problem_of(error, self._file, (info.smallest, info.largest))
        before = info.smallest
        for number, (offset, length, last) in enumerate(self._index.places()):
            keys = before, last
            try:
                block = self._table.read_data_block(self._index, number)
            except StorageError as error:
                self._readable = False
                yield problem_of(error, self._file, keys)
            else:
                for what in self._block(block, bloom, before if number else None, last):
                    yield self._wrong(f"block at {offset}: {what}", offset, keys)
            self._counts.blocks += 1
            self._read(length)
            before = last

    def _block(
        self, block: DataBlock, bloom: BloomFilter | None, before: bytes | None, last: bytes
    ) -> Iterator[str]:
        keys = block.keys()
        deletions = block.values(0, len(keys)).count(None)
        self._entries += len(keys)
        self._deletions += deletions
        self._counts.entries += len(keys)
        ordered = all(a < b for a, b in pairwise(keys))
        if not keys or not ordered or (before is not None and keys[0] <= before):
            yield "its keys are not in order"
        elif keys[-1] != last:
            yield "its last key is not that of the index"
        if bloom is not None and not all(key in bloom for key in keys):
            yield "the filter denies keys that are in it"

    def _totals(self) -> Iterator[Problem]:
        """What the properties and the manifest say must be what is there."""
        info, properties = self._table.info, self._table.properties
        there = (self._entries, self._deletions)
        said = (properties.entries, properties.deletions)
        if there != said:
            yield self._wrong(
                f"has {there[0]} entries, {there[1]} of them deletions; its properties say {said}"
            )
        if said != (info.entries, info.deletions):
            yield self._wrong(
                f"its properties say {said}, the manifest says {(info.entries, info.deletions)}"
            )
        if properties.last_lsn != info.last_lsn:
            yield self._wrong(f"its last LSN is {properties.last_lsn}, in the manifest {info.last_lsn}")
        first = self._table.read_data_block(self._index, 0).keys()[:1]
        if not first or not first[0] == properties.smallest == info.smallest:
            yield self._wrong("its smallest key is not that of properties and manifest")
        if properties.largest != info.largest:
            yield self._wrong("its largest key is not that of the manifest")

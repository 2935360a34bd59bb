"""The tables in use: as the manifest has them, open for reading, damage in them quarantined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from kvstore.errors import Corruption, StorageError, UnsupportedFormat
from kvstore.lsm.cache import BlockCache
from kvstore.lsm.levels import AnyTable, Levels
from kvstore.lsm.lost_table import LostTable
from kvstore.lsm.manifest import Manifest
from kvstore.lsm.messages import WHOLE, TableInfo
from kvstore.lsm.quarantine import Fence, Quarantine, whole
from kvstore.lsm.readable_files import ReadableFiles
from kvstore.lsm.table import Table
from kvstore.lsm.table_file import TableFile

T = TypeVar("T", bound=AnyTable)


class TableSet:
    """`levels` are the tables of this moment: a change puts others in the place of some, at once."""

    def __init__(self, fs: ReadableFiles, directory: str, manifest: Manifest, cache: BlockCache) -> None:
        """Raises UnsupportedFormat; a table that is damaged is lost."""
        self._fs = fs
        self._directory = directory
        self._manifest = manifest
        self._cache = cache
        self.quarantine = Quarantine()
        self._replaced_filters: Counter[str] = Counter()
        self.levels = Levels(_all_or_none(manifest.tables.values(), self._open_or_lose))

    def _open(self, info: TableInfo) -> Table:
        table = Table(TableFile(self._fs, self._directory, info), self._cache)
        table.blocks.on_damage = self._met_damage
        return table

    def _open_or_lose(self, info: TableInfo) -> AnyTable:
        try:
            return self._open(info)
        except Corruption as error:
            self.quarantine.put_up(whole(info))
            return LostTable(self._directory, info, error.reason)

    def replace(self, removed: Sequence[int], added: Sequence[TableInfo], flushed_lsn: int) -> None:
        """Put tables in the place of others, in the manifest too; the log up to `flushed_lsn` is in tables.

        They are opened before anything is changed: a table that cannot be read must not replace what can.
        Raises Corruption, StorageFull: nothing has changed.
        """
        opened = _all_or_none(added, self._open)
        try:
            self._manifest.edit(added, removed, flushed_lsn)
        except StorageError:
            _close_all(opened)
            raise
        # a scan may still read the old ones: their files close with the last reference
        self._put(opened, removed)

    def _put(self, tables: Iterable[AnyTable], removed: Sequence[int]) -> None:
        """Put tables in the place of others, whose filters' answers still count."""
        replaced = [table for table in self.levels if table.info.number in removed]
        self._replaced_filters += _answers(replaced)
        for table in replaced:
            table.leave_cache()
        self.levels = self.levels.replace(removed, tables)

    def filter_answers(self) -> Counter[str]:
        """How often filters have been `useful`, `false` and `true` since the store was opened."""
        return self._replaced_filters + _answers(self.levels)

    def close(self) -> None:
        """Close all tables."""
        _close_all(self.levels)

    # damage

    def _met_damage(self, fence: Fence) -> None:
        """A reader has met damage; what it reads may have been replaced since, and needs no fence then."""
        table = self.levels.find(fence.table)
        if table is None:
            return
        self.quarantine.put_up(fence)
        if fence.block == WHOLE:
            self._put([LostTable(self._directory, table.info, "its index is damaged")], (fence.table,))

    def fence(self, number: int, block: int) -> None:
        """A block of a table, or WHOLE, is damaged, whoever has met that."""
        table = self.levels.find(number)
        if table is None:  # it was lost as a whole, and has been replaced
            return
        if block == WHOLE:
            self._met_damage(whole(table.info))
        else:
            with suppress(Corruption):  # its index too: then all of it is quarantined
                table.fence(block)

    def scrub(self) -> int:
        """Read all tables from the disk, past the cache, and quarantine what is damaged.

        Returns how many damaged blocks and tables it has met. It takes as long as that takes to read.
        """
        met = 0
        for table in self.levels:
            try:
                fresh = Table(TableFile(self._fs, self._directory, table.info), None)
            except (Corruption, UnsupportedFormat):
                self._met_damage(whole(table.info))
                met += 1
                continue
            for block in fresh.damaged_blocks():
                if block not in table.left_out:
                    met += 1
                    table.fence(block)
            fresh.close()
        return met


def _all_or_none(infos: Iterable[TableInfo], open_one: Callable[[TableInfo], T]) -> list[T]:
    opened: list[T] = []
    try:
        for info in infos:
            opened.append(open_one(info))  # noqa: PERF401  (to close them if one fails)
    except BaseException:
        _close_all(opened)
        raise
    return opened


def _answers(tables: Iterable[AnyTable]) -> Counter[str]:
    answers: Counter[str] = Counter()
    for table in tables:
        answers.update(useful=table.filter_useful, false=table.filter_false, true=table.filter_true)
    return answers


def _close_all(tables: Iterable[AnyTable]) -> None:
    for table in tables:
        table.close()

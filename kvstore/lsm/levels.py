"""The tables of a store in their levels: where a key may be, and in what order to ask.

Level 0 holds tables as they were flushed, which may overlap: the newest counts. In each further level
tables do not overlap, and whatever they hold is older than all that lies above them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from kvstore.lsm.bloom import hash_key
from kvstore.lsm.lost_table import LostTable
from kvstore.lsm.merge import Chunk
from kvstore.lsm.messages import TableInfo
from kvstore.lsm.table import Table

AnyTable = Table | LostTable
"""An open table, or what stands for one that cannot be opened."""


class Levels:
    """Immutable: a change makes another one, so that readers keep the tables they began with."""

    __slots__ = ("_largest", "_newest_first", "deep", "flushed")

    def __init__(self, tables: Iterable[AnyTable]) -> None:
        ordered = sorted(tables, key=lambda table: table.info.last_lsn)
        self.flushed: tuple[AnyTable, ...] = tuple(table for table in ordered if table.info.level == 0)
        """Level 0, the oldest first."""
        self._newest_first = self.flushed[::-1]
        deep: dict[int, list[AnyTable]] = {}
        for table in ordered:
            if table.info.level:
                deep.setdefault(table.info.level, []).append(table)
        self.deep: tuple[tuple[AnyTable, ...], ...] = tuple(
            tuple(sorted(deep[level], key=lambda table: table.info.smallest)) for level in sorted(deep)
        )
        """The further levels, each in order of keys."""
        self._largest = [[table.info.largest for table in level] for level in self.deep]

    def __iter__(self) -> Iterator[AnyTable]:
        yield from self.flushed
        for level in self.deep:
            yield from level

    def infos(self) -> list[TableInfo]:
        """What the manifest knows of all tables, those of level 0 from the oldest to the newest."""
        return [table.info for table in self]

    def find(self, number: int) -> AnyTable | None:
        """The table of that number; None when it is not among them."""
        return next((table for table in self if table.info.number == number), None)

    def largest_run_bytes(self) -> int:
        """The size of the largest flushed table or level: about what is left when all are merged."""
        runs = [*((table,) for table in self.flushed), *self.deep]
        return max((sum(table.info.size for table in run) for run in runs), default=0)

    def replace(self, removed: Sequence[int], added: Iterable[AnyTable]) -> Levels:
        """With some tables in the place of others."""
        return Levels([*(table for table in self if table.info.number not in removed), *added])

    def get(self, key: bytes, default: bytes | None) -> bytes | None:
        """The newest value of a key, None for a deletion, `default` when it is nowhere."""
        if not self._newest_first and not self.deep:
            return default
        hashed = hash_key(key)
        for table in self._newest_first:
            # most tables are asked in vain: their filters are tested here, without a call into each
            holds = table.holds_hash
            if holds is None:
                value = table.get(key, hashed, default)
            elif holds(hashed):
                value = table.look_up(key, default)
            else:
                table.filter_useful += 1
                continue
            if value is not default:
                return value
        for level, largest in zip(self.deep, self._largest, strict=True):
            i = bisect_left(largest, key)
            if i < len(level):
                value = level[i].get(key, hashed, default)
                if value is not default:
                    return value
        return default

    def runs(
        self, start: bytes, end: bytes | None, reverse: bool, around: bool = False
    ) -> list[Iterator[Chunk]]:
        """Entries of [start, end): a run for each flushed table and for each level, the newest first.

        With `around` those of damaged blocks are left out, else they raise Corruption.
        """
        flushed = reversed(self.flushed)
        runs = [t.chunks(start, end, reverse, around) for t in flushed if _holds(t, start, end)]
        held = ([table for table in level if _holds(table, start, end)] for level in self.deep)
        runs += [_one_after_another(tables, start, end, reverse, around) for tables in held if tables]
        return runs


def _holds(table: AnyTable, start: bytes, end: bytes | None) -> bool:
    return start <= table.info.largest and (end is None or table.info.smallest < end)


def _one_after_another(
    tables: list[AnyTable], start: bytes, end: bytes | None, reverse: bool, around: bool
) -> Iterator[Chunk]:
    for table in reversed(tables) if reverse else tables:
        yield from table.chunks(start, end, reverse, around)

"""Choosing what to compact, by age (size-tiered) or by levels. Pure: table infos in, a choice out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kvstore.lsm.config import Compaction, Options
from kvstore.lsm.messages import TableInfo


@dataclass(frozen=True, slots=True)
class Choice:
    """Tables to merge, the oldest first, and the level that the result belongs to."""

    inputs: tuple[TableInfo, ...]
    level: int
    drop_deletions: bool


def choose(tables: Sequence[TableInfo], busy: Collection[int], options: Options) -> Choice | None:
    """What should be compacted now; None if nothing. Tables with numbers in `busy` are being compacted."""
    if options.compaction is Compaction.SIZE_TIERED:
        return _choose_tier(tables, busy, options)
    return _choose_level(tables, busy, options)


def everything(tables: Sequence[TableInfo], options: Options) -> Choice:
    """All tables into one run."""
    deepest = max(table.level for table in tables)
    level = 0 if options.compaction is Compaction.SIZE_TIERED else max(1, deepest)
    return Choice(_oldest_first(tables), level, drop_deletions=True)


def _oldest_first(tables: Sequence[TableInfo]) -> tuple[TableInfo, ...]:
    """A deeper level is older than the one above; within a deep level tables do not meet."""
    return tuple(sorted(tables, key=lambda table: (-table.level, table.last_lsn)))


# by age


def _choose_tier(tables: Sequence[TableInfo], busy: Collection[int], options: Options) -> Choice | None:
    """The longest run of tables with sizes within the ratio; with too many tables, some run all the same.

    Only neighbours in age may be merged: lookups go from the newest table to the oldest.
    """
    if any(table.level for table in tables):  # the store was leveled until now
        return everything(tables, options) if not busy else None
    best: tuple[TableInfo, ...] = ()
    ordered = _oldest_first(tables)
    for start in range(len(ordered)):
        run = _alike(ordered[start:], busy, options.tier_ratio)
        if len(run) >= max(options.tier_tables, len(best) + 1):
            best = run
    if not best and len(ordered) >= options.slow_tables:
        best = _cheapest(ordered, busy, options.tier_tables)
    if not best:
        return None
    return Choice(best, 0, drop_deletions=best[0] is ordered[0])


def _alike(tables: Sequence[TableInfo], busy: Collection[int], ratio: float) -> tuple[TableInfo, ...]:
    """The first tables that are free and whose sizes are within `ratio`."""
    smallest = largest = tables[0].size
    for i, table in enumerate(tables):
        smallest, largest = min(smallest, table.size), max(largest, table.size)
        if table.number in busy or largest > ratio * smallest:
            return tuple(tables[:i])
    return tuple(tables)


def _cheapest(tables: Sequence[TableInfo], busy: Collection[int], count: int) -> tuple[TableInfo, ...]:
    """So many free neighbours, of the fewest bytes: where none are alike, writers must not wait for ever."""
    runs = (tuple(tables[i : i + count]) for i in range(len(tables) - count + 1))
    free = (run for run in runs if not any(table.number in busy for table in run))
    return min(free, key=lambda run: sum(table.size for table in run), default=())


# by levels


def _choose_level(tables: Sequence[TableInfo], busy: Collection[int], options: Options) -> Choice | None:
    """From the level that is most above its size into the next, unless those tables are busy."""
    deepest = max((table.level for table in tables), default=0)
    scores = sorted(((_score(tables, level, options), level) for level in range(deepest + 1)), reverse=True)
    for score, level in scores:
        if score < 1:
            return None
        if choice := _from_level(tables, level, busy):
            return choice
    return None


def _score(tables: Sequence[TableInfo], level: int, options: Options) -> float:
    there = [table for table in tables if table.level == level]
    if level == 0:
        return len(there) / options.tier_tables
    target = options.level_bytes * float(options.level_ratio) ** (level - 1)
    return sum(table.size for table in there) / target


def _from_level(tables: Sequence[TableInfo], level: int, busy: Collection[int]) -> Choice | None:
    there = [table for table in tables if table.level == level]
    if level == 0:
        return _down(tables, there, busy)
    # the one written longest ago first, so that all take their turn
    for table in sorted(there, key=lambda table: table.number):
        if choice := _down(tables, [table], busy):
            return choice
    return None


def _down(tables: Sequence[TableInfo], chosen: list[TableInfo], busy: Collection[int]) -> Choice | None:
    """Merge tables of one level with those of the next that they meet; None if one of them is busy."""
    level = chosen[0].level + 1
    smallest = min(table.smallest for table in chosen)
    largest = max(table.largest for table in chosen)
    met = [table for table in tables if table.level == level and table.meets(smallest, largest)]
    inputs = _oldest_first([*met, *chosen])
    if any(table.number in busy for table in inputs):
        return None
    return Choice(inputs, level, drop_deletions=not _beneath(tables, inputs, level))


def _beneath(tables: Sequence[TableInfo], inputs: Sequence[TableInfo], level: int) -> bool:
    """Whether a deeper table may hold something older of what is merged into `level`."""
    smallest = min(table.smallest for table in inputs)
    largest = max(table.largest for table in inputs)
    return any(table.level > level and table.meets(smallest, largest) for table in tables)

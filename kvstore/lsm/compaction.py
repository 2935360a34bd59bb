"""Choosing what to compact: size-tiered, over tables that are neighbours in age."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.lsm.sstable import TableInfo


def choose_tier(tables: Sequence[TableInfo], count: int, ratio: float) -> tuple[TableInfo, ...]:
    """The longest run of at least `count` tables, oldest first, with sizes within `ratio`; empty if none.

    Only neighbours in age may be merged: lookups go from the newest table to the oldest.
    """
    best: tuple[TableInfo, ...] = ()
    for start in range(len(tables)):
        smallest = largest = tables[start].size
        for end in range(start + 1, len(tables)):
            smallest = min(smallest, tables[end].size)
            largest = max(largest, tables[end].size)
            if largest > ratio * smallest:
                break
            if end - start + 1 >= max(count, len(best) + 1):
                best = tuple(tables[start : end + 1])
    return best

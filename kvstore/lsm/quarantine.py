"""Quarantine: what a damaged block, or a table that cannot be opened, might hold is fenced off.

Of a key behind a fence nobody here can say what it has: reading it raises Corruption, never "not found",
unless something newer is known or the table's filter denies it. A fence is not kept on the disk: whoever
meets the block again, after a restart, puts it up again. `Engine.lift` takes it down when all that it
might hold has been written anew.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from kvstore.lsm.messages import WHOLE, TableInfo


class Fence(NamedTuple):
    """The keys from `first` to `last`, both included, that `block` of a table (WHOLE: all) might hold."""

    table: int
    block: int
    first: bytes
    last: bytes


def whole(info: TableInfo) -> Fence:
    """Around all that a table might hold."""
    return Fence(info.number, WHOLE, info.smallest, info.largest)


class Quarantine:
    """The fences of a store that stand, one for each damaged block or table."""

    def __init__(self) -> None:
        self._standing: dict[tuple[int, int], Fence] = {}
        self.noticed: list[Fence] = []
        """What was put up since the last `take_noticed`, the first at first."""

    @property
    def fences(self) -> tuple[Fence, ...]:
        """What is quarantined: damaged blocks, and tables that cannot be opened."""
        return tuple(self._standing.values())

    def take_noticed(self) -> list[Fence]:
        """What has been quarantined since the last call."""
        noticed, self.noticed = self.noticed, []
        return noticed

    def covers(self, key: bytes) -> bool:
        """Whether some fence stands before a key."""
        return any(fence.first <= key <= fence.last for fence in self._standing.values())

    def tables(self) -> set[int]:
        """The numbers of the tables that have a fence."""
        return {fence.table for fence in self._standing.values()}

    def stands(self, fence: Fence) -> bool:
        """Whether its block or table has a fence."""
        return (fence.table, fence.block) in self._standing

    def put_up(self, fence: Fence) -> None:
        """Quarantine something, unless it is already."""
        if not self.stands(fence):
            self._standing[fence.table, fence.block] = fence
            self.noticed.append(fence)

    def take_down(self, fence: Fence) -> None:
        """One that stands."""
        del self._standing[fence.table, fence.block]

    def forget(self, tables: Collection[int]) -> None:
        """Take down all fences in tables that are gone."""
        self._standing = {
            place: fence for place, fence in self._standing.items() if fence.table not in tables
        }

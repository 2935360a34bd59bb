"""The cache of what has been read from tables, for all tables of an engine together."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol, TypeVar


class Cached(Protocol):
    """Something that knows about how many bytes of memory it takes."""

    @property
    def memory(self) -> int:
        """Bytes."""


T = TypeVar("T", bound=Cached)


class BlockCache:
    """What was read last, up to a number of bytes: data blocks, and the indexes and filters of tables."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: OrderedDict[tuple[int, int], tuple[Cached, int]] = OrderedDict()
        self._pinned: dict[int, int] = {}
        self._pinned_bytes = 0
        self.memory = 0
        self.hits = 0
        self.misses = 0

    def get(self, table: int, offset: int, kind: type[T]) -> T | None:
        """What was kept for an offset of a table, if it is here."""
        place = (table, offset)
        item = self._items.get(place)
        if item is None:
            self.misses += 1
            return None
        self.hits += 1
        self._items.move_to_end(place)
        return item[0]  # type: ignore[return-value]  # `kind` is what was put there

    def put(self, table: int, offset: int, item: Cached) -> None:
        """Keep something, and let go of what was used longest ago."""
        size = item.memory
        if replaced := self._items.pop((table, offset), None):
            self.memory -= replaced[1]
        self._items[table, offset] = (item, size)
        self.memory += size
        self._make_room()

    def pin(self, table: int, offset: int, size: int) -> bool:
        """Count what the table keeps itself until it is forgotten; False when half is taken by such."""
        if size + self._pinned_bytes > self._capacity // 2:
            return False
        if kept := self._items.pop((table, offset), None):
            self.memory -= kept[1]
        self._pinned[table] = size
        self._pinned_bytes += size
        self.memory += size
        self._make_room()
        return True

    def _make_room(self) -> None:
        while self.memory > self._capacity and self._items:
            _, (_, freed) = self._items.popitem(last=False)
            self.memory -= freed

    def forget(self, table: int) -> None:
        """Let go of a table that is no longer used."""
        pinned = self._pinned.pop(table, 0)
        self._pinned_bytes -= pinned
        self.memory -= pinned
        for place in [place for place in self._items if place[0] == table]:
            self.memory -= self._items.pop(place)[1]

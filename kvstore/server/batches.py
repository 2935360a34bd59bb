"""What waits for the next frames of a stream."""

from __future__ import annotations

from typing import Generic, TypeVar

from kvstore.config import FRAME_BYTES

T = TypeVar("T")


class Batches(Generic[T]):
    """Items in batches of at most FRAME_BYTES by their estimated sizes, a larger item alone."""

    __slots__ = ("_batches", "_room", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._batches: list[list[T]] = []
        self._room = 0

    def add(self, item: T, size: int) -> None:
        """Put in an item of `size` bytes."""
        if self._room < size or not self._batches:
            self._batches.append([])
            self._room = FRAME_BYTES
        self._batches[-1].append(item)
        self._room -= size
        self.bytes += size

    def take(self) -> list[list[T]]:
        """All batches, none of them empty; nothing waits any more."""
        batches, self._batches = self._batches, []
        self.bytes = 0
        return batches

"""What waits for the next frames of a stream."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from kvstore.config import FRAME_BYTES

T = TypeVar("T")


class Batches(Generic[T]):
    """Items in batches of at most FRAME_BYTES by their estimated sizes, a larger item alone.

    `bytes` are those of all that waits.
    """

    __slots__ = ("_batches", "_room", "_sizes", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._batches: deque[list[T]] = deque()
        self._sizes: deque[int] = deque()
        self._room = 0

    def __len__(self) -> int:
        """How many batches wait."""
        return len(self._batches)

    def add(self, item: T, size: int) -> None:
        """Put in an item of `size` bytes."""
        if self._room < size or not self._batches:
            self._batches.append([])
            self._sizes.append(0)
            self._room = FRAME_BYTES
        self._batches[-1].append(item)
        self._sizes[-1] += size
        self._room -= size
        self.bytes += size

    def add_first(self, item: T, size: int) -> None:
        """Put a small item into the batch that is taken next, full or not."""
        if not self._batches:
            self.add(item, size)
            return
        self._batches[0].append(item)
        self._sizes[0] += size
        self.bytes += size

    def take(self) -> list[T]:
        """The next batch, never empty; raises IndexError when none waits."""
        self.bytes -= self._sizes.popleft()
        return self._batches.popleft()

    def clear(self) -> None:
        """Nothing waits any more."""
        self._batches.clear()
        self._sizes.clear()
        self.bytes = 0

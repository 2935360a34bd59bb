"""What other threads hand to an event loop, at a lower price than by `call_soon_threadsafe`."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST = 4096


class FromThreads(Generic[T]):
    """Gives `take` all that has come for the running loop, in order, as soon as the loop can.

    `call_soon_threadsafe` makes a handle and copies a context for each call, and the loop reads its pipe
    twice to find it empty: that is half of what handing over costs.
    """

    def __init__(self, take: Callable[[Sequence[T]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._take = take
        self._items: deque[T] = deque()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._loop.add_reader(self._read, self._on_readable)

    def put(self, item: T) -> None:
        """Hand in something, from any thread."""
        self._items.append(item)
        # each time: to remember that one was written could be interrupted between the two
        with suppress(BlockingIOError):  # it is full: the loop wakes anyway
            os.write(self._write, b"\0")

    def _on_readable(self) -> None:
        os.read(self._read, _MOST)
        if items := self._items:
            # what comes from now on has written after this was read
            self._take([items.popleft() for _ in range(len(items))])

    def close(self) -> None:
        """Take nothing any more; nobody puts anything then. May be called again."""
        if self._read < 0:
            return
        self._loop.remove_reader(self._read)
        os.close(self._read)
        os.close(self._write)
        self._read = self._write = -1

"""What is done at the end of a turn: what it has queued is sent, what it has written synced."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class TurnEnds:
    """Of one node or client. A turn is what is done `with` this: an input, in which others may follow.

    Outside of turns, what is added is done in the next pass of the loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: deque[Callable[[], None]] = deque()
        self._inside = 0

    def add(self, act: Callable[[], None]) -> None:
        """Call `act`, once, at the end of this turn."""
        if not self._inside and not self._due:
            self._loop.call_soon(self._act)
        self._due.append(act)

    def __enter__(self) -> None:
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside and self._due:
            self._act()

    def _act(self) -> None:
        self._inside += 1
        try:
            while self._due:
                self._due.popleft()()
        finally:
            self._inside -= 1
            if self._due:  # one of them has raised, and the others have nothing to do with it
                self._loop.call_soon(self._act)

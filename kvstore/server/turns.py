"""Turns of the loop: work that may wait does, when the present turn has gone on for long.

Whatever is ready has its turn in one pass of the loop, and a request needs several passes until it is
answered. So what one client sends at once, however it is spread over sessions, may hold a pass for a few
milliseconds and not for as long as it takes, and then not the next ones.
"""

from __future__ import annotations

import asyncio
from collections import deque

TURN = 0.005
"""Seconds of one turn after which work that may wait is left for later ones."""
_NOTICED = TURN / 8
_PASSES = 8
"""Passes of the loop after a turn that was used up, before what waits goes on: 0.3 ms without other work."""


def fitting(count: int, took: float, most: int) -> int:
    """How many fit into a turn when `count` took so many seconds: at least one, and at most `most`."""
    return max(1, min(most, int(count * TURN / took))) if took > 0 else most


class Turns:
    """Of the loop of one node."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open = self._resting = False
        self._begun = self._spent = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._at_once = 1
        """How much of what waits is let go on in one turn: what has taken a turn the last time, at most."""
        self._given = 0

    async def share(self) -> None:
        """Return at once, or in a later turn when this one is used up or others wait: in order."""
        if self._waiting or (self._open and self._loop.time() > self._begun + TURN):
            turn = self._loop.create_future()
            self._waiting.append(turn)
            await turn
        else:
            self._begin(self._loop.time())

    def spend(self, seconds: float) -> None:
        """Work that did not wait has taken so long: it counts for this turn.

        What is too short to be noticed is added up: to see where each turn ends would cost as much.
        """
        self._spent += seconds
        if self._spent > _NOTICED:
            self._begin(self._loop.time() - self._spent)

    def _begin(self, begun: float) -> None:
        if not self._open:
            self._open = True
            self._begun = begun
            self._loop.call_soon(self._end)
        self._spent = 0.0

    def _end(self) -> None:
        self._open = False
        took = self._loop.time() - self._begun
        if self._given:
            self._at_once = fitting(self._given, took, 2 * self._given)
            self._given = 0
        if self._waiting and not self._resting:
            self._resting = True
            self._loop.call_soon(self._rest, _PASSES if took > TURN else 0)

    def _rest(self, passes: int) -> None:
        """Let what waits go on after so many passes."""
        if passes or self._open:
            self._loop.call_soon(self._rest, max(0, passes - 1))
            return
        self._resting = False
        while self._waiting and self._given < self._at_once:
            following = self._waiting.popleft()
            if not following.done():  # whoever was cancelled needs no turn
                following.set_result(None)
                self._given += 1
        if self._given:
            self._begin(self._loop.time())

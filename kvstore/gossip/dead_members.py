"""Members that are believed dead: each is pinged now and then, so that a healed partition always rejoins."""

from __future__ import annotations

import math

_PINGS = 8
"""Most pings in one interval, however many members are dead: one that returns is found by any of the others,
and what it then says of itself spreads."""


class DeadMembers:
    """Whom to ping next, and when. `interval`: seconds from ping to ping of one, while few are dead."""

    __slots__ = ("_interval", "_waiting", "deadline")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._waiting: dict[str, None] = {}
        """In the order in which they are pinged."""
        self.deadline = math.inf
        """When the next ping is due, in monotonic seconds; infinite while nobody is dead."""

    def add(self, node: str, now: float) -> None:
        """This one is dead."""
        self._waiting[node] = None
        self.deadline = min(self.deadline, now + self._pause())

    def discard(self, node: str) -> None:
        """This one is not dead, or no member."""
        self._waiting.pop(node, None)
        if not self._waiting:
            self.deadline = math.inf

    def take_due(self, now: float) -> str | None:
        """The member to ping now, if it is time."""
        if now < self.deadline:
            return None
        node = next(iter(self._waiting))
        del self._waiting[node]
        self._waiting[node] = None
        self.deadline = now + self._pause()
        return node

    def _pause(self) -> float:
        return self._interval / min(len(self._waiting), _PINGS)

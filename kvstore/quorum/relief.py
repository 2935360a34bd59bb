"""Freeing memory that acknowledged writes hold for a slow replica: it gets its hints early."""

from __future__ import annotations

from kvstore.protocol.instant import Instant
from kvstore.quorum.guard import Guard
from kvstore.quorum.rpc import Rpc
from kvstore.quorum.write import WriteOperation, WriteState

_PAUSE = 0.2
"""Seconds between two looks, which go through all operations."""
_ANSWERED = (WriteState.REPLIED, WriteState.OWING)


class Relief:
    """Of one node. Slow is who has not answered from one look to the next."""

    __slots__ = ("_guard", "_looked_at", "_looked_below", "_rpc")

    def __init__(self, rpc: Rpc, guard: Guard) -> None:
        self._rpc = rpc
        self._guard = guard
        self._looked_at = 0.0
        self._looked_below = 0

    def relieve(self, now: Instant) -> int:
        """End the patience of the writes that were there at the last look; returns how many these are."""
        if now.mono < self._looked_at + _PAUSE:
            return 0
        old, self._looked_at, self._looked_below = self._looked_below, now.mono, self._rpc.last_number
        freed = 0
        for waiting in self._rpc.all():
            if waiting.number > old:
                break
            if isinstance(waiting, WriteOperation) and waiting.state in _ANSWERED:
                self._guard.run(waiting.hint_early, now)
                freed += 1
        return freed

"""What must wait until the engine's log is on the disk: every acknowledgement does.

Persist before send, made explicit: an action given to `after` runs only when its LSN is durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from kvstore.lsm import Engine
from kvstore.quorum.guard import Guard


class Durability:
    """Actions in order of the LSN they wait for; one sync is requested at a time (group commit)."""

    __slots__ = ("_engine", "_guard", "_request_sync", "_requested", "_waiting")

    def __init__(self, engine: Engine, request_sync: Callable[[], None], guard: Guard) -> None:
        self._engine = engine
        self._guard = guard
        self._request_sync = request_sync
        self._requested = False
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    @property
    def last(self) -> int:
        """The LSN of the last write: all is durable when this is."""
        return self._engine.last_lsn

    def after(self, lsn: int, action: Callable[[], None]) -> None:
        """Run `action` once all writes up to `lsn` are durable, at once if they are or need not be."""
        if lsn <= self._engine.durable_lsn:
            action()
            return
        if not self._engine.waits_for_disk:
            self._request()
            action()
            return
        # `lsn` may be that of an earlier write; the queue stays in order all the same
        last = self._waiting[-1][0] if self._waiting else 0
        self._waiting.append((max(lsn, last), action))
        self._request()

    def soon(self, lsn: int) -> None:
        """Have all writes up to `lsn` synced soon, although nothing waits for that."""
        self.after(lsn, _nothing)

    def on_durable(self, lsn: int) -> None:
        """All writes up to `lsn` are durable: run what waited for them, in order."""
        self._requested = False
        waiting = self._waiting
        while waiting and waiting[0][0] <= lsn:
            self._guard.run(waiting.popleft()[1])
        if waiting:
            self._request()

    def _request(self) -> None:
        if not self._requested:
            self._requested = True
            self._request_sync()


def _nothing() -> None:
    """What follows upon a write that nothing waits for."""

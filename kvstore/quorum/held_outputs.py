"""What must wait until the engine's log is on the disk: every acknowledgement does.

Persist before send, made explicit: what is given to `after` is an output, a value, and it is released when
its LSN is durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from kvstore.protocol.instant import Instant
from kvstore.quorum.guard import Guard
from kvstore.quorum.outputs import Output


class Log(Protocol):
    """How far an engine's log is written, and how far it is on the disk."""

    @property
    def last_lsn(self) -> int:
        """See Engine."""

    @property
    def durable_lsn(self) -> int:
        """See Engine."""

    @property
    def waits_for_disk(self) -> bool:
        """See Engine."""


class HeldOutputs:
    """Outputs in order of the LSN they wait for; one sync is requested at a time (group commit).

    `release` carries an output out.
    """

    __slots__ = ("_guard", "_log", "_release", "_request_sync", "_requested", "_waiting", "_wanted")

    def __init__(
        self,
        log: Log,
        request_sync: Callable[[], None],
        release: Callable[[Output, Instant], None],
        guard: Guard,
    ) -> None:
        self._log = log
        self._guard = guard
        self._release = release
        self._request_sync = request_sync
        self._requested = False
        self._wanted = 0
        self._waiting: deque[tuple[int, Output]] = deque()

    @property
    def last(self) -> int:
        """The LSN of the last write: all is durable when this is."""
        return self._log.last_lsn

    def must_wait(self, lsn: int) -> bool:
        """Whether what depends on all writes up to `lsn` has to wait for the disk: `after` tells when."""
        if lsn <= self._log.durable_lsn:
            return False
        self._request()
        return self._log.waits_for_disk

    def after(self, lsn: int, output: Output, now: Instant) -> None:
        """Release `output` once all writes up to `lsn` are durable, at once if they are or need not be."""
        if self.must_wait(lsn):
            self._hold(lsn, output)
        else:
            self._release(output, now)

    def after_sync(self, lsn: int, output: Output, now: Instant) -> None:
        """Likewise, also where nothing else waits for the disk."""
        if lsn <= self._log.durable_lsn:
            self._release(output, now)
        else:
            self._request()
            self._hold(lsn, output)

    def _hold(self, lsn: int, output: Output) -> None:
        # `lsn` may be that of an earlier write; the queue stays in order all the same
        last = self._waiting[-1][0] if self._waiting else 0
        self._waiting.append((max(lsn, last), output))

    def soon(self, lsn: int) -> None:
        """Have all writes up to `lsn` synced soon, although nothing waits for that."""
        if lsn > self._log.durable_lsn:
            self._wanted = max(self._wanted, lsn)
            self._request()

    def on_durable(self, lsn: int, now: Instant) -> None:
        """All writes up to `lsn` are durable: release what waited for them, in order."""
        self._requested = False
        waiting = self._waiting
        while waiting and waiting[0][0] <= lsn:
            self._guard.run(self._release, waiting.popleft()[1], now)
        if waiting or self._wanted > lsn:
            self._request()

    def _request(self) -> None:
        if not self._requested:
            self._requested = True
            self._request_sync()

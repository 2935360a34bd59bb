"""Syncing the log: the group commit on an asyncio loop, with one thread for its syncs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kvstore.errors import StorageFull
from kvstore.frames.turn_ends import TurnEnds
from kvstore.lsm import GroupCommit, Sync, Synced
from kvstore.server.sync_worker import SyncWorker

_BUSY = 2
"""A sync of so many writes means that more are on their way: the next one waits for this pass of the loop."""

_log = logging.getLogger(__name__)


class SyncThread:
    """Syncs one engine's log on request. All methods belong to the loop's thread.

    `on_durable` is called with the LSN up to which all is on the disk. `on_fatal` is called, once, when that
    cannot be known: it must end the process.
    """

    def __init__(
        self,
        engine: Synced,
        on_durable: Callable[[int], None],
        on_fatal: Callable[[BaseException], None],
        turn_ends: TurnEnds,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._commit = GroupCommit(engine, self)
        self._worker = SyncWorker(self._ran)
        self._running = False
        self._ended = asyncio.Event()
        self._turn_ends = turn_ends
        self._durable = engine.durable_lsn
        self._together = 0
        """How many writes the last sync made durable."""
        self._on_durable = on_durable
        self.on_fatal = on_fatal

    def request_sync(self) -> None:
        """Sync what this turn of the node appends at its end; or, under load, with what others append."""
        self._commit.request_sync()

    async def close(self) -> None:
        """Let the sync that runs come to its end; begin no other."""
        self._commit.stop()
        while self._running:
            self._ended.clear()
            await self._ended.wait()
        self._worker.shutdown()

    # what the group commit wants done

    def begin_in(self, seconds: float) -> None:
        """See CommitShell."""
        if seconds:
            self._loop.call_later(seconds, self._commit.begin)
        elif self._together < _BUSY:
            self._turn_ends.add(self._commit.begin)
        else:
            self._loop.call_soon(self._commit.begin)

    def run_sync(self, sync: Sync) -> None:
        """See CommitShell."""
        try:
            self._worker.submit(sync)
        except Exception as error:  # noqa: BLE001  (there is no thread: nobody would hear of what was begun)
            self._commit.failed(sync, error)
        else:
            self._running = True

    def _ran(self, sync: Sync, error: BaseException | None) -> None:
        self._running = False
        self._ended.set()
        if error is not None:
            self._commit.failed(sync, error)
        else:
            self._commit.ran(sync)

    def on_durable(self, lsn: int) -> None:
        """See CommitShell."""
        self._together, self._durable = lsn - self._durable, lsn
        self._on_durable(lsn)

    def on_full(self, error: StorageFull | None) -> None:
        """See CommitShell."""
        if error is not None:
            _log.error("%s: reads are served, writes are refused until there is space", error)
        else:
            _log.warning("there is space on the disk again: writes are taken")

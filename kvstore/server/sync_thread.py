"""Syncing the log: the group commit on an asyncio loop, with one thread for its syncs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from kvstore.errors import StorageFull
from kvstore.lsm import GroupCommit, Sync, Synced

_log = logging.getLogger(__name__)


class SyncThread:
    """Syncs one engine's log on request. All methods belong to the loop's thread.

    `on_durable` is called with the LSN up to which all is on the disk. `on_fatal` is called, once, when that
    cannot be known: it must end the process.
    """

    def __init__(
        self, engine: Synced, on_durable: Callable[[int], None], on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._commit = GroupCommit(engine, self)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._running: asyncio.Future[None] | None = None
        self.on_durable = on_durable
        self.on_fatal = on_fatal

    def request_sync(self) -> None:
        """Sync at the end of this turn of the loop, with all that the turn appends; or in a while."""
        self._commit.request_sync()

    async def close(self) -> None:
        """Let the sync that runs come to its end; begin no other."""
        self._commit.stop()
        if self._running is not None:
            await asyncio.wait([self._running])
        self._thread.shutdown()

    # what the group commit wants done

    def begin_in(self, seconds: float) -> None:
        """See CommitShell."""
        if seconds:
            self._loop.call_later(seconds, self._commit.begin)
        else:
            self._loop.call_soon(self._commit.begin)

    def run_sync(self, sync: Sync) -> None:
        """See CommitShell."""
        try:
            self._running = self._loop.run_in_executor(self._thread, sync.run)
        except Exception as error:  # noqa: BLE001  (there is no thread: nobody would hear of what was begun)
            self._commit.failed(error)
        else:
            # a callback and no task: this happens some hundred times a second
            self._running.add_done_callback(partial(self._ran, sync))

    def _ran(self, sync: Sync, running: asyncio.Future[None]) -> None:
        self._running = None
        try:
            running.result()
        except BaseException as error:  # noqa: BLE001  (it would be lost with this callback)
            self._commit.failed(error)
        else:
            self._commit.ran(sync)

    def on_full(self, error: StorageFull | None) -> None:
        """See CommitShell."""
        if error is not None:
            _log.error("%s: reads are served, writes are refused until there is space", error)
        else:
            _log.warning("there is space on the disk again: writes are taken")

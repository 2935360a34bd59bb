"""Syncing the log: one sync thread, and one sync at a time.

Whatever is appended while a sync runs waits for the next, which follows at once: a group commit
(Gray and Reuter, "Transaction Processing", 1993, section 9.4.7), its size set by the disk's own speed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from kvstore.errors import StorageFull
from kvstore.lsm import Engine, Sync

_FULL_PAUSE = 0.5

_log = logging.getLogger(__name__)


class GroupCommit:
    """Syncs one engine's log on request. All methods belong to the loop's thread.

    `on_durable` is called with the LSN up to which all is on the disk. `on_fatal` is called when that
    cannot be known: a failed sync is never retried, because the kernel may have dropped what it could
    not write (PostgreSQL's fsync lesson).
    """

    def __init__(
        self, engine: Engine, on_durable: Callable[[int], None], on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._engine = engine
        self._on_durable = on_durable
        self._on_fatal = on_fatal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._wanted = self._stopped = self._full = False
        self._running: asyncio.Future[None] | None = None

    def request(self) -> None:
        """Sync at the end of this turn of the loop, with all that the turn appends; or in a while."""
        if not self._wanted:
            self._wanted = True
            if self._running is None:
                self._begin_soon()

    def _begin_soon(self) -> None:
        """At the end of this turn; later while the engine wants writers slowed, or syncs at intervals."""
        if delay := self._engine.sync_delay():
            self._loop.call_later(delay, self._begin)
        else:
            self._loop.call_soon(self._begin)

    async def close(self) -> None:
        """Let the sync that runs come to its end; begin no other."""
        self._stopped = True
        if self._running is not None:
            await asyncio.wait([self._running])
        self._thread.shutdown()

    def _begin(self) -> None:
        if self._running is not None or self._stopped or not self._wanted:
            return
        self._wanted = False
        try:
            sync = self._engine.begin_sync()
        except StorageFull as error:
            # nothing is lost: the engine refuses writes until there is space again
            self._note_full(error)
            self._wanted = True
            self._loop.call_later(_FULL_PAUSE, self._begin)
        except Exception as error:  # noqa: BLE001  (or no write would ever be acknowledged again)
            self._on_fatal(error)
        else:
            self._note_full(None)
            if sync is None:
                self._durable(self._engine.durable_lsn)
            else:
                self._run(sync)

    def _run(self, sync: Sync) -> None:
        try:
            self._running = self._loop.run_in_executor(self._thread, sync.run)
        except Exception as error:  # noqa: BLE001  (there is no thread: nobody would hear of what was begun)
            self._on_fatal(error)
        else:
            # a callback and no task: this happens some hundred times a second
            self._running.add_done_callback(partial(self._ran, sync))

    def _note_full(self, error: StorageFull | None) -> None:
        """Log that there is no space, and that there is again, once each."""
        if error and not self._full:
            _log.error("%s: reads are served, writes are refused until there is space", error)
        elif self._full and not error:
            _log.warning("there is space on the disk again: writes are taken")
        self._full = error is not None

    def _ran(self, sync: Sync, running: asyncio.Future[None]) -> None:
        try:
            running.result()
            lsn = self._engine.finish_sync(sync)
        except BaseException as error:  # noqa: BLE001  (it would be lost with this callback)
            self._on_fatal(error)
            return
        self._running = None
        self._durable(lsn)

    def _durable(self, lsn: int) -> None:
        if not self._stopped:
            try:
                self._on_durable(lsn)
            finally:  # whatever it meets, the next writes wait for their sync
                if self._wanted:
                    self._begin_soon()

"""Syncing the log at intervals: the group commit on a thread, for a program without a loop."""

from __future__ import annotations

import logging
import threading
import time

from kvstore.errors import StorageFailed, StorageFull
from kvstore.lsm import GroupCommit, Sync, Synced

_log = logging.getLogger(__name__)


class SyncThread:
    """Keeps what Durability.INTERVAL promises, whether or not writes go on.

    `lock` is held by whoever uses the engine, and for each sync: whoever writes meanwhile waits for it.
    """

    def __init__(self, engine: Synced, lock: threading.RLock) -> None:
        self._commit = GroupCommit(engine, self)
        self._changed = threading.Condition(lock)
        self._due: float | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="sync", daemon=True)
        self._thread.start()

    def request_sync(self) -> None:
        """There is something to sync. The caller holds the lock."""
        self._commit.request_sync()

    def close(self) -> None:
        """Let the sync that runs come to its end; begin no other. The caller does not hold the lock."""
        with self._changed:
            self._closed = True
            self._commit.stop()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        with self._changed:
            while not self._closed:
                left = None if self._due is None else self._due - time.monotonic()
                if left is None or left > 0:
                    self._changed.wait(left)
                else:
                    self._due = None
                    self._commit.begin()

    # what the group commit wants done

    def begin_in(self, seconds: float) -> None:
        """See CommitShell."""
        self._due = time.monotonic() + seconds
        self._changed.notify()

    def run_sync(self, sync: Sync) -> None:
        """See CommitShell."""
        try:
            sync.run()
        except (StorageFull, StorageFailed) as error:
            self._commit.failed(sync, error)
        else:
            self._commit.ran(sync)

    def on_durable(self, lsn: int) -> None:
        """See CommitShell: nobody waits for it."""

    def on_full(self, error: StorageFull | None) -> None:
        """See CommitShell: until there is space, each write says that there is none."""

    def on_fatal(self, error: BaseException) -> None:
        """See CommitShell."""
        _log.error("the log cannot be synced, and the next write will say so: %s", error)

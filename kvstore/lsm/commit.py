"""Group commit: when the log is synced, and what is durable by that. One sync at a time.

Whatever is appended while a sync runs waits for the next, which follows at once (Gray and Reuter,
"Transaction Processing", 1993, section 9.4.7): the disk's own speed sets how many writes share one.

`GroupCommit` waits for nothing and reads no clock. Who runs an engine gives it a `CommitShell`.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from kvstore.errors import StorageFailed, StorageFull
from kvstore.lsm.segments import Sync

FULL_PAUSE = 0.5
"""Seconds after which a sync that found no space on the disk is tried again."""


class Synced(Protocol):
    """What is synced: an engine."""

    @property
    def durable_lsn(self) -> int:
        """See Engine."""

    def begin_sync(self) -> Sync | None:
        """See Engine."""

    def finish_sync(self, sync: Sync) -> int:
        """See Engine."""

    def fail_sync(self, sync: Sync, error: StorageFull | StorageFailed) -> None:
        """See Engine."""

    def sync_delay(self) -> float:
        """See Engine."""


class CommitShell(Protocol):
    """What carries out what a group commit decides."""

    def begin_in(self, seconds: float) -> None:
        """Call `begin` in so many seconds, with 0 at the end of the present turn."""

    def run_sync(self, sync: Sync) -> None:
        """Run the sync where it delays no writes; then call `ran`, or `failed` with what it raised."""

    def on_durable(self, lsn: int) -> None:
        """All writes up to `lsn` are on the disk, or need not be there (Durability.NONE)."""

    def on_full(self, error: StorageFull | None) -> None:
        """There is no space on the disk for the log: told once, and once with None when there is again."""

    def on_fatal(self, error: BaseException) -> None:
        """It cannot be known what is durable: nothing more may be acknowledged, the process must end."""


class _State(Enum):
    IDLE = "nothing runs and nothing is asked for"
    DUE = "begin_in has been called, begin not yet"
    RUNNING = "a sync runs"
    STOPPED = "none is begun any more"


class GroupCommit:
    """Syncs one engine's log on request, and never again after a sync has failed.

    A failed sync is not retried because the kernel may have dropped what it could not write (PostgreSQL's
    fsync lesson). Without space nothing is lost: the engine refuses writes until there is some again.
    """

    def __init__(self, engine: Synced, shell: CommitShell) -> None:
        self._engine = engine
        self._shell = shell
        self._state = _State.IDLE
        self._asked = False
        """For a sync that has not begun."""
        self._full = False

    def request_sync(self) -> None:
        """Sync what has been written in this turn, and what is written before the sync begins."""
        if not self._asked:
            self._asked = True
            if self._state is _State.IDLE:
                self._begin_soon()

    def stop(self) -> None:
        """Begin no other sync and tell of nothing more; one that runs may come to its end."""
        self._state = _State.STOPPED

    def begin(self) -> None:
        """Begin the sync that has been asked for: the time that `begin_in` was given is over."""
        if self._state is not _State.DUE:
            return
        try:
            sync = self._engine.begin_sync()
        except StorageFull as error:
            self._wait_for_space(error)
        except Exception as error:  # noqa: BLE001  (or no write would ever be acknowledged again)
            self._fail(error)
        else:
            self._asked = False
            self._note_full(None)
            self._start(sync)

    def ran(self, sync: Sync) -> None:
        """The sync that `run_sync` was given has come to its end."""
        try:
            lsn = self._engine.finish_sync(sync)
        except Exception as error:  # noqa: BLE001  (nor after this one)
            self._fail(error)
        else:
            if self._state is _State.RUNNING:
                self._tell(lsn)

    def failed(self, sync: Sync, error: BaseException) -> None:
        """The sync that `run_sync` was given has raised `error`, or could not be started."""
        if isinstance(error, StorageFull | StorageFailed):
            self._engine.fail_sync(sync, error)
        if not isinstance(error, StorageFull):
            self._fail(error)
        elif self._state is _State.RUNNING:
            self._wait_for_space(error)

    def _wait_for_space(self, error: StorageFull) -> None:
        self._asked = True
        self._state = _State.DUE
        self._shell.begin_in(FULL_PAUSE)
        self._note_full(error)

    def _begin_soon(self) -> None:
        """At the end of this turn; later while the engine wants writers slowed, or syncs at intervals."""
        self._state = _State.DUE
        self._shell.begin_in(self._engine.sync_delay())

    def _start(self, sync: Sync | None) -> None:
        if sync is None:
            self._tell(self._engine.durable_lsn)
        else:
            self._state = _State.RUNNING
            self._shell.run_sync(sync)

    def _tell(self, lsn: int) -> None:
        self._state = _State.IDLE
        try:
            self._shell.on_durable(lsn)
        finally:  # whatever it meets, the next writes wait for their sync
            if self._asked and self._state is _State.IDLE:
                self._begin_soon()

    def _note_full(self, error: StorageFull | None) -> None:
        full = error is not None
        if full is not self._full:
            self._full = full
            self._shell.on_full(error)

    def _fail(self, error: BaseException) -> None:
        self._state = _State.STOPPED
        self._shell.on_fatal(error)

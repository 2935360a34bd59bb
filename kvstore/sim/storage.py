"""What a host's disk does in the background: syncs of the log, flushes, compactions.

The simulator's counterpart of kvstore.server.group_commit and kvstore.server.jobs, with their rules: one
sync at a time, a failed one ends the process, a full disk is tried again, a failed job is offered again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol

from kvstore.errors import StorageError, StorageFailed, StorageFull
from kvstore.lsm import Engine, Job, JobResult, MemoryFileSystem, Sync, run_job

Later = Callable[[float, Callable[[], None]], None]

SYNC_SECONDS = 0.0005
_JOB_SYNCS = 100
_LONGEST_JOB = 10.0
_FULL_PAUSE = 0.5
_JOB_PAUSE = 1.0


class Worked(Protocol):
    """Who is told what the disk has done."""

    def on_durable(self, lsn: int) -> None:
        """A sync has finished."""

    def on_job_done(self, result: JobResult) -> None:
        """A job has finished."""

    def on_job_failed(self, job: Job) -> None:
        """A job could not be done."""


class Storage:
    """The syncs and jobs of one life of a host. `later` runs things unless the host dies before."""

    def __init__(
        self, disk: MemoryFileSystem, engine: Engine, worked: Worked, later: Later, rng: random.Random
    ) -> None:
        self._disk = disk
        self._engine = engine
        self._worked = worked
        self._later = later
        self._rng = rng
        self._running = self._wanted = False
        self.jobs = 0
        """How many have been started, and are neither done nor given back."""
        self.sync_seconds = SYNC_SECONDS
        self.jitter = 0.5
        self.counts: Counter[str] = Counter()

    def request_sync(self) -> None:
        """Sync at the end of this turn, with all that it appends."""
        if not self._wanted:
            self._wanted = True
            if not self._running:
                self._later(self._engine.sync_delay(), self._sync)

    def _duration(self) -> float:
        return self._rng.uniform(1 - self.jitter, 1 + self.jitter) * self.sync_seconds

    def _sync(self) -> None:
        if self._running or not self._wanted:
            return
        self._wanted = False
        try:
            sync = self._engine.begin_sync()
        except StorageFull:
            # nothing is lost: the engine refuses writes until there is space again
            self.counts["syncs without space"] += 1
            self._wanted = True
            self._later(_FULL_PAUSE, self._sync)
            return
        if sync is None:
            self._durable(self._engine.durable_lsn)
            return
        self._running = True
        self._disk.sync_begins(sync.files)
        self._later(self._duration(), partial(self._synced, sync))

    def _synced(self, sync: Sync) -> None:
        sync.run()
        self._running = False
        self.counts["syncs"] += 1
        self._durable(self._engine.finish_sync(sync))

    def _durable(self, lsn: int) -> None:
        self._worked.on_durable(lsn)
        if self._wanted:
            self._later(self._engine.sync_delay(), self._sync)

    def start_job(self, job: Job) -> None:
        """Run a job after a while; one that fails is given back after a pause."""
        self.jobs += 1
        self._later(min(_JOB_SYNCS * self._duration(), _LONGEST_JOB), partial(self._run_job, job))

    def _run_job(self, job: Job) -> None:
        try:
            result = run_job(self._disk, job)
        except StorageError:
            self._job_failed(job)
            return
        try:
            self._worked.on_job_done(result)
            self.jobs -= 1
        except StorageFull:
            self._job_failed(job)
        except StorageError as error:
            raise StorageFailed(f"half of a job's result may be in use: {error}") from error

    def _job_failed(self, job: Job) -> None:
        self.counts["failed jobs"] += 1
        self._later(_JOB_PAUSE, partial(self._give_back, job))

    def _give_back(self, job: Job) -> None:
        self.jobs -= 1
        self._worked.on_job_failed(job)

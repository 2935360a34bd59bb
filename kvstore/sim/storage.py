"""What a host's disk does in the background: syncs of the log, flushes, compactions.

The simulator's counterpart of kvstore.server.group_commit and kvstore.server.jobs, with their rules: one
sync at a time, a failed one ends the process, a full disk is tried again, a failed job is offered again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from kvstore.errors import StorageError, StorageFailed, StorageFull
from kvstore.lsm import Engine, Job, JobResult, MemoryFileSystem, Sync, run_job
from kvstore.lsm.worker import more_patience

Later = Callable[[float, Callable[[], None]], None]

SYNC_SECONDS = 0.0005
_JOB_SYNCS = 100
_LONGEST_JOB = 10.0
_LONGEST_SYNC = 3.0
_FULL_PAUSE = 0.5
_JOB_PAUSE = 1.0
_STALLED = 2.0
"""Seconds of silence after which a worker is given up: a minute in real nodes, whose jobs are larger."""
_STEPS = 30
"""A worker that dies or hangs does so within so many steps of its job, or at its end, before it answers."""


class _WorkerGone(BaseException):
    """The process that does a job stops here. Not an Exception: it cleans nothing up."""


@dataclass(slots=True)
class Disk:
    """How slow the disk of a host is, and what becomes of its worker processes; times in seconds."""

    sync_seconds: float = SYNC_SECONDS
    """Of a sync, about; jobs take a multiple of it."""
    jitter: float = 0.5
    load: float = 0.0
    """For each job and sync under way all take so much longer, as a share of their time."""
    stalled_until: float = 0.0
    """Nothing comes to its end before this time."""
    deaths: int = 0
    """So many of the next jobs lose their worker."""
    hangs: int = 0
    """So many of the next jobs never answer."""

    def mend(self) -> None:
        """As usual from now on."""
        self.load, self.stalled_until, self.deaths, self.hangs = 0.0, 0.0, 0, 0


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
        self,
        disk: MemoryFileSystem,
        engine: Engine,
        worked: Worked,
        later: Later,
        rng: random.Random,
        how: Disk,
        now: Callable[[], float],
    ) -> None:
        self._disk = disk
        self._engine = engine
        self._worked = worked
        self._later = later
        self._rng = rng
        self._how = how
        self._now = now
        self._running = self._wanted = False
        self._patience = _STALLED
        self.jobs = 0
        """How many have been started, and are neither done nor given back."""
        self.counts: Counter[str] = Counter()

    def request_sync(self) -> None:
        """Sync at the end of this turn, with all that it appends."""
        if not self._wanted:
            self._wanted = True
            if not self._running:
                self._later(self._engine.sync_delay(), self._sync)

    def _duration(self) -> float:
        how = self._how
        seconds = self._rng.uniform(1 - how.jitter, 1 + how.jitter) * how.sync_seconds
        # a disk that takes longer stalls, which is a fault of its own
        return min(seconds * (1 + how.load * (self.jobs + self._running)), max(seconds, _LONGEST_SYNC))

    def _when_done(self, seconds: float, action: Callable[[], None]) -> None:
        """Do `action` in so many seconds, or when the disk no longer stalls."""

        def unless_stalled() -> None:
            if left := max(0.0, self._how.stalled_until - self._now()):
                self.counts["waits for a stalled disk"] += 1
                self._later(left, unless_stalled)
            else:
                action()

        self._later(seconds, unless_stalled)

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
        self._when_done(self._duration(), partial(self._synced, sync))

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
        seconds = min(_JOB_SYNCS * self._duration(), _LONGEST_JOB)
        how = self._how
        if how.deaths:
            how.deaths -= 1
            self._when_done(seconds, partial(self._lose_worker, job, "died", 0.0))
        elif how.hangs:
            how.hangs -= 1
            self._when_done(seconds, partial(self._lose_worker, job, "hung", self._patience))
            self._patience = more_patience(self._patience)
        else:
            self._when_done(seconds, partial(self._run_job, job))

    def _lose_worker(self, job: Job, how: str, silence: float) -> None:
        """The worker stops somewhere in the job, or behind it: what it has written stays, its answer is lost.

        One that hangs is killed after a long `silence`: it writes no more when the job is begun anew.
        """
        steps = self._rng.randrange(_STEPS)

        def step(_written: int) -> None:
            nonlocal steps
            steps -= 1
            if steps < 0:
                raise _WorkerGone

        with suppress(_WorkerGone, StorageError):
            run_job(self._disk, job, step)
        self.counts[f"workers that {how}"] += 1
        self._later(silence, partial(self._job_failed, job))

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

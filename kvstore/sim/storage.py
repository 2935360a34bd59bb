"""What a host's disk does in the background: syncs of the log, flushes, compactions.

What is decided about them is decided by what real nodes run: the group commit, the queue of jobs, the driver
of a worker. Here their syncs, workers and timers are made of virtual time.
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
from kvstore.lsm import GroupCommit, Job, JobQueue, JobResult, MemoryFileSystem, Sync, Synced, run_job
from kvstore.sim.process import Later
from kvstore.store.worker_driver import WORKING, JobEnd, WorkerDriver, answer, content, frame, more_patience

SYNC_SECONDS = 0.0005
_JOB_SYNCS = 100
_LONGEST_JOB = 10.0
_LONGEST_SYNC = 3.0
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
        engine: Synced,
        worked: Worked,
        later: Later,
        rng: random.Random,
        how: Disk,
        now: Callable[[], float],
    ) -> None:
        self._disk = disk
        self._worked = worked
        self._later = later
        self._rng = rng
        self._how = how
        self._now = now
        self._commit = GroupCommit(engine, self)
        self._queue = JobQueue(self)
        self._syncing = False
        self._patience = _STALLED
        self.counts: Counter[str] = Counter()

    def request_sync(self) -> None:
        """Sync at the end of this turn, with all that it appends."""
        self._commit.request_sync()

    def _duration(self) -> float:
        how = self._how
        seconds = self._rng.uniform(1 - how.jitter, 1 + how.jitter) * how.sync_seconds
        # a disk that takes longer stalls, which is a fault of its own
        return min(seconds * (1 + how.load * (self.jobs + self._syncing)), max(seconds, _LONGEST_SYNC))

    def _when_done(self, seconds: float, action: Callable[[], None]) -> None:
        """Do `action` in so many seconds, or when the disk no longer stalls."""

        def unless_stalled() -> None:
            if left := max(0.0, self._how.stalled_until - self._now()):
                self.counts["waits for a stalled disk"] += 1
                self._later(left, unless_stalled)
            else:
                action()

        self._later(seconds, unless_stalled)

    # what the group commit wants done

    def begin_in(self, seconds: float) -> None:
        """See CommitShell."""
        self._later(seconds, self._commit.begin)

    def run_sync(self, sync: Sync) -> None:
        """See CommitShell."""
        self._syncing = True
        self._disk.sync_begins(sync.written)
        self._when_done(self._duration(), partial(self._synced, sync))

    def _synced(self, sync: Sync) -> None:
        self._syncing = False
        try:
            sync.run()
        except (StorageFull, StorageFailed) as error:
            self._commit.failed(sync, error)
        else:
            self.counts["syncs"] += 1
            self._commit.ran(sync)

    def on_durable(self, lsn: int) -> None:
        """See CommitShell."""
        self._worked.on_durable(lsn)

    def on_full(self, error: StorageFull | None) -> None:
        """See CommitShell."""
        if error is not None:
            self.counts["syncs without space"] += 1

    # jobs

    def start_job(self, job: Job) -> None:
        """Run a job after a while; one that fails is given back after a pause."""
        self._queue.start(job)

    @property
    def jobs(self) -> int:
        """How many have been started, and are neither done nor given back."""
        return len(self._queue)

    def run_job(self, job: Job) -> None:
        """See JobShell."""
        seconds = min(_JOB_SYNCS * self._duration(), _LONGEST_JOB)
        worker = WorkerDriver()
        asked = worker.give(job, self._now(), self._patience)
        how = self._how
        if how.deaths:
            how.deaths -= 1
            self._when_done(seconds, partial(self._die, worker, asked))
        elif how.hangs:
            how.hangs -= 1
            self._when_done(seconds, partial(self._hang, worker, asked, self._patience))
        else:
            self._when_done(seconds, partial(self._answer, worker, asked))

    def _answer(self, worker: WorkerDriver, asked: bytes) -> None:
        answered = answer(partial(run_job, self._disk), content(asked))
        self._heard(worker.receive(frame(answered), self._now()))

    def _die(self, worker: WorkerDriver, asked: bytes) -> None:
        self._stop_somewhere(asked)
        self.counts["workers that died"] += 1
        self._later(0.0, lambda: self._heard(worker.gone("it was killed")))

    def _hang(self, worker: WorkerDriver, asked: bytes, patience: float) -> None:
        """It is killed after a long silence: it writes no more when the job is begun anew."""
        self._stop_somewhere(asked)
        self.counts["workers that hung"] += 1
        self._heard(worker.receive(frame(WORKING), self._now()))
        self._later(patience, lambda: self._give_up(worker))

    def _give_up(self, worker: WorkerDriver) -> None:
        self._patience = more_patience(self._patience)
        self._heard(worker.silent(self._now()))

    def _stop_somewhere(self, asked: bytes) -> None:
        """The worker stops in the job or behind it: what it has written stays, its answer is lost."""
        steps = self._rng.randrange(_STEPS)

        def step(_written: int) -> None:
            nonlocal steps
            steps -= 1
            if steps < 0:
                raise _WorkerGone

        with suppress(_WorkerGone):
            answer(partial(run_job, self._disk, pace=step), content(asked))

    def _heard(self, end: JobEnd | None) -> None:
        if end is not None:
            self._queue.finished(end.job, end.result, self._now())

    def use(self, result: JobResult) -> None:
        """See JobShell."""
        try:
            self._worked.on_job_done(result)
        except (StorageFull, StorageFailed):
            raise
        except StorageError as error:
            raise StorageFailed(f"half of a job's result may be in use: {error}") from error

    def put_off(self, job: Job, seconds: float, error: StorageFull | None) -> None:
        """See JobShell."""
        self.counts["failed jobs"] += 1
        self._later(seconds, lambda: self._queue.offer_again(self._now()))

    def give_back(self, job: Job) -> None:
        """See JobShell."""
        self._worked.on_job_failed(job)

    def on_fatal(self, error: BaseException) -> None:
        """See CommitShell and JobShell: it ends the host's life."""
        raise error

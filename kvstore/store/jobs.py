"""The jobs of an engine that a program drives itself: done by worker processes, used between its calls."""

from __future__ import annotations

import logging
import time
from math import inf

from kvstore.errors import StorageFull
from kvstore.lsm import Job, JobQueue, JobResult
from kvstore.lsm.job_queue import PAUSE, JobSource
from kvstore.store.worker_pool import WorkerPool

_KILLED_SECONDS = 0.001
"""How often it is looked whether the workers have ended."""

_log = logging.getLogger(__name__)


class Jobs:
    """Flushes, compactions and removals of one engine. Nothing happens but in its methods."""

    def __init__(self, engine: JobSource) -> None:
        self._engine = engine
        self._queue = JobQueue(self)
        self.workers = WorkerPool()

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self.workers.busy

    def tend(self, timeout: float = 0.0) -> None:
        """Use finished jobs, waiting up to `timeout` seconds for one, and start those that are due.

        Raises what the engine's `job_done` raises, but for StorageFull: then the job is done again.
        """
        if self.workers.busy:
            self._collect(timeout)
        elif timeout:
            time.sleep(min(timeout, PAUSE))
        if self._queue.waits:
            self._queue.offer_again(time.monotonic())
        for job in self._engine.take_jobs():
            self._queue.start(job)

    def settle(self) -> None:
        """Wait until no job is due or under way; raises as `tend`."""
        self.tend()
        while self._queue:
            self.tend(PAUSE)

    def drain(self) -> None:
        """Let the jobs under way come to their end, and begin no other; raises as `tend`."""
        while self.workers.busy:
            self._collect(PAUSE)
        self._queue.offer_again(inf)

    def close(self) -> None:
        """Abandon all jobs and end the workers; the jobs' output is removed."""
        abandoned = self._queue.stop()
        self.workers.kill()
        while self.workers.alive:
            time.sleep(_KILLED_SECONDS)
        self.workers.close()
        for job in abandoned:
            self._engine.job_failed(job)

    def _collect(self, timeout: float) -> None:
        for end in self.workers.finished(timeout):
            self._queue.finished(end.job, end.result, time.monotonic())

    # what the queue wants done

    def run_job(self, job: Job) -> None:
        """See JobShell."""
        self.workers.start(job)

    def use(self, result: JobResult) -> None:
        """See JobShell."""
        self._engine.job_done(result)

    def put_off(self, job: Job, seconds: float, error: StorageFull | None) -> None:
        """See JobShell: `tend` offers it again."""
        if error is not None:
            _log.error("the result of a %s cannot be used yet: %s", type(job).__name__, error)

    def give_back(self, job: Job) -> None:
        """See JobShell."""
        self._engine.job_failed(job)

    def on_fatal(self, error: Exception) -> None:
        """See JobShell: the call that has met it ends with it."""
        raise error

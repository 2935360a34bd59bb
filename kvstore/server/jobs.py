"""The engine's jobs on an asyncio loop: given to worker processes, their results handed back to the node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf

from kvstore.errors import StorageFull
from kvstore.lsm import FlushJob, Job, JobQueue, JobResult, RemovalJob
from kvstore.store.worker_pool import WorkerPool

_END_SECONDS = 2.0
"""How long a node that stops waits for workers that were killed, and do not get the processor to end."""
_POLL_SECONDS = 0.005
_LONG_SECONDS = 1.0
"""A flush or compaction that takes so long is worth a line in the log."""

_log = logging.getLogger(__name__)


class Jobs:
    """Runs jobs until closed, each in a worker of its own: a flush never waits for a compaction.

    All methods belong to the loop's thread. `on_done` uses a result; `on_failed` is given a job that was not
    done, after a pause; `on_fatal` is called when a result may be half in use, and must end the process.
    """

    def __init__(
        self,
        on_done: Callable[[JobResult], None],
        on_failed: Callable[[Job], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_done = on_done
        self._on_failed = on_failed
        self._on_fatal = on_fatal
        self._queue = JobQueue(self)
        self._workers = WorkerPool()
        self._begun: dict[tuple[int, ...], float] = {}
        """When a flush or compaction was begun, by the numbers of its outputs."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop.add_reader(self._workers.fileno(), self._look)

    def start(self, job: Job) -> None:
        """Run a job; `on_done` or, after a pause, `on_failed` will be called, unless it is closed before."""
        self._queue.start(job)

    async def close(self) -> None:
        """Abandon all jobs and end the workers; none is begun any more. Takes a few seconds at most."""
        if self._closed:
            return
        self._queue.stop()
        self._loop.remove_reader(self._workers.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._workers.kill()
        await self._until_ended()
        self._workers.close()
        self._closed = True

    async def _until_ended(self) -> None:
        try:
            async with asyncio.timeout(_END_SECONDS):
                while self._workers.alive:  # noqa: ASYNC110  (a child's end has no event of its own)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            for pid in self._workers.alive:
                _log.warning("worker process %d, which was killed, has not ended yet", pid)

    def _look(self) -> None:
        """Hand in what has come to its end, and look again when a worker says something or has stalled."""
        try:
            for end in self._workers.finished():
                self._tell(end.job, end.result)
                self._queue.finished(end.job, end.result, self._loop.time())
        finally:
            self._look_in_time()

    def _tell(self, job: Job, result: JobResult | None) -> None:
        """A line about one that took long."""
        if isinstance(job, RemovalJob):
            return
        seconds = self._loop.time() - self._begun.pop(job.outputs, self._loop.time())
        if result is not None and seconds >= _LONG_SECONDS:
            kind = "a flush" if isinstance(job, FlushJob) else f"a compaction of {len(job.inputs)} tables"
            size = sum(table.size for table in result.tables)
            _log.info("%s took %.1f s: %d tables, %d bytes", kind, seconds, len(result.tables), size)

    def _look_in_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seconds = self._workers.wake_in()
        self._timer = None if seconds == inf else self._loop.call_later(seconds, self._look)

    # what the queue wants done

    def run_job(self, job: Job) -> None:
        """See JobShell."""
        if not isinstance(job, RemovalJob):
            self._begun[job.outputs] = self._loop.time()
        self._workers.start(job)
        self._look_in_time()

    def use(self, result: JobResult) -> None:
        """See JobShell."""
        self._on_done(result)

    def put_off(self, job: Job, seconds: float, error: StorageFull | None) -> None:
        """See JobShell."""
        if error is not None:
            _log.error("the result of a %s cannot be used yet: %s", type(job).__name__, error)
        self._loop.call_later(seconds, self._queue.offer_again, self._loop.time() + seconds)

    def give_back(self, job: Job) -> None:
        """See JobShell."""
        self._on_failed(job)

    def on_fatal(self, error: Exception) -> None:
        """See JobShell."""
        self._on_fatal(error)

"""The engine's jobs under way: given to workers, their results handed back to the node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kvstore.errors import StorageFull
from kvstore.lsm import Job, JobResult
from kvstore.server.worker import Worker

_PAUSE = 1.0
"""Seconds before a job that failed is offered again: whatever made it fail needs time to pass."""

_log = logging.getLogger(__name__)


class Jobs:
    """Runs jobs until closed, each in a worker of its own: a flush never waits for a compaction.

    How many there are at a time is the engine's choice.
    """

    def __init__(
        self,
        on_done: Callable[[JobResult], None],
        on_failed: Callable[[Job], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._on_done = on_done
        self._on_failed = on_failed
        self._on_fatal = on_fatal
        self._idle: list[Worker] = []
        self._workers: list[Worker] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, job: Job) -> None:
        """Run a job; `on_done` or, after a pause, `on_failed` will be called, unless it is closed before."""
        if self._closed:
            return
        task = asyncio.get_running_loop().create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Abandon all jobs and end the workers; none is begun any more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in self._workers))

    def _idle_worker(self) -> Worker:
        if self._idle:
            return self._idle.pop()
        self._workers.append(Worker())
        return self._workers[-1]

    async def _run(self, job: Job) -> None:
        worker = self._idle_worker()
        result = await worker.run(job)
        self._idle.append(worker)
        try:
            if result is not None:
                self._on_done(result)
                return
        except StorageFull as error:
            _log.error("the result of a %s cannot be used yet: %s", type(job).__name__, error)
        except Exception as error:  # noqa: BLE001  (half of it may be in use: only recovery can tell)
            self._on_fatal(error)
        await asyncio.sleep(_PAUSE)
        self._on_failed(job)

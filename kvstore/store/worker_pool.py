"""Worker processes for one engine: each is started with its first job, and again when it has died.

Nothing here waits longer than it is told to: what a pipe does not take at once is sent when it does, and a
process that was killed is looked after until it has ended. It runs no code of its own any more, but to end it
needs the processor, and on a busy machine one of its low priority may not get it for ten seconds.
"""

from __future__ import annotations

import logging
import os
import selectors
import subprocess
import time
from collections.abc import Callable
from math import inf
from typing import IO

from kvstore.lsm import Job
from kvstore.store.worker import command
from kvstore.store.worker_driver import STALLED, JobEnd, WorkerDriver, more_patience

_READ_BYTES = 64 * 1024
_POLL_SECONDS = 0.005
"""How often it is looked whether a killed process has ended: no event tells it that nobody else may take."""

_log = logging.getLogger(__name__)


class _Worker:
    """A process and its pipes."""

    def __init__(self) -> None:
        """Start a fresh interpreter, never a fork: threads do not survive one. Raises OSError."""
        theirs, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                command(theirs),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(theirs,),
                process_group=0,
                bufsize=0,
            )
        except OSError:
            os.close(self._lifeline)
            raise
        finally:
            os.close(theirs)
        self.input, self.output = _pipe(self.process.stdin), _pipe(self.process.stdout)
        self.driver = WorkerDriver()
        self.unsent = b""

    @property
    def over(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def send(self) -> None:
        """Send as much as the pipe takes; raises OSError when the process has died."""
        self.unsent = self.unsent[os.write(self.input, self.unsent) :]

    def read(self) -> bytes:
        """What has come; nothing when the process has died."""
        return os.read(self.output, _READ_BYTES)

    def close(self) -> None:
        """Close what leads to it."""
        os.close(self._lifeline)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _pipe(file: IO[bytes] | None) -> int:
    assert file is not None
    os.set_blocking(file.fileno(), False)
    return file.fileno()


class WorkerPool:
    """As many workers as there are jobs at a time, so that none waits for another.

    A worker is given up, and killed, when it shows no sign of life for `patience` seconds; the next one has
    longer. Its job is over when it has ended: then the job may be given to another, which must not meet it.
    """

    def __init__(self) -> None:
        self.patience = STALLED
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._killed: list[tuple[_Worker, JobEnd]] = []
        self._ends: list[JobEnd] = []
        self._selector = selectors.EpollSelector()

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return bool(self._busy or self._killed or self._ends)

    def fileno(self) -> int:
        """A descriptor to be read from when a worker has something to say: then call `finished`."""
        return self._selector.fileno()

    def wake_in(self) -> float:
        """Seconds until `finished` should be called even if no worker says anything; perhaps infinite."""
        if self._ends:
            return 0.0
        if self._killed:
            return _POLL_SECONDS
        deadline = min((worker.driver.deadline for worker in self._busy), default=inf)
        return max(0.0, deadline - time.monotonic())

    def start(self, job: Job) -> None:
        """Have a job done; `finished` returns its end, also when no worker could be given it."""
        try:
            worker = self._free_worker()
        except OSError as error:
            self._end(JobEnd(job, None, f"no worker process could be started: {error}"))
            return
        worker.unsent = worker.driver.give(job, time.monotonic(), self.patience)
        self._busy.append(worker)
        self._selector.register(worker.output, selectors.EVENT_READ, (worker, self._read))
        self._selector.register(worker.input, selectors.EVENT_WRITE, (worker, self._send))
        self._act(worker, self._send)

    def _free_worker(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if not worker.over:
                return worker
            worker.close()
        return _Worker()

    def finished(self, timeout: float = 0.0) -> list[JobEnd]:
        """Jobs that are over; waits up to `timeout` seconds for one."""
        now = time.monotonic()
        until = now + timeout
        while True:
            self._wait(min(until - now, self.wake_in()) if timeout else 0.0)
            now = time.monotonic()
            self._give_up(now)
            if self._killed:
                self._reap()
            if self._ends or now >= until:
                ends, self._ends = self._ends, []
                return ends

    def _wait(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            worker, act = key.data
            if worker in self._busy:  # what was done for another event may have ended its job
                self._act(worker, act)

    def _act(self, worker: _Worker, act: Callable[[_Worker], JobEnd | None]) -> None:
        try:
            end = act(worker)
        except BlockingIOError:
            return
        except OSError as error:
            end = worker.driver.gone(str(error))
        if end is not None:
            self._release(worker, end)

    def _send(self, worker: _Worker) -> None:
        worker.send()
        if not worker.unsent:
            self._selector.unregister(worker.input)

    def _read(self, worker: _Worker) -> JobEnd | None:
        if data := worker.read():
            return worker.driver.receive(data, time.monotonic())
        return worker.driver.gone("it has closed its output")

    def _give_up(self, now: float) -> None:
        """Kill the workers that have stalled."""
        stalled = [worker for worker in self._busy if worker.driver.deadline <= now]
        if stalled:
            self.patience = more_patience(self.patience)
        for worker in stalled:
            if end := worker.driver.silent(now):
                self._release(worker, end)

    def _release(self, worker: _Worker, end: JobEnd) -> None:
        """The worker does its job no more."""
        self._busy.remove(worker)
        self._selector.unregister(worker.output)
        if worker.unsent:
            self._selector.unregister(worker.input)
        if end.worker_lost:
            worker.process.kill()
            self._killed.append((worker, end))
        else:
            self._idle.append(worker)
            self._end(end)

    def _reap(self) -> None:
        """Tell the end of jobs whose workers were killed, and have ended."""
        for worker, end in tuple(self._killed):
            if worker.over:
                self._killed.remove((worker, end))
                worker.close()
                self._end(end)

    def _end(self, end: JobEnd) -> None:
        if end.result is None:
            _log.error("a %s failed, and will be done again: %s", type(end.job).__name__, end.reason)
        self._ends.append(end)

    # the end

    def kill(self) -> None:
        """Kill all workers, whatever they do; what they did is abandoned."""
        for worker in self._workers():
            worker.process.kill()

    @property
    def alive(self) -> list[int]:
        """The process ids of workers that have not ended."""
        return [worker.process.pid for worker in self._workers() if not worker.over]

    def close(self) -> None:
        """Close what leads to the workers, which are killed by that if they were not before."""
        for worker in self._workers():
            worker.close()
        self._idle, self._busy, self._killed = [], [], []
        self._selector.close()

    def _workers(self) -> list[_Worker]:
        return [*self._idle, *self._busy, *(worker for worker, _ in self._killed)]

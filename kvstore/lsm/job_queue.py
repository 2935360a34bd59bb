"""The engine's jobs under way: their results are taken into use, and what failed is offered again.

`JobQueue` waits for nothing and reads no clock. Who runs an engine gives it a `JobShell`. How many jobs there
are at a time is the engine's choice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from kvstore.errors import StorageFull
from kvstore.lsm.messages import Job, JobResult

PAUSE = 1.0
"""Seconds before a job that failed is offered again: whatever made it fail needs time to pass."""


class JobSource(Protocol):
    """What has jobs done: an engine."""

    def take_jobs(self) -> Sequence[Job]:
        """See Engine."""

    def job_done(self, result: JobResult) -> None:
        """See Engine."""

    def job_failed(self, job: Job) -> None:
        """See Engine."""


class JobShell(Protocol):
    """What carries out what a queue of jobs decides."""

    def run_job(self, job: Job) -> None:
        """Have the job done elsewhere; then call `finished`."""

    def use(self, result: JobResult) -> None:
        """Take a result into use, by the engine's `job_done`. Raises what that raises."""

    def put_off(self, job: Job, seconds: float, error: StorageFull | None) -> None:
        """Call `offer_again` in so many seconds: a job failed, or (`error`) its result cannot be used yet."""

    def give_back(self, job: Job) -> None:
        """Return a job that was not done, by the engine's `job_failed`: it will be offered again."""

    def on_fatal(self, error: Exception) -> None:
        """Half of a result may be in use, which only recovery can tell: the process must end."""


class JobQueue:
    """Jobs from when they are started until their result is in use or they are given back."""

    def __init__(self, shell: JobShell) -> None:
        self._shell = shell
        self._running: list[Job] = []
        self._put_off: deque[tuple[float, Job]] = deque()
        """With the time when each is given back, in order."""
        self._stopped = False

    def __len__(self) -> int:
        return len(self._running) + len(self._put_off)

    @property
    def waits(self) -> bool:
        """Whether a job was put off, and not given back yet."""
        return bool(self._put_off)

    def start(self, job: Job) -> None:
        """Have a job done that the engine has given out."""
        if not self._stopped:
            self._running.append(job)
            self._shell.run_job(job)

    def finished(self, job: Job, result: JobResult | None, now: float) -> None:
        """A job has come to its end at the time `now`, in seconds: without a result it has failed."""
        if self._stopped:
            return
        if result is None:
            self._offer_later(job, now, None)
            return
        try:
            self._shell.use(result)
        except StorageFull as error:
            self._offer_later(job, now, error)
        except Exception as error:  # noqa: BLE001  (whatever it is, the engine may be left half changed)
            self._running.remove(job)
            self._stopped = True
            self._shell.on_fatal(error)
        else:
            self._running.remove(job)

    def _offer_later(self, job: Job, now: float, error: StorageFull | None) -> None:
        self._running.remove(job)
        self._put_off.append((now + PAUSE, job))
        self._shell.put_off(job, PAUSE, error)

    def offer_again(self, now: float) -> None:
        """Give back what was put off until now."""
        while self._put_off and self._put_off[0][0] <= now and not self._stopped:
            _, job = self._put_off.popleft()
            self._shell.give_back(job)

    def stop(self) -> list[Job]:
        """Start no more and use no result; returns the jobs that were neither done nor given back."""
        self._stopped = True
        abandoned = [*self._running, *(job for _, job in self._put_off)]
        self._running.clear()
        self._put_off.clear()
        return abandoned

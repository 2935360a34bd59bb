"""What is said between the owner of a worker process and the worker, and what the owner makes of it.

Frames both ways: 4 bytes length (big-endian), then a job; back a byte that says how it goes (0 done, 1
failed, 2 still at it), then the result or the reason.

No I/O is done here and no clock is read: `kvstore.store.worker_pool` runs it on processes, the simulator in
virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from kvstore.errors import KVError
from kvstore.lsm import Job, JobResult, decode_job, decode_result, encode_job, encode_result

DONE, FAILED, WORKING = b"\0", b"\1", b"\2"

STALLED = 60.0
"""Seconds without a sign of life after which a worker at work should be given up."""
_LONGEST_PATIENCE = 16 * STALLED
_HEADER = 4


def more_patience(seconds: float) -> float:
    """What to wait for the next worker, after one was given up.

    It may have done nothing wrong: of the lowest priority, beside many others, it may not get the processor
    for minutes, and one that is begun anew each minute would never come to its end.
    """
    return min(2 * seconds, max(seconds, _LONGEST_PATIENCE))


def frame(data: bytes) -> bytes:
    """Data behind its length."""
    return len(data).to_bytes(_HEADER, "big") + data


def content(framed: bytes) -> bytes:
    """Inverse of `frame`."""
    return framed[_HEADER:]


def answer(run: Callable[[Job], JobResult], data: bytes) -> bytes:
    """The worker's part: have the job that `data` is done; what to send back, without its frame.

    Raises Corruption, ConfigError when it is no job.
    """
    job = decode_job(data)
    try:
        return DONE + encode_result(run(job))
    except (KVError, OSError) as error:
        return FAILED + str(error).encode()


@dataclass(frozen=True, slots=True)
class JobEnd:
    """A job is over for its worker."""

    job: Job
    result: JobResult | None
    reason: str = ""
    """Why there is no result."""
    worker_lost: bool = False
    """The worker must be ended, for good, before the job is given to another."""


class WorkerDriver:
    """The owner's part with one worker, which has one job at a time. Times are in seconds, of any clock."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._patience = STALLED
        self._received = bytearray()
        self.deadline = inf
        """When the worker is given up unless it shows before that it lives."""

    def give(self, job: Job, now: float, patience: float = STALLED) -> bytes:
        """What to send for a job to be done; it may be silent for `patience` seconds at a time."""
        self._job, self._patience, self.deadline = job, patience, now + patience
        self._received.clear()
        return frame(encode_job(job))

    def receive(self, data: bytes, now: float) -> JobEnd | None:
        """The worker has sent something; its end when the job is over, None while it goes on."""
        self._received += data
        while (message := self._message()) is not None:
            if message != WORKING:
                return self._answered(message)
            self.deadline = now + self._patience
        return None

    def silent(self, now: float) -> JobEnd | None:
        """Time has passed: the end of a job whose worker has stalled."""
        return self._lost("the worker process stalled") if now >= self.deadline else None

    def gone(self, why: str) -> JobEnd:
        """The worker has died, or nothing can be sent to it: the end of its job."""
        return self._lost(f"the worker process died: {why}")

    def _message(self) -> bytes | None:
        """The next whole message."""
        end = _HEADER + int.from_bytes(self._received[:_HEADER], "big")
        if len(self._received) < end:
            return None
        message = bytes(self._received[_HEADER:end])
        del self._received[:end]
        return message

    def _answered(self, message: bytes) -> JobEnd:
        kind, content = message[:1], message[1:]
        if kind == FAILED:
            return JobEnd(self._end(), None, content.decode(errors="replace"))
        if kind != DONE:
            return self._lost("the worker process answered with what is no answer")
        try:
            result = decode_result(content)
        except KVError as error:
            return self._lost(f"the worker process answered with what is no result: {error}")
        return JobEnd(self._end(), result)

    def _lost(self, reason: str) -> JobEnd:
        return JobEnd(self._end(), None, reason, worker_lost=True)

    def _end(self) -> Job:
        """The job, which the worker does no more."""
        job, self._job, self.deadline = self._job, None, inf
        assert job is not None, "the worker has no job"
        return job

"""Worker processes for one store: each is started with its first job, and again when it has died."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from dataclasses import dataclass, field

import msgspec

from kvstore.errors import KVError
from kvstore.lsm.jobs import Job, JobResult, decode_result, encode_job
from kvstore.lsm.worker import DONE, STALLED, WORKING, command, frame, more_patience


@dataclass(slots=True)
class _Worker:
    """A process and the job that it is doing."""

    process: subprocess.Popen[bytes]
    lifeline: int
    """The end of a pipe; when it closes, the process ends in the middle of its job."""
    job: Job | None = None
    patience: float = STALLED
    deadline: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    @classmethod
    def start(cls) -> _Worker:
        """A fresh interpreter, never a fork: the owner may have threads."""
        theirs, ours = os.pipe()
        try:
            process = subprocess.Popen(
                command(theirs),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(theirs,),
                process_group=0,
                bufsize=0,
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return cls(process, ours)

    def give(self, job: Job, patience: float) -> None:
        """Send a job, to be given up after `patience` seconds of silence; raises OSError when it has died."""
        self.job, self.patience = job, patience
        self.deadline = time.monotonic() + patience
        self.received.clear()
        assert self.process.stdin is not None
        view = memoryview(frame(encode_job(job)))
        while view:
            view = view[self.process.stdin.write(view) or 0 :]

    def read(self) -> bool:
        """Read what has come, without waiting for more than there is; False at the end."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 65536)
        self.received += data
        return bool(data)

    def answer(self) -> bytes | None:
        """The answer, once all of it is here; until then the worker may show that it lives."""
        while len(self.received) >= (end := 4 + int.from_bytes(self.received[:4], "big")) > 4:
            answer = bytes(self.received[4:end])
            del self.received[:end]
            if answer != WORKING:
                return answer
            self.deadline = time.monotonic() + self.patience
        return None

    def end(self) -> None:
        """End the process, whatever it does."""
        os.close(self.lifeline)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class WorkerPool:
    """As many workers as there are jobs at a time, so that none waits for another."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._patience = STALLED

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return bool(self._busy)

    @property
    def jobs(self) -> list[Job]:
        """The jobs under way."""
        return [worker.job for worker in self._busy if worker.job is not None]

    def start(self, job: Job) -> bool:
        """Have a job done; False when no worker could be given it."""
        try:
            worker = self._idle.pop() if self._idle else _Worker.start()
        except OSError:
            return False
        try:
            worker.give(job, self._patience)
        except OSError:
            worker.end()
            return False
        self._busy.append(worker)
        assert worker.process.stdout is not None
        self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        return True

    def finished(self, timeout: float) -> list[tuple[Job, JobResult | None]]:
        """Jobs that are over, with None for those that failed; waits up to `timeout` seconds for one."""
        found = []
        for key, _ in self._selector.select(timeout):
            if over := self._look(key.data):
                found.append(over)
        now = time.monotonic()
        if stalled := [worker for worker in self._busy if now > worker.deadline]:
            self._patience = more_patience(self._patience)
            found += map(self._lost, stalled)
        return found

    def _look(self, worker: _Worker) -> tuple[Job, JobResult | None] | None:
        if not worker.read():
            return self._lost(worker)
        answer = worker.answer()
        if answer is None:
            return None
        job = self._release(worker)
        self._idle.append(worker)
        return job, _result(answer)

    def _lost(self, worker: _Worker) -> tuple[Job, JobResult | None]:
        """A worker that died or stalled: end it for good before its job is given to another."""
        job = self._release(worker)
        worker.end()
        return job, None

    def _release(self, worker: _Worker) -> Job:
        job, worker.job = worker.job, None
        self._selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        self._busy = [other for other in self._busy if other is not worker]
        assert job is not None
        return job

    def close(self) -> None:
        """End all processes; jobs under way are abandoned."""
        for worker in (*self._idle, *self._busy):
            worker.end()
        self._idle, self._busy = [], []
        self._selector.close()


def _result(answer: bytes) -> JobResult | None:
    try:
        return decode_result(answer[1:]) if answer[:1] == DONE else None
    except (KVError, msgspec.MsgspecError):
        return None

"""The worker process: does the jobs that it reads from its standard input (kvstore.store.worker_driver).

It ends with its input. Its argument is the reading end of a pipe whose other end only the owner holds. It
closes with the owner, however that ends, and the worker ends that moment, in the middle of a job: the owner's
next start may give its file's number to another file.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

from kvstore.config import MIB
from kvstore.lsm import CompactionJob, Job, JobResult, RemovalJob, run_job
from kvstore.store.disk import DiskFileSystem
from kvstore.store.worker_driver import WORKING, answer, frame

_READ_BYTES = 64 * 1024
_NICENESS = 19
"""A write waits for the processor no longer than it must; a worker that falls behind slows writers down."""

_REMOVAL_RATE = 128 * MIB
"""Bytes of removed files that are freed in a second, in steps with rests between: syncs come through."""

_BEAT = 1.0


class Pacer:
    """Lets a job write or free no more than `rate` bytes a second (0: as it can), and shows that it is alive.

    It lets others have the processor after each step: a kernel may let a process that could go on wait
    for the next tick, 4 ms, and a put waits for several turns of its node and of the kernel's own threads.
    """

    def __init__(self, rate: int, beat: Callable[[], None]) -> None:
        self._rate = rate
        self._beat = beat
        self._next_beat = time.monotonic() + _BEAT
        self._free_at = 0.0

    def __call__(self, written: int) -> None:
        """So many bytes have been written or freed."""
        os.sched_yield()
        now = time.monotonic()
        if self._rate:
            self._free_at = max(self._free_at, now) + written / self._rate
        while True:
            if now >= self._next_beat:
                self._next_beat = now + _BEAT
                self._beat()
            if self._free_at <= now:
                return
            time.sleep(min(self._free_at - now, _BEAT))
            now = time.monotonic()


def command(lifeline: int) -> list[str]:
    """How to start a worker; the process must be handed the descriptor `lifeline`.

    It should have a process group of its own, as Ctrl-C is for the owner, but the owner's session: niceness
    counts only within one where the kernel groups processes by session (sched(7), autogroup).
    """
    # not by -m: the package imports this module, which would then be there twice; and the imports, too,
    # are to give way
    code = f"import os; os.nice({_NICENESS}); from kvstore.store.worker import main; main()"
    return [sys.executable, "-c", code, str(lifeline)]


def read_frame(stream: BinaryIO) -> bytes | None:
    """The data of the next frame, None at the end of the stream, also in the middle of a frame."""
    header = stream.read(4)
    left = int.from_bytes(header, "big")
    parts = []
    while left:
        # never more at once: a wrong length must not cost the memory it names
        part = stream.read(min(left, _READ_BYTES))
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts) if len(header) == 4 else None


def _write_frame(data: bytes) -> None:
    sys.stdout.buffer.write(frame(data))
    sys.stdout.buffer.flush()


def _rate(job: Job) -> int:
    match job:
        case CompactionJob(options=options):
            return options.compaction_rate
        case RemovalJob():
            return _REMOVAL_RATE
        case _:
            return 0


def _run(job: Job) -> JobResult:
    return run_job(DiskFileSystem(), job, Pacer(_rate(job), lambda: _write_frame(WORKING)))


def _end_with_owner(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(0)


def main() -> None:
    """Work until the input or the owner ends, behind the owner: a flush can wait, requests cannot."""
    lifeline = int(sys.argv[1])
    atexit.register(gc.freeze)  # at its end a process looks for garbage, which nobody needs any more
    threading.Thread(target=_end_with_owner, args=(lifeline,), daemon=True).start()
    while (data := read_frame(sys.stdin.buffer)) is not None:
        _write_frame(answer(_run, data))

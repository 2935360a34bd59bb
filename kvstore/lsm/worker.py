"""The worker process: `python -m kvstore.lsm.worker LIFELINE` runs jobs that it reads from its input.

Frames both ways: 4 bytes length (big-endian), then a job; back a byte that says how it went (0 done, 1
failed), then the result or the reason. It ends with its input.

LIFELINE, if given, is the reading end of a pipe whose other end only the owner holds. It closes with the
owner, however that ends, and the worker ends that moment, in the middle of a job: the owner's next life may
give its file's number to another file.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import BinaryIO

from kvstore.errors import StorageError
from kvstore.lsm.disk import DiskFileSystem
from kvstore.lsm.jobs import CompactionJob, decode_job, encode_result, run_job
from kvstore.lsm.sstable_writer import Pace, full_speed

DONE, FAILED = b"\0", b"\1"


_NICENESS = 5
"""Enough to step back, not so much that flushes fall behind and writes must be refused."""


def frame(data: bytes) -> bytes:
    """Data behind its length."""
    return len(data).to_bytes(4, "big") + data


def _read_frame(stream: BinaryIO) -> bytes | None:
    header = stream.read(4)
    if len(header) < 4:
        return None
    return stream.read(int.from_bytes(header, "big"))


def at_rate(rate: int) -> Pace:
    """Write no more than `rate` bytes a second on average."""
    begin, written = time.monotonic(), 0

    def pace(count: int) -> None:
        nonlocal written
        written += count
        ahead = begin + written / rate - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)

    return pace


def _run(data: bytes) -> bytes:
    try:
        job = decode_job(data)
        limited = isinstance(job, CompactionJob) and job.options.compaction_rate > 0
        pace = at_rate(job.options.compaction_rate) if limited else full_speed
        return DONE + encode_result(run_job(DiskFileSystem(), job, pace))
    except (StorageError, OSError) as error:
        return FAILED + str(error).encode()


def _end_with_owner(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(0)


def main() -> None:
    """Work until the input or the owner ends, behind the owner: a flush can wait, requests cannot."""
    os.nice(_NICENESS)
    for lifeline in sys.argv[1:2]:
        threading.Thread(target=_end_with_owner, args=(int(lifeline),), daemon=True).start()
    while (data := _read_frame(sys.stdin.buffer)) is not None:
        sys.stdout.buffer.write(frame(_run(data)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

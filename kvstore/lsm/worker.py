"""The worker process: `python -m kvstore.lsm.worker` runs jobs that it reads from its standard input.

Frames both ways: 4 bytes length (big-endian), then a job; back a byte that says how it went (0 done, 1
failed), then the result or the reason. It ends with its input, so it never outlives its node.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

from kvstore.errors import KVError
from kvstore.lsm.disk import DiskFileSystem
from kvstore.lsm.jobs import decode_job, encode_result, run_job

DONE, FAILED = b"\0", b"\1"


_READ_BYTES = 64 * 1024
_NICENESS = 5
"""Enough to step back, not so much that flushes fall behind and writes must be refused."""


def frame(data: bytes) -> bytes:
    """Data behind its length."""
    return len(data).to_bytes(4, "big") + data


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


def _run(data: bytes) -> bytes:
    try:
        return DONE + encode_result(run_job(DiskFileSystem(), decode_job(data)))
    except (KVError, OSError) as error:
        return FAILED + str(error).encode()


def main() -> None:
    """Work until the input ends, behind whoever serves requests: a flush can wait, they cannot."""
    os.nice(_NICENESS)
    while (data := read_frame(sys.stdin.buffer)) is not None:
        sys.stdout.buffer.write(frame(_run(data)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

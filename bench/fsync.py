"""How long fdatasync takes on a disk while something else goes on: a process that asks again and again."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

_PAUSE = 0.02
"""Seconds between two syncs: seldom enough to leave the disk to those who are measured."""
_RECORD = bytes(256)


class FsyncProbe:
    """Appends 256 bytes to a file and syncs them, 50 times a second, in a process of its own."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def take(self) -> list[float]:
        """Seconds that each sync took since the last call."""
        self._pipe.send(True)
        latencies: list[float] = self._pipe.recv()
        return latencies


def _sync(path: Path, pipe: Connection) -> None:
    latencies: list[float] = []
    with path.open("wb", buffering=0) as file:
        while True:
            if pipe.poll(_PAUSE):
                try:
                    pipe.recv()
                except EOFError:
                    return
                pipe.send(latencies)
                latencies = []
            begin = time.perf_counter()
            file.write(_RECORD)
            os.fdatasync(file.fileno())
            latencies.append(time.perf_counter() - begin)


@contextmanager
def fsync_probe(directory: Path) -> Iterator[FsyncProbe]:
    """A probe of the disk that `directory` is on."""
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    process = spawn.Process(target=_sync, args=(directory / "fsync-probe", theirs))
    process.start()
    theirs.close()
    try:
        yield FsyncProbe(mine)
    finally:
        mine.close()
        process.join()

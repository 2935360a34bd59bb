"""The engine with all that it needs to run by itself, for programs without a node.

`Engine` does no work of its own accord. `Store` syncs, has flushes and compactions done by worker processes,
takes their results into use between calls, and slows the writer down when they fall behind.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from kvstore.config import MIB
from kvstore.errors import Overloaded, StorageFull
from kvstore.lsm.config import Durability, Options
from kvstore.lsm.engine import Engine
from kvstore.lsm.job_queue import PAUSE
from kvstore.lsm.limits import checked_batch
from kvstore.lsm.snapshot import Snapshot
from kvstore.lsm.statistics import EngineStatistics
from kvstore.lsm.wal import Batch
from kvstore.store.disk import DiskFileSystem
from kvstore.store.jobs import Jobs
from kvstore.store.sync_thread import SyncThread

_LEAST_SLEEP = 0.001


class Store:
    """One store on this machine's disk: `with Store.open("data") as store: store.put(b"k", b"v")`.

    Not for several threads at once. What a write's return promises is `options.durability`. Keys are in
    order of their bytes.
    """

    def __init__(self, directory: str | os.PathLike[str], options: Options) -> None:
        fs = DiskFileSystem()
        self._engine = Engine.open(fs, os.fspath(directory), options)
        self._jobs = Jobs(self._engine)
        self._debt = 0.0
        self._sync_writes = options.durability is Durability.SYNC
        self._closed = False
        self._lock = threading.RLock()
        self._syncs: SyncThread | None = None
        if options.durability is Durability.INTERVAL:
            self._syncs = SyncThread(self._engine, self._lock)
            with self._lock:
                self._syncs.request_sync()  # which begins the log, if there was no space for it until now

    @classmethod
    def open(cls, directory: str | os.PathLike[str], options: Options | None = None) -> Store:
        """Open the store in `directory`, making it if there is none, recovering it after a crash.

        On a full disk all that is stored can be read, and writes are refused until there is space.

        Raises WrongDataDirectory when another process has it open, Corruption, UnsupportedFormat,
        StorageFailed; StorageFull only where there is no space for the directory or its lock.
        """
        return cls(directory, options or Options())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # writing

    def put(self, key: bytes, value: bytes) -> None:
        """Put one value; see `write`. A value of None is refused: `delete` is plain about it."""
        if value is None:
            raise TypeError("a value must be bytes, not NoneType")
        self.write([(key, value)])

    def delete(self, key: bytes) -> None:
        """Delete one key; see `write`."""
        self.write([(key, None)])

    def write(self, batch: Batch) -> None:
        """Write an atomic batch; None deletes. Waits as `options.durability` says, and while work is behind.

        Raises TypeError for anything but pairs of bytes, InvalidRequest for what is too large: nothing is
        written.
        Raises StorageFull: then the batch may become visible and durable all the same, and later writes are
        refused until there is space. Raises StorageFailed after a failed sync.
        """
        batch, size = checked_batch(batch, self._engine.options.value_bytes)
        with self._lock:
            try:
                self._engine.write(batch)
            except StorageFull:
                self._engine.sync()  # there may be space again
                self._engine.write(batch)
            except Overloaded:
                self._wait_and_write(batch)
            if self._syncs is not None:
                self._syncs.request_sync()
            if self._sync_writes:
                self._engine.sync()
            else:
                self._engine.write_out()
            self._jobs.tend()
            if delay := self._engine.back_pressure.write_delay():
                self._slow_down(delay, size)

    def _wait_and_write(self, batch: Batch) -> None:
        self._engine.sync()  # the wait may be longer than the interval of syncs
        while True:
            self._jobs.tend(PAUSE)
            try:
                self._engine.write(batch)
            except Overloaded:
                continue
            return

    def _slow_down(self, delay: float, size: int) -> None:
        """Take `delay` seconds for a MiB, so that the pace follows that of the flushes."""
        self._debt += delay * size / MIB
        if self._debt >= _LEAST_SLEEP:
            self._jobs.tend(self._debt)
            self._debt = 0.0

    # reading

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None when it has none; raises Corruption, TypeError."""
        return self._engine.get(key)

    def scan(
        self, start: bytes = b"", end: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of [start, end) in order, or from the last to the first, as they are now.

        Without `end` to the last key. Writes may go on meanwhile. Raises Corruption, TypeError.
        """
        return self._engine.scan(start, end, reverse)

    def scan_prefix(self, prefix: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """As `scan`, of all keys that begin with `prefix`."""
        return self._engine.scan_prefix(prefix, reverse)

    def snapshot(self) -> Snapshot:
        """The store as it is now, for as long as it is read; close it, or use it in a `with`."""
        return self._engine.snapshot()

    # maintenance

    def flush(self) -> None:
        """Write all memtables as tables, and wait for that."""
        with self._lock:
            self._engine.sync()
            self._jobs.drain()
            self._engine.flush()
            self._jobs.tend()

    def compact(self) -> None:
        """Merge all tables into one run, and wait for that."""
        with self._lock:
            self._engine.sync()
            self._jobs.drain()
            self._engine.flush()
            self._engine.maintenance.compact()

    def settle(self) -> None:
        """Wait until no flush or compaction is due or under way."""
        with self._lock:
            self._jobs.settle()

    def checkpoint(self, directory: str | os.PathLike[str]) -> None:
        """Make `directory`, on the same disk, a store of its own with all that is in this one now.

        Files are linked, not copied. Raises StorageFailed when the directory holds something already,
        StorageFull.
        """
        with self._lock:
            self._engine.checkpoint(os.fspath(directory))
            self._jobs.tend()

    @property
    def busy(self) -> bool:
        """Whether a flush or a compaction is under way."""
        return self._jobs.busy

    def statistics(self) -> EngineStatistics:
        """Sizes and counts for operators."""
        return self._engine.statistics()

    def close(self) -> None:
        """Sync and close; flushes and compactions under way are abandoned. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._syncs is not None:
            self._syncs.close()
        try:
            self._jobs.close()
        finally:
            self._engine.close()

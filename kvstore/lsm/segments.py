"""The segments of the write-ahead log that are not in tables yet, each with the memtable of its content.

A batch is buffered, visible at once, and written to the log with all others of one group commit when a
sync begins (Gray and Reuter, "Transaction Processing", 1993, section 9.4.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from kvstore.errors import StorageError, StorageFailed, StorageFull
from kvstore.lsm.filesystem import FileSystem, WritableFile
from kvstore.lsm.memtable import Memtable
from kvstore.lsm.wal import MAGIC, Batch, encode_wal_record, segment_name

_FREED_AT_LEAST, _FREED_FOR_EACH = 16, 4
"""So many entries that are in tables are freed with a batch, and with each of its entries."""


class _NoFile:
    """In the place of the file of a segment that is written to no more, or not yet for want of space."""

    def append(self, data: bytes) -> None:
        raise StorageFull("no space left on the disk to begin a log")

    def sync(self) -> None:
        pass

    def write_back(self) -> None:
        pass

    def truncate(self, size: int) -> None:
        pass

    def close(self) -> None:
        pass


NO_FILE = _NoFile()


@dataclass(slots=True)
class Segment:
    """A log segment and the memtable with the same content."""

    number: int
    file: WritableFile
    floor: int
    """The LSN before its first."""
    last_lsn: int
    memtable: Memtable
    bytes: int = 0
    flushing: bool = False


@dataclass(frozen=True, slots=True)
class Sync:
    """A sync that has begun: `run` may be called on another thread."""

    files: tuple[WritableFile, ...]
    sealed: tuple[Segment, ...]
    lsn: int

    def run(self) -> None:
        """Wait until the files are on the disk; raises StorageFailed."""
        for file in self.files:
            file.sync()


class Segments:
    """The active segment, which is written to, and sealed ones, the oldest first, which wait for their flush.

    Once a write or a sync has failed for another reason than space, every call raises StorageFailed.
    """

    def __init__(self, fs: FileSystem, directory: str, lsn: int, recovered: Sequence[Segment]) -> None:
        self._fs = fs
        self._directory = directory
        self.last_lsn = self.durable_lsn = lsn
        self.begun = False
        self.full = True
        """There was no space: nothing is lost, but nothing more may be written until a sync has begun."""
        self.failed: StorageFailed | None = None
        self.closed = False
        self.syncing = False
        self.written_bytes = 0
        self._buffer: list[Batch] = []
        self._unsynced: list[Segment] = []
        self.sealed = list(recovered)
        self._in_tables: list[Memtable] = []
        self.active = Segment(0, NO_FILE, lsn, lsn, Memtable())

    def begin(self, number: int) -> None:
        """Begin the log of this open: now writes are taken. Raises StorageFull: it has not begun."""
        self.active = self._new(number)
        self.begun, self.full = True, False

    def _new(self, number: int) -> Segment:
        try:
            file = self._fs.create(self._path(number))
            try:
                file.append(MAGIC)
                self._fs.sync_directory(self._directory)
            except BaseException:
                file.close()
                raise
        except StorageFull:
            with suppress(StorageError):  # else it stays until the next open
                self._fs.remove(self._path(number))
            raise
        return Segment(number, file, self.last_lsn, self.last_lsn, Memtable())

    def check(self) -> None:
        """Raises StorageFailed when it has failed, or is closed."""
        if self.failed is not None:
            raise StorageFailed(f"the engine stopped after: {self.failed}")
        if self.closed:
            raise StorageFailed(f"the engine in {self._directory} is closed")

    def _path(self, number: int) -> str:
        return f"{self._directory}/{segment_name(number)}"

    def append(self, batch: Batch, size: int) -> int:
        """Take a batch with `size` bytes of keys and values; returns its LSN."""
        self.last_lsn = lsn = self.last_lsn + 1
        self._buffer.append(batch)
        active = self.active
        active.last_lsn = lsn
        active.memtable.apply(batch, size)
        if self._in_tables:
            self._let_go(_FREED_AT_LEAST + _FREED_FOR_EACH * len(batch))
        return lsn

    def _let_go(self, entries: int) -> None:
        """Free some memory of what is in tables."""
        self._in_tables = [memtable for memtable in self._in_tables if not memtable.let_go(entries)]

    def seal(self, number: int) -> None:
        """Begin a new segment and memtable; raises StorageFull: then the old ones grow on, StorageFailed."""
        try:
            self._write_buffer()
            fresh = self._new(number)
        except StorageFull:
            # what waits for a sync waits for space; with nothing waiting, the next write will find out
            self.full = self.durable_lsn < self.last_lsn
            raise
        except StorageFailed as error:
            self.failed = error
            raise
        self._unsynced.append(self.active)
        self.sealed.append(self.active)
        self.active = fresh

    def _write_buffer(self) -> None:
        if self._buffer:
            first_lsn = self.last_lsn - len(self._buffer) + 1
            record = encode_wal_record(first_lsn, self.durable_lsn, self._buffer)
            self.active.file.append(record)
            self.active.bytes += len(record)
            self.written_bytes += len(record)
            self._buffer.clear()

    # syncing

    def write_out(self) -> None:
        """Hand everything to the operating system; raises StorageFull, StorageFailed."""
        try:
            self._write_buffer()
        except StorageFull:
            self.full = True
            raise
        except StorageFailed as error:
            self.failed = error
            raise
        self.full = False

    def begin_sync(self) -> Sync | None:
        """Write out; what must be synced then, None when all is durable. At most one sync at a time."""
        assert not self.syncing, "a sync is under way"
        if self.durable_lsn == self.last_lsn:
            return None
        self.write_out()
        self.syncing = True
        sealed = tuple(self._unsynced)
        return Sync((*(segment.file for segment in sealed), self.active.file), sealed, self.last_lsn)

    def finish_sync(self, sync: Sync) -> None:
        """The sync has run."""
        self.syncing = False
        self.durable_lsn = max(self.durable_lsn, sync.lsn)
        for segment in sync.sealed:
            self._unsynced.remove(segment)
            segment.file.close()

    def fail_sync(self, error: StorageFailed) -> None:
        """The sync failed: it is never retried, the kernel may have dropped what it could not write."""
        self.syncing = False
        self.failed = error

    # flushing

    def flushed(self) -> str:
        """The oldest sealed segment is in a table, and durable by that; returns its file, to be removed."""
        segment = self.sealed.pop(0)
        self._in_tables.append(segment.memtable)
        self.durable_lsn = max(self.durable_lsn, segment.last_lsn)
        if segment in self._unsynced and not self.syncing:
            self._unsynced.remove(segment)
            segment.file.close()
        return segment_name(segment.number)

    def names(self) -> list[str]:
        """The files, in order."""
        return [segment_name(segment.number) for segment in (*self.sealed, self.active)]

    def memory(self) -> int:
        """Bytes that all memtables hold."""
        return sum(segment.memtable.bytes for segment in (*self.sealed, self.active))

    def log_bytes(self) -> int:
        """Bytes of log that are replayed after a crash now."""
        return sum(segment.bytes for segment in (*self.sealed, self.active))

    def close(self) -> None:
        """Close the files; nothing may be written any more."""
        self.closed = True
        for segment in (*self._unsynced, self.active):
            segment.file.close()

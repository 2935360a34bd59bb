"""The segments of the write-ahead log that are not in tables yet, each with the memtable of its content.

A batch is buffered, visible at once, and written to the log with all others of one group commit when a
sync begins (Gray and Reuter, "Transaction Processing", 1993, section 9.4.7); a large record by the
sync itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from kvstore.errors import StorageError, StorageFailed, StorageFull
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.memtable import Memtable
from kvstore.lsm.sync import LogWrite, Segment, Sync
from kvstore.lsm.wal import MAGIC, Batch, segment_name

_LARGE = 256 * 1024
"""So many bytes are written by a sync, on its thread, and not when it begins."""

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
        self.written_bytes = 0
        self._running: Sync | None = None
        self._unsynced: list[Segment] = []
        self._unnamed = False
        """Whether there is a file whose name may not be durable."""
        self.sealed = list(recovered)
        self._in_tables: list[Memtable] = []
        self.active = Segment(0, NO_FILE, lsn, lsn, Memtable())

    def begin(self, number: int) -> None:
        """Begin the log of this open: now writes are taken. Raises StorageFull: it has not begun."""
        self.active = self._new(number)
        self.begun, self.full = True, False

    def _new(self, number: int, sync_later: bool = False) -> Segment:
        try:
            file = self._fs.create(self._path(number))
            try:
                file.append(MAGIC)
                if sync_later:
                    self._unnamed = True
                else:
                    self._sync_names()
            except BaseException:
                file.close()
                raise
        except StorageFull:
            with suppress(StorageError):  # else it stays until the next open
                self._fs.remove(self._path(number))
            raise
        return Segment(number, file, self.last_lsn, self.last_lsn, Memtable())

    def _sync_names(self) -> None:
        self._fs.sync_directory(self._directory)

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
        active = self.active
        active.unwritten.append(batch)
        active.unwritten_bytes += size
        active.last_lsn = lsn
        active.memtable.apply(batch, size)
        if self._in_tables:
            self._let_go(_FREED_AT_LEAST + _FREED_FOR_EACH * len(batch))
        return lsn

    def _let_go(self, entries: int) -> None:
        """Free some memory of what is in tables."""
        self._in_tables = [memtable for memtable in self._in_tables if not memtable.let_go(entries)]

    def seal(self, number: int) -> None:
        """Begin a new segment and memtable; raises StorageFull: then the old ones grow on, StorageFailed.

        What the next sync will write, or one writes just now, is left to it.
        """
        left = self._large or self._writes
        try:
            if not left:
                self._write_buffer()
            fresh = self._new(number, sync_later=left)
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

    @property
    def _large(self) -> bool:
        """Whether there is more to write than should be written now."""
        unwritten = self.active.unwritten_bytes + sum([s.unwritten_bytes for s in self._unsynced])
        return unwritten > _LARGE and not self.full

    @property
    def _writes(self) -> bool:
        """Whether a sync is under way that writes: nobody else may."""
        return self._running is not None and bool(self._running.writes)

    def _write_buffer(self) -> None:
        for segment in (*self._unsynced, self.active):
            if segment.unwritten:
                write = LogWrite.take(segment, self.durable_lsn)
                try:
                    write.run()
                finally:
                    self.written_bytes += write.settle()

    # syncing

    def write_out(self) -> None:
        """Hand everything to the operating system; raises StorageFull, StorageFailed."""
        assert not self._writes, "a sync writes"
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
        sealed = tuple(self._unsynced)
        writes: tuple[LogWrite, ...] = ()
        if self._large:
            segments = (*sealed, self.active)
            writes = tuple([LogWrite.take(s, self.durable_lsn) for s in segments if s.unwritten])
        else:
            self.write_out()
        names = self._sync_names if self._unnamed else None
        self._unnamed = False
        files = (*(segment.file for segment in sealed), self.active.file)
        self._running = Sync(files, sealed, self.last_lsn, writes, names)
        return self._running

    @property
    def syncing(self) -> bool:
        """Whether a sync is under way."""
        return self._running is not None

    def finish_sync(self, sync: Sync) -> None:
        """The sync has run."""
        self._end_sync(sync)
        self.durable_lsn = max(self.durable_lsn, sync.lsn)
        for segment in sync.sealed:
            self._unsynced.remove(segment)
            segment.file.close()

    def _end_sync(self, sync: Sync) -> None:
        self._running = None
        for write in sync.writes:
            self.written_bytes += write.settle()

    def put_off_sync(self, sync: Sync) -> None:
        """There was no space for what the sync should write: the next one writes the rest."""
        self._end_sync(sync)
        self.full = True
        self._unnamed = self._unnamed or sync.sync_names is not None

    def fail_sync(self, error: StorageFailed) -> None:
        """The sync failed: it is never retried, the kernel may have dropped what it could not write."""
        self._running = None
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

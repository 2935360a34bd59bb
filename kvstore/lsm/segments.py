"""The segments of the write-ahead log that are not in tables yet, each with the memtable of its content.

A batch is buffered, visible at once, and written to the log with all others of one group commit when a
sync begins (Gray and Reuter, "Transaction Processing", 1993, section 9.4.7); a large record by the
sync itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from kvstore.errors import StorageError, StorageFailed, StorageFull
from kvstore.lsm.filesystem import FileSystem, WritableFile
from kvstore.lsm.memtable import Memtable
from kvstore.lsm.wal import MAGIC, Batch, encode_wal_record, segment_name

_LARGE = 256 * 1024
"""So many bytes are encoded and written by a sync, on its thread, and not when it begins: a MiB takes a
millisecond, and more where memory is fresh, mostly without the interpreter's lock."""

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
    unwritten: list[Batch] = field(default_factory=list)
    """The last of its batches: they are not in the file yet."""
    unwritten_bytes: int = 0
    writing: bool = False
    """Whether a sync writes those that were there when it began."""

    @property
    def complete(self) -> bool:
        """Whether the file has all that the memtable has."""
        return not self.unwritten and not self.writing


@dataclass(slots=True)
class LogWrite:
    """The batches that a sync writes to one segment, as one record."""

    segment: Segment
    first_lsn: int
    durable_lsn: int
    batches: list[Batch]
    size: int
    written: int = 0
    """Bytes that were added to the file; 0 until that is done."""

    @classmethod
    def take(cls, segment: Segment, durable_lsn: int) -> LogWrite:
        """Of all that is unwritten; the segment begins to gather anew."""
        batches, size = segment.unwritten, segment.unwritten_bytes
        segment.unwritten, segment.unwritten_bytes, segment.writing = [], 0, True
        return cls(segment, segment.last_lsn - len(batches) + 1, durable_lsn, batches, size)

    def run(self) -> None:
        """Write them; raises StorageFull, StorageFailed."""
        record = encode_wal_record(self.first_lsn, self.durable_lsn, self.batches)
        self.segment.file.append(record)
        self.written = len(record)

    def settle(self) -> int:
        """It has run, or never will; returns what was written. What was not is unwritten again."""
        segment = self.segment
        segment.writing = False
        segment.bytes += self.written
        if not self.written:
            segment.unwritten[:0] = self.batches
            segment.unwritten_bytes += self.size
        return self.written


@dataclass(frozen=True, slots=True)
class Sync:
    """A sync that has begun: `run` may be called on another thread."""

    files: tuple[WritableFile, ...]
    sealed: tuple[Segment, ...]
    lsn: int
    writes: tuple[LogWrite, ...] = ()
    """Large records, which are written first."""
    sync_names: Callable[[], None] | None = None
    """Makes the names of new files durable, if there are any, before something is written to them."""

    @property
    def written(self) -> tuple[WritableFile, ...]:
        """Those of the files to which nothing is written first."""
        writes = [write.segment.file for write in self.writes]
        return tuple([file for file in self.files if file not in writes])

    def run(self) -> None:
        """Wait until the files are on the disk.

        Raises StorageFull: some of the writes were not done, nothing is lost. Raises StorageFailed.
        """
        if self.sync_names is not None:
            self.sync_names()
        for write in self.writes:
            write.run()
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

    def fail_sync(self, sync: Sync, error: StorageFull | StorageFailed) -> None:
        """The sync has raised this. Without space nothing is lost: the next one writes what is left.

        After StorageFailed it is never retried, the kernel may have dropped what it could not write.
        """
        if isinstance(error, StorageFull):
            self._end_sync(sync)
            self.full = True
            self._unnamed = self._unnamed or sync.sync_names is not None
        else:
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

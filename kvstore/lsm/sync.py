"""What one sync of the log does: it may be run on another thread than the one that writes.

Large records are encoded and written there as well: a MiB takes a millisecond, and more where memory is
fresh, for which the writer's thread would stand still. Most of it happens without the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kvstore.lsm.filesystem import WritableFile
from kvstore.lsm.memtable import Memtable
from kvstore.lsm.wal import Batch, encode_wal_record


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

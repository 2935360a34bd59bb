"""What the log holds beyond the tables when a store is opened, and what of it must not stay.

Behind a gap that a crash has torn there may be more records. Nobody was promised them, they are dropped, and
their LSNs are given out again. So they must be gone before that: a record of this open would prove, to the
next, that something is missing before them.
"""

from __future__ import annotations

from contextlib import suppress

from kvstore.errors import StorageFailed, StorageFull, UnsupportedFormat
from kvstore.lsm.config import Options
from kvstore.lsm.filesystem import FileSystem, sync_file
from kvstore.lsm.limits import batch_bytes
from kvstore.lsm.manifest import CURRENT, Manifest
from kvstore.lsm.memtable import Memtable
from kvstore.lsm.merge import merge
from kvstore.lsm.messages import table_name
from kvstore.lsm.obsolete_files import ObsoleteFiles
from kvstore.lsm.segments import NO_FILE, Segment, Segments
from kvstore.lsm.sstable_writer import write_tables
from kvstore.lsm.table_set import TableSet
from kvstore.lsm.wal import MAGIC, locate_records, log_paths, segment_name
from kvstore.lsm.whole_files import file_size

LOCK = "LOCK"
"""The file that whoever has a store open holds a lock on."""


def recovered_segments(fs: FileSystem, directory: str, floor: int) -> list[Segment]:
    """The segments with records above the LSN `floor`, the oldest first, sealed.

    Raises Corruption, UnsupportedFormat.
    """
    segments: list[Segment] = []
    lsn = floor
    at = ""
    for path, end, record in locate_records(fs, log_paths(fs, directory), floor):
        if path != at:
            at = path
            segments.append(Segment(_number(path, directory), NO_FILE, lsn, lsn, Memtable()))
        segment = segments[-1]
        for batch in record.batches:
            segment.memtable.apply(batch, batch_bytes(batch))
        segment.last_lsn = lsn = record.last_lsn
        segment.bytes = end - len(MAGIC)
    return segments


def _number(path: str, directory: str) -> int:
    name = path.removeprefix(f"{directory}/")
    digits = name.removesuffix(".wal")
    if not (digits.isascii() and digits.isdigit() and segment_name(int(digits)) == name):
        raise UnsupportedFormat(path, "has records of a log, and is not named as its segments are")
    return int(digits)


class Tails:
    """What lies behind the last record that counts, in each of some segments."""

    def __init__(self, fs: FileSystem, directory: str, segments: list[Segment]) -> None:
        self._fs = fs
        self._ends = {f"{directory}/{segment_name(s.number)}": len(MAGIC) + s.bytes for s in segments}

    def cut(self) -> None:
        """Cut them off, durably; raises StorageFull where a file system needs space for it."""
        for path, end in tuple(self._ends.items()):
            with suppress(FileNotFoundError):  # it is in a table, and was removed
                if file_size(self._fs, path) > end:
                    self._cut(path, end)
            del self._ends[path]

    def _cut(self, path: str, end: int) -> None:
        file = self._fs.reopen(path)
        try:
            file.truncate(end)
            file.sync()
        finally:
            file.close()


class Recovery:
    """What is done when a store is opened; on a full disk the part that takes space is put off."""

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        options: Options,
        manifest: Manifest,
        segments: Segments,
        tables: TableSet,
        obsolete: ObsoleteFiles,
    ) -> None:
        """`segments` are those of `recovered_segments`, with nothing written to them since."""
        self._fs = fs
        self._directory = directory
        self._options = options
        self._manifest = manifest
        self._segments = segments
        self._tables = tables
        self._obsolete = obsolete
        self._tails = Tails(fs, directory, segments.sealed)
        self._unknown = self._found_unknown()

    def _found_unknown(self) -> list[str]:
        """What a crash has left behind, files that are no part of the store, and log that does not count."""
        known = {CURRENT, LOCK, self._manifest.name}
        known.update(table_name(number) for number in self._manifest.tables)
        known.update(segment_name(segment.number) for segment in self._segments.sealed)
        return [name for name in self._fs.list(self._directory) if name not in known]

    def run(self) -> None:
        """Make a table of what the log holds and begin a new one; on a full disk only what takes no space."""
        try:
            self._manifest.begin()
            if self._segments.sealed:
                self._flush()
            self._begin_log()
        except StorageFull:
            # what was read must outlive this process before anybody is told of it, or a file removed for it
            self._manifest.settle()
            for segment in self._segments.sealed:
                sync_file(self._fs, f"{self._directory}/{segment_name(segment.number)}")
            with suppress(StorageFull):
                self._remove_unknown()

    def _flush(self) -> None:
        """Make a table of all sealed memtables; raises StorageFull: nothing has changed."""
        sealed, number = self._segments.sealed, self._manifest.take_number()
        chunks = merge(segment.memtable.chunks(b"", None) for segment in reversed(sealed))
        entries = sum(len(segment.memtable) for segment in sealed)
        lsn, options = self._segments.last_lsn, self._options
        try:
            infos = write_tables(self._fs, self._directory, (number,), chunks, 0, lsn, entries, options)
            self._tables.replace((), infos, lsn)
        except StorageFull:
            self._obsolete.add([table_name(number)])
            self._obsolete.remove_now()
            raise
        self._obsolete.add(segment_name(segment.number) for segment in sealed)
        sealed.clear()
        self._obsolete.remove_now()

    def finish(self) -> None:
        """Begin the log, if there was no space for it until now; raises StorageFull, StorageFailed."""
        self._segments.check()
        if not self._segments.begun:
            try:
                self._begin_log()
            except StorageFailed as error:
                self._segments.failed = error
                raise

    def _begin_log(self) -> None:
        """From now on writes are taken; raises StorageFull: then the next sync tries it again."""
        self._manifest.begin()
        self._tails.cut()
        self._remove_unknown()
        self._segments.begin(self._manifest.take_number())

    def _remove_unknown(self) -> None:
        while self._unknown:
            self._fs.remove(f"{self._directory}/{self._unknown[-1]}")
            self._unknown.pop()

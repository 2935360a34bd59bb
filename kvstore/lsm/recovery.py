"""What the log holds beyond the tables when a store is opened, and what of it must not stay.

Behind a gap that a crash has torn there may be more records. Nobody was promised them, they are dropped, and
their LSNs are given out again. So they must be gone before that: a record of this open would prove, to the
next, that something is missing before them.
"""

from __future__ import annotations

from contextlib import suppress

from kvstore.errors import UnsupportedFormat
from kvstore.lsm.filesystem import FileSystem, file_size
from kvstore.lsm.limits import batch_bytes
from kvstore.lsm.memtable import Memtable
from kvstore.lsm.segments import NO_FILE, Segment
from kvstore.lsm.wal import MAGIC, locate_records, log_paths, segment_name


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

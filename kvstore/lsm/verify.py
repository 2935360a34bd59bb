"""Verifying a stopped store: every byte of it is read, and nothing is changed.

What is checked: CURRENT and the manifest; each table (verify_table); that tables of a deep level do not
meet; the log, and what recovery would make of it; that no other files are there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import groupby, pairwise

from kvstore.errors import Corruption, StorageError
from kvstore.lsm.manifest import CURRENT, StoreState, current_manifest
from kvstore.lsm.messages import TableInfo, table_name
from kvstore.lsm.pace import Pace, full_speed
from kvstore.lsm.problems import Counts, Kind, Problem
from kvstore.lsm.readable_files import ReadableFiles
from kvstore.lsm.record import DamagedRecord, TornRecord, decode_record
from kvstore.lsm.recovery import LOCK
from kvstore.lsm.stopped import locked, read_state
from kvstore.lsm.verify_table import problem_of, verify_table
from kvstore.lsm.wal import MAGIC, log_paths, read_segments, records_in
from kvstore.lsm.whole_files import read_file

_OURS = re.compile(r"MANIFEST-\d{8,}|\d{8,}\.sst|CURRENT\.new")


def verify(
    fs: ReadableFiles, directory: str, counts: Counts | None = None, pace: Pace = full_speed
) -> Iterator[Problem]:
    """Everything that is wrong with the store in `directory`.

    Fills `counts` and calls `pace` with each number of bytes that was read. Raises WrongDataDirectory when
    the store is open.
    """
    with locked(fs, directory):
        yield from _Verification(fs, directory, counts or Counts(), pace).run()


class _Verification:
    def __init__(self, fs: ReadableFiles, directory: str, counts: Counts, pace: Pace) -> None:
        self._fs = fs
        self._directory = directory
        self._counts = counts
        self._pace = pace
        self._names = fs.list(directory)

    def run(self) -> Iterator[Problem]:
        manifest = ""
        try:
            manifest = current_manifest(self._fs, self._directory)
            state = read_state(self._fs, self._directory)
        except (StorageError, OSError) as error:
            # without it nobody can tell which tables count
            yield problem_of(error, manifest or CURRENT)
            return
        yield from self._tail(manifest)
        if self._read(CURRENT) != f"{manifest}\n".encode():
            yield Problem(Kind.WRONG, CURRENT, "holds more than the name of a manifest")
        for info in state.tables.values():
            yield from self._table(info)
        yield from _overlaps(state)
        yield from self._log(state.flushed_lsn)
        yield from self._others({manifest, *map(table_name, state.tables)})

    def _read(self, name: str) -> bytes:
        data = read_file(self._fs, f"{self._directory}/{name}")
        self._counts.files += 1
        self._counts.bytes += len(data)
        self._pace(len(data))
        return data

    def _tail(self, manifest: str) -> Iterator[Problem]:
        """What lies behind the edits, which have all been read."""
        data, end = self._read(manifest), len(MAGIC)
        while end < len(data):
            try:
                end = decode_record(data, end)[1]
            except (TornRecord, DamagedRecord):
                yield _gap(manifest, data, range(end, len(data)))
                return

    def _table(self, info: TableInfo) -> Iterator[Problem]:
        if table_name(info.number) in self._names:
            yield from verify_table(self._fs, self._directory, info, self._counts, self._pace)
        else:
            what = "the manifest names this table, but it is missing"
            yield Problem(Kind.MISSING, table_name(info.number), what, None, (info.smallest, info.largest))

    # the log

    def _log(self, flushed_lsn: int) -> Iterator[Problem]:
        paths = log_paths(self._fs, self._directory)
        for path in paths:
            yield from self._segment(path)
        try:
            for _ in read_segments(self._fs, paths, flushed_lsn):
                pass
        except Corruption as error:
            yield problem_of(error, self._name(error.path))
        except (StorageError, OSError):
            pass  # that of a segment, which has been told

    def _name(self, path: str) -> str:
        return path.removeprefix(f"{self._directory}/")

    def _segment(self, path: str) -> Iterator[Problem]:
        """What cannot be read between the records of a segment and behind them."""
        name, end = self._name(path), len(MAGIC)
        data = b""
        try:
            data = self._read(name)
            for place, record in records_in(data, path):
                if place.start > end:
                    yield _gap(name, data, range(end, place.start))
                self._counts.blocks += 1
                self._counts.entries += sum(map(len, record.batches))
                end = place.stop
        except (StorageError, OSError) as error:
            yield problem_of(error, name)
            return
        if len(data) < len(MAGIC):
            yield Problem(Kind.TORN, name, "was torn when it was made", 0)
        elif end != len(data):
            yield _gap(name, data, range(end, len(data)))

    # other files

    def _others(self, tables: Collection[str]) -> Iterator[Problem]:
        for name in self._names:
            if name in tables or name in (CURRENT, LOCK) or name.endswith(".wal"):
                continue
            if _OURS.fullmatch(name):
                yield Problem(Kind.LEFTOVER, name, "is not part of the store: the next start removes it")
            else:
                yield Problem(Kind.STRANGER, name, "does not belong here, and the next start removes it")


def _gap(name: str, data: bytes, place: range) -> Problem:
    """Bytes of a log or manifest that are no record. At its end they may be what a crash has torn."""
    size = f"{len(place)} bytes at {place.start}"
    if place.stop == len(data):
        if _torn(data, place.start):
            return Problem(Kind.TORN, name, f"{size} of a record that was never synced", place.start)
        what = (
            f"{size}, its end, are damaged, and nothing tells whether they were synced: recovery drops them"
        )
        return Problem(Kind.DAMAGED, name, what, place.start)
    return Problem(Kind.DAMAGED, name, f"{size} between records are damaged", place.start)


def _torn(data: bytes, offset: int) -> bool:
    try:
        decode_record(data, offset)
    except TornRecord:
        return True
    except DamagedRecord:
        return not data[offset:].strip(b"\0")
    return False


def _overlaps(state: StoreState) -> Iterator[Problem]:
    """Tables of a level from 1 on must not meet: a lookup asks only one of them."""
    deep = sorted(
        (info for info in state.tables.values() if info.level), key=lambda info: (info.level, info.smallest)
    )
    for level, tables in groupby(deep, key=lambda info: info.level):
        for left, right in pairwise(tables):
            if left.largest >= right.smallest:
                what = f"meets {table_name(left.number)}, which is of level {level} too"
                keys = right.smallest, min(left.largest, right.largest)
                yield Problem(Kind.WRONG, table_name(right.number), what, None, keys)

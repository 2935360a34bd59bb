"""A store that nobody has open, for reading only: nothing in its directory is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kvstore.errors import Corruption
from kvstore.lsm.levels import Levels
from kvstore.lsm.manifest import CURRENT, StoreState, current_manifest, read_edits
from kvstore.lsm.memtable import Memtable
from kvstore.lsm.readable_files import ReadableFiles
from kvstore.lsm.recovery import LOCK
from kvstore.lsm.snapshot import Snapshot
from kvstore.lsm.table import Table
from kvstore.lsm.table_file import TableFile
from kvstore.lsm.wal import log_paths, read_segments


@contextmanager
def locked(fs: ReadableFiles, directory: str) -> Iterator[None]:
    """Nobody else opens the store meanwhile; raises WrongDataDirectory when somebody has it open.

    A store that was never opened, a checkpoint, has no lock file, and gets none.
    """
    lock = fs.lock(f"{directory}/{LOCK}") if LOCK in fs.list(directory) else None
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def read_state(fs: ReadableFiles, directory: str) -> StoreState:
    """Which files make up the store; raises Corruption, UnsupportedFormat."""
    name = current_manifest(fs, directory)
    if not name:
        raise Corruption(f"{directory}/{CURRENT}", "is missing: this is no store")
    state = StoreState()
    for edit in read_edits(fs, f"{directory}/{name}"):
        state.apply(edit)
    return state


@contextmanager
def open_stopped(fs: ReadableFiles, directory: str) -> Iterator[Snapshot]:
    """All that the store holds, as it would be after recovery.

    Raises WrongDataDirectory, Corruption, UnsupportedFormat.
    """
    with locked(fs, directory):
        state = read_state(fs, directory)
        tables: list[Table] = []
        try:
            tables += (Table(TableFile(fs, directory, info), None) for info in state.tables.values())
            records = read_segments(fs, log_paths(fs, directory), state.flushed_lsn)
            log = Memtable.of(batch for record in records for batch in record.batches)
            with Snapshot(log, (), Levels(tables)) as snapshot:
                yield snapshot
        finally:
            for table in tables:
                table.close()

"""A table goes to the disk while it is written, so that its one sync keeps no log's sync waiting for long."""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path

import pytest

from kvstore.errors import StorageFailed
from kvstore.lsm import MemoryFileSystem, Options
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.merge import Chunk
from kvstore.lsm.messages import TableInfo
from kvstore.lsm.sstable_writer import write_tables
from kvstore.store import DiskFileSystem
from tests.faulty_filesystem import FaultyFileSystem

ENTRIES = 500
RNG = random.Random(1)
CHUNK: Chunk = [b"%04d" % i for i in range(ENTRIES)], [RNG.randbytes(2000) for _ in range(ENTRIES)]


def write(fs: FileSystem, directory: str) -> TableInfo:
    (info,) = write_tables(fs, directory, (1,), [CHUNK], 0, 1, ENTRIES, Options())
    return info


def test_a_table_is_written_back_in_small_steps_and_synced_once(tmp_path: Path) -> None:
    fs = FaultyFileSystem(DiskFileSystem())
    info = write(fs, str(tmp_path))
    assert info.size > 1_000_000
    assert fs.calls["write_back"] > 10
    assert fs.calls["sync"] == 1


def test_an_error_of_the_disk_while_it_writes_back_is_not_lost() -> None:
    for step in count(1):
        fs = FaultyFileSystem(MemoryFileSystem())
        fs.fail_from = fs.fail_to = step
        try:
            write(fs, "store")
        except StorageFailed:
            assert not fs.writers
        else:
            break
        if fs.injected["write_back"]:
            return
    pytest.fail("nothing was written back")


def test_the_operating_systems_answer_is_heard(tmp_path: Path) -> None:
    file = DiskFileSystem().create(str(tmp_path / "file"))
    file.append(b"some")
    file.write_back()
    file.close()
    with pytest.raises(StorageFailed, match="Bad file descriptor"):
        file.write_back()

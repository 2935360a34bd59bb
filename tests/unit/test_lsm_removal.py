"""What is not needed any more is freed little by little, and never under a reader."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest

from kvstore.lsm import CompactionJob, Durability, Engine, Job, MemoryFileSystem, Options, RemovalJob, run_job
from kvstore.store import Store
from kvstore.store.disk import DiskFileSystem
from tests.patience import PATIENCE

SIZE = 1_000_000


def removed(path: Path) -> list[int]:
    """The steps in which a file is freed, in bytes."""
    steps: list[int] = []
    DiskFileSystem().remove(str(path), steps.append)
    assert not path.exists()
    return steps


def test_a_file_is_freed_in_small_steps(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(bytes(SIZE))
    steps = removed(path)
    assert len(steps) > 5
    assert SIZE * 3 / 4 < sum(steps) < SIZE
    assert removed(path) == []


def test_a_file_that_a_scan_reads_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as reader:
        assert removed(path) == []
        assert reader.read() == bytes(SIZE)


def test_a_file_that_a_checkpoint_has_too_is_left_to_it(tmp_path: Path) -> None:
    path, checkpoint = tmp_path / "table", tmp_path / "checkpoint"
    path.write_bytes(bytes(SIZE))
    os.link(path, checkpoint)
    assert removed(path) == []
    assert checkpoint.read_bytes() == bytes(SIZE)


@pytest.mark.parametrize("sealed_first", [False, True])
def test_a_flushed_memtable_is_freed_as_writes_come_but_not_under_a_snapshot(sealed_first: bool) -> None:
    engine = Engine.open(MemoryFileSystem(), "store", Options())
    content = [(b"%04d" % i, b"old") for i in range(1000)]
    engine.write(content)
    memtable = engine._segments.active.memtable
    if sealed_first:
        engine._segments.seal(engine._manifest.take_number())
    snapshot = engine.snapshot()
    engine.flush()
    for key, _ in content[:500]:
        engine.write([(key, b"new")])
    assert list(snapshot.scan()) == content
    assert len(memtable) == 1000
    snapshot.close()
    engine.write([(b"a", b"1")])
    assert 900 < len(memtable) < 1000
    for i in range(100):
        engine.write([(b"%d" % i, b"")])
    assert len(memtable) == 0
    assert engine.get(b"0999") == b"old"
    engine.close()


# under load


class SteadyLoad:
    """An engine whose workers are never idle: when one is done there is more to flush, and to compact."""

    options = Options(memtable_bytes=8000, block_bytes=512, tier_tables=4, compactions=1)

    def __init__(self) -> None:
        self.fs = MemoryFileSystem()
        self.engine = Engine.open(self.fs, "data", self.options)
        self.running: list[Job] = []
        self.removals_at_once = 0

    def turn(self, number: int) -> None:
        """A flush ends, and every fifth turn a compaction, for which by then four more tables are there."""
        i = 0
        while self.engine.statistics().sealed_memtables < 3:
            i += 1
            self.engine.write([(b"key-%03d" % (i % 100), b"%d" % number * 50)])
        self.engine.sync()
        self._take()
        for job in tuple(self.running):
            if number % 5 == 0 or not isinstance(job, CompactionJob):
                self.running.remove(job)
                self.engine.job_done(run_job(self.fs, job))
                self._take()

    def _take(self) -> None:
        self.running += self.engine.take_jobs()
        removals = sum(isinstance(job, RemovalJob) for job in self.running)
        self.removals_at_once = max(self.removals_at_once, removals)

    def superfluous_bytes(self) -> int:
        """What the disk holds beside the tables and logs in use."""
        statistics = self.engine.statistics()
        there = sum(self.fs.size(f"data/{name}") for name in self.fs.list("data"))
        return there - statistics.table_bytes - statistics.wal_bytes


def test_what_was_replaced_is_removed_though_no_worker_is_ever_idle() -> None:
    load = SteadyLoad()
    bytes_over_time = []
    for number in range(200):
        load.turn(number)
        bytes_over_time.append(load.superfluous_bytes())
    assert load.engine.statistics().compactions > 20
    # what one compaction replaces, and what a manifest may grow to
    assert max(bytes_over_time) < 300_000, bytes_over_time[::20]
    assert load.removals_at_once == 1


def test_a_store_is_rid_of_what_was_replaced_while_it_is_written_to(tmp_path: Path) -> None:
    """Real workers, which may take a while to start; the writer does not rest meanwhile."""
    options = Options(memtable_bytes=300_000, durability=Durability.NONE)
    batch = [(b"key-%04d" % i, random.Random(i).randbytes(100)) for i in range(1000)]
    end = time.monotonic() + PATIENCE
    with Store.open(tmp_path, options) as store:
        written, superfluous = 0, 0
        while written < 100 or superfluous > 1_000_000:
            assert time.monotonic() < end, f"{superfluous} bytes are still there, of {written} batches"
            store.write(batch)
            written += 1
            statistics = store.statistics()
            superfluous = disk_bytes(tmp_path) - statistics.table_bytes - statistics.wal_bytes
        assert statistics.flushes > 20
        assert statistics.compactions > 4


def disk_bytes(directory: Path) -> int:
    """Of all files; a worker may remove one meanwhile."""
    size = 0
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size

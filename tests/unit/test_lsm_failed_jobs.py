"""A job that fails half way takes no table along that is in use, and leaves none that is not."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from kvstore.errors import Corruption, StorageError, StorageFailed, StorageFull
from kvstore.lsm import Engine, Fate, FlushJob, Job, MemoryFileSystem, Options, run_job
from kvstore.lsm.pace import Pace, full_speed

CONTENT = {b"key-%d" % i: b"value" for i in range(4000)}


class StubbornDisk(MemoryFileSystem):
    """Refuses once to remove a table, when it is told so."""

    error: StorageError | None = None

    def remove(self, path: str, pace: Pace = full_speed) -> None:
        error = self.error
        if error and path.endswith(".sst"):
            self.error = None
            raise error
        super().remove(path, pace)


def two_tables(fs: MemoryFileSystem) -> Engine:
    engine = Engine.open(fs, "store", Options(block_bytes=500))
    for half in (0, 1):
        engine.write([(key, value) for key, value in CONTENT.items() if key[-1] % 2 == half])
        engine.flush()
    return engine


@pytest.mark.parametrize("error", [StorageFailed("input/output error"), StorageFull("quota")])
def test_inputs_that_cannot_be_removed_do_not_cost_the_output(error: StorageError) -> None:
    fs = StubbornDisk()
    engine = two_tables(fs)
    fs.error = error
    engine.maintenance.compact()
    assert dict(engine.scan()) == CONTENT
    engine.close()
    engine = Engine.open(fs, "store")
    assert dict(engine.scan()) == CONTENT
    assert engine.statistics().tables == 1
    engine.close()


def test_a_damaged_input_leaves_no_output_behind() -> None:
    fs = MemoryFileSystem()
    engine = two_tables(fs)
    before = fs.list("store")
    table = next(name for name in before if name.endswith(".sst"))
    fs.corrupt(f"store/{table}", fs.size(f"store/{table}") // 2, 1)
    with pytest.raises(Corruption, match="checksum"):
        engine.maintenance.compact()
    assert fs.list("store") == before
    engine.close()


def test_a_worker_that_outlives_its_owner_for_a_while_harms_nothing() -> None:
    """Killed with its owner, it ends when it gets the processor: until then it may go on with its job."""
    fs, options = MemoryFileSystem(), Options(block_bytes=500, memtable_bytes=20_000)
    engine = Engine.open(fs, "store", options)
    jobs: list[Job] = []
    for key, value in CONTENT.items():
        engine.write([(key, value)])
        jobs += engine.take_jobs()
        if len(jobs) == 1 and isinstance(jobs[0], FlushJob):
            break
    engine.sync()
    before = dict(engine.scan())
    fs = fs.crash(random.Random(1), Fate.ALL)
    engine = Engine.open(fs, "store", options)
    for i in range(20):
        engine.write([(b"new-%d" % i, b"value")])
        engine.flush()
    for job in jobs:
        with suppress(StorageError):
            run_job(fs, job)
    given_out = {number for job in jobs if isinstance(job, FlushJob) for number in job.outputs}
    assert min(table.info.number for table in engine.tables.levels) > max(given_out) + 1000
    engine.close()
    engine = Engine.open(fs, "store", options)
    assert dict(engine.scan()) == before | {b"new-%d" % i: b"value" for i in range(20)}
    engine.close()

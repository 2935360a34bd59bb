"""Quarantine in the engine: what a damaged block might hold is neither answered nor dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kvstore.errors import Corruption
from kvstore.lsm import Compaction, CompactionJob, Engine, FlushJob, MemoryFileSystem, Options, run_job
from kvstore.lsm.messages import WHOLE

OPTIONS = Options(block_bytes=256, memtable_bytes=1 << 20, cache_bytes=1 << 20)
KEYS = [b"k%03d" % i for i in range(40)]


def filled(fs: MemoryFileSystem, options: Options = OPTIONS) -> Engine:
    """One table with `new` values of all keys above one with the `old` ones."""
    engine = Engine.open(fs, "store", options)
    for age in (b"old", b"new"):
        engine.write([(key, age + b"-" + key) for key in KEYS])
        engine.flush()
    return engine


def newest_table(fs: MemoryFileSystem) -> str:
    return max(f"store/{name}" for name in fs.list("store") if name.endswith(".sst"))


def damaged(fs: MemoryFileSystem, at: float = 0.0, options: Options | None = None) -> Engine:
    """The same, opened again after a bit of the newer table has flipped."""
    filled(fs).close()
    path = newest_table(fs)
    fs.corrupt(path, int(fs.size(path) * at), 1)
    return Engine.open(fs, "store", options or OPTIONS)


def unreadable(engine: Engine) -> list[bytes]:
    found = []
    for key in KEYS:
        try:
            assert engine.get(key) == b"new-" + key
        except Corruption:
            found.append(key)
    return found


def run_jobs(fs: MemoryFileSystem, engine: Engine) -> int:
    count = 0
    while jobs := engine.take_jobs():
        for job in jobs:
            engine.job_done(run_job(fs, job))
            count += isinstance(job, CompactionJob)
    return count


def test_a_damaged_block_fences_what_it_might_hold_and_nothing_else() -> None:
    engine = damaged(MemoryFileSystem())
    lost = unreadable(engine)
    assert 0 < len(lost) < len(KEYS)
    (fence,) = engine.quarantine.fences
    assert (fence.first, fence.last) == (lost[0], lost[-1])
    assert engine.quarantine.noticed
    assert engine.quarantine.take_noticed() == [fence]
    assert not engine.quarantine.noticed
    with pytest.raises(Corruption):
        list(engine.scan())
    around = dict(engine.scan_around(b"", None))
    assert around == {key: None if key in lost else b"new-" + key for key in KEYS}
    assert engine.statistics().quarantined == 1


def test_a_good_copy_in_the_cache_does_not_answer_behind_a_fence() -> None:
    """It may go at any time, and what it held would then be gone when the fence is lifted."""
    fs = MemoryFileSystem()
    engine = filled(fs)
    assert engine.get(KEYS[0])
    fs.corrupt(newest_table(fs), 0, 1)
    assert engine.get(KEYS[0]) == b"new-" + KEYS[0]
    with pytest.raises(Corruption):
        engine.maintenance.compact()
    assert unreadable(engine)


@pytest.mark.parametrize("cached", [True, False])
def test_a_lifted_block_is_written_out_of_its_table(cached: bool) -> None:
    fs = MemoryFileSystem()
    engine = damaged(fs)
    lost = unreadable(engine)
    if not cached:
        engine.close()
        engine = Engine.open(fs, "store", OPTIONS)
        assert not engine.quarantine.fences, "it is met again by whoever reads it"
        assert unreadable(engine) == lost
    (fence,) = engine.quarantine.fences
    engine.write([(key, b"new-" + key) for key in lost])
    engine.sync()
    engine.lift(fence)
    assert run_jobs(fs, engine) == 1
    assert unreadable(engine) == []
    engine.flush()
    engine.maintenance.compact()
    engine.close()
    engine = Engine.open(fs, "store", OPTIONS)
    assert dict(engine.scan()) == {key: b"new-" + key for key in KEYS}
    assert not engine.quarantine.fences


def test_without_a_rewrite_a_restart_finds_the_damage_again() -> None:
    fs = MemoryFileSystem()
    engine = damaged(fs)
    lost = unreadable(engine)
    engine.lift(engine.quarantine.fences[0])
    assert [engine.get(key) for key in lost] == [b"old-" + key for key in lost]
    engine.close()
    assert unreadable(Engine.open(fs, "store", OPTIONS)) == lost


@pytest.mark.parametrize("compaction", Compaction)
def test_a_compaction_neither_drops_a_damaged_block_nor_tries_for_ever(compaction: Compaction) -> None:
    fs = MemoryFileSystem()
    options = Options(block_bytes=256, tier_tables=3, tier_ratio=100.0, compaction=compaction)
    engine = filled(fs, options)
    fs.corrupt(newest_table(fs), 0, 1)
    engine.write([(KEYS[0], b"x")])
    engine.flush()
    assert run_jobs(fs, engine) == 1
    assert len(engine.quarantine.fences) == 1
    lost = unreadable_but(engine, KEYS[0])
    assert lost
    engine.write([(key, b"new-" + key) for key in lost])
    engine.flush()
    engine.lift(engine.quarantine.fences[0])
    assert run_jobs(fs, engine) >= 1
    assert unreadable_but(engine, KEYS[0]) == []
    assert engine.get(KEYS[0]) == b"x"
    engine.maintenance.compact()
    assert engine.statistics().tables == 1


def unreadable_but(engine: Engine, key: bytes) -> list[bytes]:
    found = []
    for other in KEYS:
        try:
            assert engine.get(other) == (b"x" if other == key else b"new-" + other)
        except Corruption:
            found.append(other)
    return found


def drop(fs: MemoryFileSystem, path: str) -> None:
    fs.remove(path)
    fs.sync_directory("store")


def flip_the_footer(fs: MemoryFileSystem, path: str) -> None:
    fs.corrupt(path, fs.size(path) - 20, 1)


@pytest.mark.parametrize("harm", [drop, flip_the_footer])
def test_a_table_that_cannot_be_opened_fences_all_of_its_keys(
    harm: Callable[[MemoryFileSystem, str], None],
) -> None:
    fs = MemoryFileSystem()
    filled(fs).close()
    harm(fs, newest_table(fs))
    engine = Engine.open(fs, "store", OPTIONS)
    assert unreadable(engine) == KEYS
    (fence,) = engine.quarantine.fences
    assert fence.block == WHOLE
    assert dict(engine.scan_around(b"", None)) == dict.fromkeys(KEYS)
    engine.write([(key, b"new-" + key) for key in KEYS])
    engine.lift(fence)
    assert unreadable(engine) == []
    assert not engine.quarantine.fences
    assert engine.statistics().tables == 1
    engine.close()
    assert unreadable(Engine.open(fs, "store", OPTIONS)) == []


def test_a_damaged_segment_is_flushed_from_memory() -> None:
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "store", Options(memtable_bytes=1024))
    while not (jobs := engine.take_jobs()):
        engine.write([(key, b"new-" + key) for key in KEYS])
        engine.sync()
    (job,) = jobs
    assert isinstance(job, FlushJob)
    fs.corrupt(f"store/{job.segment:08d}.wal", 100, 1)
    result = run_job(fs, job)
    assert (result.tables, result.damaged) == ((), ((job.segment, WHOLE),))
    engine.job_done(result)
    assert engine.statistics().tables == 1
    assert engine.statistics().sealed_memtables == 0
    assert unreadable(engine) == []


@pytest.mark.parametrize("compaction", Compaction)
def test_writes_go_on_while_a_fence_keeps_tables_from_being_compacted(compaction: Compaction) -> None:
    """Found by the simulator: only writes take a fence down, and they were refused until it was down."""
    fs = MemoryFileSystem()
    options = replace(OPTIONS, compaction=compaction, tier_tables=2, slow_tables=4, max_tables=8)
    engine = damaged(fs, options=options)
    lost = unreadable(engine)
    (fence,) = engine.quarantine.fences
    for number in range(30):
        engine.write([(key, b"again-%d" % number) for key in KEYS if key not in lost])
        engine.flush()
        run_jobs(fs, engine)
    assert engine.quarantine.fences == (fence,)
    engine.write([(key, b"new-" + key) for key in lost])
    engine.sync()
    engine.lift(fence)
    run_jobs(fs, engine)
    assert engine.back_pressure.write_delay() < 0.1
    assert all(engine.get(key) == b"new-" + key for key in lost)

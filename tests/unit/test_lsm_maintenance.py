"""Which jobs are handed out when, what comes of their results, and what stays behind when they fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kvstore.errors import Corruption, StorageFailed, StorageFull
from kvstore.lsm import (
    Compaction,
    CompactionJob,
    Engine,
    FlushJob,
    Job,
    MemoryFileSystem,
    Options,
    RemovalJob,
    compaction_scheduler,
    run_job,
)
from kvstore.lsm.compaction import Choice, choose
from kvstore.lsm.messages import WHOLE, table_name
from kvstore.lsm.quarantine import Fence
from kvstore.lsm.table import Table
from tests.faulty_filesystem import Fault, FaultyFileSystem

LARGE = Options(tier_tables=2, block_bytes=100)
"""Nothing is sealed but by `flush`."""


def opened(options: Options = LARGE, fs: FaultyFileSystem | None = None) -> tuple[FaultyFileSystem, Engine]:
    fs = fs or FaultyFileSystem(MemoryFileSystem())
    return fs, Engine.open(fs, "d", options)


def memory(fs: FaultyFileSystem) -> MemoryFileSystem:
    inner = fs._inner
    assert isinstance(inner, MemoryFileSystem)
    return inner


def add_table(engine: Engine, entries: int = 1, name: bytes = b"key") -> None:
    engine.write([(b"%s-%05d" % (name, i), b"value") for i in range(entries)])
    engine.flush()


def add_memtable(engine: Engine) -> None:
    engine.write([(b"key", b"value" * engine.options.memtable_bytes)])


def compactions(jobs: list[Job]) -> list[CompactionJob]:
    return [job for job in jobs if isinstance(job, CompactionJob)]


def tables(fs: FaultyFileSystem) -> list[str]:
    return [name for name in fs.list("d") if name.endswith(".sst")]


def fail_next(fs: FaultyFileSystem, fault: Fault, call: int = 1) -> None:
    fs.fault = fault
    fs.fail_from = fs.fail_to = fs.number + call


# flushes


def test_flushes_are_given_out_one_at_a_time_the_oldest_first() -> None:
    fs, engine = opened(Options(memtable_bytes=100))
    assert engine.take_jobs() == []
    for _ in range(3):
        add_memtable(engine)
    (one,) = engine.take_jobs()
    assert isinstance(one, FlushJob)
    assert (one.floor, one.last_lsn, len(one.outputs)) == (0, 1, 1)
    assert engine.take_jobs() == []
    engine.job_failed(one)
    (again,) = engine.take_jobs()
    assert isinstance(again, FlushJob)
    assert (again.segment, again.last_lsn) == (one.segment, 1)
    assert again.outputs != one.outputs, "the failed one may be written still"
    engine.job_done(run_job(fs, again))
    statistics = engine.statistics()
    assert (statistics.flushes, statistics.tables, statistics.sealed_memtables) == (1, 1, 2)
    two, removal = engine.take_jobs()
    assert isinstance(two, FlushJob)
    assert (two.floor, two.last_lsn) == (1, 2)
    assert removal == RemovalJob("d", (f"{one.segment:08d}.wal",))


def test_bytes_and_numbers_of_jobs_are_counted() -> None:
    fs, engine = opened()
    statistics = engine.statistics()
    assert (statistics.flushes, statistics.compactions) == (0, 0)
    assert statistics.write_amplification == statistics.space_amplification == 0
    add_table(engine, 10)
    log, flushed = engine._segments.written_bytes, engine.statistics().table_bytes
    assert engine.statistics().write_amplification == (log + flushed) / log
    add_table(engine, 20, b"other")
    log, flushed = engine._segments.written_bytes, engine.statistics().table_bytes
    largest = max(table.info.size for table in engine.tables.levels)
    assert engine.statistics().space_amplification == flushed / largest
    assert engine.statistics().entries == 30
    engine.maintenance.compact()
    add_table(engine, 10, b"third")
    engine.maintenance.compact()
    first, second = engine.statistics().compactions, engine.statistics().flushes
    assert (first, second, engine.maintenance.flushes) == (2, 3, 3)
    compacted = engine.maintenance.compacted_bytes
    assert compacted > engine.statistics().table_bytes > compacted / 2
    log, flushed = engine._segments.written_bytes, engine.maintenance.flushed_bytes
    assert engine.statistics().write_amplification == (log + flushed + compacted) / log
    assert fs.writers


# compactions


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_compactions_run_at_a_time_than_the_options_say(most: int) -> None:
    fs, engine = opened(replace(LARGE, compactions=most, tier_ratio=1.5))
    for size in (4000, 4000, 1000, 1000, 200, 200, 20, 20):
        add_table(engine, size)
    running = compactions(engine.take_jobs())
    assert len(running) == most
    assert compactions(engine.take_jobs()) == []
    busy = [info.number for job in running for info in job.inputs]
    assert len(set(busy)) == len(busy) == 2 * most
    engine.job_failed(running[0])
    (again,) = compactions(engine.take_jobs())
    assert again.inputs == running[0].inputs
    engine.job_done(run_job(fs, again))
    assert len(compactions(engine.take_jobs())) == 1
    assert engine.statistics().compactions == 1


def test_a_choice_is_made_only_when_something_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(*of: Any) -> Choice | None:
        asked.append(1)
        return choose(*of)

    monkeypatch.setattr(compaction_scheduler, "choose", counted)
    fs, engine = opened()
    engine.take_jobs()
    assert len(asked) == 1
    engine.take_jobs()
    assert len(asked) == 1
    for _ in range(2):
        add_table(engine)
    (job,) = compactions(engine.take_jobs())
    count = len(asked)
    engine.take_jobs()
    assert len(asked) == count
    engine.close()
    _, engine = opened(fs=fs)
    (job,) = compactions(engine.take_jobs())  # at once: what was due before is due still
    count = len(asked)
    engine.job_done(run_job(fs, job))
    engine.take_jobs()
    assert len(asked) > count


@pytest.mark.parametrize(("compaction", "outputs"), [(Compaction.SIZE_TIERED, 1), (Compaction.LEVELED, None)])
def test_a_compaction_has_as_many_numbers_as_it_may_need(compaction: Compaction, outputs: int | None) -> None:
    _, engine = opened(replace(LARGE, compaction=compaction, table_bytes=500))
    for _ in range(2):
        add_table(engine, 500)
    (job,) = compactions(engine.take_jobs())
    size = sum(info.size for info in job.inputs)
    assert len(job.outputs) == outputs or size // 500 + 2
    assert len(set(job.outputs)) == len(job.outputs)
    if outputs is None:
        assert len(job.outputs) == size // 500 + 2 > 3
    else:
        assert len(job.outputs) == 1


def full_compactions(engine: Engine) -> int:
    before = engine.statistics().compactions
    engine.maintenance.compact()
    return engine.statistics().compactions - before


def test_all_is_compacted_unless_nothing_is_gained() -> None:
    fs, engine = opened()
    assert full_compactions(engine) == 0
    add_table(engine)
    assert full_compactions(engine) == 0, "one table without deletions"
    add_table(engine)
    assert full_compactions(engine) == 1
    engine.write([(b"key-00000", None), (b"other", b"1")])
    engine.flush()
    assert full_compactions(engine) == 1
    engine.write([(b"other", None)])
    engine.flush()
    assert full_compactions(engine) == 1
    assert engine.statistics().tables == 0
    engine.write([(b"nothing", None)])
    engine.flush()
    assert full_compactions(engine) == 1, "a deletion is left"
    assert engine.statistics().tables == 0
    add_table(engine)
    engine.close()
    _, engine = opened(replace(LARGE, compaction=Compaction.LEVELED), fs)
    assert full_compactions(engine) == 1
    assert full_compactions(engine) == 0
    engine.close()
    _, engine = opened(fs=fs)
    assert full_compactions(engine) == 1, "from level 1 to level 0"
    assert [table.info.level for table in engine.tables.levels] == [0]


# removals


def test_what_was_replaced_is_removed_by_one_job_at_a_time() -> None:
    fs, engine = opened(replace(LARGE, memtable_bytes=100))
    add_memtable(engine)
    (flush,) = engine.take_jobs()
    engine.job_done(run_job(fs, flush))
    add_memtable(engine)
    flush, first = engine.take_jobs()
    assert isinstance(first, RemovalJob)
    assert len(first.names) == 1
    engine.job_done(run_job(fs, flush))
    (compaction,) = engine.take_jobs()
    assert isinstance(compaction, CompactionJob)
    engine.job_done(run_job(fs, compaction))
    assert engine.take_jobs() == [], "two removals at a time"
    engine.job_failed(first)
    (again,) = engine.take_jobs()
    assert isinstance(again, RemovalJob)
    assert len(again.names) == 4
    assert set(again.names) > {*first.names, *(f"{info.number:08d}.sst" for info in compaction.inputs)}
    engine.job_done(run_job(fs, again))
    assert engine.take_jobs() == []
    assert len(tables(fs)) == 1
    add_memtable(engine)
    (flush,) = engine.take_jobs()
    engine.job_done(run_job(fs, flush))
    assert any(isinstance(job, RemovalJob) for job in engine.take_jobs()), "none is given out any more"


def test_what_nothing_needs_is_gone_when_the_store_is_closed() -> None:
    fs, engine = opened()
    for _ in range(2):
        add_table(engine)
    (job,) = compactions(engine.take_jobs())
    engine.job_done(run_job(fs, job))
    assert len(tables(fs)) == 3
    engine.close()
    assert len(tables(fs)) == 1
    assert (fs.writers, list(fs.readers)) == (set(), [])


@pytest.mark.parametrize("done", [True, False])
def test_what_a_failed_job_has_written_is_removed_unless_it_is_in_use(done: bool) -> None:
    """A failure that comes after its result was noted does not take the table away."""
    fs, engine = opened()
    for _ in range(2):
        add_table(engine)
    (job,) = compactions(engine.take_jobs())
    result = run_job(fs, job)
    if done:
        engine.job_done(result)
    before = tables(fs)
    engine.job_failed(job)
    output = f"{job.outputs[0]:08d}.sst"
    assert output in before
    assert (output in tables(fs)) is done
    assert engine.get(b"key-00000") == b"value"


def test_a_result_that_cannot_be_noted_leaves_its_table_closed_and_the_old_ones_in_use() -> None:
    fs, engine = opened()
    for _ in range(2):
        add_table(engine)
    (job,) = compactions(engine.take_jobs())
    result = run_job(fs, job)
    readers = len(fs.readers)
    calls = fs.number
    fail_next(fs, Fault.FULL)
    fs.fail_to += 1000
    with pytest.raises(StorageFull) as raised:
        engine.job_done(result)
    assert len(fs.readers) == readers, raised
    assert fs.number > calls
    fs.heal()
    assert engine.statistics().tables == 2
    engine.job_failed(job)
    (again,) = compactions(engine.take_jobs())
    engine.job_done(run_job(fs, again))
    assert engine.statistics().tables == 1


def test_a_table_that_cannot_be_opened_does_not_replace_what_can() -> None:
    fs, engine = opened(replace(LARGE, compaction=Compaction.LEVELED, table_bytes=2000))
    for _ in range(2):
        add_table(engine, 500)
    (job,) = compactions(engine.take_jobs())
    result = run_job(fs, job)
    readers = len(fs.readers)
    assert len(result.tables) > 2
    fs.remove(f"d/{result.tables[-1].number:08d}.sst")
    with pytest.raises(Corruption) as raised:
        engine.job_done(result)
    assert len(fs.readers) == readers, raised
    assert engine.statistics().tables == 2
    engine.job_failed(job)
    assert len(tables(fs)) == 2
    assert engine.get(b"key-00000") == b"value"


def test_a_store_that_cannot_be_opened_leaves_no_file_open() -> None:
    fs, engine = opened()
    for _ in range(2):
        add_table(engine)
    engine.close()
    path = f"d/{tables(fs)[-1]}"
    inner = memory(fs)
    inner.corrupt(path, inner.size(path) - 1, 3)  # another format
    with pytest.raises(Exception, match="format") as raised:
        opened(fs=fs)
    assert (fs.writers, list(fs.readers)) == (set(), []), raised


# recovery


def test_what_was_recovered_is_one_table_and_its_logs_are_gone() -> None:
    fs, engine = opened(replace(LARGE, memtable_bytes=500))
    for i in range(9):
        engine.write([(b"key", b"%d" % i), (b"key-%d" % i, b"value" * 5)])
    assert engine.statistics().sealed_memtables > 1
    engine.sync()
    engine._opened.close()
    logs = [name for name in fs.list("d") if name.endswith(".wal")]
    _, engine = opened(fs=fs)
    statistics = engine.statistics()
    assert (statistics.tables, statistics.entries, statistics.sealed_memtables) == (1, 10, 0)
    assert engine.get(b"key") == b"8"
    assert not set(logs) & set(fs.list("d"))
    assert engine.durable_lsn == engine.last_lsn == 9


# damage


def test_only_what_is_behind_a_known_fence_is_lifted() -> None:
    fs, engine = opened(replace(LARGE, tier_tables=4))
    for name in (b"a", b"b", b"c"):
        add_table(engine, 30, name)
    engine.close()
    inner = memory(fs)
    for file in tables(fs)[:2]:
        inner.corrupt(f"d/{file}", 0, 1)
    _, engine = opened(engine.options, fs)
    assert (engine.tables.scrub(), len(engine.quarantine.fences), len(engine.quarantine.take_noticed())) == (
        2,
        2,
        2,
    )
    assert (engine.tables.scrub(), engine.quarantine.take_noticed()) == (2, []), "it is told of again"
    one, two = engine.quarantine.fences
    number = engine.tables.levels.infos()[-1].number
    for unknown in (Fence(number, 0, b"", b""), Fence(99, WHOLE, b"", b""), one._replace(block=7)):
        engine.lift(unknown)
    assert list(engine.quarantine.fences) == [one, two]
    engine.lift(two)
    assert list(engine.quarantine.fences) == [one]
    assert engine.tables.scrub() == 1, "what was lifted counts as damage"
    (job,) = compactions(engine.take_jobs())
    assert [info.number for info in job.inputs] == [two.table]
    assert job.left_out == (two.block,)
    assert not job.drop_deletions
    assert compactions(engine.take_jobs()) == [], "it is written anew twice"
    engine.lift(two)  # again, which does nothing
    engine.job_done(run_job(fs, job))
    assert compactions(engine.take_jobs()) == [], "its fence is still known"
    engine.lift(one)
    (job,) = compactions(engine.take_jobs())
    assert [info.number for info in job.inputs] == [one.table]
    engine.job_done(run_job(fs, job))
    assert engine.tables.scrub() == 0
    assert engine.maintenance._compactions.rewrites == set()
    assert engine.maintenance._compactions._busy == set()


def test_a_table_is_written_anew_once_for_all_of_its_damaged_blocks() -> None:
    fs, engine = opened()
    add_table(engine, 30)
    engine.close()
    inner = memory(fs)
    inner.corrupt(f"d/{tables(fs)[0]}", 0, 1)
    _, engine = opened(fs=fs)
    (table,) = engine.tables.levels
    assert isinstance(table, Table)
    places = list(table.file.read_index().places())
    inner.corrupt(table.path, places[1][0], 1)
    assert engine.tables.scrub() == 2
    one, two = engine.quarantine.fences
    engine.lift(one)
    assert engine.take_jobs() == []
    engine.lift(two)
    (job,) = compactions(engine.take_jobs())
    assert job.left_out == (0, 1)


def test_a_table_lost_as_a_whole_is_fenced_and_dropped_when_that_is_lifted() -> None:
    fs, engine = opened()
    add_table(engine, 5)
    add_table(engine, 5, b"other")
    fs.remove(f"d/{tables(fs)[0]}")
    assert engine.tables.scrub() == 1
    (fence,) = engine.quarantine.take_noticed()
    assert (fence.block, fence.first, fence.last) == (WHOLE, b"key-00000", b"key-00004")
    with pytest.raises(Corruption):
        engine.get(b"key-00000")
    assert engine.get(b"other-00000") == b"value"
    engine.lift(fence)
    assert engine.quarantine.fences == ()
    assert engine.get(b"key-00000") is None
    assert engine.statistics().tables == 1
    assert engine._manifest.flushed_lsn == 2
    assert any(isinstance(job, RemovalJob) for job in engine.take_jobs())


def test_tables_between_which_one_is_lost_are_merged_when_its_fence_is_lifted() -> None:
    fs, engine = opened()
    for _ in range(3):
        add_table(engine, 5)
    fs.remove(f"d/{tables(fs)[1]}")
    engine.tables.scrub()
    assert compactions(engine.take_jobs()) == []
    engine.lift(engine.quarantine.fences[0])
    (job,) = compactions(engine.take_jobs())
    assert len(job.inputs) == 2


def test_a_compaction_that_meets_a_lost_table_fences_all_of_it() -> None:
    fs, engine = opened()
    for _ in range(2):
        add_table(engine, 5)
    (job,) = compactions(engine.take_jobs())
    fs.remove(f"d/{tables(fs)[0]}")
    result = run_job(fs, job)
    assert result.damaged == ((job.inputs[0].number, WHOLE),)
    engine.job_done(result)
    assert [(fence.table, fence.block) for fence in engine.quarantine.fences] == [
        (job.inputs[0].number, WHOLE)
    ]
    assert engine.take_jobs() == [], "it is tried again"


@pytest.mark.parametrize("whole", [True, False])
def test_a_compaction_may_tell_of_damage_that_was_lifted_meanwhile(whole: bool) -> None:
    fs, engine = opened()
    for _ in range(2):
        add_table(engine, 5)
    (job,) = compactions(engine.take_jobs())
    path = f"d/{tables(fs)[0]}"
    if whole:
        fs.remove(path)
    else:
        memory(fs).corrupt(path, 0, 1)
    result = run_job(fs, job)
    engine.tables.scrub()
    (fence,) = engine.quarantine.fences
    engine.lift(fence)
    engine.job_done(result)
    assert engine.quarantine.fences == ()
    assert engine.get(b"key-00000") == b"value"
    while jobs := engine.take_jobs():
        for due in jobs:
            engine.job_done(run_job(fs, due))
    assert engine.tables.scrub() == 0


def test_a_flush_that_met_damage_is_done_from_memory() -> None:
    fs, engine = opened(replace(LARGE, memtable_bytes=100))
    for _ in range(2):
        add_memtable(engine)
    (job,) = engine.take_jobs()
    assert isinstance(job, FlushJob)
    inner = memory(fs)
    inner.corrupt(f"d/{job.segment:08d}.wal", 40, 1)
    result = run_job(fs, job)
    assert result.damaged
    engine.job_done(result)
    (table,) = engine.tables.levels
    assert (table.info.level, table.info.last_lsn, table.info.number) == (0, 1, job.outputs[0])
    assert engine.statistics().sealed_memtables == 1


def test_an_error_after_which_nobody_knows_ends_the_engine() -> None:
    fs, engine = opened()
    for _ in range(2):
        add_table(engine)
    (job,) = compactions(engine.take_jobs())
    result = run_job(fs, job)
    fs.fault, fs.fail_from, fs.fail_to = Fault.EIO, fs.number, fs.number + 100
    with pytest.raises(StorageFailed):
        engine.job_done(result)
    fs.heal()
    for attempt in (lambda: engine.job_done(result), lambda: engine.write([(b"k", b"v")]), engine.snapshot):
        with pytest.raises(StorageFailed, match="the engine stopped after"):
            attempt()
    assert engine.refuses
    engine.close()


@pytest.mark.parametrize("index", [False, True])
def test_damage_that_an_old_snapshot_meets_in_a_replaced_table_is_no_more_to_be_quarantined(
    index: bool,
) -> None:
    """What the table held was read before, and is elsewhere: nobody could lift such a fence."""
    fs, engine = opened(Options(tier_tables=2, block_bytes=100, cache_bytes=0 if index else 1 << 20))
    for _ in range(2):
        add_table(engine, 100)
    before = engine.snapshot()
    (job,) = compactions(engine.take_jobs())
    engine.job_done(run_job(fs, job))
    table = job.inputs[-1]
    memory(fs).corrupt(f"d/{table_name(table.number)}", table.size - 100 if index else 0, 1)
    with pytest.raises(Corruption):
        before.get(b"key-00000")
    assert (engine.quarantine.fences, engine.quarantine.noticed) == ((), [])
    assert engine.get(b"key-00000") == b"value"
    assert len(list(engine.tables.levels)) == 1

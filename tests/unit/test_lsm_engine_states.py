"""What the engine takes, refuses and delays in which state; what opening, failing and closing leave."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.errors import Overloaded, StorageFailed, StorageFull, WrongDataDirectory
from kvstore.lsm import Durability, Engine, Fate, FlushJob, MemoryFileSystem, Options, run_job
from kvstore.lsm.quarantine import Fence
from kvstore.store import DiskFileSystem
from tests.faulty_filesystem import Fault, FaultyFileSystem

EACH_SEALS = Options(memtable_bytes=1, max_sealed=4, tier_tables=2, slow_tables=4, max_tables=8)


def opened(
    options: Options | None = None, fs: FaultyFileSystem | None = None
) -> tuple[FaultyFileSystem, Engine]:
    fs = fs or FaultyFileSystem(MemoryFileSystem())
    return fs, Engine.open(fs, "d", options)


def memory(fs: FaultyFileSystem) -> MemoryFileSystem:
    inner = fs._inner
    assert isinstance(inner, MemoryFileSystem)
    return inner


def after_crash(fs: FaultyFileSystem, fate: Fate = Fate.NONE) -> Engine:
    return Engine.open(memory(fs).crash(random.Random(1), fate), "d")


def fail_from_now(fs: FaultyFileSystem, fault: Fault) -> None:
    fs.fault, fs.fail_from, fs.fail_to = fault, fs.number, fs.number + 10_000


def put(engine: Engine, key: bytes = b"key", value: bytes | None = b"value") -> int:
    return engine.write([(key, value)])


# how writers are slowed


def test_writers_are_slowed_by_the_share_of_memtables_that_wait() -> None:
    _, engine = opened(EACH_SEALS)
    delays = []
    for _ in range(5):
        delays.append(engine.back_pressure.write_delay())
        put(engine)
    assert delays == [0, 0, *(pytest.approx(0.1 * (sealed / 5) ** 2) for sealed in (2, 3, 4))]
    with pytest.raises(Overloaded) as raised:
        put(engine)
    assert raised.value.retry_after == 0.5
    assert (engine.back_pressure.write_delay(), engine.last_lsn) == (0.1, 5)


def test_writers_are_slowed_by_the_tables_that_nobody_has_merged() -> None:
    fs, engine = opened(EACH_SEALS)
    delays = []
    for _ in range(8):
        delays.append(engine.back_pressure.write_delay())
        put(engine)
        engine.flush()
    assert delays == [0] * 5 + [pytest.approx(0.1 * (tables / 4) ** 2) for tables in (1, 2, 3)]
    with pytest.raises(Overloaded):
        put(engine)
    engine.close()
    _, fewer = opened(Options(tier_tables=2, slow_tables=2, max_tables=3), fs)
    assert fewer.back_pressure.write_delay() == 0.1, "longer than the longest"


def test_where_tables_begin_to_slow_writers_one_memtable_counts() -> None:
    _, engine = opened(EACH_SEALS)
    for _ in range(4):
        put(engine)
        engine.flush()
    assert engine.back_pressure.write_delay() == 0
    put(engine)
    assert engine.back_pressure.write_delay() == pytest.approx(0.1 * (1 / 5) ** 2)


def test_a_sync_waits_for_the_interval_or_as_long_as_writers_do() -> None:
    options = {"memtable_bytes": 1, "max_sealed": 1, "sync_interval": 0.05}
    for durability, least in ((Durability.INTERVAL, 0.05), (Durability.SYNC, 0.0), (Durability.NONE, 0.0)):
        _, engine = opened(Options(durability=durability, **options))  # type: ignore[arg-type]
        assert engine.sync_delay() == least
        assert engine.waits_for_disk is (durability is Durability.SYNC)
        put(engine)
        put(engine)
        assert engine.sync_delay() == engine.back_pressure.write_delay() == 0.1


def test_a_memtable_is_sealed_when_it_has_its_size() -> None:
    _, engine = opened()
    put(engine)
    size = engine.statistics().memtable_bytes
    for more, sealed in ((1, 0), (0, 1)):
        _, engine = opened(Options(memtable_bytes=size + more))
        assert put(engine) == 1
        assert engine.statistics().sealed_memtables == sealed
        assert engine.statistics().memtable_bytes == size


# what is refused


def attempts(engine: Engine) -> list[Callable[[], object]]:
    """What changes something, or waits for a change."""
    return [
        lambda: put(engine),
        engine.sync,
        engine.begin_sync,
        engine.write_out,
        engine.flush,
        engine.snapshot,
        engine.scan,
        lambda: engine.checkpoint("copy"),
        lambda: engine.lift(Fence(1, 1, b"", b"")),
    ]


def test_after_a_failed_sync_nothing_is_taken_and_nothing_more_is_written() -> None:
    fs, engine = opened()
    put(engine, b"durable")
    assert engine.sync() == engine.durable_lsn == 1
    assert engine.sync() == 1
    put(engine)
    fs.fault, fs.fail_from, fs.fail_to = Fault.EIO, fs.number + 2, fs.number + 2  # the append, then the sync
    with pytest.raises(StorageFailed, match="input/output error"):
        engine.sync()
    assert (engine.durable_lsn, engine.last_lsn, engine.refuses) == (1, 2, True)
    for attempt in attempts(engine):
        with pytest.raises(StorageFailed, match=r"the engine stopped after: .*input/output error"):
            attempt()
    number = fs.calls["append"], fs.calls["sync"]
    engine.close()
    assert (fs.calls["append"], fs.calls["sync"]) == number
    assert fs.writers == set()
    assert after_crash(fs).get(b"durable") == b"value"


def test_after_it_was_closed_nothing_is_taken() -> None:
    fs, engine = opened()
    put(engine)
    engine.close()
    for attempt in attempts(engine):
        with pytest.raises(StorageFailed, match="the engine in d is closed"):
            attempt()
    assert (fs.writers, list(fs.readers)) == (set(), [])
    calls = fs.number
    engine.close()
    assert fs.number == calls


def test_on_a_full_disk_writes_are_refused_until_a_sync_finds_space() -> None:
    fs, engine = opened()
    put(engine)
    assert not engine.refuses
    fail_from_now(fs, Fault.FULL)
    with pytest.raises(StorageFull):
        engine.begin_sync()
    assert engine.refuses
    with pytest.raises(StorageFull, match="d: no space left on the disk"):
        put(engine)
    assert engine.get(b"key") == b"value"
    fs.heal()
    with pytest.raises(StorageFull):
        put(engine)
    assert engine.sync() == 1
    assert not engine.refuses
    assert put(engine) == 2


def test_a_batch_that_fills_a_memtable_is_taken_though_no_other_can_begin() -> None:
    fs, engine = opened(EACH_SEALS)
    fail_from_now(fs, Fault.FULL)
    assert put(engine) == 1
    assert engine.refuses, "it waits for space"
    assert engine.statistics().sealed_memtables == 0
    fs.heal()
    engine.sync()
    assert put(engine, b"other") == 2
    assert engine.statistics().sealed_memtables == 1


def test_what_is_no_bytes_is_no_key() -> None:
    _, engine = opened()
    for attempt in (
        lambda: engine.get("key"),  # type: ignore[arg-type]
        lambda: engine.scan("key"),  # type: ignore[arg-type]
        lambda: engine.scan(b"", "key"),  # type: ignore[arg-type]
        lambda: engine.scan_prefix("key"),  # type: ignore[arg-type]
        lambda: engine.scan_prefix(5),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            attempt()


# syncs and closing


def test_what_is_appended_during_a_sync_is_durable_with_the_next() -> None:
    fs, engine = opened()
    put(engine, b"a")
    sync = engine.begin_sync()
    assert sync is not None
    put(engine, b"b")
    sync.run()
    assert engine.finish_sync(sync) == 1
    assert [after_crash(fs).get(key) for key in (b"a", b"b")] == [b"value", None]
    assert engine.sync() == 2
    assert after_crash(fs).get(b"b") == b"value"
    assert engine.begin_sync() is None


def test_a_segment_is_flushed_when_all_of_it_has_been_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.lsm.segments._LARGE", 0)
    fs, engine = opened(EACH_SEALS)
    put(engine)
    assert engine.take_jobs() == []
    sync = engine.begin_sync()
    assert sync is not None
    assert engine.take_jobs() == []
    sync.run()
    assert engine.take_jobs() == []
    engine.finish_sync(sync)
    (job,) = engine.take_jobs()
    engine.job_done(run_job(fs, job))
    assert engine.get(b"key") == b"value"


@pytest.mark.parametrize("large", [True, False])
def test_a_sync_here_and_now_that_finds_no_space_loses_nothing(
    large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr("kvstore.lsm.segments._LARGE", 0)
    fs, engine = opened()
    put(engine)
    fail_from_now(fs, Fault.ENOSPC)
    for _ in range(2):
        with pytest.raises(StorageFull):
            engine.sync()
        assert engine.refuses
    fs.heal()
    assert engine.sync() == 1
    assert not engine.refuses
    assert after_crash(fs).get(b"key") == b"value"


def test_closing_makes_durable_what_is_not() -> None:
    fs, engine = opened()
    put(engine)
    engine.close()
    assert after_crash(fs).get(b"key") == b"value"
    _, again = opened(fs=fs)
    syncs = fs.calls["sync"]
    again.close()
    assert fs.calls["sync"] == syncs, "there was nothing to be synced"


def test_closing_leaves_a_sync_that_runs_to_its_thread() -> None:
    fs, engine = opened()
    put(engine)
    sync = engine.begin_sync()
    assert sync is not None
    syncs = fs.calls["sync"]
    engine.close()
    assert fs.calls["sync"] == syncs


def test_an_engine_whose_last_sync_fails_is_closed_all_the_same() -> None:
    fs, engine = opened()
    put(engine)
    fail_from_now(fs, Fault.EIO)
    with pytest.raises(StorageFailed):
        engine.close()
    fs.heal()
    assert fs.writers == set()
    with pytest.raises(StorageFailed):
        put(engine)
    opened(fs=fs)[1].close()


@pytest.mark.parametrize("durability", Durability)
def test_what_a_sync_has_written_survives_the_process(durability: Durability) -> None:
    fs, engine = opened(Options(durability=durability))
    put(engine)
    sync = engine.begin_sync()
    assert (sync is None) is (durability is Durability.NONE)
    assert after_crash(fs, Fate.ALL).get(b"key") == b"value"
    assert after_crash(fs).get(b"key") is None
    put(engine, b"other")
    assert after_crash(fs, Fate.ALL).get(b"other") is None
    engine.write_out()
    assert after_crash(fs, Fate.ALL).get(b"other") == b"value"


# opening


def test_a_store_is_made_with_its_directories_and_is_one_processes(tmp_path: Path) -> None:
    directory = str(tmp_path / "a" / "b")
    engine = Engine.open(DiskFileSystem(), directory)
    with pytest.raises(WrongDataDirectory):
        Engine.open(DiskFileSystem(), directory)
    put(engine)
    engine.close()
    again = Engine.open(DiskFileSystem(), directory)
    assert again.get(b"key") == b"value"
    again.close()


def test_what_is_no_part_of_a_store_is_removed_when_it_is_opened() -> None:
    fs, engine = opened()
    put(engine)
    engine.flush()
    put(engine, b"other")
    engine.close()
    before = fs.list("d")
    strange = ["00000099.sst", "MANIFEST-00000000", "CURRENT.new", "something"]
    for name in strange:
        memory(fs).create(f"d/{name}").append(b"x")
    _, engine = opened(fs=fs)
    names = fs.list("d")
    assert not set(strange) & set(names)
    assert {"CURRENT", "LOCK"} < set(names) & set(before)
    assert len(names) == 4 + engine.statistics().tables
    assert [engine.get(key) for key in (b"key", b"other")] == [b"value", b"value"]


def test_what_is_found_on_a_full_disk_is_kept_and_made_durable() -> None:
    fs, engine = opened(EACH_SEALS)
    for i in range(3):
        put(engine, b"%d" % i)
    engine.write_out()
    engine._opened.close()  # killed: only the operating system has it
    before = fs.list("d")
    memory(fs).create("d/stranger")
    fail_from_now(fs, Fault.FULL)
    syncs = fs.calls["sync"], fs.calls["sync_directory"]
    _, engine = opened(EACH_SEALS, fs)
    assert engine.statistics().sealed_memtables == 3
    assert fs.list("d") == before[:3] + before[4:], "all but the stranger, and an empty log"
    assert (fs.calls["sync"], fs.calls["sync_directory"]) == (syncs[0] + 1 + 3, syncs[1] + 1)
    assert [after_crash(fs).get(b"%d" % i) for i in range(3)] == [b"value"] * 3
    assert (engine.last_lsn, engine.durable_lsn, engine.refuses) == (3, 3, True)
    fs.heal()
    engine.sync()
    assert put(engine, b"3") == 4
    assert [job.last_lsn for job in engine.take_jobs() if isinstance(job, FlushJob)] == [1]


def test_a_log_that_cannot_be_begun_ends_the_engine() -> None:
    fs = FaultyFileSystem(MemoryFileSystem())
    opened(fs=fs)[1].close()
    fail_from_now(fs, Fault.FULL)
    _, engine = opened(fs=fs)
    fs.fault = Fault.EIO
    with pytest.raises(StorageFailed, match="input/output error"):
        engine.sync()
    fs.heal()
    assert engine.refuses
    with pytest.raises(StorageFailed, match="the engine stopped after"):
        engine.sync()


def test_lsns_go_on_where_the_log_has_ended() -> None:
    fs, engine = opened()
    for _ in range(3):
        put(engine)
    engine.close()
    for lsn in (4, 5):
        _, engine = opened(fs=fs)
        assert engine.last_lsn == engine.durable_lsn == lsn - 1
        assert put(engine) == lsn
        engine.close()


# reading


def test_the_newest_value_is_read_wherever_it_is() -> None:
    fs, engine = opened(EACH_SEALS)
    for value in (b"in a table", b"sealed", b"sealed later"):
        put(engine, b"a", value)
        put(engine, b"b", value if value == b"in a table" else None)
        if value == b"in a table":
            engine.flush()
    assert engine.get(b"a") == b"sealed later"
    assert engine.get(b"b") is None
    assert engine.get(b"c") is None
    assert list(engine.scan()) == [(b"a", b"sealed later")]
    while jobs := engine.take_jobs():
        for job in jobs:
            engine.job_done(run_job(fs, job))
            assert (engine.get(b"a"), engine.get(b"b")) == (b"sealed later", None)


def test_a_scan_around_damage_shows_what_is_known_of_each_key() -> None:
    fs, engine = opened(Options(block_bytes=60))
    keys = [b"k%02d" % i for i in range(12)]
    engine.write([(key, b"value-of-" + key) for key in keys])
    engine.flush()
    (table,) = engine.tables.levels
    memory(fs).corrupt(table.path, 0, 1)
    assert engine.tables.scrub() == 1
    (fence,) = engine.quarantine.fences
    lost = [key for key in keys if fence.first <= key <= fence.last]
    assert len(lost) > 2
    expected = {key: None if key in lost else b"value-of-" + key for key in keys}
    # what a damaged block may hold is told of if anything else has it
    engine.write([(lost[0], b"new"), (lost[1], None)])
    assert engine.get(lost[0]) == b"new"
    around = dict(engine.scan_around(b"", None))
    assert around == {key: v for key, v in expected.items() if key not in lost} | {lost[0]: b"new"}
    assert dict(engine.scan_around(keys[-1], None)) == {keys[-1]: expected[keys[-1]]}
    assert list(engine.scan_around(b"", lost[0])) == []
    assert engine.quarantine.noticed
    assert engine.quarantine.take_noticed() == [fence]
    assert not engine.quarantine.noticed
    assert engine.statistics().quarantined == 1


def test_statistics_are_of_now() -> None:
    _, engine = opened(Options(cache_bytes=10_000))
    empty = engine.statistics()
    assert (empty.memtable_bytes, empty.entries, empty.wal_bytes, empty.write_amplification) == (0, 0, 0, 0)
    put(engine)
    put(engine, b"other")
    engine.sync()
    assert engine.statistics().entries == 2
    assert engine.statistics().wal_bytes == engine._segments.written_bytes > 0
    engine.flush()
    assert (engine.statistics().wal_bytes, engine.statistics().tables) == (0, 1)
    for _ in range(3):
        engine.get(b"key")
    after = engine.statistics()
    assert (after.filter_true, after.filter_useful, after.filter_false) == (3, 0, 0)
    assert after.cache_hits >= 2
    assert after.cache_misses >= 1
    assert after.cache_bytes > 0
    assert after.space_amplification == 1
    put(engine)
    assert engine.statistics().entries == 3


# flushing, compacting, copying here and now


def test_a_flush_of_nothing_makes_no_table() -> None:
    fs, engine = opened()
    engine.flush()
    assert engine.statistics().tables == 0
    engine.write([])
    engine.flush()
    assert engine.statistics().tables == 0
    put(engine)
    for _ in range(2):
        engine.flush()
    assert (engine.statistics().tables, engine.statistics().flushes) == (1, 1)
    assert len(fs.list("d")) == 5


def test_a_checkpoint_has_what_was_written_and_nothing_else() -> None:
    fs, engine = opened()
    put(engine, b"in a table")
    engine.flush()
    engine.checkpoint("only tables")
    put(engine, b"in the log")
    engine.checkpoint("both")
    put(engine, b"later")
    for name, keys in (("only tables", [b"in a table"]), ("both", [b"in a table", b"in the log"])):
        disk = memory(fs).crash(random.Random(1), Fate.NONE)
        assert [key for key, _ in Engine.open(disk, name).scan()] == keys
    assert [key for key, _ in engine.scan()] == [b"in a table", b"in the log", b"later"]


@pytest.mark.parametrize("fault", [Fault.FULL, Fault.EIO])
def test_a_compaction_that_fails_here_and_now_can_be_tried_again(fault: Fault) -> None:
    fs, engine = opened()
    for _ in range(2):
        put(engine)
        engine.flush()
    fail_from_now(fs, fault)
    with pytest.raises(StorageFull if fault is Fault.FULL else StorageFailed):
        engine.maintenance.compact()
    fs.heal()
    assert not engine.refuses, "nothing of it was in use"
    engine.maintenance.compact()
    assert engine.statistics().tables == 1
    engine.close()
    assert len([name for name in fs.list("d") if name.endswith(".sst")]) == 1

"""The engine as its callers see it: durability, stalls, bounds, statistics."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from kvstore.errors import ConfigError, Overloaded, StorageFailed
from kvstore.lsm import Compaction, Durability, Engine, Fate, Job, MemoryFileSystem, Options, run_job

SMALL = Options(memtable_bytes=4000, block_bytes=256, cache_bytes=8000, table_bytes=2000, level_bytes=8000)


def opened(options: Options = SMALL, fs: MemoryFileSystem | None = None) -> tuple[MemoryFileSystem, Engine]:
    fs = fs or MemoryFileSystem()
    return fs, Engine.open(fs, "data", options)


def fill(fs: MemoryFileSystem, engine: Engine, count: int, seed: int = 0) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        engine.write([(b"key-%05d" % rng.randrange(10_000), rng.randbytes(40))])
        do_jobs(fs, engine)


def do_jobs(fs: MemoryFileSystem, engine: Engine) -> None:
    while jobs := engine.take_jobs():
        for job in jobs:
            engine.job_done(run_job(fs, job))


@pytest.mark.parametrize(
    "wrong",
    [
        {"memtable_bytes": 0},
        {"compactions": 0},
        {"false_positive_rate": 1.0},
        {"tier_tables": 1},
        {"slow_tables": 50, "max_tables": 40},
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Options(**wrong)  # type: ignore[arg-type]


def test_without_durability_nothing_is_synced_until_a_flush() -> None:
    fs, engine = opened(Options(durability=Durability.NONE))
    assert not engine.waits_for_disk
    engine.write([(b"k", b"v")])
    assert engine.begin_sync() is None
    assert engine.durable_lsn < engine.last_lsn
    # the operating system has it, a power loss forgets it
    assert Engine.open(fs.crash(random.Random(1), Fate.ALL), "data").get(b"k") == b"v"
    assert Engine.open(fs.crash(random.Random(1), Fate.NONE), "data").get(b"k") is None
    engine.flush()
    assert Engine.open(fs.crash(random.Random(1), Fate.NONE), "data").get(b"k") == b"v"


def test_at_intervals_a_sync_is_put_off() -> None:
    _, engine = opened(Options(durability=Durability.INTERVAL, sync_interval=0.25))
    assert not engine.waits_for_disk
    assert engine.sync_delay() == 0.25
    _, patient = opened()
    assert patient.waits_for_disk
    assert patient.sync_delay() == 0


def test_writers_are_slowed_smoothly_then_refused() -> None:
    fs, engine = opened()
    delays: list[float] = []
    for i in range(5 * 4000 // 230):
        engine.write([(b"%d" % i, b"v" * 100)])
        if not delays or engine.back_pressure.write_delay() != delays[-1]:
            delays.append(engine.back_pressure.write_delay())
    engine.write([(b"the last", b"v" * 4000)])
    with pytest.raises(Overloaded):
        engine.write([(b"one more", b"v")])
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert len(delays) >= 4
    assert delays[-1] <= 0.1
    do_jobs(fs, engine)
    assert engine.back_pressure.write_delay() == 0
    engine.write([(b"again", b"v")])


def test_tables_that_nobody_compacts_slow_writers_too() -> None:
    options = Options(memtable_bytes=1000, slow_tables=4, max_tables=10)
    _, engine = opened(options)
    delays = []
    for i in range(10):
        delays.append(engine.back_pressure.write_delay())
        engine.write([(b"%d" % i, b"v")])
        engine.flush()
    assert delays == sorted(delays)
    assert delays[4] == 0 < delays[5] < delays[9]
    with pytest.raises(Overloaded):
        engine.write([(b"one more", b"v")])


@pytest.mark.parametrize("compaction", list(Compaction))
def test_memory_is_bounded(compaction: Compaction) -> None:
    options = Options(
        memtable_bytes=4000, block_bytes=256, cache_bytes=6000, max_sealed=2, compaction=compaction
    )
    fs, engine = opened(options)
    for seed in range(40):
        fill(fs, engine, 50, seed)
        list(engine.scan())
        do_jobs(fs, engine)
        statistics = engine.statistics()
        assert statistics.memtable_bytes <= options.memtable_bytes * (options.max_sealed + 1) + 1000
        assert statistics.cache_bytes <= options.cache_bytes
    assert engine.statistics().table_bytes > 4 * options.cache_bytes


def test_leveled_tables_do_not_overlap_and_take_little_more_than_what_is_in_them() -> None:
    fs, engine = opened(
        Options(memtable_bytes=4000, table_bytes=2000, level_bytes=8000, compaction=Compaction.LEVELED)
    )
    for seed in range(60):
        fill(fs, engine, 30, seed)
    for level in engine.tables.levels.deep:
        for one, two in pairwise(level):
            assert one.info.largest < two.info.smallest
    assert len(engine.tables.levels.deep) > 1
    statistics = engine.statistics()
    assert 1 < statistics.space_amplification < 3
    assert statistics.write_amplification > 2


def test_a_store_that_was_leveled_can_be_size_tiered() -> None:
    fs, engine = opened(
        Options(memtable_bytes=4000, table_bytes=2000, level_bytes=8000, compaction=Compaction.LEVELED)
    )
    for seed in range(20):
        fill(fs, engine, 30, seed)
    expected = list(engine.scan())
    engine.close()
    _, again = opened(SMALL, fs)
    do_jobs(fs, again)
    assert not again.tables.levels.deep
    assert list(again.scan()) == expected


def test_compactions_that_do_not_meet_run_at_the_same_time() -> None:
    fs, engine = opened(Options(memtable_bytes=2000, tier_tables=4, compactions=2))
    running: list[Job] = []
    for i in range(8):
        size = 1 if i < 4 else 30
        engine.write([(b"%d-%d" % (i, j), b"v" * 100) for j in range(size)])
        engine.flush()
        running += engine.take_jobs()
    one, two = running
    for job in (two, one):
        engine.job_done(run_job(fs, job))
    assert engine.statistics().tables == 2
    assert len(list(engine.scan())) == 4 * 31


def test_filters_spare_reads_and_say_so() -> None:
    _, engine = opened(Options(memtable_bytes=100_000))
    engine.write([(b"key-%04d" % (2 * i), b"v") for i in range(1000)])
    engine.flush()
    for i in range(999):
        assert engine.get(b"key-%04d" % (2 * i + 1)) is None
    for i in range(100):
        assert engine.get(b"key-%04d" % (2 * i)) == b"v"
    statistics = engine.statistics()
    assert statistics.filter_useful + statistics.filter_false == 999
    assert statistics.filter_false < 30
    assert statistics.filter_true == 100
    engine.write([(b"other", b"v")])
    engine.flush()
    engine.maintenance.compact()  # which leaves none of the tables that have counted
    after = engine.statistics()
    for name in ("filter_useful", "filter_false", "filter_true"):
        assert getattr(after, name) == getattr(statistics, name)


def test_a_snapshot_outlives_writes_flushes_and_compactions() -> None:
    fs, engine = opened()
    fill(fs, engine, 200)
    expected = list(engine.scan())
    with engine.snapshot() as snapshot:
        running = snapshot.scan()
        first = [next(running) for _ in range(3)]
        backwards = engine.scan(reverse=True)
        engine.write([(key, None) for key, _ in expected[::2]])
        for seed in range(5):
            fill(fs, engine, 100, seed)
        engine.flush()
        engine.maintenance.compact()
        assert [*first, *running] == expected
        assert list(backwards) == expected[::-1]
        assert all(snapshot.get(key) == value for key, value in expected)
        assert snapshot.get(b"nowhere") is None


def test_scans_of_prefixes_and_ranges_read_their_blocks_only() -> None:
    _, engine = opened(Options(memtable_bytes=10**6, block_bytes=200, cache_bytes=10**6))
    engine.write([(b"%c/%04d" % (letter, i), b"v" * 20) for letter in b"abc" for i in range(500)])
    engine.flush()
    before = engine.statistics().cache_misses
    assert [key for key, _ in engine.scan_prefix(b"b/00", reverse=True)] == [
        b"b/%04d" % i for i in range(99, -1, -1)
    ]
    assert engine.statistics().cache_misses - before < 5
    assert list(engine.scan_prefix(b"b/9")) == []
    assert len(list(engine.scan(b"a/0499", b"b/0001"))) == 2
    assert len(list(engine.scan_prefix(b""))) == 1500
    engine.write([(b"\xff\xff", b"last")])
    assert list(engine.scan_prefix(b"\xff")) == [(b"\xff\xff", b"last")]


def test_a_checkpoint_is_a_store_of_its_own() -> None:
    fs, engine = opened()
    fill(fs, engine, 300)
    fill(fs, engine, 20, seed=9)
    expected = list(engine.scan())
    engine.checkpoint("copy")
    fill(fs, engine, 300, seed=1)
    copy = Engine.open(fs, "copy", SMALL)
    assert list(copy.scan()) == expected
    copy.write([(b"only here", b"v")])
    copy.close()
    assert engine.get(b"only here") is None
    with pytest.raises(StorageFailed, match="empty directory"):
        engine.checkpoint("copy")

"""A store is opened on a full disk: what is in it can be read, and it goes on when there is space again.

Whatever the order of crashes, opens on a full disk and space: nothing that was acknowledged is lost, nothing
that was read is lost, no open is refused, and no file is left over in the end.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kvstore.errors import Overloaded, StorageError, StorageFull
from kvstore.lsm import Engine, Fate, MemoryFileSystem, Options, SimulatedCrash, run_job
from kvstore.lsm.manifest import _GIVEN_OUT, manifest_name
from kvstore.lsm.segments import Segments
from kvstore.store import DiskFileSystem, Store
from tests.conftest import Exercised
from tests.crash.lsm_workload import DATA, PLANS, EveryCrash, Ledger, Plan, Run, crashed_run
from tests.crash.test_lsm_crash_points import FATES, check_store
from tests.faulty_filesystem import Fault, FaultyFileSystem

OPTIONS = PLANS[0].options
Content = dict[bytes, bytes]


def crashed_store(plan: Plan, crash_at: int) -> tuple[MemoryFileSystem, Ledger]:
    """The disk behind a workload that was cut short, with names and bytes lost at random."""
    fs, ledger = crashed_run(plan, crash_at)
    return fs.crash(random.Random(crash_at), Fate.RANDOM), ledger


def content_of(engine: Engine) -> Content:
    content = dict(engine.scan())
    assert {key: engine.get(key) for key in content} == content
    return content


def refuses(engine: Engine) -> None:
    """It takes no write, and is as it was."""
    before, lsn = content_of(engine), engine.last_lsn
    assert engine.refuses
    with pytest.raises(StorageFull):
        engine.write([(b"refused", b"1")])
    with pytest.raises(StorageFull):
        engine.begin_sync()
    with pytest.raises(StorageFull):
        engine.write_out()
    with pytest.raises(StorageFull):
        engine.flush()
    with pytest.raises(StorageFull):
        engine.checkpoint("copy")
    try_jobs(engine._fs, engine)
    assert content_of(engine) == before
    assert engine.last_lsn == engine.durable_lsn == lsn


def try_jobs(fs: Any, engine: Engine) -> None:
    """As the drivers do: what finds no space is given back."""
    for job in engine.take_jobs():
        try:
            engine.job_done(run_job(fs, job))
        except StorageFull:
            engine.job_failed(job)


def write(fs: Any, engine: Engine, batch: list[tuple[bytes, bytes | None]]) -> None:
    """As drivers do: a sync is begun while writes are refused, jobs are done while there are too many."""
    for _ in range(20):
        try:
            engine.write(batch)
        except StorageFull:
            engine.sync()
        except Overloaded:
            try_jobs(fs, engine)
        else:
            engine.sync()
            return
    raise AssertionError("the write is never taken")


def check_whole(fs: MemoryFileSystem, expected: Content, options: Options) -> None:
    """After a clean reopen it has what it should, and no other file."""
    engine = Engine.open(fs, DATA, options)
    assert content_of(engine) == expected
    engine.close()
    names = fs.list(DATA)
    assert len(names) == engine.statistics().tables + 4, names


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_after_any_crash_a_full_disk_shows_what_was_acknowledged_and_takes_writes_with_space(
    plan: Plan, exercised: Exercised
) -> None:
    done: Counter[str] = Counter()

    def look() -> None:
        crash_at = whole.mutations
        if crash_at >= 12 and crash_at % 7 == 5:
            disk = whole.crash(random.Random(crash_at), Fate.RANDOM)
            if "LOCK" in disk.list(DATA):
                done.update(opened_again_and_again(disk, plan, run.ledger, crash_at))

    whole = EveryCrash(look)
    run = Run(whole, plan)
    run.all()
    exercised("opens on a full disk", done["opens"])
    assert done["opens"] > 150
    assert done["sealed"] > 100


def opened_again_and_again(fs: MemoryFileSystem, plan: Plan, ledger: Ledger, crash_at: int) -> Counter[str]:
    """On a full disk, and when there is space; counts the opens, and memtables that were not flushed."""
    done: Counter[str] = Counter()
    rng = random.Random(crash_at)
    seen: Content = {}
    for times in range(3):  # full, and again, and again
        fs.full = True
        engine = Engine.open(fs, DATA, plan.options)
        content = content_of(engine)
        assert content == seen or not times, "what was read is gone"
        seen = content
        done["sealed"] += engine.statistics().sealed_memtables
        refuses(engine)
        fs = fs.crash(rng, rng.choice(FATES))
        done["opens"] += 1
    survivors = range(ledger.acknowledged, len(ledger.batches) + 1)
    assert any(seen == ledger.after(count) for count in survivors)
    engine = Engine.open(fs, DATA, plan.options)
    fs.full = False
    write(fs, engine, [(b"new", b"1")])
    assert content_of(engine) == seen | {b"new": b"1"}
    if crash_at % 2:  # before what it has recovered is in tables, or after
        try_jobs(fs, engine)
    fs = fs.crash(rng, Fate.NONE)
    engine = Engine.open(fs, DATA, plan.options)
    assert content_of(engine) == seen | {b"new": b"1"}
    engine.close()
    check_whole(fs, seen | {b"new": b"1"}, plan.options)
    return done


@pytest.mark.parametrize("fault", [Fault.FULL, Fault.SHORT_WRITE])
def test_the_disk_is_full_from_any_call_of_an_open_on(fault: Fault, exercised: Exercised) -> None:
    opens = 0
    for crash_at in (150, 260, 333, 401, 470):
        disk, _ = crashed_store(PLANS[0], crash_at)
        expected = content_of(Engine.open(disk.crash(random.Random(0), Fate.ALL), DATA, OPTIONS))
        for first in range(1, 200):
            inner = disk.crash(random.Random(0), Fate.ALL)
            fs = FaultyFileSystem(inner)
            fs.fault, fs.fail_from, fs.fail_to = fault, first, sys.maxsize
            engine = Engine.open(fs, DATA, OPTIONS)
            opens += 1
            assert content_of(engine) == expected
            if not engine.refuses:
                break  # all of it went before there was no space
            refuses(engine)
            if first % 3 == 0:
                with_space = inner.crash(random.Random(first), Fate.RANDOM)
                check_whole(with_space, expected, OPTIONS)
            fs.heal()
            write(fs, engine, [(b"new", b"1")])
            after = inner.crash(random.Random(first), Fate.NONE)
            check_whole(after, expected | {b"new": b"1"}, OPTIONS)
            engine.close()
            check_whole(inner, expected | {b"new": b"1"}, OPTIONS)
    exercised("opens on a full disk", opens)
    assert opens > 25


@pytest.mark.parametrize("fate", FATES)
def test_a_crash_at_any_call_while_the_disk_is_full_and_when_there_is_space_again(
    fate: Fate, exercised: Exercised
) -> None:
    recoveries = 0
    for crash_at in (150, 260, 333, 470):
        disk, ledger = crashed_store(PLANS[0], crash_at)
        for calls in range(1, 400):
            fs = disk.crash(random.Random(0), Fate.ALL)
            fs.full, fs.crash_at = True, calls
            acknowledged = ledger.acknowledged
            batches = list(ledger.batches)
            try:
                engine = Engine.open(fs, DATA, OPTIONS)
                del batches[recovered_count(ledger, content_of(engine)) :]
                acknowledged = len(batches)  # what was shown stays
                try_jobs(fs, engine)
                fs.full = False
                batches.append([(b"new", b"1")])
                write(fs, engine, batches[-1])
                acknowledged += 1
                try_jobs(fs, engine)
            except SimulatedCrash:
                after = fs.crash(random.Random(calls), fate)
                after.full = False
                check_store(after, OPTIONS, Ledger(batches, acknowledged))
                recoveries += 1
            else:
                break
    exercised("recoveries after a crash", recoveries)
    assert recoveries > 60


def recovered_count(ledger: Ledger, content: Content) -> int:
    return next(
        count
        for count in range(ledger.acknowledged, len(ledger.batches) + 1)
        if ledger.after(count) == content
    )


# what must not stay, and what must


def abandoned(fs: MemoryFileSystem) -> None:
    """The process is killed, the machine goes on: nothing is lost, nothing more is synced."""
    fs.locked.clear()


def test_what_was_read_on_a_full_disk_outlives_a_power_loss() -> None:
    """The process that wrote it was killed before its sync."""
    fs = MemoryFileSystem()
    engine = Engine.open(fs, DATA, OPTIONS)
    engine.write([(b"a", b"1")])
    engine.write_out()
    abandoned(fs)
    fs.full = True
    assert Engine.open(fs, DATA, OPTIONS).get(b"a") == b"1"
    again = Engine.open(fs.crash(random.Random(1), Fate.NONE), DATA, OPTIONS)
    assert again.get(b"a") == b"1"


@pytest.mark.parametrize("lost", [0, 1])
def test_no_table_is_removed_for_an_edit_that_is_not_durable(lost: int) -> None:
    """Killed between an edit, or the renaming of CURRENT, and its sync; then the machine loses its power."""
    for calls in range(1, 60):
        fs = MemoryFileSystem()
        engine = Engine.open(fs, DATA, OPTIONS)
        for i in range(3):
            engine.write([(b"%d" % i, b"v")])
            engine.flush()
        expected = content_of(engine)
        fs.crash_at = fs.mutations + calls
        try:
            engine.maintenance.compact()
        except SimulatedCrash:
            pass
        else:
            return
        fs.crash_at = None
        abandoned(fs)
        fs.full = True
        assert content_of(Engine.open(fs, DATA, OPTIONS)) == expected
        after = fs.crash(random.Random(calls), (Fate.NONE, Fate.RANDOM)[lost])
        assert content_of(Engine.open(after, DATA, OPTIONS)) == expected
    pytest.fail("the compaction does not end")


def torn_log(records_behind: int) -> MemoryFileSystem:
    """The second of four records was torn; those behind it, never synced, are whole.

    So many are in the same segment, the others in the next.
    """
    fs = MemoryFileSystem()
    engine = Engine.open(fs, DATA, OPTIONS)
    engine.write([(b"a", b"1")])
    engine.sync()
    (log,) = [name for name in fs.list(DATA) if name.endswith(".wal")]
    torn = fs.size(f"{DATA}/{log}") + 14
    for i in range(3):
        if i == 1 + records_behind:
            engine._segments.seal(engine._manifest.take_number())
        engine.write([(b"b%d" % i, b"never acknowledged")])
        engine.write_out()
    fs.corrupt(f"{DATA}/{log}", torn, 1)
    return fs.crash(random.Random(1), Fate.ALL)


@pytest.mark.parametrize("records_behind", [0, 1, 2])
@pytest.mark.parametrize("jobs_first", [False, True])
def test_what_a_crash_has_torn_is_gone_before_its_lsns_are_used_again(
    records_behind: int, jobs_first: bool
) -> None:
    """Else the next open meets it, and takes the new records for proof that others are missing."""
    fs = torn_log(records_behind)
    fs.full = True
    engine = Engine.open(fs, DATA, OPTIONS)
    assert content_of(engine) == {b"a": b"1"}
    fs.full = False
    if jobs_first:
        try_jobs(fs, engine)
    for i in range(5):
        write(fs, engine, [(b"c%d" % i, b"acknowledged")])
    expected = {b"a": b"1"} | {b"c%d" % i: b"acknowledged" for i in range(5)}
    for fate in FATES:
        assert content_of(Engine.open(fs.crash(random.Random(2), fate), DATA, OPTIONS)) == expected


def test_a_new_store_on_a_full_disk_begins_when_there_is_space() -> None:
    fs = MemoryFileSystem()
    fs.full = True
    for _ in range(2):
        engine = Engine.open(fs, DATA)
        refuses(engine)
        engine.close()
    engine = Engine.open(fs, DATA)
    fs.full = False
    write(fs, engine, [(b"a", b"1")])
    engine.close()
    check_whole(fs, {b"a": b"1"}, OPTIONS)


class Crammed(MemoryFileSystem):
    """Files can be made, and hold what fits; nothing is renamed."""

    no_space_for = ""

    def create(self, path: str) -> Any:
        writer = super().create(path)
        if self._has_none(path):
            append = writer.append

            def half(data: bytes) -> None:
                append(data[: len(data) // 2])
                raise StorageFull(path)

            writer.append = half  # type: ignore[method-assign]
        return writer

    def rename(self, old: str, new: str) -> None:
        if self._has_none(new):
            raise StorageFull(new)
        super().rename(old, new)

    def _has_none(self, path: str) -> bool:
        return bool(self.no_space_for) and path.endswith(self.no_space_for)


@pytest.mark.parametrize("part", ["CURRENT.new", "CURRENT", ".wal", ".sst", "MANIFEST"])
def test_trying_again_for_a_long_time_leaves_no_files(part: str) -> None:
    fs = Crammed()
    engine = Engine.open(fs, DATA)
    engine.write([(b"a", b"1")])
    engine.sync()
    abandoned(fs)
    before = fs.list(DATA)
    if part == "MANIFEST":
        part = manifest_name(_GIVEN_OUT + max(int(name[:8]) for name in before if name.endswith(".wal")))
    fs.no_space_for = part
    engine = Engine.open(fs, DATA)
    assert content_of(engine) == {b"a": b"1"}
    left = fs.list(DATA)
    assert len(left) == len(before), (left, before)
    for _ in range(20):
        try:
            engine.sync()
        except StorageFull:
            assert len(fs.list(DATA)) == len(left), (left, fs.list(DATA))
    try_jobs(fs, engine)
    fs.no_space_for = ""
    write(fs, engine, [(b"b", b"2")])
    engine.close()
    check_whole(fs, {b"a": b"1", b"b": b"2"}, OPTIONS)


def test_a_failed_sync_while_the_log_begins_ends_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = MemoryFileSystem()
    fs.full = True
    engine = Engine.open(fs, DATA)
    fs.full, fs.broken = False, True
    with pytest.raises(StorageError):
        engine.sync()
    fs.broken = False
    with pytest.raises(StorageError, match="the engine stopped"):
        engine.sync()
    monkeypatch.setattr(Segments, "write_out", lambda self: pytest.fail("it goes on"))
    engine.close()


def test_a_store_on_a_real_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files can be made, nothing can be written to them."""
    with Store.open(tmp_path) as store:
        store.put(b"in a table", b"1")
        store.flush()
    engine = Engine.open(DiskFileSystem(), str(tmp_path))
    engine.write([(b"in the log", b"2")])
    engine.sync()
    engine._opened.close()  # as if it was killed
    expected = {b"in a table": b"1", b"in the log": b"2"}

    def no_space(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", no_space)
        for _ in range(2):
            with Store.open(tmp_path) as store:
                assert dict(store.scan()) == expected
                with pytest.raises(StorageFull):
                    store.put(b"refused", b"3")
                assert dict(store.scan()) == expected
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", no_space)
        store = Store.open(tmp_path)
    store.put(b"new", b"3")
    store.close()
    with Store.open(tmp_path) as store:
        assert dict(store.scan()) == expected | {b"new": b"3"}
    names = sorted(path.suffix for path in tmp_path.iterdir() if path.suffix == ".wal")
    assert names == [".wal"]

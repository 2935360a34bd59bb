"""Every call to the disk fails once in each way that it can, and nothing but a typed error comes of it.

One workload (log rotation, flushes, compactions, manifests that begin anew, checkpoints, reopening) is run
once to count its calls, then once for each call and kind of fault. After the error the store must be as
before, and must go on: at once where that is allowed, after reopening where the error is fatal by design.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from kvstore.errors import Corruption, KVError, StorageError, StorageFailed, StorageFull
from kvstore.lsm import Compaction, Engine, MemoryFileSystem, Options, run_job
from kvstore.lsm.filesystem import FileSystem
from kvstore.store import DiskFileSystem
from tests.faulty_filesystem import Fault, FaultyFileSystem, can_fail

TIERED = Options(memtable_bytes=2200, block_bytes=256, cache_bytes=6000, tier_tables=3, manifest_bytes=400)
LEVELED = Options(
    memtable_bytes=2200,
    block_bytes=256,
    cache_bytes=6000,
    tier_tables=2,
    manifest_bytes=400,
    compaction=Compaction.LEVELED,
    table_bytes=900,
    level_bytes=3000,
    level_ratio=3,
)
STEPS, CHECKPOINTS, REOPEN = 30, (10, 20), 17
_PATIENCE = 3
"""So often a full disk is seen, then there is space again."""
_LONG_ENOUGH = 12
"""Steps after the faults by which a store that goes on wrongly has shown it."""
Batch = list[tuple[bytes, bytes | None]]


@cache
def batch_number(step: int) -> Batch:
    rng = random.Random(step)
    batch: Batch = [(b"step", b"%d" % step)]
    for _ in range(rng.randrange(1, 5)):
        key = b"key-%02d" % rng.randrange(30)
        batch.append((key, None if rng.random() < 0.2 else rng.randbytes(rng.randrange(60))))
    return batch


def after(batches: list[Batch]) -> dict[bytes, bytes]:
    content: dict[bytes, bytes | None] = {}
    for batch in batches:
        content.update(batch)
    return {key: value for key, value in content.items() if value is not None}


class Store:
    """An engine, what was written to it, and the rules for what may come of an error."""

    def __init__(self, fs: FaultyFileSystem, options: Options) -> None:
        self.fs = fs
        self.options = options
        self.engine: Engine | None = None
        self.batches: list[Batch] = []
        self.acknowledged = 0
        self.errors: Counter[str] = Counter()
        self.did: Counter[str] = Counter()
        self.fatal = 0
        self.kept_open = 0
        self.calm = 0
        """Steps that were done since the faults ended."""

    def step(self, name: str, action: Callable[[Engine], None], attempts: int = _PATIENCE + 2) -> None:
        """Do something until it succeeds; after each error look at the whole store."""
        for _ in range(attempts):
            failed_syncs = self.failed_syncs()
            try:
                action(self.opened())
                assert self.failed_syncs() == failed_syncs, f"{name} has passed over a sync that failed"
            except StorageError as error:
                self.errors[type(error).__name__] += 1
                self.look(name, error)
                if self.errors["StorageFull"] == _PATIENCE:
                    self.fs.heal()
            else:
                self.did[name] += 1
                self.calm += self.fs.number >= self.fs.fail_to and bool(self.fs.injected)
                return
        raise AssertionError(f"{name} has failed {attempts} times")

    def opened(self) -> Engine:
        if self.engine is None:
            self.engine = Engine.open(self.fs, "data", self.options)
            self.recovered(dict(self.engine.scan()))
        return self.engine

    def recovered(self, content: dict[bytes, bytes]) -> None:
        """All that was acknowledged is there, and of the rest the first batches, each as a whole."""
        survivors = range(self.acknowledged, len(self.batches) + 1)
        kept = [count for count in survivors if content == after(self.batches[:count])]
        assert kept, "what was recovered is not what was acknowledged"
        del self.batches[kept[-1] :]
        self.acknowledged = len(self.batches)

    def failed_syncs(self) -> int:
        return self.fs.injected["sync"] + self.fs.injected["sync_directory"]

    def look(self, name: str, error: StorageError) -> None:
        assert not isinstance(error, Corruption), f"{name}: {error!r}"
        if self.engine is None:
            assert not self.fs.writers, f"{name}: {self.fs.writers} are open after {error!r}"
            assert not self.fs.readers
            if isinstance(error, StorageFull) and self.fs.fault is not Fault.ENOSPC:
                made = self.fs.injected["make_directory"] + self.fs.injected["make_lock"]
                assert made or name in ("checkpoint", "close"), "a full disk does not open"
            return
        if not self.stopped():
            assert name != "sync" or isinstance(error, StorageFull), "the engine goes on after a failed sync"
            self.kept_open += 1
            content = dict(self.engine.scan())
            assert content == after(self.batches), f"{name} has changed the store: {error!r}"
            return
        assert isinstance(error, StorageFailed), f"{name}: the engine stopped after {error!r}"
        self.fatal += 1
        self.shut()
        self.fs.heal()
        self.opened()

    def stopped(self) -> bool:
        assert self.engine is not None
        try:
            self.engine.snapshot().close()
        except StorageFailed:
            return True
        return False

    def shut(self) -> None:
        engine, self.engine = self.engine, None
        if engine is not None:
            try:
                engine.close()
            except StorageError as error:
                self.errors[type(error).__name__] += 1
        assert not self.fs.writers, "files are open after close"

    # the steps

    def write(self, engine: Engine, number: int) -> None:
        batch = batch_number(number)
        if self.batches and self.batches[-1] == batch:
            return  # an attempt before this one that ended with an error all the same
        self.batches.append(batch)
        try:
            engine.write(batch)
        except StorageFull:
            self.batches.pop()
            engine.sync()  # writes are taken again when this has found space
            raise

    def sync(self, engine: Engine) -> None:
        engine.sync()
        self.acknowledged = len(self.batches)

    def jobs(self, engine: Engine) -> None:
        for job in engine.take_jobs():
            try:
                result = run_job(self.fs, job)
            except StorageError:
                engine.job_failed(job)
                raise
            try:
                engine.job_done(result)
            except StorageFull:
                engine.job_failed(job)
                raise
            self.did[type(job).__name__] += 1

    def flush(self, engine: Engine) -> None:
        engine.flush()
        assert engine.statistics().memtable_bytes == 0
        self.acknowledged = len(self.batches)

    def checkpoint(self, engine: Engine, name: str) -> None:
        try:
            engine.checkpoint(name)
        except StorageError:
            assert not self.fs.list(name), "a checkpoint that failed has left something"
            raise
        self.acknowledged = len(self.batches)
        expected = after(self.batches)
        copy = Engine.open(self.fs, name, self.options)
        try:
            assert dict(copy.scan()) == expected, "the checkpoint is not the store"
        finally:
            copy.close()

    def read(self, engine: Engine) -> None:
        expected = after(self.batches)
        assert {key: engine.get(key) for key in expected} == expected
        assert dict(engine.scan(reverse=True)) == expected

    def close(self, engine: Engine) -> None:
        self.engine = None
        try:
            engine.close()
        finally:
            assert not self.fs.writers, "files are open after close"
        self.acknowledged = len(self.batches)


def workload(store: Store) -> None:
    checkpoints = 0
    for number in range(STEPS):
        store.step("write", lambda engine, number=number: store.write(engine, number))  # type: ignore[misc]
        if number % 3 == 0:
            store.step("sync", store.sync)
        store.step("jobs", store.jobs)
        if number in CHECKPOINTS:
            checkpoints += 1
            name = f"copy-{checkpoints}"
            store.step("checkpoint", lambda engine, name=name: retried(store, engine, name))  # type: ignore[misc]
        if number == REOPEN:
            store.step("close", store.close)
        if store.calm > _LONG_ENOUGH:
            break
    store.step("read", store.read)
    store.step("flush", store.flush)
    store.step("compact", lambda engine: engine.maintenance.compact())
    store.step("close", store.close)


def retried(store: Store, engine: Engine, name: str) -> None:
    """A checkpoint that was made, but could not be opened, is there: the next one needs another place."""
    directory = name
    while store.fs.list(directory):
        directory += "-again"
    store.checkpoint(engine, directory)


def finish(store: Store) -> None:
    """After everything: the content, once more, and no file that the manifest does not name."""
    fs = store.fs
    fs.heal()
    store.shut()
    content = dict(store.opened().scan())
    assert content == after(store.batches)
    statistics = store.opened().statistics()
    store.shut()
    names = fs.list("data")
    # CURRENT, LOCK, one manifest, one log
    assert len(names) == statistics.tables + 4, names
    assert not fs.writers
    assert not fs.readers


@dataclass
class Totals:
    """What all runs together have exercised."""

    runs: int = 0
    fatal: int = 0
    kept_open: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def run(self, options: Options, fault: Fault, first: int, last: int) -> None:
        """One run with faults at some calls."""
        fs = FaultyFileSystem(MemoryFileSystem())
        fs.fault, fs.fail_from, fs.fail_to = fault, first, last
        store = Store(fs, options)
        try:
            workload(store)
            finish(store)
        except Exception as error:
            raise AssertionError(f"{fault} at call {first}: {dict(fs.injected)}") from error
        self.runs += 1
        self.fatal += store.fatal
        self.kept_open += store.kept_open
        self.injected.update({f"{fault.name} {name}": count for name, count in fs.injected.items()})
        self.errors.update(store.errors)


@pytest.mark.parametrize("fault", [Fault.EIO, Fault.ENOSPC, Fault.SHORT_WRITE])
@pytest.mark.parametrize("options", [TIERED, LEVELED], ids=["size-tiered", "leveled"])
def test_every_call_fails_once(options: Options, fault: Fault) -> None:
    kinds, whole = calls_of_the_workload(options)
    totals = Totals()
    for number, kind in enumerate(kinds, 1):
        if can_fail(kind, fault):
            totals.run(options, fault, number, number)
    print(f"{len(kinds)} calls, {dict(whole.did)}\n{totals}")
    assert totals.injected.total() == totals.runs
    wanted = {f"{fault.name} {name}" for name in whole.fs.calls if can_fail(name, fault)}
    assert set(totals.injected) == wanted
    assert totals.kept_open > 100
    assert totals.fatal > 20 if fault is not Fault.SHORT_WRITE else not totals.fatal


@pytest.mark.parametrize("options", [TIERED, LEVELED], ids=["size-tiered", "leveled"])
def test_a_full_disk_stops_writes_alone_and_only_while_it_is_full(options: Options) -> None:
    kinds, _ = calls_of_the_workload(options)
    totals = Totals()
    for number, kind in enumerate(kinds, 1):
        if can_fail(kind, Fault.FULL):
            totals.run(options, Fault.FULL, number, sys.maxsize)
    print(totals)
    assert totals.injected.total() > totals.runs
    assert totals.errors["StorageFull"] > 2 * totals.runs
    assert not totals.fatal, "a full disk has stopped the engine"


def calls_of_the_workload(options: Options) -> tuple[list[str], Store]:
    """The names of all calls that a run without faults makes, in order."""

    class Recording(FaultyFileSystem):
        def fails(self, kind: str) -> bool:
            kinds.append(kind)
            return super().fails(kind)

    kinds: list[str] = []
    store = Store(Recording(MemoryFileSystem()), options)
    workload(store)
    count = len(kinds)
    finish(store)
    did = store.did
    kinds_of_work = "FlushJob", "CompactionJob", "RemovalJob", "checkpoint", "flush", "compact"
    assert min(did[name] for name in kinds_of_work) >= 1
    assert store.fs.calls["rename"] > 4, "no manifest began anew"
    return kinds[:count], store


# the real disk


def test_what_is_left_of_a_failed_write_does_not_stay_behind_a_shorter_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = DiskFileSystem().create(str(tmp_path / "log"))
    file.append(b"begin ")
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", short_of_space(os.pwrite))
        with pytest.raises(StorageFull):
            file.append(b"a long record")
    file.append(b"end")
    assert (tmp_path / "log").read_bytes() == b"begin end"
    file.close()


def short_of_space(pwrite: Callable[[int, memoryview, int], int]) -> Callable[[int, memoryview, int], int]:
    """Writes half of what it is given, and nothing the next time."""
    calls = 0

    def half(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data[: len(data) // 2], offset)

    return half


def test_a_write_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
    file = DiskFileSystem().create(str(tmp_path / "log"))
    file.append(b"all of this")
    file.append(b", and that")
    assert (tmp_path / "log").read_bytes() == b"all of this, and that"
    file.close()


CALLS: dict[str, tuple[str, Callable[[FileSystem, str], object]]] = {
    "mkdir": ("make_directory", lambda fs, path: fs.make_directory(f"{path}/new")),
    "open": ("open, to create", lambda fs, path: fs.create(f"{path}/new")),
    "open ": ("open, to read", lambda fs, path: fs.open(f"{path}/old")),
    "open  ": ("lock", lambda fs, path: fs.lock(f"{path}/old")),
    "listdir": ("list", lambda fs, path: fs.list(path)),
    "rename": ("rename", lambda fs, path: fs.rename(f"{path}/old", f"{path}/new")),
    "link": ("link", lambda fs, path: fs.link(f"{path}/old", f"{path}/new")),
    "remove": ("remove", lambda fs, path: fs.remove(f"{path}/old")),
    "fsync": ("sync_directory", lambda fs, path: fs.sync_directory(path)),
    "pread": ("read", lambda fs, path: fs.open(f"{path}/old").read(0, 1)),
    "fstat": ("size", lambda fs, path: fs.open(f"{path}/old").size()),
}


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EROFS])
@pytest.mark.parametrize("call", CALLS)
def test_the_operating_systems_errors_are_typed(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    fs, path = DiskFileSystem(), str(tmp_path)
    (tmp_path / "old").write_bytes(b"content")
    _, action = CALLS[call]
    monkeypatch.setattr(os, call.strip(), failing)
    expected = StorageFull if code == errno.ENOSPC and call != "fsync" else StorageFailed
    with pytest.raises(expected):
        action(fs, path)
    monkeypatch.undo()
    assert DiskFileSystem().list(path) == ["old"]


# an engine that cannot be opened


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc/self/fd to count open files by")
@pytest.mark.parametrize("damage", ["CURRENT", "MANIFEST", "last table", "log", "lock"])
def test_an_engine_that_cannot_be_opened_leaves_no_file_open(damage: str, tmp_path: Path) -> None:
    directory = str(tmp_path)
    engine = Engine.open(DiskFileSystem(), directory, TIERED)
    for number in range(4):
        engine.write(batch_number(number))
        engine.flush()
    for number in range(4, 8):
        engine.write(batch_number(number))
        engine.sync()
    if damage == "lock":
        before = descriptors()
        with pytest.raises(KVError):
            Engine.open(DiskFileSystem(), directory, TIERED)
        assert descriptors() == before
        engine.close()
        return
    log = next(tmp_path.glob("*.wal")).read_bytes()
    engine.close()
    if damage == "log":
        # in the middle, where a later record proves that it was durable
        next(tmp_path.glob("*.wal")).write_bytes(log[:30] + b"?" + log[31:])
    elif damage == "last table":  # of a newer format: one that is damaged is quarantined
        table = max(tmp_path.glob("*.sst"))
        table.write_bytes(table.read_bytes()[:-1] + b"\xff")
    else:
        pattern = {"CURRENT": "CURRENT", "MANIFEST": "MANIFEST-*"}[damage]
        max(tmp_path.glob(pattern)).write_bytes(b"damaged")
    before = descriptors()
    with pytest.raises(StorageError) as caught:
        Engine.open(DiskFileSystem(), directory, TIERED)
    # the error's traceback still holds all that open had at hand
    assert descriptors() == before, caught.value

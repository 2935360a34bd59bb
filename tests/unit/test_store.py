"""The engine that runs by itself: real files, real worker processes."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from kvstore.errors import StorageFailed, StorageFull, WrongDataDirectory
from kvstore.lsm import Durability, Options
from kvstore.store import DiskFileSystem, Store
from kvstore.store.worker_pool import _Worker
from tests.patience import PATIENCE

SMALL = Options(memtable_bytes=20_000, block_bytes=512, durability=Durability.NONE)


def workers(process: psutil.Process | None = None) -> list[psutil.Process]:
    found = []
    for child in (process or psutil.Process()).children():
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if any("kvstore.store.worker" in argument for argument in child.cmdline()):
                found.append(child)
    return found


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def entries(first: int, last: int) -> list[tuple[bytes, bytes]]:
    return [(b"key-%06d" % i, b"value-%d-" % i * 10) for i in range(first, last)]


def fill(store: Store, first: int, last: int) -> None:
    for key, value in entries(first, last):
        store.put(key, value)


def with_suspended_workers(store: Store) -> list[psutil.Process]:
    """The workers of a store with 200 entries, all of which are stopped before they get their next job."""
    fill(store, 0, 200)
    store.settle()
    suspended = workers()
    for worker in suspended:
        worker.suspend()
    return suspended


@pytest.mark.parametrize("durability", Durability)
def test_what_was_written_is_there_after_flushes_compactions_and_reopening(
    tmp_path: Path, durability: Durability
) -> None:
    options = Options(memtable_bytes=20_000, block_bytes=512, durability=durability, sync_interval=0.01)
    with Store.open(tmp_path / "s", options) as store:
        fill(store, 0, 2000)
        store.delete(b"key-000007")
        store.write([(b"key-000008", None), (b"key-000009", b"new")])
        store.settle()
        statistics = store.statistics()
        assert statistics.flushes > 4
        assert statistics.compactions > 0
        expected = dict(entries(0, 2000)) | {b"key-000009": b"new"}
        del expected[b"key-000007"], expected[b"key-000008"]
        assert dict(store.scan()) == expected
        assert workers()
    assert workers() == []
    with Store.open(tmp_path / "s", options) as store:
        assert list(store.scan()) == sorted(expected.items())
        assert store.get(b"key-000007") is None
        assert store.get(b"key-000009") == b"new"
        assert [key for key, _ in store.scan_prefix(b"key-00001", reverse=True)][-1] == b"key-000010"


def test_scans_by_prefixes_of_the_last_bytes(tmp_path: Path) -> None:
    keys = sorted([b"\xfe\xff", b"\xff", b"\xff\x00", b"\xff\xff", b"\xff\xff\xff", b"a"])
    with Store.open(tmp_path / "s", SMALL) as store:
        store.write([(key, b"v") for key in keys])
        for prefix in (b"", b"\xfe\xff", b"\xff", b"\xff\xff", b"\xff\xff\xff\xff"):
            wanted = [key for key in keys if key.startswith(prefix)]
            assert [key for key, _ in store.scan_prefix(prefix)] == wanted
            assert [key for key, _ in store.scan_prefix(prefix, reverse=True)] == wanted[::-1]
        assert list(store.scan(b"b", b"a")) == []
        assert list(store.scan(b"\xff" * 9)) == []


def test_flush_and_compact_leave_one_table(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", SMALL) as store:
        fill(store, 0, 1000)
        store.flush()
        assert store.statistics().memtable_bytes == 0
        store.compact()
        assert store.statistics().tables == 1
        assert list(store.scan()) == entries(0, 1000)


def test_a_snapshot_and_a_checkpoint_keep_the_moment(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", SMALL) as store:
        fill(store, 0, 500)
        with store.snapshot() as snapshot:
            store.checkpoint(tmp_path / "copy")
            fill(store, 500, 1500)
            store.compact()
            assert list(snapshot.scan()) == entries(0, 500)
        with pytest.raises(StorageFailed):
            store.checkpoint(tmp_path / "copy")
    with Store.open(tmp_path / "copy") as copy:
        assert list(copy.scan()) == entries(0, 500)


def test_a_killed_worker_is_replaced_and_its_job_done_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Store.open(tmp_path / "s", SMALL) as store:
        suspended = with_suspended_workers(store)
        for worker in suspended:
            assert os.getsid(worker.pid) == os.getsid(0), "niceness counts only within a session"
            assert worker.nice() == 19
        fill(store, 200, 350)
        for worker in suspended:
            worker.kill()
        store.settle()
        assert "a FlushJob failed" in caplog.text
        assert store.statistics().sealed_memtables == 0
        fill(store, 350, 800)
        store.settle()
        assert list(store.scan()) == entries(0, 800)
        named = {f"{table.info.number:08d}.sst" for table in store._engine.tables.levels}
        assert {path.name for path in (tmp_path / "s").glob("*.sst")} == named
    assert workers() == []


def test_a_stalled_worker_is_killed_and_its_job_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path / "s", SMALL) as store:
        suspended = with_suspended_workers(store)
        monkeypatch.setattr(store._jobs.workers, "patience", 0.2)
        fill(store, 200, 350)
        store.settle()
        assert store._jobs.workers.patience > 0.2, "or one that gets no processor is begun anew for ever"
        assert {worker.pid for worker in suspended} - {worker.pid for worker in workers()}
        assert list(store.scan()) == entries(0, 350)


def test_a_writer_waits_for_the_flush_it_is_ahead_of(tmp_path: Path) -> None:
    options = Options(memtable_bytes=20_000, max_sealed=1, durability=Durability.NONE)
    with Store.open(tmp_path / "s", options) as store:
        suspended = with_suspended_workers(store)
        fill(store, 200, 300)
        assert store.statistics().sealed_memtables == 1
        everyone = " ".join(str(worker.pid) for worker in suspended)
        resumed = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -CONT {everyone}"])
        fill(store, 300, 1000)
        resumed.wait()
        assert list(store.scan()) == entries(0, 1000)


def test_what_is_written_at_intervals_is_synced_though_nothing_follows(tmp_path: Path) -> None:
    options = Options(durability=Durability.INTERVAL, sync_interval=0.02)
    with Store.open(tmp_path / "s", options) as store:
        for lsn in (1, 2):
            store.put(b"a", b"1")
            wait_until(lambda lsn=lsn: store._engine.durable_lsn == lsn)  # type: ignore[misc]


def test_what_found_no_space_is_synced_once_there_is_some_though_nothing_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.lsm.commit.FULL_PAUSE", 0.02)
    options = Options(durability=Durability.INTERVAL, sync_interval=0.02)
    with Store.open(tmp_path / "s", options) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", failing(errno.ENOSPC))
            with pytest.raises(StorageFull):
                store.put(b"a", b"1")
            time.sleep(0.1)
            assert store._engine.durable_lsn == 0
        wait_until(lambda: store._engine.durable_lsn == 1)


def test_a_store_opened_on_a_full_disk_takes_writes_once_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.lsm.commit.FULL_PAUSE", 0.02)
    options = Options(durability=Durability.INTERVAL, sync_interval=0.02)
    Store.open(tmp_path / "s", options).close()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.ENOSPC))
        store = Store.open(tmp_path / "s", options)
        assert store._engine.refuses
    with store:
        wait_until(lambda: not store._engine.refuses)
        store.put(b"a", b"1")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    """A node that met one never started, and nothing said why."""
    path, disk = str(tmp_path / "file"), DiskFileSystem()
    os.mkfifo(path)
    for begin in (lambda: disk.open(path).read(0, 1), lambda: disk.create(path), lambda: disk.reopen(path)):
        with pytest.raises(StorageFailed, match="file: "):
            begin()


def test_a_failed_sync_at_an_interval_is_told_by_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = Options(durability=Durability.INTERVAL, sync_interval=0.02)
    with Store.open(tmp_path / "s", options) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing(errno.EIO))
            store.put(b"a", b"1")
            wait_until(lambda: caplog.records)
        assert "the log cannot be synced, and the next write will say so" in caplog.text
        with pytest.raises(StorageFailed):
            store.put(b"b", b"2")
        assert store.get(b"a") == b"1"


def test_syncs_at_intervals_end_with_their_store(tmp_path: Path) -> None:
    options = Options(durability=Durability.INTERVAL, sync_interval=60.0)
    before = set(threading.enumerate())
    with Store.open(tmp_path / "s", options) as store:
        store.put(b"a", b"1")
        assert any(thread.name == "sync" for thread in set(threading.enumerate()) - before)
    assert not any(thread.name == "sync" for thread in set(threading.enumerate()) - before)


def failing(code: int) -> Callable[..., NoReturn]:
    def call(*_: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return call


def test_closing_twice_does_nothing_and_the_directory_has_one_owner(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s")
    with pytest.raises(WrongDataDirectory):
        Store.open(tmp_path / "s")
    store.close()
    store.close()
    with pytest.raises(StorageFailed):
        store.put(b"a", b"1")
    Store.open(tmp_path / "s").close()


def test_closing_in_the_middle_of_a_job_leaves_no_file_and_no_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR)
    send = _Worker.send

    def send_and_never_begin(self: _Worker) -> None:
        psutil.Process(self.process.pid).suspend()
        send(self)

    store = Store.open(tmp_path / "s", SMALL)
    fill(store, 0, 200)
    store.settle()
    tables = set((tmp_path / "s").glob("*.sst"))
    monkeypatch.setattr(_Worker, "send", send_and_never_begin)
    fill(store, 200, 350)
    store.close()
    assert workers() == []
    assert set((tmp_path / "s").glob("*.sst")) == tables
    with Store.open(tmp_path / "s") as store:
        assert list(store.scan()) == entries(0, 350)


def test_workers_end_with_a_store_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from kvstore.lsm import Options; from kvstore.store import Store\n"
        "store = Store.open(sys.argv[1], Options(memtable_bytes=20_000))\n"
        "for i in range(500): store.put(b'%d' % i, b'v' * 100)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    with owner.stdout as output:
        assert output.readline() == "ready\n"
        left = workers(psutil.Process(owner.pid))
        assert left
        left[0].suspend()
        left[0].resume()
        owner.kill()
        owner.wait()
    wait_until(lambda: not any(process.is_running() for process in left))
    with Store.open(tmp_path / "s") as store:
        assert len(list(store.scan())) == 500

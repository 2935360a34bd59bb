"""Syncs on a real thread and disk: one at a time, and a failed one is the end.

What the group commit decides, in every order of events: tests/property/test_lsm_commit.py.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from kvstore.errors import StorageFailed, StorageFull
from kvstore.frames.turn_ends import TurnEnds
from kvstore.lsm import Durability, Engine, Options
from kvstore.lsm.filesystem import WritableFile
from kvstore.server.sync_thread import SyncThread
from kvstore.store import DiskFileSystem
from tests.patience import PATIENCE


class GatedFile:
    """A real file whose sync waits for a gate, and fails if told so."""

    def __init__(self, file: WritableFile, disk: GatedDisk) -> None:
        self._file = file
        self._disk = disk

    def append(self, data: bytes) -> None:
        if self._disk.full:
            raise StorageFull("no space")
        self._file.append(data)

    def sync(self) -> None:
        self._disk.threads.add(threading.get_ident())
        assert self._disk.gate.wait(PATIENCE)
        if self._disk.broken:
            raise StorageFailed("input/output error")
        self._file.sync()

    def write_back(self) -> None:
        self._file.write_back()

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def close(self) -> None:
        self._file.close()


class GatedDisk(DiskFileSystem):
    """The real disk behind a gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.broken = self.full = False
        self.threads: set[int] = set()

    def create(self, path: str) -> GatedFile:  # type: ignore[override]
        return GatedFile(super().create(path), self)


class Scenario:
    """An engine on a gated disk, and what its group commit reported."""

    def __init__(self, directory: Path, options: Options | None = None) -> None:
        self.disk = GatedDisk()
        self.engine = Engine.open(self.disk, str(directory / "engine"), options)
        self.disk.threads.clear()
        self.durable: list[int] = []
        self.fatal: list[BaseException] = []
        self.commit = SyncThread(self.engine, self.durable.append, self.fatal.append, TurnEnds())

    def write(self, count: int) -> None:
        for i in range(count):
            self.engine.write([(b"%d" % i, b"v")])
            self.commit.request_sync()

    async def end(self) -> None:
        await self.commit.close()
        self.engine.close()


async def until_durable(scenario: Scenario, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(scenario.durable) < count:  # noqa: ASYNC110  (no event for it)
            await asyncio.sleep(0.002)


def test_one_sync_covers_a_turn_and_the_next_all_that_came_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        scenario = Scenario(tmp_path)
        scenario.disk.gate.clear()
        scenario.write(3)
        assert scenario.durable == []
        await asyncio.sleep(0.01)
        for _ in range(5):
            scenario.write(2)
            await asyncio.sleep(0)
        assert scenario.durable == []
        scenario.disk.gate.set()
        await until_durable(scenario, 2)
        assert scenario.durable == [3, 13]
        assert len(scenario.disk.threads) == 1
        assert threading.get_ident() not in scenario.disk.threads
        await scenario.end()

    asyncio.run(run())


def test_by_interval_what_comes_meanwhile_shares_one_sync(tmp_path: Path) -> None:
    async def run() -> None:
        scenario = Scenario(tmp_path, Options(durability=Durability.INTERVAL, sync_interval=1.0))
        for _ in range(10):
            scenario.write(1)
            await asyncio.sleep(0)
        assert scenario.disk.threads == set()
        await until_durable(scenario, 1)
        assert scenario.durable == [10]
        await scenario.end()

    asyncio.run(run())


def test_without_durability_nothing_is_synced_but_all_is_written_out(tmp_path: Path) -> None:
    async def run() -> None:
        scenario = Scenario(tmp_path, Options(durability=Durability.NONE))
        scenario.write(3)
        await until_durable(scenario, 1)
        assert (scenario.durable, scenario.disk.threads) == ([0], set())
        assert b"v" in b"".join(path.read_bytes() for path in (tmp_path / "engine").glob("*.wal"))
        await scenario.end()

    asyncio.run(run())


def test_a_failed_sync_is_fatal_and_never_durable(tmp_path: Path) -> None:
    async def run() -> None:
        scenario = Scenario(tmp_path)
        scenario.disk.broken = True
        scenario.write(1)
        async with asyncio.timeout(PATIENCE):
            while not scenario.fatal:  # noqa: ASYNC110  (no event for it)
                await asyncio.sleep(0.002)
        with pytest.raises(StorageFailed):
            scenario.write(1)
        scenario.commit.request_sync()
        await asyncio.sleep(0.02)
        assert scenario.durable == []
        assert [type(error) for error in scenario.fatal] == [StorageFailed]

    asyncio.run(run())


def test_a_full_disk_is_tried_again_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kvstore.lsm.commit.FULL_PAUSE", 0.01)

    async def run() -> None:
        scenario = Scenario(tmp_path)
        scenario.disk.full = True
        scenario.write(1)
        await asyncio.sleep(0.05)
        assert (scenario.durable, scenario.fatal) == ([], [])
        (said,) = [record.getMessage() for record in caplog.records]
        assert said == "no space: reads are served, writes are refused until there is space"
        caplog.clear()
        with pytest.raises(StorageFull):
            scenario.write(1)
        scenario.disk.full = False
        await until_durable(scenario, 1)
        assert scenario.durable == [1]
        scenario.write(1)
        await until_durable(scenario, 2)
        (said,) = [record.getMessage() for record in caplog.records]
        assert said == "there is space on the disk again: writes are taken"
        await scenario.end()

    asyncio.run(run())


def test_closing_lets_the_running_sync_end_and_says_no_more(tmp_path: Path) -> None:
    others = set(threading.enumerate())

    async def run() -> None:
        scenario = Scenario(tmp_path)
        scenario.disk.gate.clear()
        scenario.write(1)
        await asyncio.sleep(0.01)
        scenario.write(1)
        closing = asyncio.create_task(scenario.commit.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        scenario.disk.gate.set()
        await closing
        mine = set(threading.enumerate()) - others
        assert not any(thread.name.startswith("sync") for thread in mine)
        assert scenario.durable == []
        assert scenario.engine.durable_lsn == 1
        scenario.engine.close()
        again = Engine.open(DiskFileSystem(), str(tmp_path / "engine"))
        assert again.last_lsn == 2
        again.close()

    asyncio.run(run())


def test_an_error_that_nobody_expected_ends_the_node_and_not_its_acknowledgements(tmp_path: Path) -> None:
    """It was lost with the callback: the node looked alive, and every write timed out for ever."""

    async def run() -> None:
        scenario = Scenario(tmp_path)
        scenario.engine.begin_sync = fail  # type: ignore[method-assign]
        scenario.write(1)
        async with asyncio.timeout(PATIENCE):
            while not scenario.fatal:  # noqa: ASYNC110  (no event for it)
                await asyncio.sleep(0)
        assert [type(error) for error in scenario.fatal] == [ZeroDivisionError]
        await scenario.commit.close()

    asyncio.run(run())


def fail(*_: object) -> NoReturn:
    raise ZeroDivisionError


def test_who_is_told_and_fails_does_not_keep_later_writes_from_their_sync(tmp_path: Path) -> None:
    async def run() -> None:
        scenario = Scenario(tmp_path)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # it would only log it
        told: list[int] = []

        def durable(lsn: int) -> None:
            told.append(lsn)
            if len(told) == 1:
                raise ZeroDivisionError

        scenario.commit._on_durable = durable
        scenario.disk.gate.clear()
        scenario.write(1)
        while not scenario.engine._segments.syncing:  # noqa: ASYNC110  (no event for it)
            await asyncio.sleep(0)
        scenario.write(1)  # while the first sync runs
        scenario.disk.gate.set()
        async with asyncio.timeout(PATIENCE):
            while told != [1, 2]:  # noqa: ASYNC110  (no event for it)
                await asyncio.sleep(0)
        await scenario.commit.close()

    asyncio.run(run())

"""Syncs follow each other, one at a time, and a failed one is the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import pytest

from kvstore.errors import StorageFailed, StorageFull
from kvstore.lsm import DiskFileSystem, Durability, Engine, Options, Sync
from kvstore.lsm.filesystem import WritableFile
from kvstore.server.group_commit import GroupCommit
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
        self.commit = GroupCommit(self.engine, self.durable.append, self.fatal.append)

    def write(self, count: int) -> None:
        for i in range(count):
            self.engine.write([(b"%d" % i, b"v")])
            self.commit.request()

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
        scenario.write(1)
        await asyncio.sleep(0.02)
        assert scenario.durable == []
        assert [type(error) for error in scenario.fatal] == [StorageFailed]

    asyncio.run(run())


def test_a_full_disk_is_tried_again_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kvstore.server.group_commit._FULL_PAUSE", 0.01)

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


class FakeEngine:
    """An engine whose syncs end when a test says so; `steps` is what was asked of it, and told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.gate = threading.Event()
        self.delay = 0.0
        self.durable_lsn = 7
        self.results: list[object] = []
        """What the next calls of `begin_sync` answer or raise; a sync when there is nothing."""
        self.begun = 0

    def sync_delay(self) -> float:
        return self.delay

    def begin_sync(self) -> Sync | None:
        self.steps.append("begin")
        if self.results:
            result = self.results.pop(0)
            if isinstance(result, Exception):
                raise result
            return None
        self.begun += 1
        return Sync((self,), (), self.begun)  # type: ignore[arg-type]

    def sync(self) -> None:
        assert self.gate.wait(PATIENCE)

    def finish_sync(self, sync: Sync) -> int:
        self.steps.append("finish")
        return sync.lsn


class Told:
    """A group commit on a fake engine, whose loop's timers are noted and run at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = FakeEngine()
        self.delays: list[float] = []
        loop = asyncio.get_running_loop()

        def at_once(delay: float, action: Callable[[], None]) -> None:
            self.delays.append(delay)
            loop.call_soon(action)

        monkeypatch.setattr(loop, "call_later", at_once)
        self.fatal: list[BaseException] = []
        told = self.engine.steps.append
        self.commit = GroupCommit(
            self.engine,  # type: ignore[arg-type]
            lambda lsn: told(f"durable {lsn}"),
            self.fatal.append,
        )

    async def until(self, steps: list[str]) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.engine.steps != steps:  # noqa: ASYNC110  (no event for it)
                await asyncio.sleep(0)

    async def turns(self, count: int = 5) -> None:
        for _ in range(count):
            await asyncio.sleep(0)


def told(monkeypatch: pytest.MonkeyPatch, run: Callable[[Told], Awaitable[None]]) -> None:
    async def main() -> None:
        with monkeypatch.context() as patched:
            scene = Told(patched)
            try:
                await run(scene)
            finally:
                scene.engine.gate.set()
                await scene.commit.close()
        assert scene.fatal == []

    asyncio.run(main())


def test_requests_of_a_turn_share_a_sync_and_those_during_it_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run(scene: Told) -> None:
        for _ in range(3):
            scene.commit.request()
        assert scene.engine.steps == [], "begun before the end of the turn"
        await scene.until(["begin"])
        for _ in range(3):
            scene.commit.request()
        await scene.turns()
        assert scene.engine.steps == ["begin"], "two syncs at a time"
        scene.engine.gate.set()
        await scene.until(["begin", "finish", "durable 1", "begin", "finish", "durable 2"])
        await scene.turns()
        assert scene.engine.steps[-1] == "durable 2", "nobody has asked for another"
        scene.commit.request()
        await scene.until(["begin", "finish", "durable 1", "begin", "finish", "durable 2", "begin"])
        assert scene.delays == []

    told(monkeypatch, run)


def test_it_waits_for_as_long_as_the_engine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(scene: Told) -> None:
        scene.engine.delay = 0.25
        scene.engine.gate.set()
        scene.commit.request()
        scene.commit.request()
        assert scene.delays == [0.25]
        await scene.until(["begin", "finish", "durable 1"])

    told(monkeypatch, run)


def test_what_needs_no_sync_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(scene: Told) -> None:
        scene.engine.results = [None]
        scene.commit.request()
        await scene.until(["begin", "durable 7"])

    told(monkeypatch, run)


def test_a_full_disk_is_tried_every_half_second_and_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(scene: Told) -> None:
        scene.engine.gate.set()
        scene.engine.results = [StorageFull("full"), StorageFull("full")]
        scene.commit.request()
        await scene.until(["begin"])
        scene.commit.request()  # which does not begin another
        await scene.until(["begin", "begin", "begin", "finish", "durable 1"])
        assert scene.delays == [0.5, 0.5]
        await scene.turns()
        scene.commit.request()
        await scene.until(["begin", "begin", "begin", "finish", "durable 1", "begin", "finish", "durable 2"])

    told(monkeypatch, run)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_after_its_end_nothing_is_begun_and_nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    others = set(threading.enumerate())

    async def run(scene: Told) -> None:
        scene.commit.request()
        await scene.until(["begin"])
        scene.commit.request()
        closing = asyncio.create_task(scene.commit.close())
        await scene.turns()
        assert not closing.done(), "it has not waited for the sync"
        scene.engine.gate.set()
        await closing
        await scene.turns()
        assert scene.engine.steps == ["begin", "finish"]
        mine = set(threading.enumerate()) - others
        assert not any(thread.name.startswith("sync") for thread in mine)

    told(monkeypatch, run)


def test_what_was_asked_for_in_the_turn_of_the_end_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(scene: Told) -> None:
        scene.commit.request()
        await scene.commit.close()
        await scene.turns()
        assert scene.engine.steps == []

    told(monkeypatch, run)


def test_a_sync_that_failed_is_told_of_and_nothing_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with monkeypatch.context() as patched:
            scene = Told(patched)
            error = StorageFailed("input/output error")

            def broken() -> None:
                raise error

            scene.engine.sync = broken  # type: ignore[method-assign]
            scene.commit.request()
            while not scene.fatal:  # noqa: ASYNC110  (no event for it)
                await asyncio.sleep(0)
            scene.commit.request()
            await scene.turns()
            assert scene.fatal == [error]
            assert scene.engine.steps == ["begin"], "it is tried again"
            await scene.commit.close()

    asyncio.run(main())

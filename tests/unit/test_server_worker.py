"""The worker process: it does jobs, outlives none of them badly, and knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from kvstore.lsm import Engine, FlushJob, Job, JobResult, Options, RemovalJob
from kvstore.lsm.messages import WHOLE
from kvstore.server.jobs import Jobs
from kvstore.store import DiskFileSystem
from kvstore.store.worker import Pacer
from kvstore.store.worker_pool import WorkerPool
from tests.patience import PATIENCE

SMALL = Options(memtable_bytes=1000)
LONG = 5 * PATIENCE
"""Seconds: a worker gives way to all others. Beside 16 busy processes one took more than 60 to start."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker is given up because the machine is busy, and what failed is offered again soon."""
    monkeypatch.setattr("kvstore.store.worker_pool.STALLED", LONG)
    monkeypatch.setattr("kvstore.lsm.job_queue.PAUSE", 0.05)


class Running:
    """Jobs on this loop, and what became of them."""

    def __init__(self) -> None:
        self.done: list[JobResult] = []
        self.failed: list[Job] = []
        self.fatal: list[BaseException] = []
        self.jobs = Jobs(self.done.append, self.failed.append, self.fatal.append)

    async def run(self, job: Job) -> JobResult | None:
        """Its result, None when it has failed."""
        done, failed = len(self.done), len(self.failed)
        self.jobs.start(job)
        async with asyncio.timeout(LONG):
            while (len(self.done), len(self.failed)) == (done, failed):  # noqa: ASYNC110  (no event for it)
                await asyncio.sleep(0.01)
        assert len(self.failed) - failed + len(self.done) - done == 1
        if len(self.failed) > failed:
            assert self.failed[-1] == job
            return None
        return self.done[-1]

    @property
    def pool(self) -> WorkerPool:
        return self.jobs._workers


def sealed(directory: Path, options: Options = SMALL) -> tuple[Engine, Job]:
    """An engine that has just sealed a memtable, and the job of flushing it."""
    engine = Engine.open(DiskFileSystem(), str(directory / "engine"), options)
    while not (jobs := engine.take_jobs()):
        engine.write([(b"%d" % engine.last_lsn, b"v" * 100)])
    engine.sync()
    (job,) = jobs
    return engine, job


def workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):  # another test's, that has just ended
            if any("kvstore.store.worker" in argument for argument in child.cmdline()):
                found.append(child)
    return found


def reap(process: psutil.Process) -> None:
    """End a worker, and take its exit status away from whoever else asks for it."""
    process.kill()
    os.waitpid(process.pid, 0)


def test_a_job_is_done_in_another_process_that_stays_for_the_next(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        running = Running()
        assert workers() == []
        result = await running.run(job)
        assert isinstance(result, JobResult)
        assert result.tables
        (process,) = workers()
        assert os.getsid(process.pid) == os.getsid(0), "niceness counts only within a session"
        assert process.nice() == 19
        assert os.getpgid(process.pid) != os.getpgid(0), "Ctrl-C is for the owner"
        assert await running.run(job) == result
        assert workers() == [process]
        engine.job_done(result)
        assert engine.get(b"1") == b"v" * 100
        await running.jobs.close()
        assert workers() == []
        engine.close()

    asyncio.run(run())


def test_a_job_that_meets_damage_says_where_and_the_worker_lives(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        running = Running()
        assert isinstance(job, FlushJob)
        wrong = FlushJob(str(tmp_path / "nowhere"), job.segment, job.floor, job.last_lsn, (9,), job.options)
        met = await running.run(wrong)
        assert met is not None
        assert (met.tables, met.damaged, met.reason) == ((), ((job.segment, WHOLE),), "is missing")
        engine.job_done(JobResult(job, (), met.damaged))  # it is in memory still
        assert engine.statistics().tables == 1
        assert workers()
        await running.jobs.close()
        engine.close()

    asyncio.run(run())


def test_a_killed_worker_fails_its_job_and_the_next_finds_another(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        running = Running()
        assert await running.run(job) is not None
        (process,) = workers()
        process.suspend()
        asyncio.get_running_loop().call_later(0.05, process.kill)
        assert await running.run(job) is None
        assert await running.run(job) is not None
        assert process not in workers()
        await running.jobs.close()
        assert workers() == []
        engine.close()

    asyncio.run(run())


def test_a_worker_that_stalls_is_given_up_and_the_job_leaves_no_file(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        running = Running()
        assert await running.run(job) is not None
        (process,) = workers()
        process.suspend()
        running.pool.patience = 0.2
        assert await running.run(job) is None
        assert running.pool.patience == 0.4, "or a worker that gets no processor would be begun anew for ever"
        assert workers() == []
        engine.job_failed(job)
        assert engine.statistics().tables == 0
        assert not any(name.endswith(".sst") for name in DiskFileSystem().list(str(tmp_path / "engine")))
        (again,) = engine.take_jobs()
        running.pool.patience = LONG
        result = await running.run(again)
        assert result is not None
        await running.jobs.close()
        engine.job_done(result)
        assert engine.get(b"1") == b"v" * 100
        engine.close()

    asyncio.run(run())


def test_a_worker_whose_end_somebody_else_has_seen_is_replaced(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        running = Running()
        assert await running.run(job) is not None
        (process,) = workers()
        reap(process)
        assert await running.run(job) is not None
        (process,) = workers()
        reap(process)
        await running.jobs.close()
        assert workers() == []
        engine.close()

    asyncio.run(run())


def test_a_killed_worker_that_does_not_get_the_processor_does_not_keep_its_node_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With 20 busy processes on two processors one took 3 s to end: its priority is the lowest there is."""
    monkeypatch.setattr("kvstore.server.jobs._END_SECONDS", 0.05)

    async def run() -> None:
        engine, job = sealed(tmp_path)
        running = Running()
        assert await running.run(job) is not None
        (worker,) = running.pool._workers()
        with monkeypatch.context() as patch:
            patch.setattr(worker.process, "poll", lambda: None)
            async with asyncio.timeout(LONG):
                await running.jobs.close()
        worker.process.wait(PATIENCE)
        engine.close()

    asyncio.run(run())
    assert "was killed, has not ended yet" in caplog.text


def test_a_job_is_given_to_another_only_when_the_worker_that_stalled_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would write to the same file. And the loop goes on meanwhile."""

    async def run() -> None:
        engine, job = sealed(tmp_path)
        running = Running()
        assert await running.run(job) is not None
        (worker,) = running.pool._workers()
        os.kill(worker.process.pid, signal.SIGSTOP)
        running.pool.patience = 0.05
        with monkeypatch.context() as patch:
            patch.setattr(worker.process, "poll", lambda: None)
            running.jobs.start(job)
            await asyncio.sleep(0.5)
            assert len(running.done) == 1
            assert not running.failed
        async with asyncio.timeout(LONG):
            while not running.failed:  # noqa: ASYNC110  (no event for it)
                await asyncio.sleep(0.01)
        await running.jobs.close()
        engine.close()

    asyncio.run(run())


def test_a_job_that_is_more_than_the_pipe_takes_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    async def run() -> None:
        running = Running()
        names = tuple(f"{i:0100d}" for i in range(20_000))
        began = time.monotonic()
        running.jobs.start(RemovalJob(str(tmp_path), names))
        (worker,) = running.pool._workers()
        assert len(worker.unsent) > 1_000_000, "the worker cannot have read it yet"
        assert time.monotonic() - began < PATIENCE
        async with asyncio.timeout(LONG):
            while not running.done:  # noqa: ASYNC110  (no event for it)
                await asyncio.sleep(0.01)
        assert running.done == [JobResult(RemovalJob(str(tmp_path), names), ())]
        await running.jobs.close()

    asyncio.run(run())


@pytest.mark.parametrize(("long", "lines"), [(0.0, 1), (LONG, 0)])
def test_a_flush_that_takes_long_is_worth_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, long: float, lines: int
) -> None:
    monkeypatch.setattr("kvstore.server.jobs._LONG_SECONDS", long)

    async def run() -> None:
        engine, job = sealed(tmp_path)
        running = Running()
        with caplog.at_level(logging.INFO, "kvstore"):
            assert await running.run(job) is not None
        await running.jobs.close()
        engine.close()

    asyncio.run(run())
    assert len(re.findall(r"a flush took \d+\.\d s: 1 tables, \d+ bytes", caplog.text)) == lines


def test_a_worker_that_cannot_be_started_fails_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        running = Running()
        with monkeypatch.context() as patch:
            patch.setattr("kvstore.store.worker_pool.command", lambda lifeline: [str(tmp_path / "nothing")])
            assert await running.run(job) is None
        assert await running.run(job) is not None
        await running.jobs.close()
        engine.close()

    asyncio.run(run())
    assert "no worker process could be started" in caplog.text


def test_closing_may_be_cancelled_and_called_again(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        running = Running()
        assert await running.run(job) is not None
        closing = asyncio.create_task(running.jobs.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        for _ in range(2):
            await running.jobs.close()
            assert workers() == []
        engine.close()

    asyncio.run(run())


def test_no_job_is_begun_once_jobs_are_closed(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        running = Running()
        await running.jobs.close()
        running.jobs.start(job)
        await asyncio.sleep(0.1)
        assert (workers(), running.done, running.failed) == ([], [], [])
        engine.close()

    asyncio.run(run())


def test_jobs_run_beside_each_other(tmp_path: Path) -> None:
    """A flush does not wait for a compaction that takes its time."""

    async def run() -> None:
        engine, flush = sealed(tmp_path / "a")
        slow, _ = sealed(tmp_path / "b", Options(memtable_bytes=1000, compaction_rate=1))
        slow.flush()
        slow.write([(b"more", b"v")])
        slow.flush()
        compaction = slow.maintenance._compactions.full()
        assert compaction is not None
        running = Running()
        running.jobs.start(compaction)
        result = await running.run(flush)
        assert result is not None
        assert result.job == flush
        await running.jobs.close()
        assert workers() == []
        engine.close()
        slow.close()

    asyncio.run(run())


def test_a_pacer_keeps_its_rate_and_shows_that_it_lives() -> None:
    beats: list[float] = []
    pacer = Pacer(1000, lambda: beats.append(time.monotonic()))
    began = time.monotonic()
    for _ in range(12):
        pacer(100)
    assert time.monotonic() - began >= 1.2
    assert beats


def test_the_worker_imports_no_grpc() -> None:
    code = "import kvstore.store.worker, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    modules = done.stdout.split()
    assert "kvstore.lsm.jobs" in modules
    assert [module for module in modules if "grpc" in module or "asyncio" in module] == []

"""The worker process: it does jobs, outlives none of them badly, and knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from kvstore.lsm import DiskFileSystem, Engine, FlushJob, Job, JobResult, Options
from kvstore.lsm.sstable import WHOLE
from kvstore.lsm.worker import Pacer
from kvstore.server import worker as worker_module
from kvstore.server.jobs import Jobs
from kvstore.server.worker import Worker
from tests.patience import PATIENCE

SMALL = Options(memtable_bytes=1000)
LONG = 5 * PATIENCE
"""Seconds: a worker gives way to all others. Beside 16 busy processes one took more than 60 to start."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker is given up because the machine is busy."""
    monkeypatch.setattr(worker_module, "STALLED", LONG)


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
            if any("kvstore.lsm.worker" in argument for argument in child.cmdline()):
                found.append(child)
    return found


def reap(process: psutil.Process) -> None:
    """End a worker, and take its exit status away from whoever else asks for it."""
    process.kill()
    os.waitpid(process.pid, 0)


def test_a_job_is_done_in_another_process_that_stays_for_the_next(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        worker = Worker()
        assert workers() == []
        result = await worker.run(job)
        assert isinstance(result, JobResult)
        assert result.tables
        (process,) = workers()
        assert os.getsid(process.pid) == os.getsid(0), "niceness counts only within a session"
        assert process.nice() == 19
        assert os.getpgid(process.pid) != os.getpgid(0), "Ctrl-C is for the owner"
        assert await worker.run(job) == result
        assert workers() == [process]
        engine.job_done(result)
        assert engine.get(b"1") == b"v" * 100
        await worker.close()
        assert workers() == []
        engine.close()

    asyncio.run(run())


def test_a_job_that_meets_damage_says_where_and_the_worker_lives(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        worker = Worker()
        assert isinstance(job, FlushJob)
        wrong = FlushJob(str(tmp_path / "nowhere"), job.segment, job.floor, job.last_lsn, (9,), job.options)
        met = await worker.run(wrong)
        assert met is not None
        assert (met.tables, met.damaged, met.reason) == ((), ((job.segment, WHOLE),), "is missing")
        engine.job_done(JobResult(job, (), met.damaged))  # it is in memory still
        assert engine.statistics().tables == 1
        await worker.close()
        engine.close()

    asyncio.run(run())


def test_a_killed_worker_fails_its_job_and_the_next_finds_another(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        done: list[JobResult] = []
        failed: list[Job] = []
        jobs = Jobs(done.append, failed.append, lambda error: None)
        worker = Worker()
        jobs._workers.append(worker)
        jobs._idle.append(worker)
        assert await worker.run(job) is not None
        (process,) = workers()
        process.suspend()
        jobs.start(job)
        await asyncio.sleep(0.05)
        process.kill()
        async with asyncio.timeout(LONG):
            while not failed:  # noqa: ASYNC110  (no event for it)
                await asyncio.sleep(0.01)
        assert (done, failed) == ([], [job])
        jobs.start(job)
        async with asyncio.timeout(LONG):
            while not done:  # noqa: ASYNC110  (no event for it)
                await asyncio.sleep(0.01)
        await jobs.close()
        assert workers() == []
        engine.close()

    asyncio.run(run())


def test_a_worker_that_stalls_is_given_up_and_the_job_leaves_no_file(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        worker = Worker()
        assert await worker.run(job) is not None
        (process,) = workers()
        process.suspend()
        worker.patience = 0.2
        assert await worker.run(job) is None
        assert worker.patience == 0.4, "or a worker that gets no processor would be begun anew for ever"
        assert workers() == []
        engine.job_failed(job)
        assert engine.statistics().tables == 0
        assert not any(name.endswith(".sst") for name in DiskFileSystem().list(str(tmp_path / "engine")))
        (again,) = engine.take_jobs()
        worker.patience = LONG
        result = await worker.run(again)
        assert result is not None
        await worker.close()
        engine.job_done(result)
        assert engine.get(b"1") == b"v" * 100
        engine.close()

    asyncio.run(run())


def test_a_worker_whose_end_somebody_else_has_seen_is_replaced(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        worker = Worker()
        assert await worker.run(job) is not None
        (process,) = workers()
        reap(process)
        assert await worker.run(job) is not None
        (process,) = workers()
        reap(process)
        await worker.close()
        assert workers() == []
        engine.close()

    asyncio.run(run())


def test_a_killed_worker_that_does_not_get_the_processor_does_not_keep_its_node_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With 20 busy processes on two processors one took 3 s to end: its priority is the lowest there is."""
    monkeypatch.setattr(worker_module, "_END_SECONDS", 0.05)

    async def run() -> None:
        engine, job = sealed(tmp_path)
        worker = Worker()
        assert await worker.run(job) is not None
        assert worker._process is not None
        popen = worker._process._popen
        with monkeypatch.context() as patch:
            patch.setattr(popen, "poll", lambda: None)
            async with asyncio.timeout(LONG):
                await worker.close()
        popen.wait(PATIENCE)
        engine.close()

    asyncio.run(run())
    assert "was killed, has not ended yet" in caplog.text


def test_no_job_is_begun_once_jobs_are_closed(tmp_path: Path) -> None:
    async def run() -> None:
        engine, job = sealed(tmp_path)
        jobs = Jobs(lambda result: None, lambda job: None, lambda error: None)
        await jobs.close()
        jobs.start(job)
        assert asyncio.all_tasks() == {asyncio.current_task()}
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
        compaction = slow._maintenance.full_compaction()
        assert compaction is not None
        done: list[JobResult] = []
        jobs = Jobs(done.append, lambda job: None, lambda error: None)
        jobs.start(compaction)
        jobs.start(flush)
        async with asyncio.timeout(LONG):
            while not done:  # noqa: ASYNC110  (no event for it)
                await asyncio.sleep(0.01)
        assert done[0].job == flush
        await jobs.close()
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
    code = "import kvstore.lsm.worker, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    modules = done.stdout.split()
    assert "kvstore.lsm.jobs" in modules
    assert [module for module in modules if "grpc" in module or "asyncio" in module] == []

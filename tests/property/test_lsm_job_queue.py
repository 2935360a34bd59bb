"""The queue of jobs in every order of events: none is lost, none is done twice, none is offered too soon."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvstore.errors import Corruption, StorageFailed, StorageFull
from kvstore.lsm import Engine, Job, JobQueue, JobResult, MemoryFileSystem, Options, RemovalJob, run_job
from kvstore.lsm.job_queue import PAUSE


def job(number: int) -> Job:
    return RemovalJob("nowhere", (f"{number}",))


class Shell:
    """Notes what the queue decides; jobs end and results can be used as a test says."""

    def __init__(self) -> None:
        self.queue = JobQueue(self)
        self.now = 100.0
        self.running: list[Job] = []
        self.used: list[Job] = []
        self.waiting: dict[str, float] = {}
        """The jobs that were put off, and until when."""
        self.given_back: list[Job] = []
        self.full: list[bool] = []
        """Of each job that was put off: whether its result could not be used."""
        self.fatal: list[Exception] = []
        self.cannot_use: Exception | None = None
        self.given_out = 0

    def run_job(self, job: Job) -> None:
        self.running.append(job)

    def use(self, result: JobResult) -> None:
        assert len(self.queue) > 0, "it counts until its result is in use"
        if self.cannot_use is not None:
            raise self.cannot_use
        self.used.append(result.job)

    def put_off(self, job: Job, seconds: float, error: StorageFull | None) -> None:
        assert seconds == PAUSE
        self.waiting[str(job)] = self.now + seconds
        self.full.append(error is not None)

    def give_back(self, job: Job) -> None:
        assert self.waiting.pop(str(job)) <= self.now, "it is offered again too soon"
        self.given_back.append(job)

    def on_fatal(self, error: Exception) -> None:
        self.fatal.append(error)

    def start(self) -> None:
        self.given_out += 1
        self.queue.start(job(self.given_out))

    def end(self, which: int, well: bool) -> None:
        if self.running:
            job = self.running.pop(which % len(self.running))
            self.queue.finished(job, JobResult(job, ()) if well else None, self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.queue.offer_again(self.now)


steps = st.lists(
    st.one_of(
        st.just(("start", 0)),
        st.tuples(st.sampled_from(("done", "failed", "full", "damaged")), st.integers(0, 5)),
        st.tuples(st.just("time"), st.sampled_from((0.0, 0.3, 0.7, 1.0))),
    ),
    max_size=40,
)


@given(steps=steps)
@example([("start", 0), ("start", 0), ("failed", 0), ("time", 0.7), ("failed", 0), ("time", 0.3)])
def test_every_job_is_used_once_or_given_back_after_a_pause(steps: list[tuple[str, float]]) -> None:
    shell = Shell()
    for name, number in steps:
        shell.cannot_use = None
        ended = len(shell.used) + len(shell.given_back)
        match name:
            case "start":
                shell.start()
                if shell.fatal:
                    shell.given_out -= 1
            case "time":
                shell.pass_time(number)
            case "damaged" if len(shell.running) % 4:  # rarely: little can be seen behind it
                continue
            case _:
                shell.cannot_use = {"full": StorageFull("f"), "damaged": Corruption("t", "bad")}.get(name)
                shell.end(int(number), name != "failed")
        if shell.fatal:
            assert len(shell.fatal) == 1
            assert len(shell.used) + len(shell.given_back) in (ended, ended + 1)
            continue
        assert len(shell.queue) == len(shell.running) + len(shell.waiting)
        assert shell.queue.waits == bool(shell.waiting)
        assert name != "time" or all(due > shell.now for due in shell.waiting.values()), "it is forgotten"
        assert shell.given_out == len(shell.used) + len(shell.given_back) + len(shell.queue)


def test_a_result_without_space_is_offered_again_and_so_is_a_job_that_failed() -> None:
    shell = Shell()
    for _ in range(2):
        shell.start()
    shell.cannot_use = StorageFull("no space")
    shell.end(0, well=True)
    shell.pass_time(0.5)
    shell.end(0, well=False)
    assert shell.full == [True, False]
    shell.pass_time(0.5)
    assert shell.given_back == [job(1)]
    shell.pass_time(0.5)
    assert shell.given_back == [job(1), job(2)]
    assert (len(shell.queue), shell.used) == (0, [])


@pytest.mark.parametrize("error", [StorageFailed("broken"), Corruption("t", "bad"), ZeroDivisionError()])
def test_a_result_that_may_be_half_in_use_is_the_end(error: Exception) -> None:
    shell = Shell()
    for _ in range(3):
        shell.start()
    shell.end(0, well=False)
    shell.cannot_use = error
    shell.end(0, well=True)
    assert shell.fatal == [error]
    shell.cannot_use = None
    shell.end(0, well=True)
    shell.start()
    shell.pass_time(10.0)
    assert (shell.used, shell.given_back, shell.running) == ([], [], []), "it goes on"
    assert shell.queue.stop() == [job(3), job(1)], "what is half in use must not be removed as abandoned"


def test_stopping_abandons_what_runs_and_what_waits() -> None:
    shell = Shell()
    for _ in range(3):
        shell.start()
    shell.end(1, well=False)
    assert shell.queue.stop() == [job(1), job(3), job(2)]
    assert shell.queue.stop() == []
    shell.end(0, well=True)
    shell.end(0, well=False)
    shell.start()
    shell.pass_time(10.0)
    assert (shell.used, shell.given_back, shell.running, len(shell.queue)) == ([], [], [], 0)


class OnEngine:
    """The queue on a real engine, with jobs done in place."""

    def __init__(self, fs: MemoryFileSystem) -> None:
        self.fs = fs
        self.engine = Engine.open(fs, "d", Options(memtable_bytes=500, tier_tables=2))
        self.queue = JobQueue(self)
        self.now = 0.0
        self.running: list[Job] = []

    def run_job(self, job: Job) -> None:
        self.running.append(job)

    def use(self, result: JobResult) -> None:
        self.engine.job_done(result)

    def put_off(self, job: Job, seconds: float, error: StorageFull | None) -> None:
        pass

    def give_back(self, job: Job) -> None:
        self.engine.job_failed(job)

    def on_fatal(self, error: Exception) -> None:
        raise error

    def turn(self, fails: bool) -> None:
        self.now += PAUSE
        self.queue.offer_again(self.now)
        for job in self.engine.take_jobs():
            self.queue.start(job)
        while self.running:
            job = self.running.pop(0)
            self.queue.finished(job, None if fails else run_job(self.fs, job), self.now)


@given(fails=st.lists(st.booleans(), min_size=1, max_size=12))
def test_an_engine_whose_jobs_fail_again_and_again_has_them_done_in_the_end(fails: list[bool]) -> None:
    shell = OnEngine(MemoryFileSystem())
    written: dict[bytes, bytes] = {}
    for i, failing in enumerate(fails):
        written[b"%d" % i] = b"v" * 300
        shell.engine.write([(b"%d" % i, b"v" * 300)])
        shell.turn(failing)
        shell.engine.sync()
        while shell.engine.back_pressure.write_delay() > 0.01:
            shell.turn(fails=False)
    for _ in range(10):
        shell.turn(fails=False)
    assert len(shell.queue) == 0
    assert shell.engine.statistics().sealed_memtables == 0
    assert dict(shell.engine.scan()) == written
    shell.engine.close()

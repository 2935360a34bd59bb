"""The worker's own part: frames, how jobs end, how fast they go. Real processes: test_server_worker.py."""

from __future__ import annotations

import io
import os
import random
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from kvstore.config import MIB
from kvstore.lsm import CompactionJob, Engine, Options
from kvstore.lsm.job_codec import decode_result, encode_job
from kvstore.lsm.jobs import run_job
from kvstore.lsm.messages import RemovalJob
from kvstore.store import DiskFileSystem
from kvstore.store import worker as worker_module
from kvstore.store.worker import Pacer, main, read_frame
from kvstore.store.worker_driver import DONE, FAILED, STALLED, WORKING, frame, more_patience
from tests.patience import PATIENCE


class Reader(io.BytesIO):
    """A pipe that gives at most a few bytes at a time, and remembers what it was asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.asked: list[int] = []

    def read(self, size: int | None = -1, /) -> bytes:
        self.asked.append(size or 0)
        return super().read(size if size is None or size <= 4 else min(size, 50_000))


@pytest.mark.parametrize("size", [0, 1, 3, 70_000, 200_000])
def test_frames_arrive_whole_one_after_the_other(size: int) -> None:
    stream = Reader(frame(b"a" * size) + frame(b"next"))
    assert read_frame(stream) == b"a" * size
    assert read_frame(stream) == b"next"
    assert read_frame(stream) is None


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 10])
def test_a_frame_that_is_cut_is_the_end(cut: int) -> None:
    assert read_frame(Reader(frame(b"something")[:cut])) is None


def test_a_wrong_length_does_not_cost_the_memory_it_names() -> None:
    stream = Reader(b"\xff\xff\xff\xff" + b"short")
    assert read_frame(stream) is None
    assert max(stream.asked) <= 64 * 1024


def test_patience_doubles_up_to_a_bound_and_never_falls() -> None:
    waits = [STALLED]
    for _ in range(10):
        waits.append(more_patience(waits[-1]))
    assert waits[:4] == [60, 120, 240, 480]
    assert waits[-1] == 16 * STALLED
    assert more_patience(5000.0) == 5000.0


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(worker_module, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 1, "a beat is due each second"
        self.now += seconds


def test_a_pacer_rests_as_long_as_the_rate_wants_and_beats_each_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    beats: list[float] = []
    pacer = Pacer(100, lambda: beats.append(clock.now))
    pacer(50)
    assert clock.now == pytest.approx(0.5)
    pacer(300)
    assert clock.now == pytest.approx(3.5)
    assert beats == pytest.approx([1.5, 2.5, 3.5])
    clock.now = 60.0
    pacer(10)  # what was not used up while it did something else is not saved
    assert clock.now == pytest.approx(60.1)
    unbounded = Pacer(0, lambda: beats.append(clock.now))
    unbounded(1 << 40)
    assert clock.now == pytest.approx(60.1)


def engine_with_tables(directory: Path, rate: int) -> tuple[Engine, CompactionJob]:
    """An engine that wants a compaction, and the job of it."""
    options = Options(memtable_bytes=2000, compaction_rate=rate, tier_tables=2)
    engine = Engine.open(DiskFileSystem(), str(directory / "engine"), options)
    rng = random.Random(7)
    for i in range(100):
        engine.write([(b"%d" % i, rng.randbytes(100))])
        if i % 20 == 19:
            engine.flush()
            for job in engine.take_jobs():
                if isinstance(job, CompactionJob):
                    return engine, job
                engine.job_done(run_job(DiskFileSystem(), job))
    raise AssertionError("no compaction was wanted")


def answers(monkeypatch: pytest.MonkeyPatch, *jobs: bytes) -> list[bytes]:
    """What a worker whose owner lives writes for these inputs until they end; it runs here."""
    output = io.BytesIO()
    reading, writing = os.pipe()
    ended = threading.Event()
    monkeypatch.setattr("sys.argv", ["worker", str(reading)])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"".join(map(frame, jobs)))))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=output))
    monkeypatch.setattr("os._exit", lambda code: ended.set())
    try:
        main()
        assert not ended.is_set()
    finally:
        os.close(writing)  # so the owner ends, and then the worker does
        assert ended.wait(PATIENCE)
        os.close(reading)
    output.seek(0)
    found = []
    while (answer := read_frame(output)) is not None:
        found.append(answer)
    return found


def test_jobs_are_done_in_turn_and_one_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, job = engine_with_tables(tmp_path, rate=0)
    before = list(engine.scan())
    (tmp_path / "directory").mkdir()
    impossible = RemovalJob(str(tmp_path), ("directory",))
    failed, done = answers(monkeypatch, encode_job(impossible), encode_job(job))
    assert failed[:1] == FAILED
    assert str(tmp_path / "directory").encode() in failed
    assert done[:1] == DONE
    tables = engine.statistics().tables
    engine.job_done(decode_result(done[1:]))
    assert engine.statistics().tables < tables
    assert list(engine.scan()) == before
    engine.close()


def test_a_compaction_keeps_its_rate_and_shows_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, job = engine_with_tables(tmp_path, rate=500)
    clock = Clock(monkeypatch)
    *beats, done = answers(monkeypatch, encode_job(job))
    (table,) = decode_result(done[1:]).tables
    assert clock.now >= 0.9 * table.size / 500 > 3
    assert beats == [WORKING] * int(clock.now)
    engine.close()


def test_removed_files_are_freed_at_a_rate_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 64 * MIB
    with (tmp_path / "old.sst").open("wb") as file:
        file.truncate(size)
    clock = Clock(monkeypatch)
    (done,) = answers(monkeypatch, encode_job(RemovalJob(str(tmp_path), ("old.sst",))))
    assert done[:1] == DONE
    assert not (tmp_path / "old.sst").exists()
    assert clock.now == pytest.approx(size / (128 * MIB), rel=0.1)

"""The owner's part with a worker: whatever arrives, in whatever pieces, a job has one end, and in time."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import Corruption
from kvstore.lsm import JobResult, MemoryFileSystem, RemovalJob, decode_job, encode_result, run_job
from kvstore.store.worker_driver import (
    DONE,
    FAILED,
    STALLED,
    WORKING,
    JobEnd,
    WorkerDriver,
    answer,
    content,
    frame,
)

JOB = RemovalJob("d", ("1.sst",))
RESULT = JobResult(JOB, ())
WELL = DONE + encode_result(RESULT)
ENDS = {
    WELL: JobEnd(JOB, RESULT),
    FAILED + b"no space": JobEnd(JOB, None, "no space"),
    FAILED: JobEnd(JOB, None),
}


def busy(patience: float = STALLED) -> WorkerDriver:
    driver = WorkerDriver()
    assert decode_job(content(driver.give(JOB, 0.0, patience))) == JOB
    return driver


def in_pieces(driver: WorkerDriver, data: bytes, cuts: list[int]) -> list[JobEnd]:
    """The ends that were told; nothing is behind the first."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    told = [driver.receive(data[a:b], 0.0) for a, b in pairwise(places)]
    assert all(end is None for end in told[:-1]), "an end before all of it was there"
    return [end for end in told if end is not None]


@given(
    beats=st.integers(0, 4), message=st.sampled_from([*ENDS]), cuts=st.lists(st.integers(0, 200), max_size=9)
)
def test_an_answer_is_understood_in_whatever_pieces_it_comes(
    beats: int, message: bytes, cuts: list[int]
) -> None:
    driver = busy()
    for _ in range(2):  # one job after the other
        assert in_pieces(driver, frame(WORKING) * beats + frame(message), cuts) == [ENDS[message]]
        assert driver.deadline == inf
        driver.give(JOB, 0.0)


@pytest.mark.parametrize("message", [b"", b"\7", DONE, DONE + b"rubbish", DONE + WELL, WORKING + b"more"])
def test_a_worker_that_talks_nonsense_is_ended(message: bytes) -> None:
    end = busy().receive(frame(message), 0.0)
    assert end is not None
    assert (end.job, end.result, end.worker_lost) == (JOB, None, True)
    assert "answered" in end.reason


@given(data=st.binary(max_size=60))
def test_no_bytes_do_harm(data: bytes) -> None:
    end = busy().receive(data, 0.0)
    assert end is None or end.result is None


def test_it_is_given_up_after_silence_and_not_while_it_shows_that_it_lives() -> None:
    driver = busy(patience=10.0)
    for now in (0.0, 9.0):
        assert driver.silent(now) is None
    assert driver.receive(frame(WORKING), 9.5) is None
    assert driver.receive(frame(WORKING)[:3], 19.0) is None, "half a message shows nothing"
    assert (driver.deadline, driver.silent(19.4)) == (19.5, None)
    end = driver.silent(19.5)
    assert end == JobEnd(JOB, None, "the worker process stalled", worker_lost=True)
    assert (driver.deadline, driver.silent(1000.0)) == (inf, None)


def test_what_a_worker_left_unsaid_is_no_part_of_the_next_answer() -> None:
    driver = busy()
    driver.receive(frame(WELL)[:-1], 0.0)
    assert driver.gone("killed") == JobEnd(JOB, None, "the worker process died: killed", worker_lost=True)
    driver.give(JOB, 0.0)
    assert driver.receive(frame(WELL), 0.0) == JobEnd(JOB, RESULT)


def test_the_worker_answers_what_the_owner_understands() -> None:
    fs = MemoryFileSystem()
    run = partial(run_job, fs)
    driver = WorkerDriver()
    asked = content(driver.give(JOB, 0.0))
    assert driver.receive(frame(answer(run, asked)), 0.0) == JobEnd(JOB, RESULT)
    fs.broken = True
    asked = content(driver.give(JOB, 0.0))
    end = driver.receive(frame(answer(run, asked)), 0.0)
    assert end is not None
    assert (end.result, end.worker_lost) == (None, False)
    assert "input/output error" in end.reason
    with pytest.raises(Corruption):
        answer(run, b"rubbish")

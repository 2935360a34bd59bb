"""The calls of one connection: what may wait, what a frame may answer."""

from __future__ import annotations

import pytest

from kvstore.client.core import calls as calls_module
from kvstore.client.core.calls import Calls
from kvstore.client.core.waiter import Answer
from kvstore.config import BucketSettings
from kvstore.errors import InvalidRequest, NodeStopping, Overloaded
from tests.plain import Get, Put
from tests.unit.core_client import FOUND


class Asker:
    """Notes how its call ended: see kvstore.client.core.calls."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.has_left = False

    def left(self) -> bool:
        return self.has_left

    def on_answer(self, answer: Answer, now: float) -> None:
        self.answers.append(answer)


def opened() -> Calls:
    return Calls("h:1", BucketSettings, lambda _: None)


def test_calls_beyond_the_bound_of_the_queue_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "MAX_IN_FLIGHT", 2)
    monkeypatch.setattr(calls_module, "MAX_QUEUED", 3)
    calls = opened()

    def submit() -> Asker:
        asker = Asker()
        calls.submit(Put("b", b"k", b"v"), 60.0, 1, asker)
        return asker

    sent = [submit(), submit()]
    assert calls.take_frame(0.0)
    waiting = [submit() for _ in range(3)]
    for _ in range(4):
        with pytest.raises(Overloaded) as caught:
            submit()
        assert caught.value.retry_after >= 0.05
    waiting[0].has_left = True
    calls.sweep(60.0)
    assert [type(each.answers[0]).__name__ for each in sent] == ["WriteTimeout"] * 2
    assert all(isinstance(each.answers[0], Overloaded) for each in waiting)
    assert [submit().answers for _ in range(3)] == [[]] * 3, "the places are free again"


def test_a_reply_to_what_was_not_sent_is_refused_and_counts_for_nothing() -> None:
    """It was counted as one less in flight, and the call as one that waits, for ever."""
    calls, asker = opened(), Asker()
    calls.submit(Get("b", b"k"), 1.0, 1, asker)
    with pytest.raises(InvalidRequest, match="which has not been sent"):
        calls.answer([(1, FOUND)], 0.0)
    assert (calls._waiting, calls._in_flight, asker.answers) == (1, 0, [])
    calls.take_frame(0.0)
    calls.answer([(1, FOUND)], 0.0)
    assert asker.answers == [FOUND]
    assert (calls._waiting, calls._in_flight) == (0, 0)


def test_calls_that_come_while_a_frame_could_not_be_taken_are_announced_once_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls_module, "MAX_IN_FLIGHT", 1)
    woken: list[Calls] = []
    calls = Calls("h:1", BucketSettings, woken.append)
    for _ in range(2):
        calls.submit(Get("b", b"k"), 1.0, 1, Asker())
    assert woken == [calls]
    assert calls.take_frame(0.0)
    assert not calls.sendable
    calls.answer([(1, FOUND)], 0.1)
    assert woken == [calls, calls]
    assert calls.sendable
    calls.sweep(1.0)
    assert not calls.sendable


def test_a_node_that_stops_is_sent_nothing_more_and_is_left_when_it_has_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls_module, "MAX_IN_FLIGHT", 1)
    calls, sent, waits = opened(), Asker(), Asker()
    calls.ready = True
    for asker in (sent, waits):
        calls.submit(Get("b", b"k"), 1.0, 1, asker)
    assert calls.take_frame(0.0)
    assert not calls.over
    calls.on_stopping(0.1)
    assert [type(answer) for answer in waits.answers] == [NodeStopping]
    assert (sent.answers, calls.ready, calls.over) == ([], False, False)
    calls.answer([(1, FOUND)], 0.2)
    assert (sent.answers, calls.over, calls.sendable, calls._waiting) == ([FOUND], True, False, 0)
    calls.fail_all("it was left", 0.3)
    assert not calls.over, "the next connection is another one"

"""A batch: so many requests under way at a time, each answered in its place."""

from __future__ import annotations

import pytest

from kvstore.client.core import window as window_module
from kvstore.client.core.waiter import Waiter
from kvstore.client.core.window import Window
from kvstore.client.errors import ClientClosed
from kvstore.errors import Unavailable
from kvstore.protocol.client import ClientRequest, Stored
from kvstore.versions import NO_CONTEXT
from tests.plain import Get
from tests.unit.core_client import PUT, World


class Batch:
    """A window of three whose requests are answered by hand."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(window_module, "BATCH_CALLS", 3)
        self.begun: list[tuple[ClientRequest, Waiter]] = []
        self.ended: list[bool] = []
        self.has_left = False
        requests = [Get("b", b"%d" % i) for i in range(count)]
        self.window = Window(requests, self._begin, self._end, lambda: self.has_left)
        self.window.open()

    def _begin(self, request: ClientRequest, waiter: Waiter) -> None:
        self.begun.append((request, waiter))

    def _end(self) -> None:
        self.ended.append(True)

    @property
    def keys(self) -> list[bytes]:
        return [request.key for request, _ in self.begun]


def test_the_next_is_begun_when_one_has_ended_and_answers_keep_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = Batch(5, monkeypatch)
    assert batch.keys == [b"0", b"1", b"2"]
    refused = Unavailable(2, 1)
    batch.begun[2][1].set_exception(refused)
    batch.begun[0][1].set_result(Stored(NO_CONTEXT, 0))
    assert batch.keys == [b"0", b"1", b"2", b"3", b"4"]
    for i in (4, 3):
        batch.begun[i][1].set_result(Stored(NO_CONTEXT, i))
    assert not batch.ended
    batch.begun[1][1].set_result(Stored(NO_CONTEXT, 1))
    assert batch.ended == [True]
    zero, one, three, four = (Stored(NO_CONTEXT, i) for i in (0, 1, 3, 4))
    assert batch.window.answers == [zero, one, refused, three, four]


def test_an_empty_batch_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(0, monkeypatch)
    assert batch.ended == [True]
    assert batch.window.answers == []


def test_nothing_more_is_begun_for_a_caller_who_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(5, monkeypatch)
    assert not batch.begun[1][1].done()
    batch.has_left = True
    assert all(waiter.done() for _, waiter in batch.begun), "so what waits is not sent either"
    batch.begun[0][1].set_result(Stored(NO_CONTEXT, 0))
    assert len(batch.begun) == 3


def test_requests_that_end_while_they_are_begun_may_be_any_number() -> None:
    """Each began the next from within itself."""
    world = World()
    world.core.close(world.now)
    ended: list[bool] = []
    window = Window(
        [PUT] * 20_000,
        lambda request, waiter: world.core.begin(request, waiter, world.now),
        lambda: ended.append(True),
        lambda: False,
    )
    window.open()
    assert ended == [True]
    assert len(window.answers) == 20_000
    assert all(isinstance(each, ClientClosed) for each in window.answers)

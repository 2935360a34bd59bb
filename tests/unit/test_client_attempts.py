"""One request of the client's core, through all its states: what moves it, and what its caller is told."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from kvstore.client.core import calls as calls_module
from kvstore.client.core.attempts import Attempts
from kvstore.client.core.retry import ATTEMPTS, pause, reconnect_pause
from kvstore.client.core.states import MOVES, Event, State
from kvstore.client.errors import ClientClosed
from kvstore.errors import (
    KVError,
    NoNodeAvailable,
    Outcome,
    Overloaded,
    ReadTimeout,
    StaleRead,
    StaleRing,
    Unavailable,
    WriteTimeout,
)
from kvstore.protocol.client import ClientRequest, Put
from tests.plain import Delete, Get
from tests.unit.core_client import FOUND, PUT, STORED, Caller, World
from tools.client_states import PAGE, drawn

GET = Get("b", b"k", timeout=4.0)


def goes_to_the_first_replica_and_back() -> None:
    world = World()
    caller = world.begin()
    first = world.core.routing.at(world.replicas[0])
    assert world.flush() == [first.address]
    world.reply(first.address, STORED)
    assert caller.answer == STORED
    assert not world.core.retries


def without_a_node_waits_until_there_is_one_or_its_time_is_up() -> None:
    world = World(connected=False)
    caller, impatient = world.begin(), world.begin(msgspec.structs.replace(PUT, timeout=1.0))
    world.advance(1.0)
    assert isinstance(impatient.answer, NoNodeAvailable)
    assert impatient.answer.errors == dict.fromkeys(world.core.routing.nodes, "no connection yet")
    assert impatient.answer.outcome is Outcome.NOT_APPLIED
    world.core.on_connected(world.connections[2], world.state, world.now)
    assert world.flush() == [world.connections[2].address]
    world.reply(world.connections[2].address, STORED)
    assert caller.answer == STORED


def refused_and_not_applied_goes_to_another_replica_after_a_pause() -> None:
    world = World()
    caller = world.begin()
    (first,) = world.flush()
    world.fail(first, Unavailable(2, 1))
    assert not world.flush(), "without a pause"
    world.advance(0.05)
    (second,) = world.flush()
    assert second == world.core.routing.at(world.replicas[1]).address
    world.reply(second, STORED)
    assert caller.answer == STORED
    assert world.core.retries == {"Unavailable": 1}


def refused_for_good_ends_at_once() -> None:
    for request, error in ((PUT, WriteTimeout(1, 2)), (PUT, NoNodeAvailable({}, Outcome.UNKNOWN))):
        world = World()
        caller = world.begin(request)
        world.fail(world.flush_one(), error)
        assert caller.answer is error
        world.advance(10.0)
        assert not world.flush()
        assert not world.core.retries


def by_a_stale_ring_waits_for_another_and_then_pauses() -> None:
    world = World()
    caller, another = world.begin(), world.begin(msgspec.structs.replace(PUT, timeout=0.5))
    world.fail(world.flush_one(), StaleRing(2))
    world.advance(0.2)
    assert world.fetched == [list(world.core.routing.nodes)], "they share one fetch"
    world.advance(0.3)
    assert isinstance(another.answer, StaleRing), "its time is up"
    world.core.on_fetched(None, world.now)
    world.advance(0.05)
    world.reply(world.flush_one(), STORED)
    assert caller.answer == STORED


def whose_ring_came_too_late_ends_with_what_it_was_refused_for() -> None:
    world = World()
    caller = world.begin(msgspec.structs.replace(PUT, timeout=0.5))
    world.fail(world.flush_one(), StaleRing(2))
    world.advance(0.499)
    world.core.on_fetched(None, world.now)
    assert isinstance(caller.answer, StaleRing)


def whose_caller_leaves_is_not_sent_again() -> None:
    world = World()
    unsent, sent = world.begin(), world.begin()
    unsent.has_left = True
    (first,) = world.flush()
    assert len(world.sent[first]) == 1, "nor is it sent at all"
    sent.has_left = True
    world.reply(first, STORED)
    for error in (Unavailable(2, 1), StaleRing(2)):
        left, closed = world.begin(), world.begin()
        (first,) = world.flush()
        world.fail(first, error)
        left.has_left = True
        world.advance(0.1)
        world.core.on_fetched(None, world.now)
        world.advance(0.1)
        assert [len(world.sent[each]) for each in world.flush()] == [1]
        closed.has_left = True
        world.lose(next(iter(world.flushed)))
        world.core.on_connected(world.calls(world.flushed[0]), world.state, world.now)
        assert not left.answers + closed.answers
    for calls in world.core.routing.nodes.values():
        world.lose(calls.address)
    waiting = world.begin()
    waiting.has_left = True
    world.core.on_connected(world.calls(first), world.state, world.now)
    world.advance(10.0)
    assert not world.flush()


def waiting_when_its_client_is_closed_is_told_so() -> None:
    world = World()
    pausing, stale, sent, read = world.begin(), world.begin(), world.begin(), world.begin(GET)
    (first,) = world.flush()
    assert [type(request) for _, request in world.sent[first]] == [Put, Put, Put, Get]
    world.reply_to(first, 0, Unavailable(2, 1))
    world.reply_to(first, 0, StaleRing(2))
    world.core.close(world.now)
    assert all(isinstance(each.answer, ClientClosed) for each in (pausing, stale, read))
    assert isinstance(sent.answer, NoNodeAvailable)
    assert sent.answer.outcome is Outcome.UNKNOWN
    assert isinstance(world.begin().answer, ClientClosed)
    world = World(connected=False)
    waiting = world.begin()
    world.core.close(world.now)
    assert isinstance(waiting.answer, ClientClosed)


COURSES: tuple[Callable[[], None], ...] = (
    goes_to_the_first_replica_and_back,
    without_a_node_waits_until_there_is_one_or_its_time_is_up,
    refused_and_not_applied_goes_to_another_replica_after_a_pause,
    refused_for_good_ends_at_once,
    by_a_stale_ring_waits_for_another_and_then_pauses,
    whose_ring_came_too_late_ends_with_what_it_was_refused_for,
    whose_caller_leaves_is_not_sent_again,
    waiting_when_its_client_is_closed_is_told_so,
)


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.__name__)
def test_a_request(course: Callable[[], None]) -> None:
    course()


def test_the_courses_make_every_move_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    made: set[tuple[State, Event]] = set()
    move = Attempts._move

    def watch(self: Attempts, event: Event) -> None:
        made.add((self.state, event))
        move(self, event)

    monkeypatch.setattr(Attempts, "_move", watch)
    for course in COURSES:
        course()
    assert made == set(MOVES)
    assert {event for _, event in MOVES} == set(Event)
    assert {*MOVES.values()} == set(State)


def test_the_page_draws_the_table() -> None:
    page = PAGE.read_text()
    assert drawn(page) == page, "run `python -m tools.client_states`"


def test_the_first_attempt_of_a_read_has_half_of_its_time() -> None:
    world = World()
    caller = world.begin(GET)
    (first,) = world.flush()
    world.advance(2.0)
    assert world.core.retries == {"ReadTimeout": 1}
    world.advance(0.05)
    (second,) = world.flush()
    assert second != first
    assert world.sent[second][0][1].timeout == pytest.approx(1.85, abs=0.1), "and the next what is left"
    world.reply(second, FOUND)
    assert caller.answer == FOUND
    world.advance(3.0)
    write = world.begin(PUT)
    world.flush()
    world.advance(4.9)
    assert not write.answers
    world.advance(0.1)
    assert isinstance(write.answer, WriteTimeout)


@pytest.mark.parametrize(
    ("request_", "error", "endless"),
    [
        (PUT, Unavailable(2, 1), False),
        (Delete("b", b"k", timeout=5.0), Overloaded(0.01), True),
        (GET, ReadTimeout(1, 2), False),
        (GET, StaleRead(2), True),
    ],
)
def test_attempts_end_except_where_time_may_help(
    request_: ClientRequest, error: KVError, endless: bool
) -> None:
    world = World()
    caller = world.begin(request_)
    attempts = 0
    while not caller.answers:
        for address in world.flush():
            attempts += 1
            world.fail(address, error)
        world.advance(0.01)
    assert caller.answer is error
    assert attempts == ATTEMPTS or (endless and attempts > ATTEMPTS)


def test_a_node_that_is_silent_while_calls_run_out_of_time_is_given_up() -> None:
    world = World()
    world.begin(msgspec.structs.replace(PUT, timeout=calls_module.SILENCE))
    later = world.begin()
    (first,) = world.flush()
    world.advance(calls_module.SILENCE + 0.1)
    assert world.silent == [first]
    world.lose(first)
    assert isinstance(later.answer, NoNodeAvailable)


def test_a_slow_replica_is_asked_last_and_tried_now_and_then() -> None:
    world = World()
    slow = world.core.routing.at(world.replicas[0]).address
    tried = 0
    for i in range(400):
        caller = world.begin(Get("b", b"%d" % i, timeout=4.0))
        for address in world.flush():
            world.now += 0.5 if address == slow else 0.0
            tried += address == slow and slow in world.core.routing.hedging.slow
            world.reply(address, FOUND)
        world.advance(0.01)
        assert caller.answer == FOUND
    assert slow in world.core.routing.hedging.slow
    assert 3 <= tried <= 40


def test_a_newer_ring_leaves_who_is_a_member_no_more() -> None:
    world = World()
    caller = world.begin()
    (first,) = world.flush()
    world.core.on_fetched(world.without(world.replicas[0]), world.now)
    assert world.left == [first]
    assert isinstance(caller.answer, NoNodeAvailable)
    assert caller.answer.outcome is Outcome.UNKNOWN
    world.begin()
    assert first not in world.flush()


def test_a_defect_met_in_one_request_leaves_the_others_their_time() -> None:
    class Broken(Caller):
        def set_exception(self, exception: KVError, /) -> None:
            raise ZeroDivisionError

    world = World(connected=False)
    world.core.begin(msgspec.structs.replace(PUT, timeout=0.2), Broken(), world.now)
    caller = world.begin(msgspec.structs.replace(PUT, timeout=0.3))
    with pytest.raises(ZeroDivisionError):
        world.advance(0.25)
    world.advance(0.2)
    assert isinstance(caller.answer, NoNodeAvailable)


def test_pauses_stay_finite_however_often_something_fails() -> None:
    """2 to the power of the attempts was no float any more at the 1024th."""
    highest: Callable[[float, float], float] = lambda _, high: high  # noqa: E731
    for failures in (1, 5, 10, 2000, 10**6):
        assert 0.0 < pause(failures, Overloaded(0.0), highest) <= 1.0
        assert 0.05 <= reconnect_pause(failures, highest) <= 1.0

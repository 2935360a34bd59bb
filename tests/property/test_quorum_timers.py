"""The order in which operations are woken, whatever order their times came in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvstore.quorum.timers import Timers

times = st.lists(st.integers(0, 20).map(float), max_size=30)


@given(times, st.floats(0, 25))
def test_what_is_due_is_told_once_in_order(whens: list[float], now: float) -> None:
    timers = Timers()
    for number, when in enumerate(whens):
        timers.add(when, number)
    order = sorted((when, number) for number, when in enumerate(whens))
    assert timers.due(now) == [number for when, number in order if when <= now]
    assert timers.due(now) == []
    assert timers.due(99.0) == [number for when, number in order if when > now]


@given(times, st.sets(st.integers(0, 29)))
def test_the_next_time_is_that_of_one_that_is_alive(whens: list[float], alive: set[int]) -> None:
    timers = Timers()
    for number, when in enumerate(whens):
        timers.add(when, number)
    expected = min((when for number, when in enumerate(whens) if number in alive), default=float("inf"))
    assert timers.next(alive) == expected

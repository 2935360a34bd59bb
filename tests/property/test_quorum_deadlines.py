"""The one queue of times, against a dictionary: who is woken, when, in what order, and who is not."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvstore.protocol.instant import Instant
from kvstore.quorum.deadlines import NEVER, Deadlines, Sleeper, Timer
from kvstore.quorum.guard import Guard

REST = 1.0
"""Seconds that who has failed is left alone."""


class Defect(Exception):
    pass


class Noted(Sleeper):
    """Something under a number of its own, as an operation is."""

    def __init__(self, number: int, act: Callable[[Instant], object]) -> None:
        self.number = number
        self.wake_at = NEVER
        self.act = act

    def on_time(self, now: Instant) -> None:
        self.act(now)


def at(seconds: float) -> Instant:
    return Instant(seconds, int(seconds * 1000))


def silent(error: Exception) -> None:
    assert isinstance(error, Defect)


whens = st.integers(0, 40).map(float)


class AgainstADictionary(RuleBasedStateMachine):
    """Sleepers and timers with times that come in any order; some wake themselves again, some fail."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines = Deadlines(Guard(silent))
        self.now = 0.0
        self.last = 0
        self.times: dict[int, float] = {}
        self.again: dict[int, float] = {}
        """To what time who is woken sets itself; those that fail are set to None first."""
        self.failing: set[int] = set()
        self.woken: list[int] = []
        self.timers: dict[int, Timer] = {}

    def _woken(self, number: int, now: Instant) -> None:
        assert now == at(self.now)
        assert self.deadlines.sleepers[number].wake_at == NEVER, "nothing is set when it is woken"
        self.woken.append(number)
        if number in self.again:
            self._set(number, self.again[number])
        if number in self.failing:
            raise Defect

    def _set(self, number: int, when: float) -> None:
        if number in self.timers:
            self.timers[number].set(when)
        else:
            self.deadlines.wake(self.deadlines.sleepers[number], when)
        self.times[number] = when

    @rule(when=whens)
    def add_sleeper(self, when: float) -> None:
        self.last += 1
        number = self.last
        self.deadlines.sleepers[number] = Noted(number, lambda now: self._woken(number, now))
        self._set(number, when)

    @rule()
    def add_timer(self) -> None:
        timer = self.deadlines.timer(lambda now: self._woken(timer.number, now))
        assert timer.number < 0
        assert timer.number not in self.times
        self.timers[timer.number] = timer
        self.times[timer.number] = NEVER

    def _one(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.times)))

    @precondition(lambda self: self.times)
    @rule(data=st.data(), when=whens | st.just(NEVER))
    def set(self, data: st.DataObject, when: float) -> None:
        self._set(self._one(data), when)

    @precondition(lambda self: self.timers)
    @rule(data=st.data(), when=whens)
    def set_by(self, data: st.DataObject, when: float) -> None:
        number = data.draw(st.sampled_from(sorted(self.timers)))
        self.timers[number].set_by(when)
        self.times[number] = min(self.times[number], when)

    @precondition(lambda self: self.times)
    @rule(data=st.data(), when=whens)
    def wakes_itself_again(self, data: st.DataObject, when: float) -> None:
        self.again[self._one(data)] = when

    @precondition(lambda self: self.times)
    @rule(data=st.data())
    def fails(self, data: st.DataObject) -> None:
        self.failing.add(self._one(data))

    @precondition(lambda self: self.times)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        number = self._one(data)
        if number in self.timers:
            self.timers.pop(number).remove()
        else:
            del self.deadlines.sleepers[number]
        del self.times[number]

    @rule(seconds=st.integers(0, 10))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        order = sorted((when, number) for number, when in self.times.items() if when <= self.now)
        for _, number in order:
            self.times[number] = NEVER
        self.woken.clear()
        self.deadlines.on_time(at(self.now))
        assert self.woken == [number for _, number in order]
        for number in self.failing.intersection(self.woken):
            if self.times[number] == NEVER:
                self.times[number] = self.now + REST

    @invariant()
    def the_next_time_is_that_of_the_first(self) -> None:
        assert self.deadlines.next() == min(self.times.values(), default=NEVER)
        assert {number: sleeper.wake_at for number, sleeper in self.deadlines.sleepers.items()} == self.times


TestAgainstADictionary = AgainstADictionary.TestCase


@given(st.lists(whens, max_size=30), st.floats(0, 45))
def test_what_is_due_is_told_once_in_order(times: list[float], now: float) -> None:
    deadlines, told = Deadlines(Guard(silent)), list[int]()
    for number, when in enumerate(times):
        deadlines.sleepers[number] = Noted(number, lambda _, number=number: told.append(number))  # type: ignore[misc]
        deadlines.wake(deadlines.sleepers[number], when)
    order = sorted((when, number) for number, when in enumerate(times))
    deadlines.on_time(at(now))
    assert told == [number for when, number in order if when <= now]
    deadlines.on_time(at(now))
    assert told == [number for when, number in order if when <= now]
    deadlines.on_time(at(99.0))
    assert told == [number for _, number in order if _ <= now] + [n for when, n in order if when > now]
    assert deadlines.next() == NEVER


def test_what_finishes_while_others_are_woken_is_not_woken_any_more() -> None:
    deadlines, told = Deadlines(Guard(silent)), list[str]()

    def ends_the_other(_: Instant) -> None:
        told.append("first")
        del deadlines.sleepers[2]

    deadlines.sleepers |= {1: Noted(1, ends_the_other), 2: Noted(2, lambda _: told.append("second"))}
    for number in (1, 2):
        deadlines.wake(deadlines.sleepers[number], 1.0)
    deadlines.on_time(at(1.0))
    assert told == ["first"]
    assert deadlines.next() == NEVER


def test_what_finishes_in_a_defect_has_no_rest_to_wait_for() -> None:
    deadlines = Deadlines(Guard(silent))

    def act(_: Instant) -> None:
        timer.remove()
        raise Defect

    timer = deadlines.timer(act)
    timer.set(1.0)
    deadlines.on_time(at(1.0))
    assert deadlines.next() == NEVER
    assert deadlines.sleepers == {}


def test_who_has_failed_rests_unless_it_has_set_its_next_time() -> None:
    deadlines = Deadlines(Guard(silent))

    def act(now: Instant) -> None:
        timer.set(now.mono + 7.0)
        raise Defect

    timer = deadlines.timer(act)
    timer.set(1.0)
    deadlines.on_time(at(3.0))
    assert deadlines.next() == 10.0


@pytest.mark.parametrize("orderly", [True, False], ids=["in the queue", "in the heap"])
def test_the_queue_does_not_keep_what_has_finished(orderly: bool) -> None:
    """Most operations finish long before their time; a version may be large."""
    deadlines = Deadlines(Guard(silent))
    if not orderly:
        deadlines.sleepers[1] = Noted(1, lambda _: None)
        deadlines.wake(deadlines.sleepers[1], 100.0)
    sleeper = Noted(2, lambda _: None)
    deadlines.sleepers[2] = sleeper
    deadlines.wake(sleeper, 50.0)
    timer = deadlines.timer(lambda _: None)
    timer.set(60.0)
    kept = [weakref.ref(sleeper.act), weakref.ref(timer._act)]
    timer.remove()
    del deadlines.sleepers[2], sleeper, timer
    gc.collect()
    assert [each() for each in kept] == [None, None]
    assert deadlines.next() == (NEVER if orderly else 100.0)


def test_times_that_are_over_do_not_pile_up_behind_one_that_is_not() -> None:
    """A thousand operations a second finish at once: what is passed over goes when its time has come."""
    deadlines = Deadlines(Guard(silent))
    for number in range(1000):
        deadlines.sleepers[number] = Noted(number, lambda _: None)
        deadlines.wake(deadlines.sleepers[number], number / 100)
        del deadlines.sleepers[number]
        deadlines.on_time(at(number / 100 - 5.0))
        deadlines.next()
    assert len(deadlines._queue) + len(deadlines._heap) <= 501


@pytest.mark.parametrize(
    "before", [(5.0, 7.0, 5.0), (6.0, 5.0)], ids=["twice in the queue", "an earlier time"]
)
def test_who_sets_a_past_time_that_it_had_before_is_told_once_a_turn(before: tuple[float, ...]) -> None:
    deadlines, told = Deadlines(Guard(silent)), list[float]()

    def act(now: Instant) -> None:
        told.append(now.mono)
        timer.set(before[0])

    timer = deadlines.timer(act)
    for when in before:
        timer.set(when)
    deadlines.on_time(at(8.0))
    assert told == [8.0]
    assert deadlines.next() == before[0]

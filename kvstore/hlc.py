"""Hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014).

A time is one integer: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. It
decides nothing except in `lww` buckets, where a write must be later than every write it saw.
"""

from __future__ import annotations

from collections.abc import Callable

_COUNTER_BITS = 16

_LEAST_TIME = 1
"""The least time that is issued, also by a clock that stands before 1970: nodes refuse negative times."""
MAX_TIME = 2**59 - 1
"""In the year 2248. Every node refuses a later time, whatever its own clock says: all refuse the same ones.
A clock stops there: a key with a later time could not be written any more."""


class HybridClock:
    """Issues times after all that it has issued and seen, as far as those are not absurd.

    A time more than `max_drift` milliseconds ahead of the wall clock, of another node whose clock is wrong or
    of this one's past, is followed where it must be, by the next write of that key, but does not carry this
    clock along. `on_ahead` is called when one was seen.
    """

    __slots__ = ("_last", "_max_drift", "_on_ahead")

    def __init__(self, max_drift: int, on_ahead: Callable[[], None]) -> None:
        self._max_drift = max_drift
        self._on_ahead = on_ahead
        self._last = 0

    def tick(self, wall: int, seen: int = 0) -> int:
        """A time after `seen`, and after all earlier ones within bounds; `wall` is in milliseconds."""
        latest = (wall + self._max_drift) << _COUNTER_BITS
        if seen > latest:
            self._on_ahead()
            return min(seen + 1, MAX_TIME)
        time, last = wall << _COUNTER_BITS, self._last
        # comparisons, as min and max are calls: on the way of every write
        if last > latest:
            last = latest
        if last >= time:
            time = last + 1
        if seen >= time:
            time = seen + 1
        if not _LEAST_TIME <= time <= MAX_TIME:
            time = _LEAST_TIME if time < _LEAST_TIME else MAX_TIME
        self._last = time
        return time

    def observe(self, wall: int, seen: int) -> None:
        """Later times come after `seen`, if that is within bounds."""
        if seen <= (wall + self._max_drift) << _COUNTER_BITS:
            self._last = max(self._last, seen)


def wall_time(time: int) -> int:
    """The wall time in milliseconds that a hybrid logical time was issued at (or shortly before)."""
    return time >> _COUNTER_BITS


def time_counter(time: int) -> int:
    """What tells a hybrid logical time from others of the same millisecond, 0 to 65,535."""
    return time & (1 << _COUNTER_BITS) - 1


def hybrid_time(wall: int, counter: int) -> int:
    """The time of which `wall_time` and `time_counter` are these."""
    return (wall << _COUNTER_BITS) + counter

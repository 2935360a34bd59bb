"""Hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014).

A time is one integer: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. It
decides nothing except in `lww` buckets, where a write must be later than every write it saw.
"""

from __future__ import annotations

_COUNTER_BITS = 16


class HybridClock:
    """Issues times that never go back, even when the wall clock does."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    def tick(self, wall: int, seen: int = 0) -> int:
        """A time after all earlier ones and after `seen`; `wall` is in milliseconds."""
        self._last = max(self._last + 1, seen + 1, wall << _COUNTER_BITS)
        return self._last

    def observe(self, seen: int) -> None:
        """Later times come after `seen`."""
        self._last = max(self._last, seen)


def wall_time(time: int) -> int:
    """The wall time in milliseconds that a hybrid logical time was issued at (or shortly before)."""
    return time >> _COUNTER_BITS

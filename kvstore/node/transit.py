"""How long the frames of a stream were on their way: clocks of two machines differ, but at an equal pace.

The difference between the receiver's clock and the time at which the sender says that it sent a frame is
the way plus the unknown difference of the clocks. Its least value of late is that of a frame that did not
wait anywhere, so what a frame has more than that is the time it waited in queues: those of the sender's
kernel, of the network, of a receiver that is busy or stopped (the one-way delay of LEDBAT, RFC 6817,
section 3.4.2).
"""

from __future__ import annotations

_WINDOW = 60.0
"""Seconds of which the least difference is remembered; clocks drift some milliseconds in them."""

_NEVER = 1e10
"""Seconds, in 300 years: no monotonic clock is so far."""

NOTICED = 0.02
"""Seconds below which waiting is not worth looking at: loops turn, garbage is collected."""


class Transit:
    """Of one stream; a new one begins without any knowledge. It never tells more than was waited."""

    __slots__ = ("_least", "_previous", "_until")

    def __init__(self) -> None:
        self._least = self._previous = float("inf")
        self._until = 0.0

    def delay(self, sent: float, now: float) -> float:
        """Seconds that a frame waited which was sent at `sent` by its sender's clock (0: it does not say).

        0 when it is not worth looking at.
        """
        if not 0 < sent < _NEVER:
            return 0.0
        difference = now - sent
        if difference < min(self._least, self._previous) - _WINDOW < _NEVER:
            return 0.0  # its clock is wrong: all others did not wait for a minute
        if now >= self._until:
            self._previous, self._least = self._least, difference
            self._until = now + _WINDOW
        elif difference < self._least:
            self._least = difference
        waited = difference - min(self._least, self._previous)
        return waited if waited > NOTICED else 0.0

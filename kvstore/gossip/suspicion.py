"""Suspicion of one member: how long it has to refute (Lifeguard section IV-B)."""

from __future__ import annotations

import math


def remaining_time(
    confirmations: int, expected: int, elapsed: float, minimum: float, maximum: float
) -> float:
    """Seconds that a suspect has left; negative when its time is over (memberlist's formula).

    It starts with `maximum` seconds and falls with the logarithm of the confirmations to `minimum`
    when the `expected` ones are in. When none can be expected, it is `minimum` from the start.
    """
    if expected < 1:
        return minimum - elapsed
    share = min(1.0, math.log(confirmations + 1) / math.log(expected + 1))
    return maximum - share * (maximum - minimum) - elapsed


class Suspicion:
    """A member under suspicion since `started`, by hearsay until its own probe fails too."""

    __slots__ = (
        "_confirmed_by",
        "_expected",
        "_maximum",
        "_minimum",
        "_started",
        "called_dead",
        "probe_failed",
    )

    def __init__(self, started: float, expected: int, minimum: float, maximum: float) -> None:
        self._started = started
        self._expected = expected
        self._minimum = minimum
        self._maximum = maximum
        self._confirmed_by: list[str] = []
        self.probe_failed = False
        """This node's own probe has failed: only then may it call the member dead."""
        self.called_dead = False
        """Another node has declared the member dead."""

    def confirm(self, by: str) -> None:
        """Another node has itself probed the member in vain."""
        if by not in self._confirmed_by:
            self._confirmed_by.append(by)

    @property
    def deadline(self) -> float:
        """When the member is dead unless it refutes."""
        if not self.probe_failed:
            return math.inf
        if self.called_dead:
            return self._started
        confirmations = len(self._confirmed_by)
        return self._started + remaining_time(
            confirmations, self._expected, 0.0, self._minimum, self._maximum
        )

    def delay(self, seconds: float) -> None:
        """Give the member more time."""
        self._started += seconds

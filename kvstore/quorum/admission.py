"""Whether a node takes one more request, and for how long whoever is refused should stay away.

What is taken is bounded in number and in bytes. Below these bounds a request is refused as soon as the
others before it would use up its time: carried out all the same it would be work for nobody, and that is
how throughput collapses under overload. The time is that of Little's law: requests under way divided by
the rate at which they are answered (Little, "A Proof for the Queuing Formula L = lambda W", 1961).
"""

from __future__ import annotations

from kvstore.config import QuorumSettings
from kvstore.errors import Overloaded

_WINDOW = 0.25
_LONGEST_WINDOW = 2.0
"""Seconds over which is measured; longer while nothing is answered, as under a disk with slow syncs."""
_USUAL_RATE = 1000.0
"""Requests a second that a node is taken to do while nothing was measured."""
_FEW = 64
"""So many requests are taken whatever was measured: of fewer there is nothing to measure."""
_SHARE = 0.25
"""Requests wait for each other only if they take this share of the time that they have; else for a peer."""
_SHORTEST_RETRY, _LONGEST_RETRY = 0.05, 5.0
_FOR_EVER = float("inf")


class Admission:
    """Counts what is under way. `unanswered` are requests, `bytes` what all operations hold."""

    __slots__ = (
        "_answered",
        "_bytes_bound",
        "_latency",
        "_number_bound",
        "_rate",
        "_seconds",
        "_since",
        "bytes",
        "most_bytes",
        "unanswered",
    )

    def __init__(self, settings: QuorumSettings) -> None:
        self._number_bound = settings.in_flight
        self._bytes_bound = settings.in_flight_bytes
        self.unanswered = 0
        self.bytes = 0
        self.most_bytes = 0
        """The highest that `bytes` was."""
        self._answered = 0
        self._seconds = 0.0
        self._since = -_FOR_EVER
        self._rate = _USUAL_RATE
        self._latency = _FOR_EVER

    @property
    def strained(self) -> bool:
        """Whether operations hold half of the bytes that they may: time to free some, and to go slowly."""
        return 2 * self.bytes >= self._bytes_bound

    def take(self, timeout: float, now: float) -> None:
        """A request with `timeout` seconds to live is under way now, unless this raises Overloaded."""
        if self.unanswered >= _FEW or self.bytes >= self._bytes_bound:
            self._check(timeout, now)
        self.unanswered += 1

    def _check(self, timeout: float, now: float) -> None:
        if now - self._since >= _WINDOW:
            self._measure(now)
        if self.unanswered >= self._number_bound:
            raise self._refusal(f"{self.unanswered} requests are under way")
        if self.bytes >= self._bytes_bound:
            raise self._refusal(f"requests under way hold {self.bytes} bytes")
        hopeless = self.unanswered > max(_FEW, self._rate * timeout)
        if hopeless and self._latency > _SHARE * timeout:
            raise self._refusal(f"{self.unanswered} requests before it leave no time for it")

    def worked(self, seconds: float) -> None:
        """A request is done, `seconds` after it was taken. Those that failed tell nothing of work."""
        self._answered += 1
        self._seconds += seconds

    def _refusal(self, reason: str) -> Overloaded:
        """With the time in which what is under way will be done."""
        seconds = self.unanswered / self._rate if self._rate else _LONGEST_RETRY
        return Overloaded(min(max(seconds, _SHORTEST_RETRY), _LONGEST_RETRY), reason)

    def _measure(self, now: float) -> None:
        """Take what was counted since the last look as the present rate and latency."""
        elapsed = now - self._since
        if not self._answered and elapsed < _LONGEST_WINDOW:
            return
        if elapsed <= 2 * _LONGEST_WINDOW:
            self._rate = self._answered / elapsed
            self._latency = self._seconds / self._answered if self._answered else _FOR_EVER
        else:  # nothing was measured for long, so nothing is known of the present
            self._rate = _USUAL_RATE
            self._latency = _FOR_EVER
        self._since = now
        self._answered = 0
        self._seconds = 0.0

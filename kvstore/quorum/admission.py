"""Whether a node takes one more request, and for how long whoever is refused should stay away.

What is taken is bounded in number and in bytes. Below these bounds a request is refused as soon as the
others before it would use up its time: carried out all the same it would be work for nobody, and that is
how throughput collapses under overload. The time is that of Little's law: requests under way divided by
the rate at which they are answered (Little, "A Proof for the Queuing Formula L = lambda W", 1961).
"""

from __future__ import annotations

from kvstore.config import QuorumSettings
from kvstore.errors import Overloaded
from kvstore.protocol.client import Failed
from kvstore.quorum.counters.requests import RequestCounters

_WINDOW = 0.25
_LONGEST_WINDOW = 2.0
"""Seconds over which is measured; longer while nothing is answered, as under a disk with slow syncs."""
_USUAL_RATE = 5000.0
"""Requests a second that a node is taken to do while nothing was measured."""
_FEW = 64
"""So many requests are taken whatever was measured: of fewer there is nothing to measure."""
_QUEUE_SHARE = 0.5
"""Of its time a request may wait for those before it: the rest is for itself."""
_LATENCY_SHARE = 0.25
"""Requests that take less than this share of their time wait for a peer, and not for each other."""
_REFUSAL_SECONDS = 0.02
"""A refusal serves all that are refused so soon after it: under overload it must cost next to nothing."""
_LOAD_UNIT = 16
"""So many requests under way double the pauses of background work."""
SHORTEST_RETRY, LONGEST_RETRY = 0.05, 5.0
_FOR_EVER = float("inf")


def retry_after(seconds: float) -> float:
    """Seconds after which to try again, for a request that the `seconds` of work before it have kept out."""
    return min(max(seconds, SHORTEST_RETRY), LONGEST_RETRY)


class Admission:
    """Counts what is under way. `unanswered` are requests, `bytes` what all operations hold."""

    __slots__ = (
        "_answered",
        "_bytes_bound",
        "_counters",
        "_latency",
        "_number_bound",
        "_rate",
        "_refusal",
        "_refusal_reason",
        "_refused_until",
        "_seconds",
        "_since",
        "bytes",
        "most_bytes",
        "strained_bytes",
        "unanswered",
    )

    def __init__(self, settings: QuorumSettings, counters: RequestCounters) -> None:
        self._counters = counters
        self._number_bound = settings.in_flight
        self._bytes_bound = settings.in_flight_bytes
        self.strained_bytes = settings.in_flight_bytes // 2
        self.unanswered = 0
        self.bytes = 0
        self.most_bytes = 0
        """The highest that `bytes` was."""
        self._answered = 0
        self._seconds = 0.0
        self._since = -_FOR_EVER
        self._rate = _USUAL_RATE
        self._latency = _FOR_EVER
        self._refused_until = -_FOR_EVER
        self._refusal_reason = ""
        self._refusal = Failed(Overloaded(SHORTEST_RETRY))

    def hold(self, size: int) -> None:
        """Operations hold so many bytes more."""
        self.bytes = held = self.bytes + size
        if held > self.most_bytes:
            self.most_bytes = held

    @property
    def load(self) -> float:
        """How much slower background work should go. Requests under way: their rate times their latency."""
        return self.unanswered / _LOAD_UNIT

    @property
    def strained(self) -> bool:
        """Whether operations hold half of the bytes that they may: time to free some, and to go slowly."""
        return self.bytes >= self.strained_bytes

    def take(self, timeout: float, now: float) -> Failed | None:
        """A request with `timeout` seconds to live is under way now, or refused: then this is its reply."""
        if (self.unanswered >= _FEW or self.bytes >= self._bytes_bound) and (
            reason := self._reason(timeout, now)
        ):
            return self._refuse(reason, now)
        self.unanswered += 1
        return None

    def _reason(self, timeout: float, now: float) -> str:
        """Why a request is not taken; empty: it is."""
        if now - self._since >= _WINDOW:
            self._measure(now)
        if self.unanswered >= self._number_bound:
            return "as many requests are under way as may be"
        if self.bytes >= self._bytes_bound:
            return "the requests under way hold as many bytes as they may"
        many = self.unanswered > self._rate * timeout * _QUEUE_SHARE
        slow = timeout < self._latency < _FOR_EVER
        if slow or (many and self._latency > _LATENCY_SHARE * timeout):
            return "the requests before it leave no time for it"
        return ""

    def worked(self, seconds: float) -> None:
        """A request is done, `seconds` after it was taken. Those that failed tell nothing of work."""
        self._answered += 1
        self._seconds += seconds

    def owed(self) -> None:
        """A request was answered before its work was done: that counts as one under way, until `settled`."""
        self.unanswered += 1

    def settled(self, seconds: float | None = None) -> None:
        """The work that was owed is done, `seconds` after it was taken, or never will be (None)."""
        self.unanswered -= 1
        if seconds is not None:
            self.worked(seconds)

    def _refuse(self, reason: str, now: float) -> Failed:
        """With the time in which what is under way will be done."""
        self._counters.errors += 1
        self._counters.overloaded += 1
        if now >= self._refused_until or reason != self._refusal_reason:
            self._refused_until = now + _REFUSAL_SECONDS
            self._refusal_reason = reason
            seconds = self.unanswered / self._rate if self._rate else LONGEST_RETRY
            self._refusal = Failed(Overloaded(retry_after(seconds), reason))
        return self._refusal

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

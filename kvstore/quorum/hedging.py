"""Which replicas are slow of late, and when a read may ask one more than it needs.

A replica that keeps a read waiting for longer than it usually does gets a hedge: one more is asked, within
a budget of extra reads (Dean and Barroso, "The Tail at Scale", 2013; speculative retry in Cassandra). A
budget of some percent cannot make up for a replica that is always slow, so that one is asked last, and only
tried now and then (the dynamic snitch in Cassandra). docs/reads.md says what was chosen and why.
"""

from __future__ import annotations

from collections import defaultdict, deque

WINDOW = 64
"""Latencies of a peer that are remembered: what "recent" means."""
SHARE, BURST = 0.05, 10.0
"""The budget: extra reads for each read, and how many of them may be saved up."""
SHORTEST = 0.002
"""Seconds that every replica is given: a timer of the event loop is not much finer."""

_LATE = 1.5
"""Of its p95: at the p95 itself one healthy read in twenty is late, and that is all of the budget."""
_STEP = 16
_SLOWER = 3.0
_MARGIN = 0.005
_LATE_IN_A_ROW = 8
_PROMPT_IN_A_ROW = 32
_TRIAL_PAUSE = 0.01
_UNKNOWN = float("inf")


class _Peer:
    """What is known of one peer; `p95` in seconds is brought up to date every 16 answers, or at once."""

    __slots__ = ("last", "late", "p95", "prompt", "recent", "taken", "try_at")

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.last = 0.0
        self.try_at = 0.0
        self.forget()

    def forget(self) -> None:
        """What was known is true no more."""
        self.recent.clear()
        self.taken = 0
        self.p95 = _UNKNOWN
        self.late = self.prompt = 0

    def bring_up_to_date(self) -> None:
        """Compute `p95`."""
        self.p95 = sorted(self.recent)[len(self.recent) * 95 // 100]


class Hedging:
    """Recent latencies of the peers, the slow ones among them, and the budget of extra reads.

    `patience` in seconds is the longest that a hedge waits, and what a peer gets of which nothing is known.
    """

    __slots__ = (
        "_bound",
        "_burst",
        "_delays",
        "_patience",
        "_peers",
        "_quickest",
        "_share",
        "_tokens",
        "slow",
    )

    def __init__(self, patience: float, share: float = SHARE, burst: float = BURST) -> None:
        self._patience = patience
        self._share = share
        self._burst = burst
        self._tokens = burst
        self._peers: defaultdict[str, _Peer] = defaultdict(_Peer)
        self._quickest = self._bound = _UNKNOWN
        self._delays: dict[str, float] = {}
        """Delays that were computed since the slow peers were last determined."""
        self.slow: frozenset[str] = frozenset()
        """Peers much slower than the quickest one, or late many times in a row: to be asked last."""

    # the budget

    def earn(self) -> None:
        """A read has begun."""
        if self._tokens < self._burst:
            self._tokens = min(self._burst, self._tokens + self._share)

    def take(self) -> bool:
        """Take an extra read out of the budget; whether it had one."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def overdraw(self) -> None:
        """An extra read that could not wait for the budget: later ones must."""
        self._tokens = max(-self._burst, self._tokens - 1.0)

    # latencies

    def delay(self, node: str) -> float:
        """Seconds after which `node` is late: somewhat more than its p95, or what another one would take."""
        delay = self._delays.get(node)
        if delay is None:
            delay = self._delays[node] = self._delay(node)
        return delay

    def _delay(self, node: str) -> float:
        peer = self._peers.get(node)
        longest = _LATE * peer.p95 if peer else _UNKNOWN
        if node not in self.slow:
            longest = min(longest, _SLOWER * self._quickest)
        return min(self._patience, max(SHORTEST, longest))

    def answered(self, node: str, seconds: float) -> None:
        """`node` has taken so long, or has not answered in so long and never will."""
        peer = self._peers[node]
        if node in self.slow:
            peer.prompt = peer.prompt + 1 if seconds <= self._bound else 0
            if peer.prompt == _PROMPT_IN_A_ROW:
                peer.forget()
                self._find_slow()
        elif peer.late and seconds <= self.delay(node):
            peer.late = 0
        peer.last = seconds
        peer.recent.append(seconds)
        peer.taken += 1
        if not peer.taken % _STEP or (seconds > self._bound and peer.taken >= _STEP):
            peer.bring_up_to_date()
            self._find_slow()

    def late(self, node: str) -> None:
        """`node` has not answered within its delay."""
        peer = self._peers[node]
        peer.late += 1
        if peer.late == _LATE_IN_A_ROW:
            self._find_slow()

    def may_try(self, node: str, now: float) -> bool:
        """Whether to ask a slow peer once more than is needed, so that its recovery is noticed."""
        peer = self._peers[node]
        if now < peer.try_at or not self.take():
            return False
        peer.try_at = now + max(_TRIAL_PAUSE, peer.last)
        return True

    def _find_slow(self) -> None:
        self._delays.clear()
        peers = self._peers
        quickest = self._quickest = min(peer.p95 for peer in peers.values())
        bound = self._bound = max(_SLOWER * quickest, quickest + _MARGIN)
        self.slow = frozenset(
            node for node, peer in peers.items() if peer.late >= _LATE_IN_A_ROW or bound < peer.p95 < _UNKNOWN
        )

"""What a node has confirmed to those that reap: nobody deletes here who has not asked a round before.

A reaper asks twice, a `reap_age` apart, and only then to delete (kvstore.quorum.background.reap). One that is
defective, or whose first question was lost, would have a value deleted of which messages are still under way.
"""

from __future__ import annotations

import mmh3

from kvstore.protocol.peer import Candidate

_MOST = 2 * 65_536
"""Kept for one asker, the newest: more than it asks about in one pass."""


class ReapRounds:
    """By asker and candidate, when it was first confirmed. Forgotten in a restart: then another pass asks."""

    def __init__(self, age: float) -> None:
        """A question to delete comes `age` seconds after the first one at the earliest."""
        self._age = age
        self._first: dict[str, dict[bytes, float]] = {}

    def confirmed(self, sender: str, candidate: Candidate, now: float) -> None:
        """`sender` was told that nothing speaks against it."""
        first = self._first.setdefault(sender, {})
        first.setdefault(_name(candidate), now)
        if len(first) > _MOST:
            del first[next(iter(first))]

    def forget(self, sender: str, candidate: Candidate) -> None:
        """Something spoke against it, or it is deleted: whoever asks again begins anew."""
        self._first.get(sender, {}).pop(_name(candidate), None)

    def may_commit(self, sender: str, candidate: Candidate, now: float) -> bool:
        """Whether it was confirmed to `sender` long enough ago, and at no time denied since then."""
        first = self._first.get(sender, {}).get(_name(candidate))
        return first is not None and now - first >= self._age


def _name(candidate: Candidate) -> bytes:
    return mmh3.hash_bytes(candidate.key + candidate.digest)

"""Listing the keys of a partition: asking so many replicas that no acknowledged write can hide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvstore.client.core.calls import Calls
from kvstore.client.core.routing import Routing
from kvstore.errors import KVError, Unavailable
from kvstore.ring import preference_list
from kvstore.versions import BucketName, UserKey


class PartitionScan:
    """The union of what n - w + 1 primaries hold: what W of them have acknowledged is on one of those."""

    def __init__(self, primaries: Sequence[Calls], w: int) -> None:
        self._left = sorted(primaries, key=lambda calls: not calls.ready)
        self._required = max(1, len(primaries) - w + 1)
        self._answered = 0
        self._keys: set[UserKey] = set()
        self._problem: KVError | None = None

    def to_ask(self) -> list[Calls]:
        """Who is to be asked next, all at once; nobody: it is over. What they say is for `on_listed`."""
        missing = self._required - self._answered
        if not missing or len(self._left) < missing:
            return []
        asked, self._left = self._left[:missing], self._left[missing:]
        return asked

    def on_listed(self, found: Iterable[UserKey] | KVError) -> None:
        """All keys that one of them holds, or why it does not say."""
        if isinstance(found, KVError):
            self._problem = found
        else:
            self._answered += 1
            self._keys.update(found)

    def result(self) -> list[UserKey]:
        """The keys, in order; raises Unavailable when too few have answered."""
        if self._answered < self._required:
            raise Unavailable(self._required, self._answered) from self._problem
        return sorted(self._keys)


def scan_of(routing: Routing, bucket: BucketName, w: int, partition: int) -> PartitionScan:
    """A scan of one partition, at the members of now: they may change meanwhile."""
    n = routing.state.bucket(bucket).n
    return PartitionScan(list(map(routing.at, preference_list(routing.state.ring, partition, n))), w)

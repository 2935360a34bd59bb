"""Listing the keys of a partition: so many replicas are asked that no acknowledged write is missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvstore.client.core.calls import Calls
from kvstore.client.core.routing import Routing
from kvstore.errors import KVError, Unavailable
from kvstore.quorum.votes import Outcome, Quorum, count
from kvstore.ring import preference_list
from kvstore.versions import BucketName, UserKey


class PartitionScan:
    """The union of what n - w + 1 primaries hold: what W of them have acknowledged is on one of those."""

    def __init__(self, primaries: Sequence[Calls], w: int) -> None:
        members = frozenset(calls.address for calls in primaries)
        self._quorum = Quorum(members, max(1, len(members) - w + 1))
        self._left = sorted(primaries, key=lambda calls: not calls.ready)
        self._listed: set[str] = set()
        self._problems: dict[str, KVError] = {}
        self._keys: set[UserKey] = set()

    def _outcome(self) -> Outcome:
        return count((self._quorum,), self._listed, self._problems.keys())

    def to_ask(self) -> list[Calls]:
        """The primaries to be asked next, all at once; none: it is over. `on_listed` takes the answers."""
        if self._outcome() is not Outcome.PENDING:
            return []
        missing = self._quorum.needed - len(self._listed)
        asked, self._left = self._left[:missing], self._left[missing:]
        return asked

    def on_listed(self, address: str, found: Iterable[UserKey] | KVError) -> None:
        """All keys that the primary at `address` holds, or why it does not say."""
        if isinstance(found, KVError):
            self._problems[address] = found
        else:
            self._listed.add(address)
            self._keys.update(found)

    def result(self) -> list[UserKey]:
        """The keys, in order; raises Unavailable when too few have answered."""
        if self._outcome() is not Outcome.WON:
            *_, problem = self._problems.values()
            raise Unavailable(self._quorum.needed, len(self._listed)) from problem
        return sorted(self._keys)


def scan_of(routing: Routing, bucket: BucketName, w: int, partition: int) -> PartitionScan:
    """A scan of one partition, at the members of now: they may change meanwhile."""
    n = routing.state.bucket(bucket).n
    return PartitionScan(list(map(routing.at, preference_list(routing.state.ring, partition, n))), w)

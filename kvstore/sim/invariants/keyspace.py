"""Where versions of a key belong, and how they compare."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from kvstore.config import Conflict
from kvstore.ring import ClusterState, partition_of, replica_sets, replicas
from kvstore.ring import split_data_key as split
from kvstore.sim.scheduler import Scheduler
from kvstore.versions import (
    EncodedVersion,
    InternalKey,
    Sibling,
    Version,
    covers,
    decode_version,
    encode_version,
    reconcile,
    reconcile_lww,
)


class Keyspace:
    """What the cluster's state says of internal keys; also the one before it, which some nodes may be at."""

    def __init__(self, state: ClusterState, scheduler: Scheduler) -> None:
        self._state = self._before = state
        self._states = [state]
        self._scheduler = scheduler
        self._primaries: dict[InternalKey, tuple[str, ...]] = {}

    def on_state(self, state: ClusterState) -> None:
        """The next state is decided."""
        self._before, self._state = self._state, state
        self._states.append(state)
        self._primaries.clear()

    def primaries(self, key: InternalKey) -> tuple[str, ...]:
        """The nodes that should hold an internal key, by one of the two states."""
        found = self._primaries.get(key)
        if found is None:
            both = (*self.homes(key, self._state), *self.homes(key, self._before))
            found = self._primaries[key] = tuple(dict.fromkeys(both))
        return found

    def homes_by_state(self, key: InternalKey, another: ClusterState | None) -> list[tuple[str, ...]]:
        """The nodes that should hold an internal key, by each of the two states and by `another`."""
        states = [self._state, self._before, *([another] if another else [])]
        return [self.homes(key, state) for state in states]

    @property
    def has_changed(self) -> bool:
        """Whether there was more than one state."""
        return len(self._states) > 1

    def written(self, key: InternalKey) -> Iterator[tuple[tuple[str, ...], ...]]:
        """The lists that a write of an internal key needs, by each state that was decided on."""
        key_token, bucket, _ = split(key)
        for state in reversed(self._states):
            partition = partition_of(key_token, state.ring.partitions)
            yield replica_sets(state, partition, state.bucket(bucket).n).written

    def homes(self, key: InternalKey, state: ClusterState) -> tuple[str, ...]:
        """The nodes that should hold an internal key by a state."""
        key_token, bucket, _ = split(key)
        return replicas(state, partition_of(key_token, state.ring.partitions), state.bucket(bucket).n)

    def _lww(self, key: InternalKey) -> bool:
        return self._state.bucket(split(key)[1]).conflict is Conflict.LWW

    def dominates(self, key: InternalKey, known: EncodedVersion, version: EncodedVersion) -> bool:
        """Whether `known` has all that `version` has, or what replaced it."""
        return known == version or (bool(known) and combined(self._lww(key), known, version) == known)

    def lost_to(self, key: InternalKey, tombstone: EncodedVersion, version: EncodedVersion) -> list[Sibling]:
        """The values of a version that the tombstone covers, and that would be back without it."""
        left = {s.dot for s in decoded(combined(self._lww(key), tombstone, version)).siblings}
        seen = decoded(tombstone).context  # in an lww bucket what it has not seen may be a later write
        return [
            s
            for s in decoded(version).siblings
            if s.value is not None and s.dot not in left and covers(seen, s.dot)
        ]

    def name(self, key: InternalKey) -> str:
        """Of an internal key, for messages: with its bucket and the time."""
        _, bucket, name = split(key)
        return f"{bucket}/{name!r} at {self._scheduler.now:.3f}"


@lru_cache(4096)
def decoded(encoded: EncodedVersion) -> Version:
    """A version, from its bytes."""
    return decode_version(encoded)


@lru_cache(4096)
def combined(lww: bool, a: EncodedVersion, b: EncodedVersion) -> bytes:
    """What two versions of a key make together."""
    return encode_version((reconcile_lww if lww else reconcile)(decoded(a), decoded(b)))


def shown(encoded: EncodedVersion) -> str:
    """A version, for messages."""
    if not encoded:
        return "nothing"
    siblings = decoded(encoded).siblings
    return " and ".join(
        f"{s.dot.actor}#{s.dot.counter} ({(s.value or b'a tombstone')[:20]!r})" for s in siblings
    )

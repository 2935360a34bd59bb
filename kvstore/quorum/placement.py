"""Who is asked about a key: primaries while they are alive, fallbacks in the place of dead ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kvstore.config import BucketSettings
from kvstore.errors import StaleRing
from kvstore.quorum.votes import Quorum
from kvstore.ring import (
    ClusterState,
    Ring,
    Since,
    fallbacks,
    partition_of,
    preference_list,
    split_data_key,
)
from kvstore.versions import BucketName, InternalKey


@dataclass(frozen=True, slots=True)
class Target:
    """A node to ask; `hint_for` is the primary it stands in for, empty when it is one itself."""

    node: str
    hint_for: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """The targets of one request, and the dead primaries for which no fallback was left."""

    primaries: tuple[str, ...]
    targets: tuple[Target, ...]
    unplaced: tuple[str, ...]
    remote: dict[str, str]
    """The targets but the coordinator: `hint_for` by node."""
    to_read: tuple[Target, ...]
    """Those again, the last one first: a sloppy read asks them from the end."""
    to_read_strictly: tuple[Target, ...]
    """The primaries among them."""
    here: bool
    """Whether the coordinator is a primary."""
    stands_in_for: str
    """The primary in whose place the coordinator keeps a hint, empty when there is none."""
    strict: frozenset[str]
    """The primaries: whose votes count in a strict quorum."""
    sloppy: frozenset[str]
    """The targets: whose votes count in a sloppy one."""
    dead: frozenset[str]
    """The primaries that are not asked: the failure detector finds them dead."""
    _quorums: dict[tuple[int, bool], Quorum] = field(default_factory=dict)

    def quorum(self, needed: int, sloppy: bool) -> Quorum:
        """The quorum of a request; fallbacks that are asked later join a sloppy one."""
        quorum = self._quorums.get((needed, sloppy))
        if quorum is None:
            members = self.sloppy if sloppy else self.strict
            quorum = self._quorums[needed, sloppy] = Quorum(members, needed)
        return quorum


def place(ring: Ring, partition: int, n: int, coordinator: str, alive: Callable[[str], bool]) -> Placement:
    """The first `n` nodes of the preference list, each dead one replaced by a live fallback.

    A coordinator that is no primary itself is the first fallback to be used.
    """
    primaries = preference_list(ring, partition, n)
    here = coordinator in primaries
    spare = [node for node in fallbacks(ring, partition, n) if node != coordinator and alive(node)]
    if not here:
        spare.insert(0, coordinator)
    spare.reverse()
    targets: list[Target] = []
    unplaced: list[str] = []
    for node in primaries:
        if alive(node):
            targets.append(Target(node))
        elif spare:
            targets.append(Target(spare.pop(), hint_for=node))
        else:
            unplaced.append(node)
    asked = {target.node: target.hint_for for target in targets}
    strict, sloppy = frozenset(primaries), frozenset(asked)
    stands_in_for = asked.pop(coordinator, "")
    to_read = tuple(target for target in reversed(targets) if target.node != coordinator)
    return Placement(
        primaries,
        tuple(targets),
        tuple(unplaced),
        asked,
        to_read,
        tuple(target for target in to_read if not target.hint_for),
        here,
        stands_in_for,
        strict,
        sloppy,
        strict - sloppy,
    )


class Placements:
    """Where keys belong by the cluster state, and whom to ask by what is known of the members.

    `name` is this node, `alive` tells whether the failure detector holds a node for dead.
    """

    def __init__(self, name: str, state: ClusterState, since: Since, alive: Callable[[str], bool]) -> None:
        self.name = name
        self.state = state
        self.since = since
        self.alive = alive
        self._chosen: dict[tuple[int, int], Placement] = {}

    def on_state(self, state: ClusterState, since: Since) -> None:
        """The cluster state has changed."""
        self.state = state
        self.since = since
        self._chosen.clear()

    def check_client(self, partition: int, bucket: BucketName, epoch: int) -> None:
        """Raise StaleRing if these keys have other replicas than at `epoch`, which a client knows."""
        if not self.since.is_current(partition, bucket, epoch):
            raise StaleRing(self.state.epoch)

    def check_epoch(self, epoch: int, *keys: InternalKey) -> None:
        """Raise StaleRing if some of these internal keys had other replicas at `epoch` than they have now."""
        if epoch == self.state.epoch:
            return
        for key in keys:
            if not self.since.is_current(self.partition(key), split_data_key(key)[1], epoch):
                raise StaleRing(self.state.epoch)

    def check_epoch_of(self, epoch: int, partitions: Iterable[int]) -> None:
        """Raise StaleRing if some of these partitions had other replicas at `epoch` than they have now."""
        if epoch == self.state.epoch:
            return
        if epoch > self.state.epoch:
            raise StaleRing(self.state.epoch)
        for partition in partitions:
            if not self.since.is_current_for_all(partition, epoch):
                raise StaleRing(self.state.epoch)

    def bucket(self, name: BucketName) -> BucketSettings:
        """The settings of a bucket."""
        return self.state.bucket(name)

    def on_status_changed(self) -> None:
        """Some node is dead or alive now: placements are chosen anew."""
        self._chosen.clear()

    def place(self, partition: int, n: int) -> Placement:
        """The nodes to ask for a partition and n."""
        placement = self._chosen.get((partition, n))
        if placement is None:
            placement = place(self.state.ring, partition, n, self.name, self.alive)
            self._chosen[partition, n] = placement
        return placement

    def live_fallbacks(self, partition: int, n: int) -> list[str]:
        """Other live nodes behind the `n` primaries of a partition, in ring order."""
        return [f for f in fallbacks(self.state.ring, partition, n) if f != self.name and self.alive(f)]

    def partition(self, key: InternalKey) -> int:
        """The partition of an internal key."""
        return partition_of(split_data_key(key)[0], self.state.ring.partitions)

    def primaries(self, key: InternalKey) -> tuple[str, ...]:
        """The replicas of an internal key, most preferred first."""
        key_token, bucket, _ = split_data_key(key)
        ring = self.state.ring
        return preference_list(ring, partition_of(key_token, ring.partitions), self.state.bucket(bucket).n)

    def are_here(self, key: InternalKey) -> bool:
        """Whether this node is a primary of an internal key."""
        return self.name in self.primaries(key)

    @property
    def others(self) -> list[str]:
        """All other members, dead ones too."""
        return [member.node for member in self.state.members if member.node != self.name]

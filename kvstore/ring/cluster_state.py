"""Cluster state: ring, members and bucket settings as one immutable document with an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import mmh3

from kvstore.config import BucketSettings, default_bucket
from kvstore.errors import ConfigError
from kvstore.ring.builder import initial_ring
from kvstore.ring.member import Member
from kvstore.ring.ring import DEFAULT_PARTITIONS, DEFAULT_REPLICAS, Ring

MAX_PARTITIONS = 65536

_REMEMBERED_BUCKETS = 10_000
"""Buckets whose settings are kept ready; names come from clients, so there must be a bound."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What all nodes of a cluster agree on at an epoch. `replicas` is n of buckets nobody configured."""

    cluster_id: str
    epoch: int
    members: tuple[Member, ...]
    ring: Ring
    buckets: tuple[BucketSettings, ...] = ()
    replicas: int = DEFAULT_REPLICAS
    _settings: dict[str, BucketSettings] = field(default_factory=dict, init=False, repr=False, compare=False)
    _members: dict[str, Member] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._settings.update((bucket.name, bucket) for bucket in self.buckets)
        self._members.update((member.node, member) for member in self.members)

    def knows(self, name: str) -> bool:
        """Whether the settings of a bucket are at hand: its name has been found good then."""
        return name in self._settings

    def bucket(self, name: str) -> BucketSettings:
        """The settings of a bucket: those configured, else the default."""
        settings = self._settings.get(name)
        if settings is None:
            settings = default_bucket(name, self.replicas)
            if len(self._settings) < _REMEMBERED_BUCKETS:
                self._settings[name] = settings
        return settings

    def member(self, node: str) -> Member | None:
        """The member with this id."""
        return self._members.get(node)


def initial_state(
    cluster_id: str,
    members: Sequence[Member],
    partitions: int = DEFAULT_PARTITIONS,
    replicas: int = DEFAULT_REPLICAS,
    buckets: Sequence[BucketSettings] = (),
) -> ClusterState:
    """Epoch 1, the same on every node that is given the same; raises ConfigError.

    An empty `cluster_id` is derived from the members.
    """
    if not 1 <= partitions <= MAX_PARTITIONS or partitions & (partitions - 1):
        raise ConfigError(f"partitions={partitions} must be a power of two between 1 and {MAX_PARTITIONS}")
    if not replicas >= 1:
        raise ConfigError(f"replicas={replicas} must be at least 1")
    depth = min(replicas, len(members))
    names = [bucket.name for bucket in buckets]
    for bucket in buckets:
        if names.count(bucket.name) > 1:
            raise ConfigError(f"bucket {bucket.name} is configured twice")
        if bucket.n > depth:
            raise ConfigError(f"bucket {bucket.name}: n={bucket.n}, but keys have {depth} replicas")
    ordered = tuple(sorted(members, key=lambda member: member.node))
    text = ",".join(f"{m.node}={m.address}/{m.zone}" for m in ordered)
    return ClusterState(
        cluster_id or f"{mmh3.hash64(text.encode(), signed=False)[0]:016x}",
        1,
        ordered,
        initial_ring(ordered, partitions, replicas),
        tuple(sorted(buckets, key=lambda bucket: bucket.name)),
        depth,
    )

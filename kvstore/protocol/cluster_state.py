"""Cluster state: ring, members and bucket settings as one immutable document with an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvstore.config import BucketSettings, default_bucket
from kvstore.protocol.member import Member
from kvstore.protocol.ring import DEFAULT_REPLICAS, Ring

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

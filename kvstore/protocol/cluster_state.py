"""Cluster state: ring, members, moves and bucket settings as one immutable document with an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvstore.config import BucketSettings, default_bucket
from kvstore.protocol.member import Member
from kvstore.protocol.move import Move
from kvstore.protocol.ring import DEFAULT_REPLICAS, Ring
from kvstore.protocol.since import UNCHANGED, Since

_HEAD = 2
"""Bytes before a text of a document."""
_RECORD = 256
"""Of names of fields, numbers and words in one part of a document, at most."""
_REMEMBERED_BUCKETS = 10_000
"""Buckets whose settings are kept ready; names come from clients, so there must be a bound."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What all nodes of a cluster agree on at an epoch. `replicas` is n of buckets nobody configured.

    `moves` are the partitions that move, in order; the ring has the lists that these are read by.
    """

    cluster_id: str
    epoch: int
    members: tuple[Member, ...]
    ring: Ring
    buckets: tuple[BucketSettings, ...] = ()
    replicas: int = DEFAULT_REPLICAS
    moves: tuple[Move, ...] = ()
    since: Since = UNCHANGED
    _settings: dict[str, BucketSettings] = field(default_factory=dict, init=False, repr=False, compare=False)
    _members: dict[str, Member] = field(default_factory=dict, init=False, repr=False, compare=False)
    _moves: dict[int, Move] = field(default_factory=dict, init=False, repr=False, compare=False)
    _n_since: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._settings.update((bucket.name, bucket) for bucket in self.buckets)
        self._members.update((member.node, member) for member in self.members)
        self._moves.update((move.partition, move) for move in self.moves)
        self._n_since.update(self.since.buckets)

    def size(self) -> int:
        """About how many bytes the document takes on a disk or in a frame, never too few."""
        lists = [
            *self.ring.replica_lists,
            *(nodes for m in self.moves for nodes in (m.old, m.new, m.emptied)),
        ]
        names = [name for nodes in lists for name in nodes] + [bucket.name for bucket in self.buckets]
        labels = [text for m in self.members for text in (m.node, m.address, m.zone, m.host)]
        size = sum(len(text) + _HEAD for text in names + labels)
        return size + _RECORD * (1 + len(lists) + len(self.members) + len(self.buckets))

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

    @property
    def ns(self) -> tuple[int, ...]:
        """All numbers of replicas that keys have, in order."""
        return tuple(sorted({self.replicas, *(bucket.n for bucket in self.buckets)}))

    def member(self, node: str) -> Member | None:
        """The member with this id."""
        return self._members.get(node)

    def move(self, partition: int) -> Move | None:
        """The move of a partition, if it moves."""
        return self._moves.get(partition)

    def is_current(self, partition: int, bucket: str, epoch: int) -> bool:
        """Whether the replicas of a bucket's keys in a partition were at `epoch` what they are now.

        Of a later epoch than this one nothing is known, so it is none.
        """
        return self._is_current(partition, epoch) and self._n_since.get(bucket, 0) <= epoch

    def is_current_for_all(self, partition: int, epoch: int) -> bool:
        """Whether that holds whatever bucket it is."""
        return self._is_current(partition, epoch) and max(self._n_since.values(), default=0) <= epoch

    def _is_current(self, partition: int, epoch: int) -> bool:
        return (
            0 <= partition < self.ring.partitions and self.since.partition(partition) <= epoch <= self.epoch
        )

"""Which nodes own a key by the cluster state; requests of senders that know other owners are refused."""

from __future__ import annotations

from collections.abc import Iterable

from kvstore.config import BucketSettings
from kvstore.errors import StaleRing
from kvstore.ring import ClusterState, partition_of, replicas, split_data_key
from kvstore.versions import BucketName, InternalKey


class Ownership:
    """As the node `name` sees it."""

    def __init__(self, name: str, state: ClusterState) -> None:
        self.name = name
        self.state = state

    def on_state(self, state: ClusterState) -> None:
        """The cluster state has changed."""
        self.state = state

    def check_client(self, partition: int, bucket: BucketName, epoch: int) -> None:
        """Raise StaleRing unless the replicas of these keys are those of `epoch`, which a client knows."""
        if not self.state.is_current(partition, bucket, epoch):
            raise StaleRing(self.state.epoch)

    def check_epoch(self, epoch: int, *keys: InternalKey) -> None:
        """Raise StaleRing if some of these internal keys had other replicas at `epoch` than they have now."""
        if epoch == self.state.epoch:
            return
        for key in keys:
            if not self.state.is_current(self.partition(key), split_data_key(key)[1], epoch):
                raise StaleRing(self.state.epoch)

    def check_epoch_of(self, epoch: int, partitions: Iterable[int]) -> None:
        """Raise StaleRing if some of these partitions had other replicas at `epoch` than they have now."""
        if epoch == self.state.epoch:
            return
        if epoch > self.state.epoch:
            raise StaleRing(self.state.epoch)
        for partition in partitions:
            if not self.state.is_current_for_all(partition, epoch):
                raise StaleRing(self.state.epoch)

    def bucket(self, name: BucketName) -> BucketSettings:
        """The settings of a bucket."""
        return self.state.bucket(name)

    def partition(self, key: InternalKey) -> int:
        """The partition of an internal key."""
        return partition_of(split_data_key(key)[0], self.state.ring.partitions)

    def primaries(self, key: InternalKey) -> tuple[str, ...]:
        """The replicas of an internal key, of both lists while it moves; those that are read first."""
        key_token, bucket, _ = split_data_key(key)
        state = self.state
        return replicas(state, partition_of(key_token, state.ring.partitions), state.bucket(bucket).n)

    def are_here(self, key: InternalKey) -> bool:
        """Whether this node is a primary of an internal key."""
        return self.name in self.primaries(key)

    @property
    def others(self) -> list[str]:
        """All other members, dead ones too."""
        return [member.node for member in self.state.members if member.node != self.name]

"""Since which epoch each replica set is as it is: what a request of an earlier epoch may still be about.

A change elsewhere on the ring must cost the others nothing, so what a node refuses is not every request of
another epoch, but one whose replica set for its partition is not the present one.
"""

from __future__ import annotations

import msgspec

from kvstore.protocol.cluster_state import ClusterState
from kvstore.versions import BucketName


class Since(msgspec.Struct, frozen=True):
    """By partition the epoch since which its replica list is the present one; `n` likewise by bucket.

    A bucket that is not in `n` has had its number of replicas since the first epoch.
    """

    epoch: int
    partitions: tuple[int, ...]
    n: dict[BucketName, int]

    def is_current(self, partition: int, bucket: BucketName, epoch: int) -> bool:
        """Whether the replicas of a bucket's keys in a partition were at `epoch` what they are now.

        Of a later epoch than this node has nothing is known, so it is none.
        """
        return self._is_current(partition, epoch) and self.n.get(bucket, 0) <= epoch

    def is_current_for_all(self, partition: int, epoch: int) -> bool:
        """Whether that holds whatever bucket it is."""
        return self._is_current(partition, epoch) and max(self.n.values(), default=0) <= epoch

    def _is_current(self, partition: int, epoch: int) -> bool:
        return 0 <= partition < len(self.partitions) and self.partitions[partition] <= epoch <= self.epoch


def since_now(state: ClusterState) -> Since:
    """Of a node that knows of no earlier state: nothing but the present epoch is current."""
    return Since(state.epoch, (state.epoch,) * state.ring.partitions, {})


def since_after(before: Since, old: ClusterState, new: ClusterState) -> Since:
    """After the change from one state to the next."""
    if old.ring.partitions != new.ring.partitions or old.replicas != new.replicas:
        return since_now(new)
    lists = zip(before.partitions, old.ring.replica_lists, new.ring.replica_lists, strict=True)
    partitions = tuple(new.epoch if was != now else epoch for epoch, was, now in lists)
    named = {BucketName(bucket.name) for bucket in (*old.buckets, *new.buckets)}
    changed = {name for name in named if old.bucket(name).n != new.bucket(name).n}
    return Since(new.epoch, partitions, {**before.n, **dict.fromkeys(sorted(changed), new.epoch)})

"""Since which epoch each replica set is as it is, after a change: what an earlier request may still be about.

A change elsewhere on the ring must cost the others nothing, so what a node refuses is not every request of
another epoch, but one whose replica set for its partition is not the present one.
"""

from __future__ import annotations

from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.since import FIRST_EPOCH, UNCHANGED, Since


def since_after(old: ClusterState, new: ClusterState) -> Since:
    """What the state `new`, the very next one, is to say. What `new` says itself does not matter."""
    partitions = tuple(
        new.epoch
        if replica_set(old, partition) != replica_set(new, partition)
        else old.since.partition(partition)
        for partition in range(new.ring.partitions)
    )
    if set(partitions) == {FIRST_EPOCH}:
        partitions = UNCHANGED.partitions
    names = {bucket.name for bucket in (*old.buckets, *new.buckets)}
    changed = {name: new.epoch for name in names if old.bucket(name).n != new.bucket(name).n}
    return Since(partitions, tuple(sorted({**dict(old.since.buckets), **changed}.items())))


def replica_set(state: ClusterState, partition: int) -> object:
    """All that says which replicas a request of a partition is for: two are compared, and nothing else."""
    return state.ring.replica_lists[partition], state.move(partition)

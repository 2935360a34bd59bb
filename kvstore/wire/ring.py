"""Cluster state as the ring discovery call returns it, and back."""

from __future__ import annotations

from kvstore.config import BucketSettings, Conflict, QuorumMode
from kvstore.errors import ConfigError
from kvstore.ring import ClusterState, Member, Ring
from kvstore.v1 import client_pb2 as pb


def state_to_wire(state: ClusterState) -> pb.GetRingResponse:
    """Members once, replica lists as indexes into them."""
    index = {member.node: i for i, member in enumerate(state.members)}
    return pb.GetRingResponse(
        cluster_id=state.cluster_id,
        epoch=state.epoch,
        members=[
            pb.RingMember(node=m.node, address=m.address, zone=m.zone, host=m.host, weight=m.weight)
            for m in state.members
        ],
        partitions=[
            pb.PartitionReplicas(members=[index[node] for node in nodes])
            for nodes in state.ring.replica_lists
        ],
        buckets=[
            pb.BucketConfig(
                name=b.name,
                n=b.n,
                r=b.r,
                w=b.w,
                quorum=b.quorum.value,
                conflict=b.conflict.value,
                ttl_s=b.ttl,
            )
            for b in state.buckets
        ],
        replicas=state.replicas,
    )


def state_from_wire(m: pb.GetRingResponse) -> ClusterState:
    """Inverse of `state_to_wire`; raises ConfigError for what can be no cluster state."""
    members = tuple(Member(x.node, x.address, x.zone, x.host, x.weight) for x in m.members)
    names = [member.node for member in members]
    try:
        lists = tuple(tuple(names[i] for i in partition.members) for partition in m.partitions)
        buckets = tuple(_bucket_from_wire(b) for b in m.buckets)
    except (IndexError, ValueError) as error:
        raise ConfigError(f"not a cluster state: {error}") from error
    if not lists or len(lists) & (len(lists) - 1) or not all(lists):
        raise ConfigError(f"not a cluster state: {len(lists)} partitions, or one without replicas")
    return ClusterState(m.cluster_id, m.epoch, members, Ring(lists), buckets, m.replicas)


def _bucket_from_wire(b: pb.BucketConfig) -> BucketSettings:
    return BucketSettings(b.name, b.n, b.r, b.w, QuorumMode(b.quorum), Conflict(b.conflict), b.ttl_s)

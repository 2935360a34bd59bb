"""The first cluster state, made of the initial member list: the same on every node that is given the same."""

from __future__ import annotations

from collections.abc import Sequence

import mmh3

from kvstore.config import BucketSettings
from kvstore.errors import ConfigError
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.member import Member
from kvstore.protocol.ring import DEFAULT_PARTITIONS, DEFAULT_REPLICAS
from kvstore.ring.apart import check_hosts, most_replicas
from kvstore.ring.builder import initial_ring
from kvstore.ring.check import MAX_PARTITIONS


def initial_state(
    cluster_id: str,
    members: Sequence[Member],
    partitions: int = DEFAULT_PARTITIONS,
    replicas: int = DEFAULT_REPLICAS,
    buckets: Sequence[BucketSettings] = (),
) -> ClusterState:
    """Epoch 1, the same on every node that is given the same; raises ConfigError.

    An empty `cluster_id` is derived from the members' ids, zones and hosts, and not from their addresses,
    which may change.
    """
    if not 1 <= partitions <= MAX_PARTITIONS or partitions & (partitions - 1):
        raise ConfigError(f"partitions={partitions} must be a power of two between 1 and {MAX_PARTITIONS}")
    if not replicas >= 1:
        raise ConfigError(f"replicas={replicas} must be at least 1")
    check_hosts(members)
    depth = min(replicas, most_replicas(members))
    names = [bucket.name for bucket in buckets]
    for bucket in buckets:
        if names.count(bucket.name) > 1:
            raise ConfigError(f"bucket {bucket.name} is configured twice")
        if bucket.n > depth:
            few = ", one on each host" if depth < min(replicas, len(members)) else ""
            raise ConfigError(f"bucket {bucket.name}: n={bucket.n}, but keys have {depth} replicas{few}")
    ordered = tuple(sorted(members, key=lambda member: member.node))
    text = ",".join(f"{m.node}/{m.labels}" for m in ordered)
    return ClusterState(
        cluster_id or f"{mmh3.hash64(text.encode(), signed=False)[0]:016x}",
        1,
        ordered,
        initial_ring(ordered, partitions, replicas),
        tuple(sorted(buckets, key=lambda bucket: bucket.name)),
        depth,
    )

"""In which order the nodes of a cluster are asked about a key."""

from __future__ import annotations

from kvstore.ring import ClusterState


def route(state: ClusterState, partition: int) -> tuple[str, ...]:
    """Replicas in order of preference, then the others, each partition beginning at another one."""
    replicas = state.ring.replica_lists[partition]
    others = [member.node for member in state.members if member.node not in replicas]
    turn = partition % len(others) if others else 0
    return (*replicas, *others[turn:], *others[:turn])

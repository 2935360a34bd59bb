"""How nodes introduce themselves to each other, and whom they refuse.

The caller's metadata say which node of which cluster it is, and what it knows of the cluster: two nodes
started with different partitions or buckets would put replicas in different places and never notice.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from kvstore.ring import ClusterState
from kvstore.v1.peer_pb2 import Welcome
from kvstore.wire.ring import state_to_wire

_NODE = "kvstore-node"
_CLUSTER = "kvstore-cluster"
_EPOCH = "kvstore-epoch"
_STATE = "kvstore-state"
_LASTING = "kvstore-lasting"

Metadata = tuple[tuple[str, str], ...]


class Refused(Exception):
    """The two nodes do not belong together; the message says why."""


def introduction(me: str, state: ClusterState) -> Metadata:
    """The metadata with which a node opens its streams."""
    return (
        (_NODE, me),
        (_CLUSTER, state.cluster_id),
        (_EPOCH, str(state.epoch)),
        (_STATE, _fingerprint(state)),
        (_LASTING, _lasting(state)),
    )


def check_caller(metadata: Iterable[tuple[str, str | bytes]], me: str, state: ClusterState) -> str:
    """The node that calls; raises Refused unless it is another member of this very cluster."""
    given = dict(metadata)
    node, cluster = given.get(_NODE, ""), given.get(_CLUSTER, "")
    if cluster != state.cluster_id:
        raise Refused(f"node {node!r} is of cluster {cluster!r}, this one of cluster {state.cluster_id!r}")
    if not isinstance(node, str) or state.member(node) is None:
        raise Refused(f"node {node!r} is no member of cluster {state.cluster_id!r}")
    if node == me:
        raise Refused(
            f"node {node!r} is this one: two processes run under one node id, or an address is wrong"
        )
    same_epoch = given.get(_EPOCH) == str(state.epoch)
    if given.get(_LASTING) != _lasting(state) or (same_epoch and given.get(_STATE) != _fingerprint(state)):
        raise Refused(f"node {node!r} was started with other members, partitions, replicas or buckets")
    return node


def check_welcome(welcome: Welcome, peer: str) -> None:
    """Raise Refused when who answers at a peer's address is not that peer."""
    if welcome.node != peer:
        raise Refused(f"at the address of node {peer!r} answers node {welcome.node!r}")


def _lasting(state: ClusterState) -> str:
    """What no epoch changes: whoever claims another one has to have it all the same."""
    return f"{state.ring.partitions}/{state.replicas}"


def _fingerprint(state: ClusterState) -> str:
    return sha256(state_to_wire(state).SerializeToString(deterministic=True)).hexdigest()[:16]

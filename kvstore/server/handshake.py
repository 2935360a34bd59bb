"""How nodes introduce themselves to each other, and whom they refuse.

The caller's metadata say which node of which cluster it is, and what it knows of the cluster: two nodes
started with different partitions or buckets would put replicas in different places and never notice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from google.protobuf.message import DecodeError

from kvstore.ring import ClusterState
from kvstore.server.configuration import DEFAULTS, Configuration, differences, encode
from kvstore.v1.peer_pb2 import Welcome
from kvstore.wire.ring import state_to_wire

_NODE = "kvstore-node"
_CLUSTER = "kvstore-cluster"
_EPOCH = "kvstore-epoch"
_STATE = "kvstore-state"
_SHAPE = "kvstore-shape"
_LASTING = "kvstore-lasting"
_CONFIGURATION = "kvstore-configuration-bin"
_SHOWN = 64
"""Characters of a name that a stranger claims, as many as one may have: they are logged and kept."""

Metadata = tuple[tuple[str, str | bytes], ...]


class Refused(Exception):
    """The two nodes do not belong together; the message says why."""


def introduction(me: str, state: ClusterState, configuration: Configuration = DEFAULTS) -> Metadata:
    """The metadata with which a node opens its streams."""
    return (
        (_NODE, me),
        (_CLUSTER, state.cluster_id),
        (_EPOCH, str(state.epoch)),
        (_STATE, _fingerprint(state, addresses=True)),
        (_SHAPE, _fingerprint(state, addresses=False)),
        (_LASTING, _lasting(state)),
        (_CONFIGURATION, encode(configuration.texts(state))),
    )


class Caller(NamedTuple):
    """Another node that has opened a stream."""

    node: str
    differences: str
    """The settings that it has and this node has otherwise, all of which both can live with; empty: none."""


def check_caller(
    metadata: Iterable[tuple[str, str | bytes]],
    me: str,
    state: ClusterState,
    configuration: Configuration = DEFAULTS,
) -> Caller:
    """The node that calls; raises Refused unless it is another member of this very cluster.

    Its own address may be another one than this node was given: somebody has moved it, and restarts the
    nodes one by one with the new one.
    """
    given = dict(metadata)
    node, cluster = given.get(_NODE, ""), given.get(_CLUSTER, "")
    named = repr(node[:_SHOWN])
    if cluster != state.cluster_id:
        theirs = repr(cluster[:_SHOWN])
        raise Refused(f"node {named} is of cluster {theirs}, this one of cluster {state.cluster_id!r}")
    if not isinstance(node, str) or state.member(node) is None:
        raise Refused(f"node {named} is no member of cluster {state.cluster_id!r}")
    if node == me:
        raise Refused(
            f"node {node!r} is this one: two processes run under one node id, or an address is wrong"
        )
    found = differences(configuration.texts(state), given.get(_CONFIGURATION, b""))
    same_epoch = given.get(_EPOCH) == str(state.epoch)
    if given.get(_LASTING) != _lasting(state) or (same_epoch and not _same_shape(given, state)):
        reason = f"node {node!r} was started with other members, partitions, replicas or buckets"
        raise Refused(f"{reason}: {found}" if found else reason)
    return Caller(node, found)


def welcome(me: str, state: ClusterState) -> bytes:
    """The first message of a node that another one has called."""
    return Welcome(node=me, cluster_id=state.cluster_id).SerializeToString()


def check_welcome(message: bytes, peer: str) -> None:
    """Raise Refused when who answers at a peer's address is not that peer."""
    try:
        welcome = Welcome.FromString(message)
    except DecodeError:
        raise Refused(f"at the address of node {peer!r} answers something that is no node") from None
    if welcome.node != peer:
        raise Refused(f"at the address of node {peer!r} answers node {welcome.node!r}")


def _lasting(state: ClusterState) -> str:
    """What no epoch changes: whoever claims another one has to have it all the same."""
    return f"{state.ring.partitions}/{state.replicas}"


def _same_shape(given: Mapping[str, str | bytes], state: ClusterState) -> bool:
    if _SHAPE in given:
        return given[_SHAPE] == _fingerprint(state, addresses=False)
    return given.get(_STATE) == _fingerprint(state, addresses=True)  # a node of before there was that


@lru_cache(maxsize=8)
def _fingerprint(state: ClusterState, *, addresses: bool) -> str:
    document = state_to_wire(state)
    if not addresses:
        for member in document.members:
            member.ClearField("address")
    return sha256(document.SerializeToString(deterministic=True)).hexdigest()[:16]

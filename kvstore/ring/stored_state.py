"""Cluster state as a node keeps it on its disk, with what it remembers of earlier ones.

A byte for the format, then msgpack: see docs/data-directory.md.
"""

from __future__ import annotations

import msgspec

from kvstore.config import BucketSettings
from kvstore.errors import ConfigError, Corruption
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.member import Member
from kvstore.protocol.ring import Ring
from kvstore.ring.since import Since

_FORMAT = b"\1"


class _Document(msgspec.Struct, frozen=True, array_like=True):
    cluster_id: str
    epoch: int
    members: tuple[Member, ...]
    replica_lists: tuple[tuple[str, ...], ...]
    buckets: tuple[BucketSettings, ...]
    replicas: int
    since: Since


def encode_state(state: ClusterState, since: Since) -> bytes:
    """The bytes of a state."""
    document = _Document(
        state.cluster_id,
        state.epoch,
        state.members,
        state.ring.replica_lists,
        state.buckets,
        state.replicas,
        since,
    )
    return _FORMAT + msgspec.msgpack.encode(document)


def decode_state(data: bytes) -> tuple[ClusterState, Since]:
    """Inverse of `encode_state`; raises Corruption."""
    if data[:1] != _FORMAT:
        raise Corruption("cluster state", f"is of format {data[:1].hex() or 'none'}, not {_FORMAT.hex()}")
    try:
        found = msgspec.msgpack.decode(data[1:], type=_Document)
        check_lists(found.members, found.replica_lists)
    except (msgspec.MsgspecError, UnicodeDecodeError, ConfigError) as error:
        raise Corruption("cluster state", str(error)) from error
    if len(found.since.partitions) != len(found.replica_lists) or found.since.epoch != found.epoch:
        raise Corruption("cluster state", "and what is remembered of earlier ones do not fit together")
    state = ClusterState(
        found.cluster_id, found.epoch, found.members, Ring(found.replica_lists), found.buckets, found.replicas
    )
    return state, found.since


def check_lists(members: tuple[Member, ...], lists: tuple[tuple[str, ...], ...]) -> None:
    """Raise ConfigError unless these can be the replica lists of a ring of these members."""
    if not lists or len(lists) & (len(lists) - 1) or not all(lists):
        raise ConfigError(f"{len(lists)} partitions, or one without replicas, are no ring")
    names = {member.node for member in members}
    if len(names) != len(members):
        raise ConfigError("a member is named twice")
    for nodes in lists:
        if len(set(nodes)) != len(nodes) or not names.issuperset(nodes):
            raise ConfigError(f"a replica list names a node twice, or one that is no member: {nodes}")

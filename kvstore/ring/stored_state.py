"""Cluster state as a node keeps it on its disk: a byte for the format, then msgpack (docs/ring.md)."""

from __future__ import annotations

from typing import Any

import msgspec

from kvstore.config import BucketSettings
from kvstore.errors import ConfigError, Corruption
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.member import Member
from kvstore.protocol.move import Move
from kvstore.protocol.ring import Ring
from kvstore.protocol.since import FIRST_EPOCH, UNCHANGED, Since
from kvstore.ring.check import check_state

_FORMAT = b"\2"


class _Document(msgspec.Struct, frozen=True, array_like=True):
    cluster_id: str
    epoch: int
    members: tuple[Member, ...]
    replica_lists: tuple[tuple[str, ...], ...]
    buckets: tuple[BucketSettings, ...]
    replicas: int
    since: Since
    moves: tuple[Move, ...]

    def state(self) -> ClusterState:
        ring = Ring(self.replica_lists)
        return ClusterState(
            self.cluster_id,
            self.epoch,
            self.members,
            ring,
            self.buckets,
            self.replicas,
            self.moves,
            self.since,
        )


class _Since1(msgspec.Struct, frozen=True):
    epoch: int
    partitions: tuple[int, ...]
    n: dict[str, int]


class _Document1(msgspec.Struct, frozen=True, array_like=True):
    """Of format 1, which knew no moves."""

    cluster_id: str
    epoch: int
    members: tuple[Member, ...]
    replica_lists: tuple[tuple[str, ...], ...]
    buckets: tuple[BucketSettings, ...]
    replicas: int
    since: _Since1

    def state(self) -> ClusterState:
        changed = set(self.since.partitions) != {FIRST_EPOCH}
        since = Since(
            self.since.partitions if changed else UNCHANGED.partitions, tuple(sorted(self.since.n.items()))
        )
        ring = Ring(self.replica_lists)
        return ClusterState(
            self.cluster_id, self.epoch, self.members, ring, self.buckets, self.replicas, (), since
        )


_DOCUMENTS: dict[bytes, Any] = {b"\1": _Document1, _FORMAT: _Document}


def encode_state(state: ClusterState) -> bytes:
    """The bytes of a state."""
    document = _Document(
        state.cluster_id,
        state.epoch,
        state.members,
        state.ring.replica_lists,
        state.buckets,
        state.replicas,
        state.since,
        state.moves,
    )
    return _FORMAT + msgspec.msgpack.encode(document)


def decode_state(data: bytes) -> ClusterState:
    """Inverse of `encode_state`; raises Corruption."""
    document = _DOCUMENTS.get(data[:1])
    if document is None:
        raise Corruption("cluster state", f"is of format {data[:1].hex() or 'none'}, not {_FORMAT.hex()}")
    try:
        state: ClusterState = msgspec.msgpack.decode(data[1:], type=document).state()
        check_state(state)
    except (msgspec.MsgspecError, UnicodeDecodeError, ConfigError) as error:
        raise Corruption("cluster state", str(error)) from error
    return state

"""Cluster state as the ring discovery call returns it, and back."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

from kvstore.config import BucketSettings, default_bucket
from kvstore.errors import ConfigError
from kvstore.ring import ClusterState, Member, Move, Ring, Since, Step, check_state
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.codec import field_for

_USUAL = default_bucket("usual", 1)
_BUCKET_FIELDS = {setting: field_for(pb.BucketConfig.DESCRIPTOR, setting).name for setting in _USUAL.values}
"""The field of each setting of a bucket."""
_CHOICES = {s: type(choice) for s in _BUCKET_FIELDS if isinstance(choice := getattr(_USUAL, s), Enum)}
"""The kind of each setting that travels as a text."""
_STEPS = {
    Step.WRITE_BOTH_READ_OLD: pb.MOVE_STEP_WRITE_BOTH_READ_OLD,
    Step.WRITE_BOTH_READ_NEW: pb.MOVE_STEP_WRITE_BOTH_READ_NEW,
}
_STEPS_FROM_WIRE = {value: step for step, value in _STEPS.items()}


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
            pb.BucketConfig(name=b.name, **{_BUCKET_FIELDS[s]: value for s, value in b.values.items()})
            for b in state.buckets
        ],
        replicas=state.replicas,
        moves=[
            pb.PartitionMove(
                partition=move.partition,
                old=[index[node] for node in move.old],
                new=[index[node] for node in move.new],
                step=_STEPS[move.step],
                emptied=[index[node] for node in move.emptied],
            )
            for move in state.moves
        ],
        since=state.since.partitions,
        buckets_since=dict(state.since.buckets),
    )


@lru_cache(maxsize=4)
def encoded_state(state: ClusterState) -> bytes:
    """The bytes of `state_to_wire`, made once: it takes 1 ms for 256 partitions, and any client may ask."""
    return state_to_wire(state).SerializeToString(deterministic=True)


def state_from_wire(m: pb.GetRingResponse) -> ClusterState:
    """Inverse of `state_to_wire`; raises ConfigError for what can be no cluster state."""
    members = tuple(Member(x.node, x.address, x.zone, x.host, x.weight) for x in m.members)
    names = [member.node for member in members]
    try:
        lists = tuple(tuple(names[i] for i in partition.members) for partition in m.partitions)
        buckets = tuple(_bucket_from_wire(b) for b in m.buckets)
        moves = tuple(_move_from_wire(move, names) for move in m.moves)
        since = Since(tuple(m.since), tuple(sorted(m.buckets_since.items())))
        state = ClusterState(m.cluster_id, m.epoch, members, Ring(lists), buckets, m.replicas, moves, since)
        check_state(state)
    except (IndexError, KeyError, ValueError, ConfigError) as error:
        raise ConfigError(f"not a cluster state: {error}") from error
    return state


def _move_from_wire(m: pb.PartitionMove, names: list[str]) -> Move:
    old, new, emptied = (tuple(names[i] for i in indexes) for indexes in (m.old, m.new, m.emptied))
    return Move(m.partition, old, new, _STEPS_FROM_WIRE[m.step], emptied)


def _bucket_from_wire(b: pb.BucketConfig) -> BucketSettings:
    values = {setting: getattr(b, name) for setting, name in _BUCKET_FIELDS.items()}
    values |= {setting: kind(values[setting]) for setting, kind in _CHOICES.items()}
    return BucketSettings(b.name, **values)

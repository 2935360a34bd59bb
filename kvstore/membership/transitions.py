"""The next cluster state: a change begins, its moves advance, or it is cancelled. Each is an epoch.

All of them are checked by what may follow (kvstore.membership.follow), whoever makes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from msgspec.structs import replace as altered

from kvstore.config import BucketSettings
from kvstore.errors import InvalidRequest
from kvstore.membership.follow import check_next
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.member import Member
from kvstore.protocol.move import Move, Step
from kvstore.protocol.ring import Ring
from kvstore.ring.since import since_after

Lists = Mapping[int, tuple[str, ...]]
"""Replica lists, or parts of them, by partition."""
_NONE: Lists = {}


def begin(
    state: ClusterState,
    new: Lists,
    members: Sequence[Member] | None = None,
    emptied: Lists = _NONE,
) -> ClusterState:
    """The first step of a change: these partitions get `new` replica lists.

    `members` are those from now on, `emptied` the replicas that have lost their data, by partition: one that
    is in no list of `new` moves onto itself. Raises InvalidRequest.
    """
    lists = state.ring.replica_lists
    partitions = sorted({*new, *emptied})
    if partitions and not 0 <= partitions[0] <= partitions[-1] < len(lists):
        raise InvalidRequest("change", f"there are no partitions but 0 to {len(lists) - 1}")
    moves = [
        Move(p, lists[p], new.get(p, lists[p]), Step.WRITE_BOTH_READ_OLD, emptied.get(p, ()))
        for p in partitions
    ]
    ordered = state.members if members is None else tuple(sorted(members, key=lambda member: member.node))
    return _next(state, moves=tuple(sorted([*state.moves, *moves], key=_partition)), members=ordered)


def advance(state: ClusterState, partitions: Collection[int]) -> ClusterState:
    """The moves of these partitions each go to their next step, the last of which is to be none."""
    moving = [move.partition for move in state.moves]
    if not partitions or not set(partitions).issubset(moving):
        raise InvalidRequest("change", "only what moves can advance")
    lists = list(state.ring.replica_lists)
    moves = []
    for move in state.moves:
        if move.partition not in partitions:
            moves.append(move)
        elif move.step is Step.WRITE_BOTH_READ_OLD:
            lists[move.partition] = move.new
            moves.append(altered(move, step=Step.WRITE_BOTH_READ_NEW))
    return _next(state, moves=tuple(moves), ring=Ring(tuple(lists)))


def cancel(state: ClusterState) -> ClusterState:
    """What is read by its old list stays there; raises InvalidRequest when there is nothing such.

    What is read by its new list goes on, and an emptied replica is filled all the same.
    """
    staying = tuple(m for m in state.moves if m.step is Step.WRITE_BOTH_READ_NEW or m.emptied)
    if len(staying) == len(state.moves):
        raise InvalidRequest("change", "nothing of it can be cancelled any more")
    return _next(state, moves=staying)


def with_bucket(state: ClusterState, settings: BucketSettings) -> ClusterState:
    """A bucket has these settings from now on; raises InvalidRequest if it may not have them."""
    others = [bucket for bucket in state.buckets if bucket.name != settings.name]
    return _next(state, buckets=tuple(sorted([*others, settings], key=attrgetter("name"))))


def without_bucket(state: ClusterState, name: str) -> ClusterState:
    """A bucket has the settings of those that nobody configured; its keys stay. Raises InvalidRequest."""
    if name not in (bucket.name for bucket in state.buckets):
        raise InvalidRequest("bucket", f"{name} has no settings of its own")
    return _next(state, buckets=tuple(bucket for bucket in state.buckets if bucket.name != name))


def _partition(move: Move) -> int:
    return move.partition


def _next(state: ClusterState, **changes: Any) -> ClusterState:
    found = replace(state, epoch=state.epoch + 1, **changes)
    found = replace(found, since=since_after(state, found))
    check_next(state, found)
    return found

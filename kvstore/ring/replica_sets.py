"""Whose answers count for the keys of a partition: more than one set of replicas while it moves."""

from __future__ import annotations

from typing import NamedTuple

from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.move import Move, Step


class ReplicaSets(NamedTuple):
    """A read needs R of `read`; a write W of each of `written`, of all where that is less.

    `read` is empty when all who are read have lost their data: then no read can be answered.
    """

    read: tuple[str, ...]
    written: tuple[tuple[str, ...], ...]


def replica_sets(state: ClusterState, partition: int, n: int) -> ReplicaSets:
    """Of the keys with `n` replicas in a partition, most preferred first."""
    move = state.move(partition)
    if move is None:
        nodes = state.ring.replica_lists[partition][:n]
        return ReplicaSets(nodes, (nodes,))
    old, new = old_replicas(move, n), move.new[:n]
    return ReplicaSets(
        old if move.step is Step.WRITE_BOTH_READ_OLD else new, tuple(nodes for nodes in (old, new) if nodes)
    )


def replicas(state: ClusterState, partition: int, n: int) -> tuple[str, ...]:
    """Of the keys with `n` replicas in a partition all that are written to, those that are read first."""
    if state.move(partition) is None:
        return state.ring.replica_lists[partition][:n]
    sets = replica_sets(state, partition, n)
    return tuple(dict.fromkeys(node for nodes in (sets.read, *sets.written) for node in nodes))


def old_replicas(move: Move, n: int) -> tuple[str, ...]:
    """Of the keys with `n` replicas those that have what was written before the move."""
    return tuple(node for node in move.old[:n] if node not in move.emptied)


def coming_replicas(move: Move, n: int) -> tuple[str, ...]:
    """Of the keys with `n` replicas those that lack what was written before the move."""
    old = old_replicas(move, n)
    return tuple(node for node in move.new[:n] if node not in old)


def read_quorum(state: ClusterState, n: int) -> int:
    """The fewest replicas of which every write of keys with `n` replicas has reached one, if it was to last.

    As many as a read of any bucket with R + W > N asks.
    """
    usual = [n // 2 + 1]
    return max([b.r for b in state.buckets if b.n == n and b.r + b.w > n] + usual)

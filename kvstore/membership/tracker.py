"""When a step of a change is over, and which one is next: known from what members say of themselves.

A step is over when so many of the replicas that it reads by have taken up a later one that no strict quorum
can be formed in it any more. Every node may have a tracker; each knows what it has heard, and one that knows
less proposes later.
"""

from __future__ import annotations

from kvstore.membership.transitions import advance
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.move import Move, Step
from kvstore.ring.replica_sets import coming_replicas, old_replicas


class Tracker:
    """Of one node, at the state that it knows."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state
        self._epochs: dict[str, int] = {}
        """By member the epoch that it has taken up: on its disk, so it never goes back."""
        self._proven: dict[tuple[str, int], int] = {}
        """By replica and partition the epoch of the latest proof."""

    def on_state(self, state: ClusterState) -> None:
        """There is a newer state."""
        self.state = state
        self._epochs = {node: at for node, at in self._epochs.items() if state.member(node)}
        self._proven = {key: at for key, at in self._proven.items() if state.move(key[1])}

    def on_epoch(self, node: str, epoch: int) -> None:
        """A member has taken up an epoch, durably."""
        if self.state.member(node):
            self._epochs[node] = max(epoch, self._epochs.get(node, 0))

    def on_proven(self, node: str, partition: int, epoch: int) -> None:
        """A replica holds all that a read quorum of the old ones held, each of them at `epoch` or later."""
        if self.state.move(partition) and self.state.member(node):
            self._proven[node, partition] = max(epoch, self._proven.get((node, partition), 0))

    def next(self) -> ClusterState | None:
        """The state to propose, in which all moves that may advance have advanced; None: none may."""
        partitions = [move.partition for move in self.state.moves if self.may_advance(move)]
        return advance(self.state, partitions) if partitions else None

    def may_advance(self, move: Move) -> bool:
        """Whether a move may go on to its next step."""
        if not self.is_over_before(move):
            return False
        return move.step is Step.WRITE_BOTH_READ_NEW or self._is_proven(move)

    def is_over_before(self, move: Move) -> bool:
        """Whether no strict quorum can be formed any more in the step before the one that a move is in.

        That step was read by the old list, whether it was the first of this move or the one before it.
        """
        since = self.state.since.partition(move.partition)
        return all(
            sum(self._epochs.get(node, 0) < since for node in self._read_before(move, n)) < least
            for n, least in strict_quorums(self.state)
        )

    def _read_before(self, move: Move, n: int) -> tuple[str, ...]:
        return move.old[:n] if move.step is Step.WRITE_BOTH_READ_OLD else old_replicas(move, n)

    def _is_proven(self, move: Move) -> bool:
        since = self.state.since.partition(move.partition)
        coming = {node for n, _ in strict_quorums(self.state) for node in coming_replicas(move, n)}
        return all(self._proven.get((node, move.partition), 0) >= since for node in coming)


def strict_quorums(state: ClusterState) -> set[tuple[int, int]]:
    """For each number of replicas of a key, the fewest whose answers a strict request waits for.

    Of a bucket whose R and W together are no more than N nothing is promised that a change could break.
    """
    usual = state.replicas // 2 + 1
    found = {(state.replicas, usual)}
    found.update((b.n, min(b.r, b.w)) for b in state.buckets if b.r + b.w > b.n)
    found.update((b.n, b.n // 2 + 1) for b in state.buckets if b.r + b.w <= b.n)
    return found

"""Which replicas are known to be equal, since when, and which are to be compared next.

A pair is a peer and the root of a tree that this node shares with it.
"""

from __future__ import annotations

from collections.abc import Callable

from kvstore.config import AntiEntropySettings
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import TreeNode
from kvstore.quorum.anti_entropy_status import AntiEntropyStatus
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.merkle_tree import ROOT
from kvstore.quorum.deadlines import NEVER
from kvstore.quorum.ownership import Ownership
from kvstore.ring import replicas

Pair = tuple[str, TreeNode]


class Proofs:
    """Of one node, with each of its peers."""

    def __init__(
        self,
        ownership: Ownership,
        alive: Callable[[str], bool],
        trees: Trees,
        settings: AntiEntropySettings,
    ) -> None:
        self._ownership = ownership
        self._alive = alive
        self._trees = trees
        self._settings = settings
        self.roots = _shared(ownership, trees.ns)
        """By peer the roots of the trees that both should have."""
        self._epoch = ownership.state.epoch
        self._first = 0.0 if settings.interval < NEVER else NEVER
        self._next = dict.fromkeys(self.roots, self._first)
        self._proven: dict[Pair, float] = {}
        self._marked: set[Pair] = set()
        self._wanted_since = -NEVER

    def on_state(self) -> None:
        """The cluster state has changed: what was proven of a replica set that is new now says nothing."""
        state, before = self._ownership.state, self._epoch
        self._epoch = state.epoch
        self.roots = _shared(self._ownership, self._trees.ns)
        kept = {
            (peer, root)
            for peer, roots in self.roots.items()
            for root in roots
            if state.since.partition(root.partition) <= before
        }
        self._proven = {pair: when for pair, when in self._proven.items() if pair in kept}
        self._marked &= kept
        self._next = {peer: min(self._next.get(peer, NEVER), self._first) for peer in self.roots}

    def status(self, now: Instant) -> AntiEntropyStatus:
        """How far the replicas are known to be equal."""
        pairs = [(peer, root) for peer, roots in self.roots.items() for root in roots]
        times = [self._proven[pair] for pair in pairs if pair in self._proven]
        waiting = [peer for peer, _ in self._unproven()]
        return AntiEntropyStatus(
            len(pairs),
            len(pairs) - len(times),
            now.mono - min(times, default=now.mono),
            len(waiting),
            tuple(sorted(set(waiting))),
        )

    def _unproven(self) -> list[Pair]:
        """Pairs that were not proven since an operator has asked; none if nobody has."""
        return [
            (peer, root)
            for peer, roots in self.roots.items()
            for root in roots
            if self._proven.get((peer, root), -NEVER) < self._wanted_since
        ]

    def want_all(self, now: Instant) -> None:
        """Everything is to be compared with everyone, now."""
        self._wanted_since = now.mono
        self._next = dict.fromkeys(self.roots, 0.0)

    def mark(self, peer: str, root: TreeNode, when: float) -> bool:
        """Compare a pair at `when`, and repair it whoever of the two stands first; False if it is none."""
        if (peer, root) in self._marked or root not in self.roots.get(peer, ()):
            return False
        self._marked.add((peer, root))
        self._next[peer] = min(self._next[peer], when)
        return True

    def is_marked(self, peer: str, root: TreeNode) -> bool:
        """Whether a pair is to be repaired next."""
        return (peer, root) in self._marked

    def proven(self, peer: str, epoch: int, root: TreeNode, asked_at: Instant) -> None:
        """A pair was equal when the peer was asked, by this epoch: of other replicas that says nothing."""
        if not self._ownership.state.is_current_for_all(root.partition, epoch):
            return
        self._proven[peer, root] = asked_at.mono
        self._marked.discard((peer, root))

    def next_peer(self, now: Instant) -> str:
        """The live peer that should be compared with now; empty: none."""
        due = [p for p, when in self._next.items() if when <= now.mono and self._alive(p)]
        marked = {peer for peer, _ in self._marked}
        return min(due, key=lambda peer: (peer not in marked, self._next[peer]), default="")

    def compared(self, peer: str, found_work: bool, now: Instant) -> None:
        """A round with `peer` is over; the next one is sooner while there is work."""
        if peer not in self.roots:  # it is none any more
            return
        waiting = (*self._unproven(), *self._marked)
        soon = found_work or any(other == peer for other, _ in waiting)
        self._next[peer] = now.mono + (self._settings.settle if soon else self._settings.interval)

    def next_round(self, now: Instant) -> float:
        """Seconds until some peer is due; the dead are looked at again after a while."""
        times = [max(when - now.mono, self._settings.settle) for when in self._next.values()]
        return min(times, default=NEVER)


def _shared(ownership: Ownership, ns: tuple[int, ...]) -> dict[str, list[TreeNode]]:
    shared: dict[str, list[TreeNode]] = {}
    state, name = ownership.state, ownership.name
    for partition in range(state.ring.partitions):
        for n in ns:
            primaries = replicas(state, partition, n)
            for peer in primaries:
                if name in primaries and peer != name:
                    shared.setdefault(peer, []).append(TreeNode(partition, n, ROOT))
    return dict(sorted(shared.items()))

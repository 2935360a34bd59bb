"""A partition that moves under reads and writes, every interleaving: what is decided, who takes it up, who
answers, who is compared, who crashes.

Decisions are atomic here: that there is one for each epoch is what tests/model/decision.py explores. A
tracker that knows less proposes what one that knows all proposes, later. What is real: transitions,
tracker, check of what follows, replica sets, votes, and the rule by which a replica refuses a request for
its epoch.

One key is enough: no step depends on what is stored, so what holds for each key by itself holds for two. It
is one of the partition that moves, or (`tracked` 1) of one that does not. Reads need no messages: once the
write is acknowledged, `unaware` gathers by epoch who could have told a coordinator of that epoch, at any
time since then, that it lacks the write; when these are a read quorum, a read of that epoch has missed it.
Replicas never lose a version, so that nothing is left out: a lost or late message is a step that is not
taken, or one taken later, and repair or hints could only make fewer replicas unaware. An acknowledgement is
counted when it is sent, the earliest time: the reads that must see it are then the most.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from kvstore.errors import StaleRing
from kvstore.membership import tracker, transitions
from kvstore.membership.follow import check_follows
from kvstore.protocol.cluster_state import ClusterState
from kvstore.quorum.ownership import Ownership
from kvstore.quorum.votes import Quorum, Quorums, won
from kvstore.ring import Member, Ring, coming_replicas, old_replicas, replica_sets
from tests.model.explorer import Explored, Numbers, explore

NODES = ("a", "b", "c", "d")
MEMBERS = tuple(Member(node, "host:1") for node in NODES)
FIRST = ClusterState("model", 1, MEMBERS[:3], Ring((("a", "b", "c"),) * 2))
Changes = tuple[tuple[tuple[str, ...], ...], ...]
ONE = (("a", "b", "d"),)
TWO = (*ONE, ("a", "d", "c"))
"""What two operators want at once: one wins. The other is its mirror image, b for c: ONE is as much."""
BACK = (("a", "b", "c"),)
N, R, W = 3, 2, 2
Nodes = frozenset[str]
NOBODY: Nodes = frozenset()
Chain = tuple[ClusterState, ...]
"""All states that are decided, oldest first."""


class World(NamedTuple):
    """`chain` numbers what is decided, `at` has by node the epoch that it has taken up (0: none yet)."""

    chain: int
    at: tuple[int, ...] = (1, 1, 1, 0)
    holds: Nodes = NOBODY
    """Who has the write."""
    asked: int = 0
    """The epoch of the write; 0: it has yet to begin."""
    applied: Nodes = NOBODY
    acknowledged: bool = False
    unaware: tuple[Nodes, ...] = ()
    equal: tuple[tuple[str, str], ...] = ()
    """Coming replicas, each with an old one of which it has all since this step began."""
    crashes: int = 1


class Steps:
    """The model: `changes` begin one after the other, each to one of some lists, and may be cancelled."""

    proves_by_any = False
    """Whether an old replica is compared with that has yet to take the step up: a plant."""
    asks_later = False
    """Whether a write is asked of replicas by a later epoch than the one of its quorums: a plant."""

    def __init__(
        self, tracked: int = 0, changes: Changes = (ONE,), cancels: bool = False, crashes: int = 1
    ) -> None:
        self.tracked = tracked
        self._changes = changes
        self._cancels = cancels
        self._crashes = crashes
        self._chains: Numbers[Chain] = Numbers()
        self.admits = cache(self._admits)
        self._next = cache(self._next_states)
        self._epochs = cache(self._later)
        self._sets = cache(self._replica_sets)

    def explore(self) -> Explored:
        first = World(self._chains.of((FIRST,)), crashes=self._crashes)
        return explore(first, self.successors, self.wrong)

    def decided(self, world: World) -> Chain:
        return self._chains.things[world.chain]

    def wrong(self, world: World) -> str:
        for epoch, unaware in enumerate(world.unaware, 1):
            if len(unaware) >= R and won((self._sets(world.chain, epoch)[0],), unaware):
                return f"a read of epoch {epoch} misses the write: {sorted(unaware)} have not known it"
        return ""

    def successors(self, world: World) -> Iterator[tuple[str, World]]:
        for label, found in self._steps(world):
            yield label, self._gathered(found)

    def _steps(self, world: World) -> Iterator[tuple[str, World]]:
        for label, chain in self._next(world.chain, world.at, self._proven(world)):
            yield label, world._replace(chain=chain)
        yield from self._taken_up(world)
        yield from self._written(world)
        yield from self._compared(world)
        if world.crashes and world.equal:
            yield "the coming replica crashes", world._replace(equal=(), crashes=world.crashes - 1)

    # what is decided

    def _proven(self, world: World) -> Nodes:
        """The coming replicas that are equal to a read quorum of the old ones."""
        if not world.equal:
            return NOBODY
        move = self.decided(world)[-1].move(0)
        if move is None:
            return NOBODY
        quorum = (Quorum(frozenset(old_replicas(move, N)), R),)
        return frozenset(
            node
            for node in coming_replicas(move, N)
            if won(quorum, {old for new, old in world.equal if new == node})
        )

    def _next_states(self, chain: int, at: tuple[int, ...], proven: Nodes) -> list[tuple[str, int]]:
        """What may be decided next, and the chain with it."""
        decided = self._chains.things[chain]
        return [
            (f"epoch {state.epoch}: {label}", self._chains.of((*decided, state)))
            for label, state in self._following(decided, at, proven)
        ]

    def _following(
        self, decided: Chain, at: tuple[int, ...], proven: Nodes
    ) -> list[tuple[str, ClusterState]]:
        state = decided[-1]
        if not state.moves:
            begun = sum(1 for s, t in pairwise(decided) if t.moves and not s.moves)
            if begun == len(self._changes):
                return []
            wanted = [new for new in self._changes[begun] if new != state.ring.replica_lists[0]]
            return [(f"move to {new}", transitions.begin(state, {0: new}, MEMBERS)) for new in wanted]
        known = tracker.Tracker(state)
        for node, epoch in zip(NODES, at, strict=True):
            known.on_epoch(node, epoch)
        for node in proven:
            known.on_proven(node, 0, state.epoch)
        found = known.next()
        following = [("advance", found)] if found else []
        if self._cancels and state.move(0).read == state.move(0).old:  # type: ignore[union-attr]
            following.append(("cancel", transitions.cancel(state)))
        return following

    # who does what

    def _taken_up(self, world: World) -> Iterator[tuple[str, World]]:
        for i, node in enumerate(NODES):
            for label, epoch, since in self._epochs(world.chain, node, world.at[i]):
                # what was compared counts for the replica set that it was compared for
                equal = world.equal
                if equal and since > world.at[i]:
                    equal = tuple(pair for pair in equal if pair[0] != node)
                yield label, world._replace(at=(*world.at[:i], epoch, *world.at[i + 1 :]), equal=equal)

    def _later(self, chain: int, node: str, at: int) -> list[tuple[str, int, int]]:
        """The epochs that a node may take up, each with that since which the replicas are those of it."""
        decided = self._chains.things[chain]
        found = []
        for state in decided[at:]:
            if at:
                check_follows(decided[at - 1], state)
            if at or state.member(node):
                found.append((f"{node} takes epoch {state.epoch} up", state.epoch, state.since.partition(0)))
        return found

    def _admits(self, chain: int, at: int, epoch: int, partition: int) -> bool:
        """Whether a replica that is at an epoch answers a request of an epoch."""
        if not at:
            return False
        try:
            Ownership("any", self._chains.things[chain][at - 1]).check_epoch_of(epoch, (partition,))
        except StaleRing:
            return False
        return True

    def _here(self, world: World, node: str, epoch: int, partition: int) -> bool:
        return self.admits(world.chain, world.at[NODES.index(node)], epoch, partition)

    def _written(self, world: World) -> Iterator[tuple[str, World]]:
        """A replica stores the write and acknowledges it; with the first one it begins."""
        if world.acknowledged:
            return
        for epoch in (world.asked,) if world.asked else range(1, len(self.decided(world)) + 1):
            _, quorums, nodes = self._sets(world.chain, epoch)
            for node in nodes:
                if node not in world.applied and self._stores(world, node, epoch):
                    applied = world.applied | {node}
                    yield (
                        f"{node} stores the write of epoch {epoch}",
                        world._replace(
                            asked=epoch,
                            applied=applied,
                            holds=world.holds | {node},
                            acknowledged=won(quorums, applied),
                        ),
                    )

    def _stores(self, world: World, node: str, epoch: int) -> bool:
        epochs = range(epoch, len(self.decided(world)) + 1) if self.asks_later else (epoch,)
        return any(self._here(world, node, asked, self.tracked) for asked in epochs)

    def _compared(self, world: World) -> Iterator[tuple[str, World]]:
        """A coming replica gets all that an old one has, by the epoch that it is at."""
        for node, epoch in zip(NODES, world.at, strict=True):
            move = self.decided(world)[epoch - 1].move(0) if epoch else None
            if move is None or node not in coming_replicas(move, N):
                continue
            for old in old_replicas(move, N):
                if self.proves_by_any or self._here(world, old, epoch, 0):
                    holds = world.holds
                    if self.tracked == 0 and old in holds:
                        holds |= {node}
                    equal = tuple(sorted({*world.equal, (node, old)}))
                    yield f"{node} is compared with {old}", world._replace(holds=holds, equal=equal)

    def _gathered(self, world: World) -> World:
        """After any step: who could tell a reader, of any epoch, that it lacks what is acknowledged."""
        if not world.acknowledged:
            return world
        before = (*world.unaware, *[NOBODY] * (len(self.decided(world)) - len(world.unaware)))
        now = []
        for epoch, unaware in enumerate(before, 1):
            read = self._sets(world.chain, epoch)[0].members - world.holds - unaware
            lacking = [node for node in read if self._here(world, node, epoch, self.tracked)]
            now.append(unaware.union(lacking) if lacking else unaware)
        return world._replace(unaware=tuple(now))

    def _replica_sets(self, chain: int, epoch: int) -> tuple[Quorum, Quorums, tuple[str, ...]]:
        """The quorum of a read, those of a write, and who is written to."""
        sets = replica_sets(self._chains.things[chain][epoch - 1], self.tracked, N)
        quorums = tuple(Quorum(frozenset(nodes), W) for nodes in sets.written)
        return (
            Quorum(frozenset(sets.read), R),
            quorums,
            tuple(sorted({n for each in sets.written for n in each})),
        )

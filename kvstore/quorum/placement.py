"""Who is asked about a key: primaries while they are alive, fallbacks in the place of dead ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from kvstore.quorum.ownership import Ownership
from kvstore.quorum.votes import Quorum, Quorums
from kvstore.ring import ClusterState, fallbacks, first_apart, replica_sets, replicas


@dataclass(frozen=True, slots=True)
class Target:
    """A node to ask; `hint_for` is the primary it stands in for, empty when it is one itself."""

    node: str
    hint_for: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """The targets of one request, and the dead primaries for which no fallback was left.

    Primaries are all that a write goes to. While the partition moves they are of two lists, and a read asks
    those of one of them (kvstore.ring.replica_sets).
    """

    epoch: int
    """Of the cluster state by which they were chosen: what is asked by it is asked of this epoch."""
    primaries: tuple[str, ...]
    """Those that are read first."""
    targets: tuple[Target, ...]
    unplaced: tuple[str, ...]
    remote: dict[str, str]
    """The targets but the coordinator: `hint_for` by node."""
    to_read: tuple[Target, ...]
    """Those of them that a sloppy read asks, in its order."""
    to_read_strictly: tuple[Target, ...]
    """The primaries among them."""
    coordinators: tuple[str, ...]
    """The primaries that a request is passed on to: those that are read, unless there are none."""
    here: bool
    """Whether the coordinator is a primary."""
    coordinates: bool
    """Whether it is one of `coordinators`."""
    stands_in_for: str
    """The primary in whose place the coordinator keeps a hint, empty when there is none."""
    read_strict: frozenset[str]
    """Whose answers count in a strict read."""
    read_sloppy: frozenset[str]
    """Whose answers count in a sloppy one."""
    written_strict: tuple[frozenset[str], ...]
    """The replica lists that a write needs W of; fallbacks that are asked later join them in a sloppy one."""
    written_sloppy: tuple[frozenset[str], ...]
    """Those with fallbacks in the place of dead primaries."""
    dead: frozenset[str]
    """The primaries that are not asked: the failure detector finds them dead."""
    _read_quorums: dict[tuple[int, bool], Quorum] = field(default_factory=dict)
    _write_quorums: dict[tuple[int, bool], Quorums] = field(default_factory=dict)

    def read_quorum(self, r: int, sloppy: bool) -> Quorum:
        """The quorum of a read."""
        quorum = self._read_quorums.get((r, sloppy))
        if quorum is None:
            quorum = Quorum(self.read_sloppy if sloppy else self.read_strict, r)
            self._read_quorums[r, sloppy] = quorum
        return quorum

    def write_quorums(self, w: int, sloppy: bool) -> Quorums:
        """The quorums of a write: W of each list, all of one that has less."""
        quorums = self._write_quorums.get((w, sloppy))
        if quorums is None:
            members = self.written_sloppy if sloppy else self.written_strict
            quorums = tuple(
                Quorum(voters, min(w, len(nodes)))
                for voters, nodes in zip(members, self.written_strict, strict=True)
            )
            self._write_quorums[w, sloppy] = quorums
        return quorums


def place(
    state: ClusterState, partition: int, n: int, coordinator: str, alive: Callable[[str], bool]
) -> Placement:
    """The `n` replicas of a partition, of both lists while it moves, each dead one replaced by a fallback.

    A coordinator that is no primary itself is the first fallback to be used; then those come first that are
    on hosts of no other target.
    """
    sets, primaries = replica_sets(state, partition, n), replicas(state, partition, n)
    live = [node for node in primaries if alive(node)]
    spare = [
        node
        for node in fallbacks(state.ring, partition, n)
        if node != coordinator and node not in primaries and alive(node)
    ]
    targets = _targets(state, primaries, live, spare, coordinator)
    asked = {target.node: target.hint_for for target in targets}
    stands_in_for = asked.pop(coordinator, "")
    read, written = frozenset(sets.read), tuple(map(frozenset, sets.written))
    to_read = tuple(t for t in targets if t.node != coordinator and _meant(t) in read)
    coordinators = sets.read or primaries
    placed = {*map(_meant, targets)}
    return Placement(
        state.epoch,
        primaries,
        targets,
        tuple(node for node in primaries if node not in placed),
        asked,
        to_read,
        tuple(target for target in to_read if not target.hint_for),
        coordinators,
        coordinator in primaries,
        coordinator in coordinators,
        stands_in_for,
        read,
        _with_stand_ins(read, targets),
        written,
        tuple(_with_stand_ins(nodes, targets) for nodes in written),
        frozenset(primaries).difference(live),
    )


def _targets(
    state: ClusterState, primaries: Sequence[str], live: Sequence[str], spare: list[str], coordinator: str
) -> tuple[Target, ...]:
    """Whom to ask: the primaries that are alive, and others in the place of the dead, as far as there are."""
    stand_ins = [] if coordinator in primaries else [coordinator]
    while spare and len(live) + len(stand_ins) < len(primaries):
        stand_ins.append(first_apart(state, spare, (*live, *stand_ins)))
        spare.remove(stand_ins[-1])
    stand_ins.reverse()
    targets = []
    for node in primaries:
        if node in live:
            targets.append(Target(node))
        elif stand_ins:
            targets.append(Target(stand_ins.pop(), hint_for=node))
    return tuple(targets)


def _meant(target: Target) -> str:
    """The primary that is asked, or stood in for."""
    return target.hint_for or target.node


def _with_stand_ins(nodes: frozenset[str], targets: Iterable[Target]) -> frozenset[str]:
    """Who is asked in the place of these nodes, themselves or their fallbacks."""
    return frozenset(target.node for target in targets if _meant(target) in nodes)


class Placements(Ownership):
    """Whom to ask, by what is known of the members: `alive` is False while a node is held for dead."""

    def __init__(self, name: str, state: ClusterState, alive: Callable[[str], bool]) -> None:
        super().__init__(name, state)
        self.alive = alive
        self._chosen: dict[tuple[int, int], Placement] = {}

    def on_state(self, state: ClusterState) -> None:
        """The cluster state has changed."""
        super().on_state(state)
        self._chosen.clear()

    def on_status_changed(self) -> None:
        """Some node is dead or alive now: placements are chosen anew."""
        self._chosen.clear()

    def place(self, partition: int, n: int) -> Placement:
        """The nodes to ask for a partition and n."""
        placement = self._chosen.get((partition, n))
        if placement is None:
            placement = place(self.state, partition, n, self.name, self.alive)
            self._chosen[partition, n] = placement
        return placement

    def another_fallback(self, partition: int, n: int, asked: Collection[str], instead_of: str) -> str:
        """A live node that was not asked, to take what was meant for one that was; empty: there is none.

        The first in ring order that is on no host of the others that were asked, else the first of all.
        """
        primaries = replicas(self.state, partition, n)
        left = (
            node
            for node in fallbacks(self.state.ring, partition, n)
            if node not in asked and node not in primaries and self.alive(node)
        )
        return first_apart(self.state, left, (node for node in asked if node != instead_of))

"""Who is asked about a key: primaries while they are alive, fallbacks in the place of dead ones."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from kvstore.quorum.ownership import Ownership
from kvstore.quorum.votes import Quorum
from kvstore.ring import ClusterState, fallbacks, first_apart, preference_list


@dataclass(frozen=True, slots=True)
class Target:
    """A node to ask; `hint_for` is the primary it stands in for, empty when it is one itself."""

    node: str
    hint_for: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """The targets of one request, and the dead primaries for which no fallback was left."""

    epoch: int
    """Of the cluster state by which they were chosen: what is asked by it is asked of this epoch."""
    primaries: tuple[str, ...]
    targets: tuple[Target, ...]
    unplaced: tuple[str, ...]
    remote: dict[str, str]
    """The targets but the coordinator: `hint_for` by node."""
    to_read: tuple[Target, ...]
    """Those again, in the order in which a sloppy read asks them."""
    to_read_strictly: tuple[Target, ...]
    """The primaries among them."""
    here: bool
    """Whether the coordinator is a primary."""
    stands_in_for: str
    """The primary in whose place the coordinator keeps a hint, empty when there is none."""
    strict: frozenset[str]
    """The primaries: whose votes count in a strict quorum."""
    sloppy: frozenset[str]
    """The targets: whose votes count in a sloppy one."""
    dead: frozenset[str]
    """The primaries that are not asked: the failure detector finds them dead."""
    _quorums: dict[tuple[int, bool], Quorum] = field(default_factory=dict)

    def quorum(self, needed: int, sloppy: bool) -> Quorum:
        """The quorum of a request; fallbacks that are asked later join a sloppy one."""
        quorum = self._quorums.get((needed, sloppy))
        if quorum is None:
            members = self.sloppy if sloppy else self.strict
            quorum = self._quorums[needed, sloppy] = Quorum(members, needed)
        return quorum


def place(
    state: ClusterState, partition: int, n: int, coordinator: str, alive: Callable[[str], bool]
) -> Placement:
    """The first `n` nodes of the preference list, each dead one replaced by a live fallback.

    A coordinator that is no primary itself is the first fallback to be used; then those come first that are
    on hosts of no other target.
    """
    primaries = preference_list(state.ring, partition, n)
    here = coordinator in primaries
    live = [node for node in primaries if alive(node)]
    stand_ins = [] if here else [coordinator]
    spare = [node for node in fallbacks(state.ring, partition, n) if node != coordinator and alive(node)]
    while spare and len(live) + len(stand_ins) < len(primaries):
        stand_ins.append(first_apart(state, spare, (*live, *stand_ins)))
        spare.remove(stand_ins[-1])
    stand_ins.reverse()
    targets: list[Target] = []
    unplaced: list[str] = []
    for node in primaries:
        if node in live:
            targets.append(Target(node))
        elif stand_ins:
            targets.append(Target(stand_ins.pop(), hint_for=node))
        else:
            unplaced.append(node)
    asked = {target.node: target.hint_for for target in targets}
    strict, sloppy = frozenset(primaries), frozenset(asked)
    stands_in_for = asked.pop(coordinator, "")
    to_read = tuple(target for target in targets if target.node != coordinator)
    return Placement(
        state.epoch,
        primaries,
        tuple(targets),
        tuple(unplaced),
        asked,
        to_read,
        tuple(target for target in to_read if not target.hint_for),
        here,
        stands_in_for,
        strict,
        sloppy,
        strict - sloppy,
    )


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
        left = (f for f in fallbacks(self.state.ring, partition, n) if f not in asked and self.alive(f))
        return first_apart(self.state, left, (node for node in asked if node != instead_of))

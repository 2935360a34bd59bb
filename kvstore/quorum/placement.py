"""Who is asked about a key: primaries while they are alive, fallbacks in the place of dead ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kvstore.ring import Ring, fallbacks, preference_list


@dataclass(frozen=True, slots=True)
class Target:
    """A node to ask; `hint_for` is the primary it stands in for, empty when it is one itself."""

    node: str
    hint_for: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """The targets of one request, and the dead primaries for which no fallback was left."""

    primaries: tuple[str, ...]
    targets: tuple[Target, ...]
    unplaced: tuple[str, ...]
    live_primaries: int
    remote: dict[str, str]
    """The targets but the coordinator: `hint_for` by node."""
    here: bool
    """Whether the coordinator is a primary."""
    stands_in_for: str
    """The primary in whose place the coordinator keeps a hint, empty when there is none."""


def place(ring: Ring, partition: int, n: int, coordinator: str, alive: Callable[[str], bool]) -> Placement:
    """The first `n` nodes of the preference list, each dead one replaced by a live fallback.

    A coordinator that is no primary itself is the first fallback to be used.
    """
    primaries = preference_list(ring, partition, n)
    here = coordinator in primaries
    spare = [node for node in fallbacks(ring, partition, n) if node != coordinator and alive(node)]
    if not here:
        spare.insert(0, coordinator)
    spare.reverse()
    targets: list[Target] = []
    unplaced: list[str] = []
    for node in primaries:
        if alive(node):
            targets.append(Target(node))
        elif spare:
            targets.append(Target(spare.pop(), hint_for=node))
        else:
            unplaced.append(node)
    live = sum(1 for target in targets if not target.hint_for)
    asked = {target.node: target.hint_for for target in targets}
    stands_in_for = asked.pop(coordinator, "")
    return Placement(primaries, tuple(targets), tuple(unplaced), live, asked, here, stands_in_for)

"""The actors and counters from which this node makes dots.

Rule (riak_kv#679 cost Riak years; DESIGN section 5): a dot is never reused, and whoever mints a dot
holds all earlier dots of the same actor on that key. A node forgets dots when it stops uncleanly,
loses its disk or a block of it, or discards hints. So every start begins a new generation of actors, drawn
at random and therefore new even for a disk restored from a backup; so does the return of what was damaged
from other replicas; and a partition whose hints were discarded gets an actor of its own.
docs/versions.md weighs this against leased counters.
"""

from __future__ import annotations

import random

from kvstore.versions import CausalContext, Dot, covers

_GENERATION_BITS = 48


class Actors:
    """Mints the dots of one node; counters are node-wide and only ever grow."""

    __slots__ = ("_counter", "_generation", "_live", "_names", "_node", "_rng")

    def __init__(self, node: str, rng: random.Random) -> None:
        self._node = node
        self._rng = rng
        self._counter = 0
        self._generation = rng.getrandbits(_GENERATION_BITS)
        self._names: dict[int, str] = {}
        self._live: set[str] = set()
        """The names of `_names`: those that dots are made of now."""

    def mint(self, partition: int, known: CausalContext = ()) -> Dot:
        """A dot that no node ever made before, and that nothing `known` of the key claims to have seen."""
        self._counter += 1
        name = self._names.get(partition)
        if name is None:
            name = self._take(partition, self._generation)
        dot = Dot(name, self._counter)
        if not known or not covers(known, dot):
            return dot
        # what is stored has come from a wrong peer: with this actor the write would count as replaced at once
        self.renew(partition)
        return Dot(self._names[partition], self._counter)

    def can_have_minted(self, dot: Dot) -> bool:
        """False for a dot of an actor of this node that it will make later: nobody can have seen it."""
        actor, counter = dot
        return counter <= self._counter or actor not in self._live

    def renew(self, partition: int) -> None:
        """Take a new actor: dots of the present one may have been forgotten here."""
        self._live.discard(self._names.get(partition, ""))
        self._take(partition, self._rng.getrandbits(_GENERATION_BITS))

    def renew_all(self) -> None:
        """Take new actors in all partitions: dots on any key may have been forgotten here."""
        self._generation = self._rng.getrandbits(_GENERATION_BITS)
        self._names.clear()
        self._live.clear()

    def _take(self, partition: int, generation: int) -> str:
        name = self._names[partition] = f"{self._node}.{partition:x}.{generation:012x}"
        self._live.add(name)
        return name

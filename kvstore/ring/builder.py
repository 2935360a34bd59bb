"""Building the first ring from the initial members: pure, so that every node builds the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import mmh3

from kvstore.protocol.member import Member
from kvstore.protocol.ring import DEFAULT_PARTITIONS, DEFAULT_REPLICAS, Ring
from kvstore.ring.apart import most_replicas, next_replicas


def initial_ring(
    members: Sequence[Member], partitions: int = DEFAULT_PARTITIONS, replicas: int = DEFAULT_REPLICAS
) -> Ring:
    """Give each partition `replicas` nodes, each on another host, balanced to weight.

    With fewer hosts than that there is one on each. Zones are distinct while there are enough. At each rank
    of the lists the nodes take turns by load, and after a given node those follow that have followed it
    least: so a dead node's work spreads over all others. The order of `members` does not matter.
    """
    plan = _Plan(sorted(members, key=lambda member: member.node))
    depth = min(replicas, most_replicas(members))
    return Ring(tuple(plan.replica_list(partition, depth) for partition in range(partitions)))


class _Plan:
    """Loads so far: how often each node stands at each rank, anywhere, and together with another."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._ranks: Counter[tuple[int, str]] = Counter()
        self._total: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str]] = Counter()

    def replica_list(self, partition: int, depth: int) -> tuple[str, ...]:
        chosen: list[Member] = []
        for rank in range(depth):
            places = next_replicas(self._members, chosen)
            best = min(places, key=lambda member: self._cost(member, rank, chosen, partition))
            self._ranks[rank, best.node] += 1
            self._total[best.node] += 1
            for other in chosen:
                self._pairs[other.node, best.node] += 1
                self._pairs[best.node, other.node] += 1
            chosen.append(best)
        return tuple(member.node for member in chosen)

    def _cost(
        self, member: Member, rank: int, chosen: Sequence[Member], partition: int
    ) -> tuple[Fraction, Fraction, int, int]:
        pairs = sum(self._pairs[other.node, member.node] for other in chosen)
        total = Fraction(self._total[member.node], member.weight)
        here = Fraction(self._ranks[rank, member.node], member.weight)
        # by total first, a node alone in its zone would hold most and for that hardly ever be first
        load = (total, here) if rank else (here, total)
        return (
            *load,
            pairs,
            mmh3.hash64(f"{member.node}/{partition}".encode(), signed=False)[0],
        )

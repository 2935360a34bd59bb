"""The preference list of a partition: its primaries, and behind them the fallbacks."""

from __future__ import annotations

from collections.abc import Iterator

from kvstore.protocol.ring import Ring


def preference_list(ring: Ring, partition: int, n: int) -> tuple[str, ...]:
    """The primaries: the first `n` replicas of the partition (fewer when the ring has fewer)."""
    return ring.replica_lists[partition][:n]


def fallbacks(ring: Ring, partition: int, n: int) -> Iterator[str]:
    """The other nodes in ring order: the rest of the partition's list, then those of the next ones."""
    seen = set(preference_list(ring, partition, n))
    for step in range(ring.partitions):
        for node in ring.replica_lists[(partition + step) % ring.partitions]:
            if node not in seen:
                seen.add(node)
                yield node

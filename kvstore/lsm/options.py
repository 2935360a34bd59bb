"""Settings of the engine."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.config import KIB, MIB


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes in bytes; `memtable_bytes` bounds what is replayed after a crash.

    `tier_tables` neighbouring tables whose sizes are within a factor of `tier_ratio` are compacted into one.
    """

    memtable_bytes: int = 32 * MIB
    block_bytes: int = 8 * KIB
    cache_bytes: int = 64 * MIB
    false_positive_rate: float = 0.01
    tier_tables: int = 4
    tier_ratio: float = 2.0
    max_sealed: int = 4
    """Sealed memtables that may wait for their flush; beyond, writes are refused as overloaded."""

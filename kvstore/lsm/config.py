"""Settings of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kvstore.config import KIB, MIB
from kvstore.errors import ConfigError
from kvstore.lsm import limits

_MOST = {
    "memtable_bytes": limits.MOST_MEMTABLE_BYTES,
    "value_bytes": limits.MOST_VALUE_BYTES,
    "block_bytes": limits.MOST_BLOCK_BYTES,
    "manifest_bytes": limits.MOST_MANIFEST_BYTES,
}
"""So that whatever is written is within what the formats' numbers, and their readers, can hold."""


class Durability(Enum):
    """What an acknowledgement of a write waits for."""

    SYNC = "sync"
    """The disk: nothing that was acknowledged is ever lost."""
    INTERVAL = "interval"
    """Nothing, but the log is synced every `sync_interval`: a power loss costs that much at most."""
    NONE = "none"
    """Nothing, and only tables are synced: for what can be made again."""


class Compaction(Enum):
    """How tables are merged."""

    SIZE_TIERED = "size-tiered"
    """Neighbours in age of like size: the least writing, for write-heavy stores."""
    LEVELED = "leveled"
    """Levels of tables that do not overlap, each ten times the last: the least reading and space."""


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes in bytes. Memory is bounded by `memtable_bytes` * (`max_sealed` + 1) + `cache_bytes`.

    For a moment, what is left of a memtable that was just flushed comes on top. `memtable_bytes` also
    bounds what is replayed after a crash. Raises ConfigError.
    """

    memtable_bytes: int = 32 * MIB
    max_sealed: int = 4
    """Sealed memtables that may wait for their flush; beyond, writes are refused as overloaded."""
    cache_bytes: int = 64 * MIB
    """Of data blocks, indexes and filters."""
    value_bytes: int = 200 * MIB
    """The largest value that is taken."""
    block_bytes: int = 8 * KIB
    table_bytes: int = 64 * MIB
    """A compaction into levels begins another table at about this size."""
    false_positive_rate: float = 0.001
    """Of one table's filter: a key that is nowhere costs a block read in so many lookups for each table."""
    durability: Durability = Durability.SYNC
    sync_interval: float = 0.1
    """Seconds between syncs when `durability` is INTERVAL."""
    compaction: Compaction = Compaction.SIZE_TIERED
    tier_tables: int = 4
    """So many neighbours in age are compacted into one, or so many flushed tables into level 1."""
    tier_ratio: float = 2.0
    """Sizes of neighbours within this factor count as alike."""
    level_bytes: int = 256 * MIB
    """The size of level 1; each further level may be `level_ratio` times the one above."""
    level_ratio: int = 10
    manifest_bytes: int = 256 * KIB
    """A log of edits that has grown beyond this, and to twice its first edit, begins anew."""
    compactions: int = 2
    """Compactions at a time, where their tables do not meet."""
    compaction_rate: int = 0
    """Bytes a second that one compaction may write; 0: no limit."""
    slow_tables: int = 12
    """From so many overlapping tables on, writers are slowed."""
    max_tables: int = 40
    """At so many, writes are refused as overloaded."""

    def __post_init__(self) -> None:
        for name in ("max_sealed", "table_bytes", "level_bytes", "compactions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        for name, most in _MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"{name}={getattr(self, name)} must be between 1 and {most}")
        if not 0 < self.false_positive_rate < 1:
            raise ConfigError(f"false_positive_rate={self.false_positive_rate} must be between 0 and 1")
        if self.tier_tables < 2 or self.tier_ratio < 1 or self.level_ratio < 2:
            raise ConfigError("tier_tables and level_ratio must be at least 2, tier_ratio at least 1")
        if not self.tier_tables <= self.slow_tables < self.max_tables:
            raise ConfigError("tier_tables <= slow_tables < max_tables does not hold")

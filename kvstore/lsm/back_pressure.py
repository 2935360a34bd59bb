"""Back pressure: writers are slowed down, and then refused, while flushes and compactions are behind."""

from __future__ import annotations

from kvstore.lsm.config import Options
from kvstore.lsm.segments import Segments
from kvstore.lsm.table_set import TableSet

_BELOW_REFUSAL = 0.99
_LONGEST_DELAY = 0.1


class BackPressure:
    """It grows smoothly with the work that is behind: writers find the pace of the disk before refusals."""

    def __init__(self, options: Options, segments: Segments, tables: TableSet) -> None:
        self._most_sealed = options.max_sealed + 1
        self._slow_tables = options.slow_tables
        self._most_overlapping = options.max_tables - options.slow_tables
        self._segments = segments
        self._tables = tables

    def level(self) -> float:
        """How far flushes and compactions are behind: 0 not at all, from 1 on no write is taken."""
        sealed = len(self._segments.sealed)
        flushed = len(self._tables.levels.flushed)
        if sealed < 2 and flushed < self._slow_tables:
            return 0.0
        waiting = sealed / self._most_sealed
        overlapping = (flushed - self._slow_tables) / self._most_overlapping
        if self._tables.quarantine.fences:
            # what is fenced cannot be compacted, and only writes take a fence down
            overlapping = min(overlapping, _BELOW_REFUSAL)
        return max(waiting, overlapping)

    def write_delay(self) -> float:
        """Seconds by which writers should be slowed down now."""
        level = self.level()
        return _LONGEST_DELAY * min(1.0, level * level)

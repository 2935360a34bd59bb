"""What an engine tells operators of itself."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.lsm.cache import BlockCache
from kvstore.lsm.maintenance import Maintenance
from kvstore.lsm.segments import Segments
from kvstore.lsm.table_set import TableSet


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Sizes now, counts since the engine was opened.

    `write_amplification` is what was written for each byte of the log, `space_amplification` what the
    tables take for each byte of the largest of their runs (0 while there is nothing to tell). `full` tells
    that the disk is: what is stored is served, and writes are refused until there is space.
    """

    memtable_bytes: int
    sealed_memtables: int
    wal_bytes: int
    tables: int
    table_bytes: int
    entries: int
    flushes: int
    compactions: int
    filter_useful: int
    filter_false: int
    filter_true: int
    cache_hits: int
    cache_misses: int
    cache_bytes: int
    quarantined: int
    full: bool
    write_amplification: float
    space_amplification: float


def engine_statistics(
    segments: Segments,
    table_set: TableSet,
    maintenance: Maintenance,
    cache: BlockCache,
) -> EngineStatistics:
    """Those of now."""
    tables = list(table_set.levels)
    table_bytes = sum(table.info.size for table in tables)
    written = segments.written_bytes + maintenance.flushed_bytes + maintenance.compacted_bytes
    largest = table_set.levels.largest_run_bytes()
    filters = table_set.filter_answers()
    return EngineStatistics(
        memtable_bytes=segments.memory(),
        sealed_memtables=len(segments.sealed),
        wal_bytes=segments.log_bytes(),
        tables=len(tables),
        table_bytes=table_bytes,
        entries=sum(table.info.entries for table in tables) + len(segments.active.memtable),
        flushes=maintenance.flushes,
        compactions=maintenance.compactions,
        filter_useful=filters["useful"],
        filter_false=filters["false"],
        filter_true=filters["true"],
        cache_hits=cache.hits,
        cache_misses=cache.misses,
        cache_bytes=cache.memory,
        quarantined=len(table_set.quarantine.fences),
        full=segments.full,
        write_amplification=written / segments.written_bytes if segments.written_bytes else 0.0,
        space_amplification=table_bytes / largest if largest else 0.0,
    )

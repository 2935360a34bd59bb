"""What is to be done to the files of a store, as values: a job, and what came of it.

A job names files and nothing else, so it can be done again after any failure: its output has a number
that the manifest does not know yet, and is simply overwritten. `kvstore.lsm.jobs` does them.
"""

from __future__ import annotations

import msgspec

from kvstore.lsm.options import Options
from kvstore.lsm.table_info import TableInfo


class FlushJob(msgspec.Struct, frozen=True, tag="flush"):
    """Write the memtable of one log segment, the records up to `last_lsn`, as a table."""

    directory: str
    segment: int
    floor: int
    last_lsn: int
    outputs: tuple[int, ...]
    options: Options


class CompactionJob(msgspec.Struct, frozen=True, tag="compaction"):
    """Merge tables into one or more of `level`.

    The inputs are in order from the oldest to the newest: of tables with a key in common the later one
    counts. `drop_deletions` when nothing older lies beneath them.
    """

    directory: str
    inputs: tuple[TableInfo, ...]
    level: int
    drop_deletions: bool
    outputs: tuple[int, ...]
    options: Options
    left_out: tuple[int, ...] = ()
    """Blocks of the first input that count as if they held nothing (kvstore.lsm.quarantine)."""

    @property
    def input_bytes(self) -> int:
        """Of all inputs."""
        return sum(info.size for info in self.inputs)


class RemovalJob(msgspec.Struct, frozen=True, tag="removal"):
    """Remove files that nothing needs any more, little by little: the disk cannot do much else meanwhile."""

    directory: str
    names: tuple[str, ...]


Job = FlushJob | CompactionJob | RemovalJob


class JobResult(msgspec.Struct, frozen=True):
    """What a job has made: no table when nothing was left to write.

    It has made none either if it met damage: then `damaged` has the numbers of tables and blocks of a
    compaction, or that of a flush's segment, and `reason` says what was met first.
    """

    job: Job
    tables: tuple[TableInfo, ...]
    damaged: tuple[tuple[int, int], ...] = ()
    reason: str = ""

"""What the engine tells its workers, is told by them, and keeps in its manifest: tables and jobs, as values.

A table is known by its `TableInfo` without opening it. A job names files and nothing else, so it can be done
again after any failure: its output has a number that the manifest does not know yet, and is simply
overwritten. `kvstore.lsm.jobs` does them.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from kvstore.lsm.config import Options

WHOLE = -1
"""In the place of a block's number: the whole table."""

Position: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A size, a count, a file's number or an LSN, as it is read from a file: whatever is counted up from it still
fits into the 64 bits that the formats have for it."""

Level: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=63)]
"""Each is some times as large as the one above it, and compaction looks at all down to the deepest."""


class TableInfo(msgspec.Struct, frozen=True, array_like=True):
    """What the manifest knows of a table. `last_lsn` is of its newest entry: it orders tables by age."""

    number: Position
    level: Level
    size: Position
    entries: Position
    deletions: Position
    smallest: bytes
    largest: bytes
    last_lsn: Position

    def meets(self, smallest: bytes, largest: bytes) -> bool:
        """Whether it may hold keys of a range, both ends included."""
        return self.smallest <= largest and smallest <= self.largest


def table_name(number: int) -> str:
    """File name of a table."""
    return f"{number:08d}.sst"


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

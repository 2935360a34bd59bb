"""What is known of a table without opening it: its place in the manifest and the name of its file."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

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

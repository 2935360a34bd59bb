"""What is known of a table without opening it: its place in the manifest and the name of its file."""

from __future__ import annotations

import msgspec

WHOLE = -1
"""In the place of a block's number: the whole table."""


class TableInfo(msgspec.Struct, frozen=True, array_like=True):
    """What the manifest knows of a table. `last_lsn` is of its newest entry: it orders tables by age."""

    number: int
    level: int
    size: int
    entries: int
    deletions: int
    smallest: bytes
    largest: bytes
    last_lsn: int

    def meets(self, smallest: bytes, largest: bytes) -> bool:
        """Whether it may hold keys of a range, both ends included."""
        return self.smallest <= largest and smallest <= self.largest


def table_name(number: int) -> str:
    """File name of a table."""
    return f"{number:08d}.sst"

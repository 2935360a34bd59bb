"""SSTables: sorted, immutable files of entries (docs/sstable.md). This is what they are made of.

Layout: data blocks, filter block, index block (last key, offset, length of each data block),
properties block, footer. Every block has its checksum; the footer has its own, a version and a magic.
"""

from __future__ import annotations

import struct
from typing import Annotated, TypeAlias

import msgspec

MAGIC = b"kvsst\x00\x00\x02"
FOOTER = struct.Struct("<QIQIQI")  # offset and length of filter, index, properties
FOOTER_BYTES = FOOTER.size + 4 + len(MAGIC)

Position: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A size, a count, a file's number or an LSN, as it is read from a file: whatever is counted up from it still
fits into the 64 bits that the formats have for it."""

Level: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=63)]
"""Each is some times as large as the one above it, and compaction looks at all down to the deepest."""

WHOLE = -1
"""In the place of a block's number: the whole table."""


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


class Properties(msgspec.Struct, frozen=True, array_like=True):
    """What a table says of itself."""

    entries: Position
    deletions: Position
    smallest: bytes
    largest: bytes
    last_lsn: Position


class Index(msgspec.Struct, frozen=True, array_like=True):
    """The last key, the offset and the length of each data block."""

    last_keys: list[bytes]
    offsets: list[Position]
    lengths: list[Position]


def table_name(number: int) -> str:
    """File name of a table."""
    return f"{number:08d}.sst"

"""SSTables: sorted, immutable files of entries (docs/sstable.md). This is what they are made of.

Layout: data blocks, filter block, index block (last key, offset, length of each data block),
properties block, footer. Every block has its checksum; the footer has its own, a version and a magic.
"""

from __future__ import annotations

import struct

import msgspec

from kvstore.lsm.messages import Position

MAGIC = b"kvsst\x00\x00\x02"
FOOTER = struct.Struct("<QIQIQI")  # offset and length of filter, index, properties
FOOTER_BYTES = FOOTER.size + 4 + len(MAGIC)


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

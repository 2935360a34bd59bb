"""What `verify` finds in a store."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What is wrong."""

    DAMAGED = "damaged"
    """Bytes do not match their checksum, or cannot be decoded or read."""
    WRONG = "wrong"
    """Bytes are whole, and contradict others: order, counts, ranges, levels, a key that the filter denies."""
    MISSING = "missing"
    """A file that should be there is not."""
    FORMAT = "format"
    """Another format, or another program's file."""
    STRANGER = "stranger"
    """Not a file of the engine; it removes such when the store is opened."""
    TORN = "torn"
    """What a crash has cut off before it was synced: recovery leaves it out. Harmless."""
    LEFTOVER = "leftover"
    """A file of the engine that a crash left; it is removed when the store is opened. Harmless."""

    @property
    def harmless(self) -> bool:
        """Whether a crash leaves such, and nothing is lost by it."""
        return self in (Kind.TORN, Kind.LEFTOVER)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a store: where, and what.

    `offset` is where in the file the bad block, record or edit begins, None when it is the whole file.
    No key outside of `keys`, the first and the last of a range, is affected by what is wrong with a table.
    """

    kind: Kind
    file: str
    what: str
    offset: int | None = None
    keys: tuple[bytes, bytes] | None = None


@dataclass(slots=True)
class Counts:
    """How much has been read: files, data blocks and log records, bytes, entries in both."""

    files: int = 0
    blocks: int = 0
    bytes: int = 0
    entries: int = 0

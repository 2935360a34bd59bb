"""How far the transfer of each partition to this node is: on its disk, so that a restart goes on from there.

A record is written when all that it covers is durable: what is before a cursor need not be asked for again.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from typing import NamedTuple

from kvstore.quorum.replica import Replica

CURSORS = b"n/transfer/"
"""Where the engine keeps them, by partition; `n` is the keyspace of node-local records."""
CURSORS_END = CURSORS[:-1] + bytes([CURSORS[-1] + 1])
_PARTITION = struct.Struct(">I")
_FIXED = struct.Struct(">QI")


class Cursor(NamedTuple):
    """What has been fetched by the step that began at epoch `since`.

    All keys with fewer than `n` replicas, and of those with `n` all before the internal key `after`.
    """

    since: int
    n: int
    after: bytes


class Cursors:
    """Of one node, by partition."""

    def __init__(self, records: Iterable[tuple[bytes, bytes | None]], replica: Replica) -> None:
        """`records` are those on the disk, by key; None: it is damaged."""
        self._replica = replica
        self._stored = dict(_read(records))

    def since(self, partition: int, since: int) -> Cursor:
        """How far a partition is, for the step of this epoch: at its beginning if nothing is known."""
        found = self._stored.get(partition)
        return found if found is not None and found.since == since else Cursor(since, 0, b"")

    def save(self, partition: int, cursor: Cursor) -> None:
        """Keep one of which all is durable; raises StorageFull, Overloaded."""
        record = _FIXED.pack(cursor.since, cursor.n) + cursor.after
        self._replica.write([(_key(partition), record)])
        self._stored[partition] = cursor

    def keep_only(self, partitions: Collection[int]) -> None:
        """Drop those of all other partitions; raises StorageFull, Overloaded, and keeps them then."""
        gone = [partition for partition in self._stored if partition not in partitions]
        if gone:
            self._replica.write([(_key(partition), None) for partition in gone])
            for partition in gone:
                del self._stored[partition]


def _key(partition: int) -> bytes:
    return CURSORS + _PARTITION.pack(partition)


def _read(records: Iterable[tuple[bytes, bytes | None]]) -> list[tuple[int, Cursor]]:
    """What can be read of the disk: without a cursor, a transfer begins anew."""
    found = []
    for key, record in records:
        if len(key) == len(CURSORS) + _PARTITION.size and record is not None and len(record) >= _FIXED.size:
            since, n = _FIXED.unpack_from(record)
            found.append(
                (_PARTITION.unpack_from(key, len(CURSORS))[0], Cursor(since, n, record[_FIXED.size :]))
            )
    return found

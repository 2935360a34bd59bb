"""Since which epoch each replica set is as it is: part of the cluster state, so that all nodes say the same.

A node may miss epochs, and a replica set may change and change back in them: from the states that it has seen
no node could tell.
"""

from __future__ import annotations

import msgspec

FIRST_EPOCH = 1


class Since(msgspec.Struct, frozen=True):
    """By partition the epoch since which its replica list and its move are the present ones.

    Empty: all of them are those of the first epoch. `buckets` are those that have changed their `n`, in
    order, each with the epoch since which it is the present one.
    """

    partitions: tuple[int, ...] = ()
    buckets: tuple[tuple[str, int], ...] = ()

    def partition(self, partition: int) -> int:
        """The epoch since which the replica set of a partition is the present one."""
        return self.partitions[partition] if self.partitions else FIRST_EPOCH


UNCHANGED = Since()
"""Nothing has changed since the first epoch."""

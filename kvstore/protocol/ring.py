"""The ring: equal partitions, each with its ordered list of replicas. Immutable."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.protocol.internal_key import partition_of, token
from kvstore.versions import BucketName, UserKey

DEFAULT_PARTITIONS = 256
DEFAULT_REPLICAS = 3


@dataclass(frozen=True, slots=True)
class Ring:
    """`replica_lists[p]` are the nodes of partition `p`, most preferred first (Dynamo 6.2, strategy 3)."""

    replica_lists: tuple[tuple[str, ...], ...]

    @property
    def partitions(self) -> int:
        """How many partitions there are: a power of two, fixed when the cluster was made."""
        return len(self.replica_lists)

    def partition(self, bucket: str, key: bytes) -> int:
        """The partition of a key."""
        return partition_of(token(BucketName(bucket), UserKey(key)), self.partitions)

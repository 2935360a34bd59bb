"""Listing the keys that a node holds in one partition, in pages."""

from __future__ import annotations

from kvstore.config import MIB, Limits
from kvstore.errors import InvalidRequest
from kvstore.lsm.reading import Scan
from kvstore.ring import Ring, check_data_key, partition_bounds, split_data_key
from kvstore.versions import BucketName, EncodedVersion, InternalKey, UserKey, decode_version

_LIMITS = Limits()
_ENTRIES = 2000
_BYTES = 4 * MIB


def scan_keys(
    scan: Scan, ring: Ring, bucket: BucketName, partition: int, after: bytes, limit: int, wall: int
) -> tuple[tuple[UserKey, ...], bytes]:
    """Keys of `bucket` with a visible value at `wall`, and the cursor of the next page (empty: the end).

    At most `limit` keys (0: `Limits.scan_keys`, also the most) and `Limits.scan_page` bytes of them. A page
    ends, perhaps without any key, when `_ENTRIES` entries of whatever bucket, or `_BYTES` of them, were read:
    while one page is made nobody else is served. Raises InvalidRequest for a partition or cursor that is
    none, Corruption when a block cannot be read.
    """
    if not 0 <= partition < ring.partitions:
        raise InvalidRequest("partition", f"is {partition}, must be between 0 and {ring.partitions - 1}")
    start, end = partition_bounds(partition, ring.partitions)
    if after and not start <= after < end:
        raise InvalidRequest("after", "is not a cursor of this partition")
    room = min(limit or Limits.scan_keys, Limits.scan_keys)
    size = Limits.scan_page
    keys: list[UserKey] = []
    seen = seen_bytes = 0
    for stored_key, stored in scan(after + b"\0" if after else start, end):
        if seen >= _ENTRIES or seen_bytes >= _BYTES:
            return tuple(keys), after
        seen += 1
        seen_bytes += len(stored)
        internal, version = InternalKey(stored_key), EncodedVersion(stored)
        try:
            check_data_key(internal, _LIMITS)
        except InvalidRequest:  # no internal key: no client can have written it
            after = internal
            continue
        _, owner, key = split_data_key(internal)
        if owner != bucket or not decode_version(version).visible(wall):
            after = internal
            continue
        size -= len(key)
        if len(keys) >= room or size < 0:
            return tuple(keys), after
        keys.append(key)
        after = internal
    return tuple(keys), b""

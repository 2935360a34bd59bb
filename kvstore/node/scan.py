"""Reading what this node holds of a bucket, in steps of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from kvstore.config import MIB, Limits
from kvstore.errors import InvalidRequest
from kvstore.lsm.reading import Scan
from kvstore.ring import DATA_KEYSPACE, check_data_key, partition_bounds, partition_of
from kvstore.versions import BucketName, EncodedVersion, InternalKey, UserKey

_LIMITS = Limits()
_ENTRIES = 2000
_BYTES = 4 * MIB
_NAME_AT = len(partition_bounds(0, 1)[0])
"""Where the bucket's name begins in an internal key."""
_LONGEST_CURSOR = _NAME_AT + 64 + 1 + Limits.key + 1
"""An internal key with the longest names, and the byte that makes of a key the place behind it."""


class Wanted(NamedTuple):
    """The keys of a bucket that begin with `prefix`."""

    bucket: BucketName
    prefix: UserKey

    @property
    def named(self) -> bytes:
        """What their internal keys have behind the token, first of all."""
        return self.bucket.encode() + b"\0" + self.prefix

    def has(self, key: InternalKey) -> bool:
        """Whether an internal key is one of them."""
        return key.startswith(self.named, _NAME_AT)


class Held(NamedTuple):
    """What is stored under these keys, whether anybody can see it or not; and where the rest begins."""

    versions: Mapping[InternalKey, EncodedVersion]
    reached: bytes


class Step:
    """What may yet be read in one step: while it is made nobody else is served.

    That is `most_keys` of what is wanted, `Limits.scan_page` bytes of them, and `_ENTRIES` entries of
    whatever bucket, or `_BYTES` of them.
    """

    def __init__(self, scan: Scan, most_keys: int) -> None:
        self._scan = scan
        self._keys = most_keys
        self._key_bytes = Limits.scan_page
        self._entries = _ENTRIES
        self._bytes = _BYTES

    def is_over(self) -> bool:
        """Whether no more should be read."""
        return self._keys <= 0 or self._key_bytes <= 0 or self._entries <= 0 or self._bytes <= 0

    def read(self, wanted: Wanted, start: bytes, end: bytes) -> Held:
        """What is wanted from `start` up to and without `end`, as far as it goes; raises Corruption."""
        named = wanted.named
        key_at = _NAME_AT + len(named) - len(wanted.prefix)
        found: dict[InternalKey, EncodedVersion] = {}
        for stored_key, stored in self._scan(start, end):
            if self.is_over():
                return Held(found, stored_key)
            self._entries -= 1
            self._bytes -= len(stored)
            key = InternalKey(stored_key)
            if stored_key.startswith(named, _NAME_AT) and _is_key(key):
                self._keys -= 1
                self._key_bytes -= len(stored_key) - key_at
                found[key] = EncodedVersion(stored)
        return Held(found, end)


BeginStep: TypeAlias = Callable[[int], Step]
"""A step in which no more than so many keys of what is wanted are read."""


def _is_key(key: InternalKey) -> bool:
    """Whether a client can have written it: what is no internal key, an earlier kvstore may have stored."""
    try:
        check_data_key(key, _LIMITS)
    except InvalidRequest:
        return False
    return True


def partition_at(cursor: bytes, partitions: int, field: str = "cursor") -> int:
    """The partition in which a page begins; raises InvalidRequest for a cursor that no page can have had.

    Whoever asks has made the cursor: it says where to begin, within the keyspace of data, and nothing else.
    `field` is what the request calls it.
    """
    if not cursor:
        return 0
    first, _ = partition_bounds(0, partitions)
    _, end = partition_bounds(partitions - 1, partitions)
    if not first <= cursor < end or not _NAME_AT <= len(cursor) <= _LONGEST_CURSOR:
        raise InvalidRequest(field, "is not one of a page of a scan")
    return partition_of(int.from_bytes(cursor[len(DATA_KEYSPACE) : _NAME_AT], "big"), partitions)

"""A page of the keys of a bucket: what a client asks, and what it gets."""

from __future__ import annotations

import msgspec

from kvstore.protocol.client import Value
from kvstore.protocol.fields import BucketField, Count, KeyBound, Replicas, Seconds, UserKeyField
from kvstore.versions import UserKey


class Scan(msgspec.Struct, frozen=True, gc=False):
    """Asks for a page: at most `limit` keys that begin with `prefix`, and their `values` if that is wanted.

    It begins at `cursor`, an earlier page's `next`, and goes no further than `until`; empty: from the start,
    to the end. It misses nothing that `w` replicas have acknowledged before (0: as the bucket says).
    `timeout` in seconds, 0: default.
    """

    bucket: BucketField
    cursor: KeyBound = b""
    prefix: UserKeyField = UserKey(b"")
    limit: Count = 0
    values: bool = False
    w: Replicas = 0
    timeout: Seconds = 0.0
    until: KeyBound = b""


class ScannedKey(msgspec.Struct, frozen=True, gc=False):
    """A key that has a value. `large`: its values are too many bytes for a page, and were left out."""

    key: UserKeyField
    siblings: tuple[Value, ...] = ()
    large: bool = False


class Scanned(msgspec.Struct, frozen=True, gc=False):
    """Reply to Scan: keys in order of their hash; where the `next` page begins, empty: this is the last."""

    keys: tuple[ScannedKey, ...]
    next: KeyBound

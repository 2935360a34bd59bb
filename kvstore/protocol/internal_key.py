"""Tokens and internal keys: where a key lives on the ring and in the engine.

Both are formats (docs/ring.md, golden-tested): what one version wrote, every later one must find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NoReturn, cast

import mmh3

from kvstore.config import NAME, Limits
from kvstore.errors import InvalidRequest
from kvstore.versions import BucketName, InternalKey, UserKey

_SEED = 0x6B767374  # "kvst"
DATA_KEYSPACE = b"d"
"""What every internal key of data begins with."""
_TOKEN_BYTES = 8
_TOKEN_BITS = 64
_FIRST_HALF = slice(_TOKEN_BYTES - 1, None, -1)
"""Of Murmur3 x64 128, which is two little-endian numbers: the first one, big-endian."""
_murmur3 = mmh3.mmh3_x64_128_digest
_joined = cast("Callable[[Iterable[bytes]], InternalKey]", b"".join)


def token(bucket: BucketName, key: UserKey) -> int:
    """The 64-bit token of a key: the first half of Murmur3 x64 128 over bucket, NUL, key."""
    return int.from_bytes(_murmur3(bucket.encode() + b"\0" + key, _SEED)[:_TOKEN_BYTES], "little")


def partition_of(key_token: int, partitions: int) -> int:
    """The partition that a token falls into; `partitions` is a power of two."""
    return key_token >> (_TOKEN_BITS - partitions.bit_length() + 1)


def internal_key(bucket: BucketName, key: UserKey) -> InternalKey:
    """The internal key of a key, with its own token: what `data_key` makes, and the hash only once."""
    named = bucket.encode() + b"\0" + key
    return _joined((DATA_KEYSPACE, _murmur3(named, _SEED)[_FIRST_HALF], named))


def token_of(internal: InternalKey) -> int:
    """The token that an internal key has in front."""
    return int.from_bytes(internal[1 : 1 + _TOKEN_BYTES], "big")


def data_key(key_token: int, bucket: BucketName, key: UserKey) -> InternalKey:
    """The internal key: keyspace tag, token (big-endian), bucket, NUL, key."""
    return _joined((DATA_KEYSPACE, key_token.to_bytes(_TOKEN_BYTES, "big"), bucket.encode(), b"\0", key))


def split_data_key(internal: InternalKey) -> tuple[int, BucketName, UserKey]:
    """Inverse of `data_key`: token, bucket, key; raises InvalidRequest."""
    key_token = token_of(internal)
    bucket: Any  # of the type that is returned, as the key: a call that says so would cost every write
    key: Any
    bucket, nul, key = internal[1 + _TOKEN_BYTES :].partition(b"\0")
    if not nul or not bucket.isascii():
        raise InvalidRequest("key", f"{internal[:80]!r} is no internal key")
    return key_token, bucket.decode(), key


def check_data_key(internal: InternalKey, limits: Limits) -> None:
    """Raise InvalidRequest unless `internal` is exactly what `data_key` makes of a bucket and a key."""
    # on the way of every write: what is behind the token is just what it is the hash of
    named = internal[1 + _TOKEN_BYTES :]
    bucket_bytes = named.find(b"\0")
    if not (
        internal[:1] == DATA_KEYSPACE
        and bucket_bytes > 0
        and 0 < len(named) - bucket_bytes - 1 <= limits.key
        and _murmur3(named, _SEED)[_FIRST_HALF] == internal[1 : 1 + _TOKEN_BYTES]
        and _is_bucket(named[:bucket_bytes])
    ):
        _say_what_is_wrong(internal, limits)


@lru_cache(4096)
def _is_bucket(name: bytes) -> bool:
    return name.isascii() and NAME.fullmatch(name.decode()) is not None


def _say_what_is_wrong(internal: InternalKey, limits: Limits) -> NoReturn:
    if internal[:1] != DATA_KEYSPACE:
        raise InvalidRequest("key", f"{internal[:80]!r} is outside the keyspace of data")
    key_token, bucket, key = split_data_key(internal)
    limits.check_bucket(bucket)
    limits.check_key(key)
    raise InvalidRequest("key", f"{internal[:80]!r} has the token {key_token:016x}, which is of another key")


def token_at(place: bytes) -> int:
    """The token of an internal key, or of a place between such keys; 0 for the place before all of them."""
    return int.from_bytes(place[1 : 1 + _TOKEN_BYTES].ljust(_TOKEN_BYTES, b"\0"), "big")


def place_of(key_token: int) -> bytes:
    """The place before all internal keys of a token; empty for one that is beyond the last."""
    return DATA_KEYSPACE + key_token.to_bytes(_TOKEN_BYTES, "big") if key_token < 2**_TOKEN_BITS else b""


def partition_bounds(partition: int, partitions: int) -> tuple[bytes, bytes]:
    """The first internal key of a partition, and the first behind it."""
    shift = _TOKEN_BITS - partitions.bit_length() + 1
    start = DATA_KEYSPACE + (partition << shift).to_bytes(_TOKEN_BYTES, "big")
    if partition == partitions - 1:
        return start, bytes([DATA_KEYSPACE[0] + 1])
    return start, DATA_KEYSPACE + ((partition + 1) << shift).to_bytes(_TOKEN_BYTES, "big")

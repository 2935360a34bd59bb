"""Requests and keys made of literals: kvstore tells buckets and keys apart by their types, tests write text.

Each is what kvstore has under this name, but for what a type checker takes as the bucket and the key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from kvstore import ring
from kvstore.protocol import client
from kvstore.versions import BucketName, InternalKey, UserKey

P = ParamSpec("P")
T = TypeVar("T")


def _plain(
    made: Callable[Concatenate[BucketName, UserKey, P], T],
) -> Callable[Concatenate[str, bytes, P], T]:
    return made  # type: ignore[return-value]


Get = _plain(client.Get)
Put = _plain(client.Put)
Delete = _plain(client.Delete)
token = _plain(ring.token)


def data_key(key_token: int, bucket: str, key: bytes) -> InternalKey:
    return ring.data_key(key_token, BucketName(bucket), UserKey(key))

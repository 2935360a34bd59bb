"""Keys, versions, digests and contexts are all bytes, and mypy, which checks this file, tells them apart.

It complains of a `type: ignore` that ignores nothing, so each of these must be an error.
"""

from __future__ import annotations

from kvstore.protocol.client import Put
from kvstore.protocol.peer import ReplicaRead, ReplicaWrite
from kvstore.ring import data_key, split_data_key, token
from kvstore.versions import EMPTY, decode_version, digest, encode_version

KEY = data_key(token("carts", b"k"), "carts", b"k")
VERSION = encode_version(EMPTY)


def test_each_goes_where_it_belongs() -> None:
    assert ReplicaWrite(1, 1, KEY, VERSION).version == VERSION
    assert ReplicaRead(1, 1, KEY, digest(VERSION)).key == KEY
    assert decode_version(VERSION) == EMPTY
    assert split_data_key(KEY)[2] == b"k"


def test_none_goes_where_another_belongs() -> None:
    ReplicaWrite(1, 1, VERSION, VERSION)  # type: ignore[arg-type]
    ReplicaWrite(1, 1, KEY, KEY)  # type: ignore[arg-type]
    ReplicaRead(1, 1, KEY, VERSION)  # type: ignore[arg-type]
    ReplicaRead(1, 1, b"k", digest(VERSION))  # type: ignore[arg-type]
    Put("carts", b"k", b"v", context=VERSION)  # type: ignore[arg-type]
    digest(KEY)  # type: ignore[arg-type]

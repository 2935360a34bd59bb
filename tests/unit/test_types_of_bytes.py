"""Names, keys, versions, digests, contexts are text or bytes: mypy, which checks this file, tells them apart.

It complains of a `type: ignore` that ignores nothing, so each of these must be an error.
"""

from __future__ import annotations

from typing import Annotated, Any, NewType, get_args, get_origin, get_type_hints

import pytest

from kvstore.contexts import decode_seen, encode_seen
from kvstore.protocol.client import Delete, Get, Put, Stored
from kvstore.protocol.fields import Kind, fields_of
from kvstore.protocol.peer import ReplicaRead, ReplicaWrite
from kvstore.ring import data_key, split_data_key, token
from kvstore.versions import (
    EMPTY,
    NO_CONTEXT,
    NO_TOKEN,
    BucketName,
    UserKey,
    decode_version,
    digest,
    encode_version,
)
from tests.unit.test_protocol_table import RECORDS

CARTS = BucketName("carts")
USER_KEY = UserKey(b"k")
KEY = data_key(token(CARTS, USER_KEY), CARTS, USER_KEY)
VERSION = encode_version(EMPTY)
OF_NO_TYPE = {
    Kind.CONTENT_TYPE,
    Kind.CONTEXT_KEY,
    Kind.HINT_TARGET,
    Kind.ITEMS,
    Kind.KEY_BOUND,
    Kind.LEAVES,
    Kind.NODE,
    Kind.PRINCIPAL,
    Kind.VALUE,
}
"""Kinds of text and bytes that are just that. A bound is no key: it may lie between two."""


def test_each_goes_where_it_belongs() -> None:
    assert ReplicaWrite(1, 1, KEY, VERSION).version == VERSION
    assert ReplicaRead(1, 1, KEY, digest(VERSION)).key == KEY
    assert decode_version(VERSION) == EMPTY
    assert split_data_key(KEY)[1:] == (CARTS, USER_KEY)
    assert Get(*split_data_key(KEY)[1:], seen=encode_seen((), 1)).key == USER_KEY


def test_none_goes_where_another_belongs() -> None:
    ReplicaWrite(1, 1, VERSION, VERSION)  # type: ignore[arg-type]
    ReplicaWrite(1, 1, KEY, KEY)  # type: ignore[arg-type]
    ReplicaRead(1, 1, KEY, VERSION)  # type: ignore[arg-type]
    ReplicaRead(1, 1, USER_KEY, digest(VERSION))  # type: ignore[arg-type]
    Put(CARTS, USER_KEY, b"v", context=VERSION)  # type: ignore[arg-type]
    Put(CARTS, USER_KEY, b"v", context=NO_TOKEN)  # type: ignore[arg-type]
    Get(CARTS, USER_KEY, seen=NO_CONTEXT)  # type: ignore[arg-type]
    Stored(NO_CONTEXT, 1, written=NO_CONTEXT)  # type: ignore[arg-type]
    decode_seen(NO_CONTEXT, 1)  # type: ignore[arg-type]
    digest(KEY)  # type: ignore[arg-type]


def test_no_text_is_a_bucket_and_no_bytes_are_a_key_unless_someone_says_so() -> None:
    Get("carts", USER_KEY)  # type: ignore[arg-type]
    Get(CARTS, KEY)  # type: ignore[arg-type]
    Get(CARTS, b"k")  # type: ignore[arg-type]
    Put("carts", USER_KEY, b"v")  # type: ignore[arg-type]
    Put(CARTS, b"k", b"v")  # type: ignore[arg-type]
    Delete("carts", USER_KEY)  # type: ignore[arg-type]
    Delete(CARTS, b"k")  # type: ignore[arg-type]
    token("carts", USER_KEY)  # type: ignore[arg-type]
    token(CARTS, KEY)  # type: ignore[arg-type]
    data_key(0, "carts", USER_KEY)  # type: ignore[arg-type]
    data_key(0, CARTS, b"k")  # type: ignore[arg-type]


@pytest.mark.parametrize("record", sorted(RECORDS, key=repr), ids=lambda record: record.__name__)
def test_every_field_of_text_or_bytes_has_a_type_of_its_own_or_is_listed_as_having_none(record: Any) -> None:
    """Also in a message that is added: one with bare bytes for a key would take a version for it."""
    hints = get_type_hints(record, include_extras=True)
    bare = {
        field.name
        for field in fields_of(record)
        if {str, bytes} & set(field.types) and field.kind not in OF_NO_TYPE and not is_new(hints[field.name])
    }
    assert not bare


def is_new(hint: Any) -> bool:
    """Whether this is a NewType, or a list of such, or may also be None."""
    if isinstance(hint, NewType):
        return True
    inner = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return any(map(is_new, inner))

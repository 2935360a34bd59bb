"""A sample of every message, made from its fields: a new message, and a new field, are tested by that."""

from __future__ import annotations

from enum import Enum
from itertools import count
from typing import Any

import msgspec

from kvstore.errors import KVError, StaleRing
from kvstore.protocol.client import CLIENT_REQUESTS, ClientRequest
from kvstore.protocol.fields import Field, fields_of, is_record
from kvstore.protocol.table import PEER_TABLE, PeerMessage
from kvstore.ring import ClusterState, initial_state, parse_members


def sample(record: Any, several: int = 2) -> Any:
    """With a value in every field that is not its default and that no other field has; lists of `several`."""
    numbers = count(1)
    return _sample(record, several, numbers)


def _sample(record: Any, several: int, numbers: Any) -> Any:
    return record(*[_value(field, several, numbers) for field in fields_of(record)])


def _value(field: Field, several: int, numbers: Any) -> Any:
    if field.many:
        return tuple(_item(field.types[0], several, numbers) for _ in range(several))
    return _item(field.types[0], several, numbers)


def _item(kind: Any, several: int, numbers: Any) -> Any:
    if is_record(kind):
        return _sample(kind, several, numbers)
    if kind is KVError:
        return StaleRing(next(numbers))
    if issubclass(kind, Enum):
        return list(kind)[-1]
    if kind is bool:
        return True
    number = next(numbers)
    if kind is ClusterState:
        return initial_state(f"text {number}", parse_members("n1=h:1,n2=h:2"), 4, 2, [])
    return {bytes: b"bytes %d" % number, str: f"text {number}", float: number / 8}.get(kind, number)


def peer_samples() -> list[PeerMessage]:
    """One message of each type, and one with empty lists."""
    return [sample(struct, several) for struct in PEER_TABLE for several in (2, 0)]


def client_samples() -> list[ClientRequest]:
    """One request of each type."""
    return [sample(struct) for struct in CLIENT_REQUESTS]


def without_options(message: Any) -> Any:
    """The same, but with the default in every field that has one."""
    defaults = {
        field.name: field.default
        for field in msgspec.structs.fields(message)
        if field.default is not msgspec.NODEFAULT
    }
    return msgspec.structs.replace(message, **defaults)


def variants(message: Any) -> dict[str, Any]:
    """Without options, and with one of them at a time, by the name of that field."""
    plain = without_options(message)
    found = {"": plain}
    for field in msgspec.structs.fields(message):
        if field.default is not msgspec.NODEFAULT:
            value = getattr(message, field.name)
            found[field.name] = msgspec.structs.replace(plain, **{field.name: value})
    return found

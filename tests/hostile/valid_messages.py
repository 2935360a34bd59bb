"""One valid message of each type, made from the kinds of its fields: what attacks begin from."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar

from google.protobuf.message import Message

from kvstore.errors import (
    InvalidRequest,
    KVError,
    Overloaded,
    StaleRing,
    TooManySiblings,
    VersionTooLarge,
    WriteTimeout,
)
from kvstore.protocol.client import CLIENT_REQUESTS, ClientRequest
from kvstore.protocol.fields import Field, Kind, fields_of, is_record
from kvstore.protocol.scan import Scan
from kvstore.protocol.table import PEER_TABLE, PeerMessage
from kvstore.ring import initial_state, parse_members
from kvstore.v1 import admin_pb2, client_pb2, peer_pb2
from kvstore.versions import Dot, Sibling, Version, encode_version
from kvstore.wire.peer import encode_frame
from kvstore.wire.scan import scan_to_wire
from tests.client_messages import call_to_wire, request_to_wire
from tests.hostile.attacks import KEY
from tests.wire_samples import without_options

_DOT = Dot("n9.0.0", 7)
M = TypeVar("M", bound=Message)

VALID: dict[Kind, object] = {
    Kind.NUMBER: 2**40,
    Kind.EPOCH: 1,
    Kind.INTERNAL_KEY: KEY,
    Kind.KEY_BOUND: KEY,
    Kind.VERSION: encode_version(Version((_DOT,), (Sibling(_DOT, b"v"),))),
    Kind.VERSION_OR_NONE: encode_version(Version((_DOT,), (Sibling(_DOT, b"v"),))),
    Kind.DIGEST: bytes(range(16)),
    Kind.HINT_TARGET: "n3",
    Kind.NODE: "n2",
    Kind.PARTITION: 1,
    Kind.TREE_N: 3,
    Kind.TREE_NODE: 5,
    Kind.TREE_HASH: 7,
    Kind.ITEM_COUNT: 1,
    Kind.LEAVES: b"\1\2",
    Kind.ITEMS: bytes(16),
    Kind.POSITION: 1,
    Kind.CONTEXT_KEY: bytes(range(16)),
    Kind.PRINCIPAL: "somebody",
    Kind.TIME_LEFT: 1000,
    Kind.CLUSTER_STATE: initial_state("", parse_members("n1=h:1,n2=h:2,n3=h:3"), 4, 3, []),
    Kind.BALLOT_ROUND: 1,
    Kind.INCARNATION: 1,
    Kind.BUCKET: "b",
    Kind.KEY: b"attacked",
    Kind.VALUE: b"v",
    Kind.CONTENT_TYPE: "text/plain",
    Kind.CONTEXT: b"\2" + bytes(17),
    Kind.SEEN: b"\1" + bytes(5),
    Kind.REPLICAS: 1,
    Kind.TTL: 60,
    Kind.SECONDS: 1.0,
    Kind.TIME: 1_700_000_000_000,
    Kind.COUNT: 1,
}
"""What a field of each kind may hold; two contexts that are forged, as those that are not hold a secret."""


ERRORS: tuple[KVError, ...] = (
    StaleRing(1),
    InvalidRequest("key", "is wrong"),
    WriteTimeout(1, 2),
    Overloaded(0.5, "busy"),
    TooManySiblings(100, 100),
    VersionTooLarge(200, 100),
)
"""All fields of an error together; one that its kind of error does not have is attacked in another."""


def valid(record: Any, choice: int = 0) -> Any:
    """With something in every field; `choice` says which of several types a field has."""
    return record(*[_value(field, choice) for field in fields_of(record)])


def _value(field: Field, choice: int) -> Any:
    item = _item(field, choice)
    if field.many:
        return (item, None) if field.optional else (item,)
    return item


def _item(field: Field, choice: int) -> Any:
    kind: Any = field.types[choice % len(field.types)]
    if field.kind is not None:
        return VALID[field.kind]
    if is_record(kind):
        return valid(kind, choice)
    if kind is KVError:
        return ERRORS[choice % len(ERRORS)]
    if issubclass(kind, Enum):
        return next(iter(kind))
    assert kind is bool, f"{field.name} needs a kind"
    return True


def frames() -> dict[str, peer_pb2.Frame]:
    """A frame with one message of each type, each type of field and each error."""
    messages: list[PeerMessage] = [without_options(valid(s)) for s, row in PEER_TABLE.items() if row.columns]
    messages += [valid(struct, choice) for struct in PEER_TABLE for choice in range(3 * len(ERRORS))]
    encoded = {encode_frame([message], 5): type(message).__name__ for message in messages}
    return {f"{name} {i}": peer_pb2.Frame.FromString(data) for i, (data, name) in enumerate(encoded.items())}


def client_requests() -> list[ClientRequest]:
    """Of each type one with all fields, which is refused for its contexts, and the same without options."""
    full = [valid(call) for call in CLIENT_REQUESTS]
    return [*full, *map(without_options, full)]


def unary_requests() -> list[tuple[str, Message]]:
    """Requests of clients and operators, with the paths of their methods."""
    found: list[tuple[str, Message]] = [
        (f"/kvstore.v1.KV/{type(call).__name__}", request_to_wire(call)) for call in client_requests()
    ]
    return [
        *found,
        ("/kvstore.v1.KV/Scan", scan_to_wire(valid(Scan))),
        ("/kvstore.v1.KV/GetRing", client_pb2.GetRingRequest()),
        ("/kvstore.v1.Admin/GetStatus", admin_pb2.GetStatusRequest()),
        ("/kvstore.v1.Admin/Repair", admin_pb2.RepairRequest(start=True)),
    ]


def session_requests() -> list[client_pb2.SessionRequest]:
    """Calls of each type, and those that travel in columns."""
    calls = [call_to_wire(5, call) for call in client_requests()]
    found = [client_pb2.SessionRequest(sent_ms=5, calls=[call]) for call in calls]
    in_columns = [
        client_pb2.SessionRequest(sent_ms=5, plain_puts=one_in_columns(client_pb2.PlainPuts())),
        client_pb2.SessionRequest(sent_ms=5, plain_gets=one_in_columns(client_pb2.PlainGets())),
    ]
    return [*found, *in_columns]


def one_in_columns(columns: M) -> M:
    """One call, with something in every column."""
    for field in columns.DESCRIPTOR.fields:
        value: Any = {field.TYPE_BYTES: b"attacked", field.TYPE_STRING: "b"}.get(field.type, 5)
        if field.is_repeated:
            getattr(columns, field.name).append(value)
        else:
            setattr(columns, field.name, value)
    return columns

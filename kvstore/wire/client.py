"""The client API's messages: requests and replies of kvstore.protocol.client as protobuf and back."""

from __future__ import annotations

from typing import Any, TypeAlias, get_args

from google.protobuf.message import Message

from kvstore.protocol.client import CLIENT_REQUESTS, ClientRequest, Reply, Success
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.codec import Oneof, codec_of

WireRequest: TypeAlias = Message
"""One of the messages in WIRE_REQUESTS."""
WireReply: TypeAlias = Message
"""One of the messages of replies in pb.Result."""

WIRE_REQUESTS: dict[type[ClientRequest], type[WireRequest]] = {
    struct: getattr(pb, f"{struct.__name__}Request") for struct in CLIENT_REQUESTS
}
"""The message of each request; the method of the KV service that takes it has the name of the request."""
_REQUESTS = {message: codec_of(struct, message.DESCRIPTOR).read for struct, message in WIRE_REQUESTS.items()}
_CALL = Oneof(CLIENT_REQUESTS, pb.Call.DESCRIPTOR, "request")
_RESULT = Oneof(get_args(Reply), pb.Result.DESCRIPTOR, "reply")


def request_from_wire(m: WireRequest) -> ClientRequest:
    """A client's request; raises InvalidRequest for a quorum mode that does not exist."""
    request: ClientRequest = _REQUESTS[type(m)](m)
    return request


def fill_call(m: pb.Call, call: ClientRequest) -> Any:
    """Set the request of a new message, and return its message."""
    return _CALL.fill(m, call)


def call_from_wire(m: pb.Call) -> ClientRequest:
    """Inverse of `fill_call`; raises InvalidRequest for a message without a request."""
    request: ClientRequest = _CALL.read(m)
    return request


def reply_to_wire(reply: Success) -> WireReply:
    """The reply to a unary request that went well."""
    m: WireReply = _RESULT.fill(pb.Result(), reply)
    return m


def fill_result(m: pb.Result, reply: Reply) -> None:
    """Set the reply of a new message."""
    _RESULT.fill(m, reply)


def reply_from_wire(m: pb.Result) -> Reply:
    """Inverse of `fill_result`; raises InvalidRequest for a message without a reply."""
    reply: Reply = _RESULT.read(m)
    return reply

"""The client API's messages: requests and replies of kvstore.protocol.messages as protobuf and back."""

from __future__ import annotations

from typing import Any

from kvstore.config import QuorumMode
from kvstore.errors import InvalidRequest
from kvstore.protocol.messages import (
    ClientRequest,
    Delete,
    Explain,
    Failed,
    Found,
    Get,
    Put,
    Reply,
    Stored,
    Value,
)
from kvstore.v1 import client_pb2 as pb
from kvstore.v1 import peer_pb2 as peer_pb
from kvstore.wire.errors import error_from_wire, error_to_wire

_MODE_NUMBERS: dict[QuorumMode | None, pb.QuorumMode] = {
    None: pb.QUORUM_MODE_UNSPECIFIED,
    QuorumMode.STRICT: pb.QUORUM_MODE_STRICT,
    QuorumMode.SLOPPY: pb.QUORUM_MODE_SLOPPY,
}
_MODES: dict[int, QuorumMode | None] = {number: mode for mode, number in _MODE_NUMBERS.items()}

WireRequest = pb.GetRequest | pb.PutRequest | pb.DeleteRequest
WireReply = pb.GetResponse | pb.PutResponse | pb.DeleteResponse


def request_from_wire(m: WireRequest) -> ClientRequest:
    """A client's request; raises InvalidRequest for a quorum mode that does not exist."""
    try:
        mode = _MODES[m.quorum]
    except KeyError:
        raise InvalidRequest("quorum", f"{m.quorum} is no quorum mode") from None
    timeout = m.timeout_ms / 1000
    if isinstance(m, pb.GetRequest):
        return Get(m.bucket, m.key, m.r, mode, timeout, m.explain, m.epoch, m.seen, m.seen_empty)
    if isinstance(m, pb.DeleteRequest):
        return Delete(m.bucket, m.key, m.context, m.r, m.w, mode, timeout, m.explain, m.epoch)
    content_type, ttl = m.content_type, m.ttl_s
    return Put(m.bucket, m.key, m.value, m.context, content_type, ttl, m.w, mode, timeout, m.explain, m.epoch)


def request_to_wire(call: ClientRequest) -> WireRequest:
    """Inverse of `request_from_wire`."""
    m: WireRequest
    match call:
        case Get():
            m = pb.GetRequest()
        case Put():
            m = pb.PutRequest()
        case Delete():
            m = pb.DeleteRequest()
    fill_request(m, call)
    return m


def fill_request(m: Any, call: ClientRequest) -> None:
    """Set the fields of a new request message of the type that fits `call`.

    Field by field and only what is not the default: half the time of the constructor.
    """
    m.bucket = call.bucket
    m.key = call.key
    if isinstance(call, Get):
        if call.r:
            m.r = call.r
        if call.seen:
            m.seen = call.seen
        if call.seen_empty:
            m.seen_empty = True
    else:
        if call.context:
            m.context = call.context
        if call.w:
            m.w = call.w
        if isinstance(call, Delete):
            if call.r:
                m.r = call.r
        else:
            m.value = call.value
            m.content_type = call.content_type
            m.ttl_s = call.ttl
    if call.quorum is not None:
        m.quorum = _MODE_NUMBERS[call.quorum]
    m.timeout_ms = round(call.timeout * 1000)
    m.explain = call.explain
    m.epoch = call.epoch


def request_bytes(call: ClientRequest) -> int:
    """About how many bytes a request takes in a frame."""
    size = 128 + len(call.key)
    if isinstance(call, Put):
        return size + len(call.context) + len(call.value)
    return size + len(call.context if isinstance(call, Delete) else call.seen)


def reply_bytes(reply: Reply) -> int:
    """About how many bytes a reply takes in a frame."""
    if type(reply) is not Found:
        return 128
    return 64 + len(reply.context) + sum(64 + len(sibling.value) for sibling in reply.siblings)


def fill_found(m: pb.GetResponse, found: Found) -> None:
    """Set the fields of a new reply to a Get."""
    m.context = found.context
    for sibling in found.siblings:
        value = m.siblings.add()
        value.value = sibling.value
        value.content_type = sibling.content_type
        value.time_ms = sibling.time
        value.expiry_ms = sibling.expiry
    if found.explain is not None:
        _fill_explain(m.explain, found.explain)


def found_from_wire(m: pb.GetResponse) -> Found:
    """Inverse of `fill_found`."""
    siblings = tuple(Value(s.value, s.content_type, s.time_ms, s.expiry_ms) for s in m.siblings)
    return Found(siblings, m.context, _explain_from_wire(m.explain) if m.HasField("explain") else None)


def fill_stored(m: pb.PutResponse | pb.DeleteResponse, stored: Stored) -> None:
    """Set the fields of a new reply to a Put or Delete."""
    m.context = stored.context
    m.siblings = stored.siblings
    m.written = stored.written
    if stored.overwritten:
        m.overwritten = stored.overwritten
    if stored.explain is not None:
        _fill_explain(m.explain, stored.explain)


def stored_from_wire(m: pb.PutResponse | pb.DeleteResponse) -> Stored:
    """Inverse of `fill_stored`."""
    explain = _explain_from_wire(m.explain) if m.HasField("explain") else None
    return Stored(m.context, m.siblings, explain, m.overwritten, m.written)


def fill_reply(m: pb.Result | peer_pb.ForwardReply, reply: Reply, deleted: bool = False) -> None:
    """Set the `reply` of a new message; `deleted` tells that it answers a Delete."""
    if isinstance(reply, Found):
        fill_found(m.get, reply)
    elif isinstance(reply, Stored):
        fill_stored(m.delete if deleted else m.put, reply)
    else:
        m.error.CopyFrom(error_to_wire(reply.error))


def reply_from_wire(m: pb.Result | peer_pb.ForwardReply) -> Reply:
    """Inverse of `fill_reply`; raises InvalidRequest for a message without a reply."""
    which = m.WhichOneof("reply")
    if which == "put":
        return stored_from_wire(m.put)
    if which == "get":
        return found_from_wire(m.get)
    if which == "delete":
        return stored_from_wire(m.delete)
    if which == "error":
        return Failed(error_from_wire(m.error))
    raise InvalidRequest("reply", "a message that should hold one holds none")


def result_to_wire(number: int, reply: Reply, deleted: bool = False) -> pb.Result:
    """One reply within a Session."""
    m = pb.Result(id=number)
    fill_reply(m, reply, deleted)
    return m


def fill_call(m: pb.Call | peer_pb.Forward, call: ClientRequest) -> WireRequest:
    """Set the request of a new message, and return it."""
    body: WireRequest = m.get if isinstance(call, Get) else m.put if isinstance(call, Put) else m.delete
    fill_request(body, call)
    return body


def call_to_wire(number: int, call: ClientRequest) -> pb.Call:
    """One request within a Session."""
    m = pb.Call(id=number)
    fill_call(m, call)
    return m


def call_from_wire(m: pb.Call | peer_pb.Forward) -> ClientRequest:
    """Inverse of `fill_call`; raises InvalidRequest for a message without a request."""
    which = m.WhichOneof("request" if isinstance(m, pb.Call) else "call")
    if which == "put":
        return request_from_wire(m.put)
    if which == "get":
        return request_from_wire(m.get)
    if which == "delete":
        return request_from_wire(m.delete)
    raise InvalidRequest("request", "a message that should hold one holds none")


def _fill_explain(m: pb.Explain, explain: Explain) -> None:
    m.coordinator = explain.coordinator
    m.epoch = explain.epoch
    m.partition = explain.partition
    m.asked.extend(explain.asked)
    m.answered.extend(explain.answered)
    m.repaired.extend(explain.repaired)
    m.hinted.extend(explain.hinted)
    m.hedged.extend(explain.hedged)


def _explain_from_wire(m: pb.Explain) -> Explain:
    return Explain(
        m.coordinator,
        m.epoch,
        m.partition,
        tuple(m.asked),
        tuple(m.answered),
        tuple(m.repaired),
        tuple(m.hinted),
        tuple(m.hedged),
    )

"""The client API's messages: requests and replies of kvstore.quorum.messages as protobuf and back."""

from __future__ import annotations

from kvstore.config import QuorumMode
from kvstore.errors import InvalidRequest
from kvstore.quorum.messages import (
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
    match m:
        case pb.GetRequest():
            return Get(m.bucket, m.key, m.r, mode, timeout, m.explain, m.epoch)
        case pb.PutRequest():
            return Put(
                m.bucket,
                m.key,
                m.value,
                m.context,
                m.content_type,
                m.ttl_s,
                m.w,
                mode,
                timeout,
                m.explain,
                m.epoch,
            )
        case pb.DeleteRequest():
            return Delete(m.bucket, m.key, m.context, m.w, mode, timeout, m.explain, m.epoch)


def request_to_wire(call: ClientRequest) -> WireRequest:
    """Inverse of `request_from_wire`."""
    mode = _MODE_NUMBERS[call.quorum]
    timeout = round(call.timeout * 1000)
    match call:
        case Get(bucket, key, r):
            return pb.GetRequest(
                bucket=bucket,
                key=key,
                r=r,
                quorum=mode,
                timeout_ms=timeout,
                explain=call.explain,
                epoch=call.epoch,
            )
        case Put(bucket, key, value, context, content_type, ttl, w):
            return pb.PutRequest(
                bucket=bucket,
                key=key,
                value=value,
                context=context,
                content_type=content_type,
                ttl_s=ttl,
                w=w,
                quorum=mode,
                timeout_ms=timeout,
                explain=call.explain,
                epoch=call.epoch,
            )
        case Delete(bucket, key, context, w):
            return pb.DeleteRequest(
                bucket=bucket,
                key=key,
                context=context,
                w=w,
                quorum=mode,
                timeout_ms=timeout,
                explain=call.explain,
                epoch=call.epoch,
            )


def found_to_wire(found: Found) -> pb.GetResponse:
    """The reply to a Get."""
    siblings = [
        pb.Sibling(value=s.value, content_type=s.content_type, time_ms=s.time, expiry_ms=s.expiry)
        for s in found.siblings
    ]
    return pb.GetResponse(siblings=siblings, context=found.context, explain=_explain_to_wire(found.explain))


def found_from_wire(m: pb.GetResponse) -> Found:
    """Inverse of `found_to_wire`."""
    siblings = tuple(Value(s.value, s.content_type, s.time_ms, s.expiry_ms) for s in m.siblings)
    return Found(siblings, m.context, _explain_from_wire(m.explain) if m.HasField("explain") else None)


def stored_to_put(stored: Stored) -> pb.PutResponse:
    """The reply to a Put."""
    return pb.PutResponse(
        context=stored.context, siblings=stored.siblings, explain=_explain_to_wire(stored.explain)
    )


def stored_to_delete(stored: Stored) -> pb.DeleteResponse:
    """The reply to a Delete."""
    return pb.DeleteResponse(
        context=stored.context, siblings=stored.siblings, explain=_explain_to_wire(stored.explain)
    )


def stored_from_wire(m: pb.PutResponse | pb.DeleteResponse) -> Stored:
    """Inverse of `stored_to_put` and `stored_to_delete`."""
    return Stored(m.context, m.siblings, _explain_from_wire(m.explain) if m.HasField("explain") else None)


def result_to_wire(number: int, reply: Reply) -> pb.Result:
    """One reply within a Session."""
    match reply:
        case Found():
            return pb.Result(id=number, get=found_to_wire(reply))
        case Stored():
            return pb.Result(id=number, put=stored_to_put(reply))
        case Failed(error):
            return pb.Result(id=number, error=error_to_wire(error))


def reply_from_wire(m: pb.Result) -> Reply:
    """Inverse of `result_to_wire`; raises InvalidRequest for a Result without a reply."""
    match m.WhichOneof("reply"):
        case "get":
            return found_from_wire(m.get)
        case "put":
            return stored_from_wire(m.put)
        case "delete":
            return stored_from_wire(m.delete)
        case "error":
            return Failed(error_from_wire(m.error))
        case _:
            raise InvalidRequest("reply", f"the result {m.id} has none")


def call_to_wire(number: int, call: ClientRequest) -> pb.Call:
    """One request within a Session."""
    match request_to_wire(call):
        case pb.GetRequest() as get:
            return pb.Call(id=number, get=get)
        case pb.PutRequest() as put:
            return pb.Call(id=number, put=put)
        case pb.DeleteRequest() as delete:
            return pb.Call(id=number, delete=delete)


def call_from_wire(m: pb.Call) -> ClientRequest:
    """Inverse of `call_to_wire`; raises InvalidRequest for a Call without a request."""
    which = m.WhichOneof("request")
    if which is None:
        raise InvalidRequest("request", f"the call {m.id} has none")
    request: WireRequest = getattr(m, which)
    return request_from_wire(request)


def _explain_to_wire(explain: Explain | None) -> pb.Explain | None:
    if explain is None:
        return None
    return pb.Explain(
        coordinator=explain.coordinator,
        epoch=explain.epoch,
        partition=explain.partition,
        asked=explain.asked,
        answered=explain.answered,
        repaired=explain.repaired,
        hinted=explain.hinted,
    )


def _explain_from_wire(m: pb.Explain) -> Explain:
    return Explain(
        m.coordinator,
        m.epoch,
        m.partition,
        tuple(m.asked),
        tuple(m.answered),
        tuple(m.repaired),
        tuple(m.hinted),
    )

"""Frames of a client's Session: calls and their replies as protobuf and back.

Puts without options, and the replies to them, travel in columns: on a stream that carries hundreds of
calls a frame, making and reading a message for each would be most of its cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from google.protobuf.message import DecodeError

from kvstore.errors import InvalidRequest, KVError
from kvstore.protocol.client import ClientRequest, Failed, Put, Reply, Stored
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.budget import CALLS_OF_A_SESSION, FrameBudget, check_items
from kvstore.wire.client import fill_call, fill_result, reply_from_wire
from kvstore.wire.columns import Columns
from kvstore.wire.errors import error_from_wire, error_to_wire


class OpenCall(msgspec.Struct, frozen=True, gc=False):
    """A request on its way to a node; `timeout_ms` and `epoch` stand in for those of the request."""

    number: int
    request: ClientRequest
    timeout_ms: int
    epoch: int


Answer = tuple[int, Reply, bool]
"""The reply to the call of a number, and whether that came in columns: its reply goes back so as well."""

_PUTS = Columns(
    Put,
    pb.PlainPuts.DESCRIPTOR,
    others=("ids",),
    given=("timeout", "epoch"),
    place="s.request",
    only="type(s.request) is struct",
)
_STORED = Columns(
    Stored, pb.PlainStored.DESCRIPTOR, others=("ids",), place="s[1]", only="s[2] and type(s[1]) is struct"
)

_BUDGET = FrameBudget(
    pb.SessionRequest.DESCRIPTOR, CALLS_OF_A_SESSION, {pb.SessionRequest.PLAIN_PUTS_FIELD_NUMBER}
)


def encode_calls(calls: Sequence[OpenCall], sent_ms: int = 0) -> bytes:
    """One frame with all `calls`, sent now by the client's clock."""
    frame = pb.SessionRequest(sent_ms=sent_ms)
    plain, others = _PUTS.split(calls)
    for call in others:
        body = fill_call(frame.calls.add(id=call.number), call.request)
        body.timeout_ms = call.timeout_ms
        body.epoch = call.epoch
    if plain:
        columns = frame.plain_puts
        columns.ids.extend([call.number for call in plain])
        columns.epochs.extend([call.epoch for call in plain])
        columns.timeouts_ms.extend([call.timeout_ms for call in plain])
        _PUTS.fill(columns, plain)
    return frame.SerializeToString()


def decode_calls(data: bytes) -> tuple[int, Sequence[pb.Call], list[tuple[int, Put]]]:
    """When a frame was sent, its calls, its plain puts by number; raises InvalidRequest when it is none."""
    _BUDGET.check(data)
    try:
        frame = pb.SessionRequest.FromString(data)
    except DecodeError as error:
        raise InvalidRequest("frame", str(error)) from error
    check_items(len(frame.calls) + len(frame.plain_puts.ids), CALLS_OF_A_SESSION, "calls")
    return frame.sent_ms, frame.calls, _plain_puts(frame.plain_puts) if frame.HasField("plain_puts") else []


def _plain_puts(m: pb.PlainPuts) -> list[tuple[int, Put]]:
    return list(zip(m.ids, _PUTS.read(m), strict=True))


def encode_replies(answers: Sequence[Answer]) -> bytes:
    """One frame with all `answers`."""
    frame = pb.SessionResponse()
    refused: dict[KVError, list[int]] = {}
    plain, others = _STORED.split(answers)
    if plain:
        columns = frame.plain_stored
        columns.ids.extend([number for number, _, _ in plain])
        _STORED.fill(columns, plain)
    for number, reply, in_columns in others:
        if in_columns and isinstance(reply, Failed):
            refused.setdefault(reply.error, []).append(number)
        else:
            fill_result(frame.results.add(id=number), reply)
    for error, ids in refused.items():
        frame.plain_refused.add(ids=ids, error=error_to_wire(error))
    return frame.SerializeToString()


def decode_replies(data: bytes) -> Iterator[tuple[int, Reply | None]]:
    """The replies of a frame as `replies_from_wire` gives them; raises InvalidRequest when it is none."""
    try:
        frame = pb.SessionResponse.FromString(data)
    except DecodeError as error:
        raise InvalidRequest("frame", str(error)) from error
    return replies_from_wire(frame)


def replies_from_wire(frame: pb.SessionResponse) -> Iterator[tuple[int, Reply | None]]:
    """The replies of a frame by number, None for one that is empty; raises InvalidRequest."""
    if frame.HasField("plain_stored"):
        m = frame.plain_stored
        yield from zip(m.ids, _STORED.read(m), strict=True)
    for refused in frame.plain_refused:
        for number in refused.ids:  # an exception of its own for each: they are raised in different places
            yield number, Failed(error_from_wire(refused.error))
    for result in frame.results:
        yield result.id, reply_from_wire(result) if result.WhichOneof("reply") else None

"""Frames of a client's Session: calls and their replies as protobuf and back.

Puts and gets without options, and the replies to them, travel in columns: on a stream that carries hundreds
of calls a frame, making and reading a message for each would be most of its cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from google.protobuf.message import DecodeError
from msgspec.structs import replace

from kvstore.errors import InvalidRequest, KVError
from kvstore.protocol.client import ClientRequest, Failed, Found, Get, Put, Reply, Stored
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.budget import CALLS_OF_A_SESSION, FrameBudget, check_items
from kvstore.wire.client import fill_call, fill_result, reply_from_wire
from kvstore.wire.codec import Descriptor
from kvstore.wire.columns import Columns
from kvstore.wire.errors import error_from_wire, error_to_wire
from kvstore.wire.large_fields import Cut, cut


class OpenCall(msgspec.Struct, frozen=True, gc=False):
    """A request on its way to a node; `timeout_ms` and `epoch` stand in for those of the request."""

    number: int
    request: ClientRequest
    timeout_ms: int
    epoch: int


Calls = tuple[int, Sequence[pb.Call], list[tuple[int, ClientRequest]]]
"""When a frame was sent, its calls, and by number those in columns."""

Answer = tuple[int, Reply, bool]
"""The reply to the call of a number, and whether that came in columns: its reply goes back so as well."""


def _calls(struct: type[ClientRequest], message: Descriptor) -> Columns:
    return Columns(
        struct,
        message,
        others=("ids",),
        given=("timeout", "epoch"),
        place="s.request",
        only="type(s.request) is struct",
    )


def _replies(struct: type[Reply], message: Descriptor, alone: str = "") -> Columns:
    only = "s[2] and type(s[1]) is struct"
    return Columns(struct, message, others=("ids",), place="s[1]", only=only, alone=alone)


_PUTS = _calls(Put, pb.PlainPuts.DESCRIPTOR)
_GETS = _calls(Get, pb.PlainGets.DESCRIPTOR)
_VALUES = {pb.SessionRequest.PLAIN_PUTS_FIELD_NUMBER: pb.PlainPuts.DESCRIPTOR.fields_by_name["values"].number}

_STORED = _replies(Stored, pb.PlainStored.DESCRIPTOR)
_FOUND = _replies(Found, pb.PlainFound.DESCRIPTOR, alone="siblings")

_BUDGET = FrameBudget(
    pb.SessionRequest.DESCRIPTOR,
    CALLS_OF_A_SESSION,
    {pb.SessionRequest.PLAIN_PUTS_FIELD_NUMBER, pb.SessionRequest.PLAIN_GETS_FIELD_NUMBER},
)


def encode_calls(calls: Sequence[OpenCall], sent_ms: int = 0) -> bytes:
    """One frame with all `calls`, sent now by the client's clock."""
    frame = pb.SessionRequest(sent_ms=sent_ms)
    puts, others = _PUTS.split(calls)
    gets, others = _GETS.split(others)
    for call in others:
        body = fill_call(frame.calls.add(id=call.number), call.request)
        body.timeout_ms = call.timeout_ms
        body.epoch = call.epoch
    if puts:
        _fill_calls(frame.plain_puts, puts)
        _PUTS.fill(frame.plain_puts, puts)
    if gets:
        _fill_calls(frame.plain_gets, gets)
        _GETS.fill(frame.plain_gets, gets)
    return frame.SerializeToString()


def _fill_calls(columns: pb.PlainPuts | pb.PlainGets, calls: Sequence[OpenCall]) -> None:
    columns.ids.extend([call.number for call in calls])
    columns.epochs.extend([call.epoch for call in calls])
    columns.timeouts_ms.extend([call.timeout_ms for call in calls])


def put_apart(frame: Sequence[bytes]) -> Cut | None:
    """Of a frame with one put of a large value, in columns, the value and what is left; None for others."""
    return cut(frame, _VALUES)


def with_value(call: tuple[int, ClientRequest], value: bytes) -> list[tuple[int, ClientRequest]]:
    """The calls of a frame with one put, whose value was cut out of it."""
    number, put = call
    return [(number, replace(put, value=value))]


def decode_calls(data: bytes) -> Calls:
    """When a frame was sent, its calls, and by number those in columns.

    Raises InvalidRequest when it is none, or has too many.
    """
    _BUDGET.check(data)
    try:
        frame = pb.SessionRequest.FromString(data)
    except DecodeError as error:
        raise InvalidRequest("frame", str(error)) from error
    count = len(frame.calls) + len(frame.plain_puts.ids) + len(frame.plain_gets.ids)
    check_items(count, CALLS_OF_A_SESSION, "calls")
    plain: list[tuple[int, ClientRequest]] = []
    if frame.HasField("plain_puts"):
        plain += zip(frame.plain_puts.ids, _PUTS.read(frame.plain_puts), strict=True)
    if frame.HasField("plain_gets"):
        plain += zip(frame.plain_gets.ids, _GETS.read(frame.plain_gets), strict=True)
    return frame.sent_ms, frame.calls, plain


def encode_replies(answers: Sequence[Answer]) -> bytes:
    """One frame with all `answers`."""
    frame = pb.SessionResponse()
    refused: dict[KVError, list[int]] = {}
    stored, others = _STORED.split(answers)
    if stored:
        frame.plain_stored.ids.extend([number for number, _, _ in stored])
        _STORED.fill(frame.plain_stored, stored)
    found, others = _FOUND.split(others)
    if found:
        frame.plain_found.ids.extend([number for number, _, _ in found])
        _FOUND.fill(frame.plain_found, found)
    for number, reply, in_columns in others:
        if in_columns and isinstance(reply, Failed):
            refused.setdefault(reply.error, []).append(number)
        else:
            fill_result(frame.results.add(id=number), reply)
    for error, ids in refused.items():
        frame.plain_refused.add(ids=ids, error=error_to_wire(error))
    return frame.SerializeToString()


def encode_stopping() -> bytes:
    """A frame that says that the node is about to stop."""
    return pb.SessionResponse(stopping=True).SerializeToString()


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
        yield from zip(frame.plain_stored.ids, _STORED.read(frame.plain_stored), strict=True)
    if frame.HasField("plain_found"):
        yield from zip(frame.plain_found.ids, _FOUND.read(frame.plain_found), strict=True)
    for refused in frame.plain_refused:
        for number in refused.ids:  # an exception of its own for each: they are raised in different places
            yield number, Failed(error_from_wire(refused.error))
    for result in frame.results:
        yield result.id, reply_from_wire(result) if result.WhichOneof("reply") else None

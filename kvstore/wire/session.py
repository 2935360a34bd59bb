"""Frames of a client's Session: calls and their replies as protobuf and back.

Puts without options, and the replies to them, travel in columns: on a stream that carries hundreds of
calls a frame, making and reading a message for each would be most of its cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

import msgspec
from google.protobuf.message import DecodeError

from kvstore.errors import InvalidRequest, KVError
from kvstore.protocol.messages import ClientRequest, Failed, Put, Reply, Stored
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.client import fill_call, fill_reply, reply_from_wire
from kvstore.wire.errors import error_from_wire, error_to_wire


class OpenCall(msgspec.Struct, frozen=True, gc=False):
    """A request on its way to a node; `timeout_ms` and `epoch` stand in for those of the request."""

    number: int
    request: ClientRequest
    timeout_ms: int
    epoch: int


class Form(Enum):
    """How a call has come, and so what its reply must look like."""

    CALL = 1
    DELETE = 2
    PLAIN_PUT = 3


Answer = tuple[int, Reply, Form]
"""The reply to the call of a number."""


def encode_calls(calls: Iterable[OpenCall], sent_ms: int = 0) -> bytes:
    """One frame with all `calls`, sent now by the client's clock."""
    frame = pb.SessionRequest(sent_ms=sent_ms)
    plain: list[OpenCall] = []
    puts: list[Put] = []
    for call in calls:
        request = call.request
        if isinstance(request, Put) and _is_plain(request):
            plain.append(call)
            puts.append(request)
        else:
            body = fill_call(frame.calls.add(id=call.number), request)
            body.timeout_ms = call.timeout_ms
            body.epoch = call.epoch
    if plain:
        _add_plain_puts(frame.plain_puts, plain, puts)
    return frame.SerializeToString()


def _is_plain(put: Put) -> bool:
    return not (put.content_type or put.ttl or put.w or put.quorum or put.explain)


def _add_plain_puts(columns: pb.PlainPuts, calls: Sequence[OpenCall], puts: Sequence[Put]) -> None:
    columns.ids.extend([call.number for call in calls])
    columns.epochs.extend([call.epoch for call in calls])
    columns.timeouts_ms.extend([call.timeout_ms for call in calls])
    columns.buckets.extend([put.bucket for put in puts])
    columns.keys.extend([put.key for put in puts])
    columns.values.extend([put.value for put in puts])
    columns.contexts.extend([put.context for put in puts])


def decode_calls(data: bytes) -> tuple[int, Sequence[pb.Call], list[tuple[int, Put]]]:
    """When a frame was sent, its calls, its plain puts by number; raises InvalidRequest when it is none."""
    try:
        frame = pb.SessionRequest.FromString(data)
    except DecodeError as error:
        raise InvalidRequest("frame", str(error)) from error
    return frame.sent_ms, frame.calls, _plain_puts(frame.plain_puts)


def _plain_puts(m: pb.PlainPuts) -> list[tuple[int, Put]]:
    try:
        return [
            (number, Put(bucket, key, value, context, timeout=timeout / 1000, epoch=epoch))
            for number, epoch, timeout, bucket, key, value, context in zip(
                m.ids, m.epochs, m.timeouts_ms, m.buckets, m.keys, m.values, m.contexts, strict=True
            )
        ]
    except ValueError as error:
        raise InvalidRequest("frame", "its plain puts are incomplete") from error


def encode_replies(answers: Iterable[Answer]) -> bytes:
    """One frame with all `answers`."""
    frame = pb.SessionResponse()
    plain: list[tuple[int, Stored]] = []
    refused: dict[KVError, list[int]] = {}
    plain_put = Form.PLAIN_PUT
    for number, reply, form in answers:
        if form is plain_put and isinstance(reply, Stored) and not (reply.overwritten or reply.written):
            plain.append((number, reply))
        elif form is plain_put and isinstance(reply, Failed):
            refused.setdefault(reply.error, []).append(number)
        else:
            fill_reply(frame.results.add(id=number), reply, form is Form.DELETE)
    if plain:
        columns = frame.plain_stored
        columns.ids.extend([number for number, _ in plain])
        columns.contexts.extend([stored.context for _, stored in plain])
        columns.siblings.extend([stored.siblings for _, stored in plain])
    for error, ids in refused.items():
        frame.plain_refused.add(ids=ids, error=error_to_wire(error))
    return frame.SerializeToString()


def replies_from_wire(frame: pb.SessionResponse) -> Iterator[tuple[int, Reply | None]]:
    """The replies of a frame by number, None for one that is empty; raises InvalidRequest."""
    m = frame.plain_stored
    if not len(m.ids) == len(m.contexts) == len(m.siblings):
        raise InvalidRequest("frame", "its replies to plain puts are incomplete")
    yield from zip(m.ids, map(Stored, m.contexts, m.siblings), strict=True)
    for refused in frame.plain_refused:
        for number in refused.ids:  # an exception of its own for each: they are raised in different places
            yield number, Failed(error_from_wire(refused.error))
    for result in frame.results:
        yield result.id, reply_from_wire(result) if result.WhichOneof("reply") else None

"""Requests and replies of clients as messages of their own: kvstore itself only fills frames with them."""

from __future__ import annotations

from kvstore.protocol.client import ClientRequest, Reply
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.client import WIRE_REQUESTS, WireRequest, fill_call, fill_result
from kvstore.wire.codec import codec_of


def request_to_wire(request: ClientRequest) -> WireRequest:
    """Inverse of `request_from_wire`."""
    m = WIRE_REQUESTS[type(request)]()
    codec_of(type(request), m.DESCRIPTOR).fill(m, request)
    return m


def call_to_wire(number: int, request: ClientRequest) -> pb.Call:
    """One request within a Session; the inverse of `call_from_wire`, with a number."""
    m = pb.Call(id=number)
    fill_call(m, request)
    return m


def result_to_wire(number: int, reply: Reply) -> pb.Result:
    """One reply within a Session; the inverse of `reply_from_wire`, with a number."""
    m = pb.Result(id=number)
    fill_result(m, reply)
    return m

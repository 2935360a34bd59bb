"""No field of any message is lost, whichever way the message travels: derived from the structs."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kvstore.protocol.client import CLIENT_REQUESTS, Get, Put, Reply
from kvstore.protocol.fields import fields_of, is_record
from kvstore.protocol.sizes import item_size_of, size_of
from kvstore.protocol.table import PEER_TABLE
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.client import call_from_wire
from kvstore.wire.peer import decode_frame, encode_frame
from kvstore.wire.session import OpenCall, decode_calls, encode_calls, encode_replies, replies_from_wire
from tests.client_messages import result_to_wire
from tests.property.wire_messages import comparable, peer_messages, replies, requests
from tests.wire_samples import sample, variants

BESIDE = {"timeout", "epoch"}
"""What a call says itself, in place of its request."""


def cases(structs: Any) -> list[Any]:
    found = []
    for struct in structs:
        for name, message in variants(sample(struct)).items():
            found.append(pytest.param(message, id=f"{struct.__name__} {name or 'plain'}"))
        found.append(pytest.param(sample(struct), id=f"{struct.__name__} in full"))
        found.append(pytest.param(sample(struct, 0), id=f"{struct.__name__} with empty lists"))
    return found


@pytest.mark.parametrize("message", cases(PEER_TABLE))
def test_a_message_between_nodes(message: Any) -> None:
    arrived = decode_frame(encode_frame([message]))
    expected = [] if getattr(message, "numbers", None) == () else [comparable(message)]
    assert [comparable(each) for each in arrived] == expected


@pytest.mark.parametrize("request_", cases(CLIENT_REQUESTS))
def test_a_request_of_a_session(request_: Any) -> None:
    call = OpenCall(7, request_, 12_345, 8)
    _, calls, puts = decode_calls(encode_calls([call]))
    arrived: list[tuple[int, object]] = [(each.id, call_from_wire(each)) for each in calls]
    assert [*arrived, *puts] == [(7, replace(request_, timeout=12.345, epoch=8))]


@pytest.mark.parametrize("request_", cases(CLIENT_REQUESTS))
def test_only_a_put_and_a_get_without_options_travel_in_columns(request_: Any) -> None:
    _, calls, found = decode_calls(encode_calls([OpenCall(7, request_, 1, 1)]))
    plain = variants(request_)[""]
    carried = {field: getattr(request_, field) for field in (*BESIDE, "context") if hasattr(request_, field)}
    in_columns = isinstance(request_, Put | Get) and replace(plain, **carried) == request_
    assert (len(calls), len(found)) == ((0, 1) if in_columns else (1, 0))


@pytest.mark.parametrize("in_columns", [False, True])
@pytest.mark.parametrize("reply", cases(get_args(Reply)))
def test_a_reply_of_a_session(reply: Any, in_columns: bool) -> None:
    frame = pb.SessionResponse.FromString(encode_replies([(7, reply, in_columns)]))
    ((number, arrived),) = replies_from_wire(frame)
    assert (number, comparable(arrived)) == (7, comparable(reply))


def encoded_bytes(message: Any) -> int:
    if type(message) in PEER_TABLE:
        return len(encode_frame([message]))
    if type(message) in CLIENT_REQUESTS:
        return len(encode_calls([OpenCall(1, message, 1, 1)]))
    return result_to_wire(1, message).ByteSize()


@given(st.one_of(peer_messages, requests, replies))
def test_the_estimate_of_a_size_is_not_too_low(message: Any) -> None:
    """Queues and frames are bounded by it: too low, and a frame is larger than its receiver takes."""
    texts = 600  # names and what errors say: short, and not counted
    assert encoded_bytes(message) - texts <= size_of(message)


@pytest.mark.parametrize("struct", [*PEER_TABLE, *CLIENT_REQUESTS, *get_args(Reply)])
def test_the_estimate_of_a_size_counts_lists_and_bytes(struct: Any) -> None:
    message = sample(struct, 200)
    assert encoded_bytes(message) <= size_of(message) + 200
    for field in fields_of(struct):
        if field.types == (bytes,) and not field.many:
            larger = replace(message, **{field.name: bytes(10_000)})
            assert size_of(larger) >= size_of(message) + 9_900


@pytest.mark.parametrize("struct", PEER_TABLE)
def test_the_estimate_of_a_record_is_what_it_adds_to_a_list(struct: Any) -> None:
    message = sample(struct)
    for field in fields_of(struct):
        if field.many and is_record(field.type):
            items = getattr(message, field.name)
            longer = replace(message, **{field.name: (*items, items[0])})
            assert size_of(longer) - size_of(message) == item_size_of(items[0])
            assert encoded_bytes(longer) - encoded_bytes(message) <= item_size_of(items[0])

"""Frames of a Session: what goes in comes out, whether it travels in columns or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kvstore.config import QuorumMode
from kvstore.errors import InvalidRequest, Overloaded
from kvstore.protocol.client import ClientRequest, Failed, Found, Reply, Stored, Value
from kvstore.v1 import client_pb2 as pb
from kvstore.versions import SessionToken, SignedContext
from kvstore.wire.client import call_from_wire
from kvstore.wire.session import (
    OpenCall,
    decode_calls,
    encode_calls,
    encode_replies,
    replies_from_wire,
)
from tests.plain import Get, Put
from tests.property.wire_messages import (
    comparable,
    damaged,
    data,
    messages_of,
    replies,
    requests,
    texts,
    u32,
    u64,
)

plain_puts = st.builds(Put, texts, data, data, data)
plain_gets = st.builds(Get, texts, data)
plain_stored = st.builds(Stored, data, u32)
plain_values = st.builds(Value, data, time=u64)
plain_found = st.builds(Found, st.tuples(plain_values), data)
unseen_stored = st.builds(Stored, data, u32, st.none(), st.integers(1, 9))
open_calls = st.builds(OpenCall, u64, plain_puts | plain_gets | requests, u32, u64)


def arriving(call: OpenCall) -> tuple[int, ClientRequest]:
    return call.number, replace(call.request, timeout=call.timeout_ms / 1000, epoch=call.epoch)


@given(st.lists(open_calls, max_size=6))
def test_every_call_arrives_once(calls: list[OpenCall]) -> None:
    _, others, puts = decode_calls(encode_calls(calls))
    arrived = [*((call.id, call_from_wire(call)) for call in others), *puts]
    assert sorted(map(repr, arrived)) == sorted(map(repr, map(arriving, calls)))


def test_only_puts_and_gets_without_options_travel_in_columns() -> None:
    plain = Put("b", b"k", b"v", SignedContext(b"context"))
    calls: list[ClientRequest] = [
        plain,
        replace(plain, content_type="t"),
        replace(plain, ttl=1),
        replace(plain, w=1),
        replace(plain, quorum=QuorumMode.STRICT),
        replace(plain, explain=True),
        Get("b", b"k", r=1),
        Get("b", b"k", seen=SessionToken(b"s")),
        Get("b", b"k", seen_empty=True),
        Get("b", b"k"),
    ]
    _, others, puts = decode_calls(encode_calls([OpenCall(i, call, 1, 1) for i, call in enumerate(calls)]))
    assert [number for number, _ in puts] == [0, 9]
    assert [call.id for call in others] == [1, 2, 3, 4, 5, 6, 7, 8]


@given(st.lists(st.tuples(u64, plain_stored | plain_found | replies), max_size=6))
def test_every_reply_arrives_once(answers: list[tuple[int, Reply]]) -> None:
    content = encode_replies([(number, reply, False) for number, reply in answers])
    frame = pb.SessionResponse.FromString(content)
    arrived = [(number, comparable(reply)) for number, reply in replies_from_wire(frame)]
    assert arrived == [(number, comparable(reply)) for number, reply in answers]
    in_columns = frame.HasField("plain_stored") or frame.HasField("plain_found")
    assert not in_columns, "who sends no calls in columns need not know of them"


_failed = st.builds(Failed, st.builds(InvalidRequest, texts, texts))


_odd_found = st.builds(Found, st.lists(messages_of(Value), max_size=2).map(tuple), data)


@given(st.lists(st.tuples(u64, plain_stored | unseen_stored | plain_found | _odd_found | _failed)))
def test_every_reply_to_a_plain_call_arrives_once(answers: list[tuple[int, Reply]]) -> None:
    content = encode_replies([(number, reply, True) for number, reply in answers])
    frame = pb.SessionResponse.FromString(content)
    arrived = [repr((number, comparable(reply))) for number, reply in replies_from_wire(frame)]
    assert sorted(arrived) == sorted(repr((number, comparable(reply))) for number, reply in answers)
    plain = [reply for _, reply in answers if isinstance(reply, Stored) and not reply.overwritten]
    assert len(frame.plain_stored.ids) == len(plain)
    found = [reply.siblings for _, reply in answers if isinstance(reply, Found)]
    alone = [s for s in found if len(s) == 1 and not s[0].content_type and not s[0].expiry]
    assert len(frame.plain_found.ids) == len(alone)


def test_puts_refused_for_one_reason_share_it() -> None:
    refusal = Failed(Overloaded(0.5))
    frame = pb.SessionResponse.FromString(encode_replies([(i, refusal, True) for i in range(1000)]))
    assert (len(frame.plain_refused), len(frame.results)) == (1, 0)
    errors = [reply.error for _, reply in replies_from_wire(frame) if isinstance(reply, Failed)]
    assert len(set(errors)) == 1000, "each caller raises an exception of its own"
    assert {error.retry_after for error in errors if isinstance(error, Overloaded)} == {0.5}


@given(st.binary(max_size=100) | damaged(st.lists(open_calls, max_size=3).map(encode_calls)))
def test_a_damaged_frame_of_calls(content: bytes) -> None:
    try:
        _, _, puts = decode_calls(content)
    except InvalidRequest:
        return
    encode_calls([OpenCall(number, call, 1, call.epoch) for number, call in puts])


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="frame"):
        decode_calls(pb.SessionRequest(plain_puts=pb.PlainPuts(ids=[1, 2], keys=[b"k"])).SerializeToString())
    with pytest.raises(InvalidRequest, match="frame"):
        decode_calls(pb.SessionRequest(plain_gets=pb.PlainGets(ids=[1, 2], keys=[b"k"])).SerializeToString())
    with pytest.raises(InvalidRequest, match="frame"):
        list(replies_from_wire(pb.SessionResponse(plain_found=pb.PlainFound(ids=[1, 2], values=[b""]))))
    with pytest.raises(InvalidRequest, match="frame"):
        list(replies_from_wire(pb.SessionResponse(plain_stored=pb.PlainStored(ids=[1, 2], siblings=[1]))))

"""Frames between nodes: what goes in comes out, and no bytes whatever raise anything but InvalidRequest."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import InvalidRequest
from kvstore.protocol.peer import ReadReply, ReadSame, ReplicaRead, ReplicaWrite, WriteAck
from kvstore.protocol.table import PeerMessage
from kvstore.v1 import peer_pb2 as pb
from kvstore.wire.peer import decode_frame, decode_timed_frame, encode_frame
from tests.property.wire_messages import comparable, damaged, peer_messages, u64

frames = st.lists(peer_messages, max_size=8)


def by_kind(messages: list[PeerMessage]) -> dict[str, list[object]]:
    """A frame keeps the order of messages of one kind only, and makes one of acks, and of equal answers.

    Plain writes and plain reads travel in columns, and are kinds of their own.
    """
    kinds: dict[str, list[object]] = {}
    for message in messages:
        if isinstance(message, WriteAck | ReadSame):
            kinds.setdefault(type(message).__name__, []).extend(message.numbers)
        else:
            kind = type(message).__name__
            if isinstance(message, ReplicaWrite | ReplicaRead) and not message.hint_for:
                kind = kind if getattr(message, "background", False) else f"plain {kind}"
            kinds.setdefault(kind, []).append(comparable(message))
    return kinds


@given(frames)
def test_what_goes_in_comes_out(messages: list[PeerMessage]) -> None:
    assert by_kind(decode_frame(encode_frame(messages))) == by_kind(messages)


@given(frames)
def test_what_is_stored_or_compared_comes_out_as_bytes(messages: list[PeerMessage]) -> None:
    for message in decode_frame(encode_frame(messages)):
        if isinstance(message, ReplicaWrite | ReplicaRead | ReadReply):
            given = msgspec.structs.asdict(message)
            for name in given.keys() & {"key", "version", "digest"}:
                assert type(given[name]) is bytes


@given(frames, frames)
def test_two_frames_in_a_row_are_a_frame_of_both(one: list[PeerMessage], two: list[PeerMessage]) -> None:
    assert by_kind(decode_frame(encode_frame(one) + encode_frame(two))) == by_kind(one + two)


@given(frames, u64)
def test_a_frame_says_when_it_was_sent(messages: list[PeerMessage], sent_ms: int) -> None:
    sent, decoded = decode_timed_frame(encode_frame(messages, sent_ms))
    assert (sent, by_kind(decoded)) == (sent_ms, by_kind(messages))


@given(st.binary(max_size=200) | damaged(frames.map(encode_frame)))
def test_damage_is_an_invalid_request_or_another_frame(content: bytes) -> None:
    try:
        messages = decode_frame(content)
    except InvalidRequest:
        return
    assert by_kind(decode_frame(encode_frame(messages))) == by_kind(messages)


@given(st.sampled_from(["forwards", "forward_replies", "refusals"]))
def test_a_message_without_what_it_is_about(field: str) -> None:
    frame = pb.Frame()
    getattr(frame, field).add(number=1)
    try:
        messages = decode_frame(frame.SerializeToString())
    except InvalidRequest:
        assert field != "refusals"
    else:
        assert field == "refusals"
        assert len(messages) == 1


def test_an_unknown_status_of_a_member_is_refused() -> None:
    frame = pb.Frame()
    frame.acks.add(sequence=1).updates.add(node="n1", status=99)
    try:
        decode_frame(frame.SerializeToString())
    except InvalidRequest as error:
        assert "99" in str(error)
    else:
        raise AssertionError("accepted")

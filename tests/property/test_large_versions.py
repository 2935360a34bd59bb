"""Frames with one large version: in pieces, and read with the version apart, they are what they were."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import MIB
from kvstore.errors import InvalidRequest
from kvstore.protocol.client import Put
from kvstore.protocol.peer import ReadReply, ReplicaWrite
from kvstore.server import session
from kvstore.versions import BucketName, EncodedVersion, InternalKey, UserKey
from kvstore.wire import large_fields, large_versions
from kvstore.wire.large_versions import apart, in_pieces
from kvstore.wire.peer import decode_timed_frame, encode_frame
from kvstore.wire.session import OpenCall, decode_calls, encode_calls, put_apart
from tests.unit.test_copies_of_large_values import peak

_NUMBERS = st.integers(0, 1 << 40)
_VERSIONS = st.binary(min_size=33, max_size=300).map(EncodedVersion)
_KEYS = st.binary(max_size=20).map(InternalKey)
_MESSAGES: st.SearchStrategy[ReplicaWrite | ReadReply] = st.one_of(
    st.builds(ReplicaWrite, _NUMBERS, _NUMBERS, _KEYS, _VERSIONS, st.text(max_size=5), st.booleans()),
    st.builds(ReadReply, _NUMBERS, _VERSIONS),
)


_PUTS = st.builds(Put, st.just(BucketName("b")), st.just(UserKey(b"k")), st.binary(max_size=200))


@pytest.fixture(autouse=True)
def _large(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if "copied" not in request.node.name:
            patch.setattr(large_versions, "LARGE", 32)
            patch.setattr(large_fields, "LARGE", 32)
        yield


def whole(data: bytes) -> Any:
    """What is read of a frame when nothing is taken apart; None: it is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_fields, "LARGE", len(data))
        return read(data)


def read(data: bytes) -> Any:
    try:
        return decode_timed_frame(data)
    except InvalidRequest:
        return None


@given(_MESSAGES, _NUMBERS)
def test_a_frame_in_pieces_is_read_as_any_other(message: ReplicaWrite | ReadReply, sent_ms: int) -> None:
    pieces = in_pieces([message], sent_ms)
    assert pieces is not None
    data = b"".join(pieces)
    for cut in (pieces, [data], [data[i : i + 7] for i in range(0, len(data), 7)]):
        large = apart(cut)
        assert large is not None
        assert b"".join(large.value) == message.version
    assert read(data) == whole(data) == (sent_ms, [message])


@given(_MESSAGES, st.data())
def test_a_damaged_frame_is_read_as_it_would_be_whole_or_refused(
    message: ReplicaWrite | ReadReply, data: st.DataObject
) -> None:
    pieces = in_pieces([message], data.draw(st.sampled_from((0, 1, 1 << 40))))
    assert pieces is not None
    frame = bytearray(b"".join(pieces))
    for _ in range(data.draw(st.integers(1, 2))):
        frame[data.draw(st.integers(0, min(len(frame), 60) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, 2))
    damaged = bytes(frame[: len(frame) - cut])
    assert read(damaged) == whole(damaged)


@given(st.lists(_MESSAGES, min_size=2, max_size=3))
def test_several_messages_go_the_usual_way(messages: list[ReplicaWrite | ReadReply]) -> None:
    assert in_pieces(messages, 1) is None
    data = encode_frame(messages, 1)
    assert read(data) == whole(data)


def test_what_would_be_sent_in_parts_is_not_sent_in_pieces() -> None:
    version = EncodedVersion(bytes(17 * MIB))
    assert in_pieces([ReadReply(1, version)], 1) is None
    assert in_pieces([ReadReply(1, EncodedVersion(version[: 16 * MIB]))], 1) is not None


def test_a_large_version_is_copied_once_by_its_reader_alone() -> None:
    message = ReplicaWrite(1, 2, InternalKey(b"key"), EncodedVersion(bytes(8 * MIB)))
    assert peak(lambda: in_pieces([message], 1)) < 0.1 * MIB
    data = b"".join(in_pieces([message], 1) or ())
    assert peak(lambda: decode_timed_frame(data)) < 8.1 * MIB


@given(
    st.lists(st.builds(Put, st.just("b"), st.just(UserKey(b"k")), st.binary(max_size=200)), max_size=3),
    st.data(),
)
def test_a_put_is_cut_out_of_its_frame_or_read_whole(puts: list[Put], data: st.DataObject) -> None:
    """As sessions do it, in whatever pieces, and damaged as well."""
    calls = [OpenCall(number, put, 1000, 1) for number, put in enumerate(puts)]
    frame = bytearray(encode_calls(calls, data.draw(st.integers(0, 1 << 40))))
    for _ in range(data.draw(st.integers(0, 2)) if frame else 0):
        frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    piece = data.draw(st.integers(1, 100))
    pieces = tuple(bytes(frame[at : at + piece]) for at in range(0, len(frame), piece))
    try:
        right = decode_calls(bytes(frame))
    except InvalidRequest:
        right = None
    try:
        found = asyncio.run(session._decoded(pieces))
    except InvalidRequest:
        found = None
    assert found == right


def test_a_large_put_of_a_client_is_cut_out() -> None:
    put = Put(BucketName("b"), UserKey(b"k"), bytes(100))
    large = put_apart([encode_calls([OpenCall(1, put, 1000, 1)], 1)])
    assert large is not None
    assert b"".join(large.value) == put.value
    assert len(large.rest) < 50

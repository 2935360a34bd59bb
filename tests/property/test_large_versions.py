"""Frames with one large version: in pieces, and read with the version apart, they are what they were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import MIB
from kvstore.errors import InvalidRequest
from kvstore.protocol.peer import ReadReply, ReplicaWrite
from kvstore.protocol.table import PeerMessage
from kvstore.versions import EncodedVersion, InternalKey
from kvstore.wire import large_versions
from kvstore.wire.large_versions import apart, in_pieces
from kvstore.wire.peer import decode_timed_frame, encode_frame
from tests.unit.test_copies_of_large_values import peak

_NUMBERS = st.integers(0, 1 << 40)
_VERSIONS = st.binary(min_size=33, max_size=300).map(EncodedVersion)
_KEYS = st.binary(max_size=20).map(InternalKey)
_MESSAGES: st.SearchStrategy[PeerMessage] = st.one_of(
    st.builds(ReplicaWrite, _NUMBERS, _NUMBERS, _KEYS, _VERSIONS, st.text(max_size=5), st.booleans()),
    st.builds(ReadReply, _NUMBERS, _VERSIONS),
)


@pytest.fixture(autouse=True)
def _large(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if "copied" not in request.node.name:
            patch.setattr(large_versions, "_LARGE", 32)
        yield


def whole(data: bytes) -> Any:
    """What is read of a frame when nothing is taken apart; None: it is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_versions, "_LARGE", len(data))
        return read(data)


def read(data: bytes) -> Any:
    try:
        return decode_timed_frame(data)
    except InvalidRequest:
        return None


@given(_MESSAGES, _NUMBERS)
def test_a_frame_in_pieces_is_read_as_any_other(message: PeerMessage, sent_ms: int) -> None:
    pieces = in_pieces([message], sent_ms)
    assert pieces is not None
    data = b"".join(pieces)
    assert apart(data) is not None
    assert read(data) == whole(data) == (sent_ms, [message])


@given(_MESSAGES, st.data())
def test_a_damaged_frame_is_read_as_it_would_be_whole_or_refused(
    message: PeerMessage, data: st.DataObject
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
def test_several_messages_go_the_usual_way(messages: list[PeerMessage]) -> None:
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

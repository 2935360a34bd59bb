"""Frames come out as they went in, however the bytes between are cut, and what is no frame is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import MIB
from kvstore.frames import framing as framing_module
from kvstore.frames.framing import Frame, Framing, FramingError, Kind, header

MOST = 300
_FRAMES = st.lists(st.builds(Frame, st.sampled_from(Kind), st.binary(max_size=MOST), st.just(())), max_size=8)


def encoded(frames: list[Frame]) -> bytes:
    return b"".join(header(Kind(kind), len(payload)) + payload for kind, payload, _ in frames)


@pytest.fixture(params=[False, True], ids=["small", "large"], autouse=True, scope="module")
def _large(request: pytest.FixtureRequest) -> Iterator[None]:
    """Frames are as small as they are, or most of them large."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            patch.setattr(framing_module, "_LARGE", 20)
            patch.setattr(framing_module, "_SMALL_PIECE", 10)
        yield


def whole(frame: Frame) -> Frame:
    """A frame in one piece."""
    return Frame(frame.kind, frame.payload + b"".join(frame.pieces))


@given(_FRAMES, st.lists(st.integers(1, 700), max_size=40), st.integers(1, 40))
def test_frames_are_found_in_whatever_pieces(frames: list[Frame], sizes: list[int], last: int) -> None:
    data, framing = encoded(frames), Framing(MOST)
    found: list[Frame] = []
    for size in [*sizes, *[last] * len(data)]:
        found += map(whole, framing.feed(data[:size]))
        data = data[size:]
        assert framing.unfinished + len(data) <= len(encoded(frames))
    assert found == frames
    assert framing.unfinished == 0


@given(st.binary(min_size=5, max_size=60), st.integers(1, 60))
def test_rubbish_is_refused_or_waits_for_the_rest(data: bytes, size: int) -> None:
    framing = Framing(MOST)
    try:
        while data:
            for frame in framing.feed(data[:size]):
                assert frame.kind in set(Kind)
                assert len(frame.payload) <= MOST or frame.kind != Kind.MESSAGE
            data = data[size:]
    except FramingError as error:
        assert str(error).startswith("frame of ")


@pytest.mark.parametrize(
    ("begin", "reason"),
    [
        (header(Kind.MESSAGE, MOST + 1), "frame of 301 bytes, the limit is 300"),
        (header(Kind.OPEN, 64 * 1024 + 1), "frame of 65537 bytes, the limit is 65536"),
        (header(Kind.END, 2**32 - 1), "frame of 4294967295 bytes, the limit is 65536"),
        (b"\0\0\0\0\0", "frame of unknown kind 0"),
        (b"\x04\0\0\0\0", "frame of unknown kind 4"),
    ],
)
def test_a_frame_that_cannot_be_is_refused_by_its_header_alone(begin: bytes, reason: str) -> None:
    framing = Framing(MOST)
    good = header(Kind.MESSAGE, 2) + b"ab"
    assert list(framing.feed(good + begin[:4])) == [Frame(Kind.MESSAGE, b"ab")]
    with pytest.raises(FramingError, match=reason):
        list(framing.feed(begin[4:]))


def test_a_large_frame_in_bytes_one_by_one_takes_no_more_than_its_size() -> None:
    framing = Framing(MOST)
    for byte in header(Kind.MESSAGE, MOST) + bytes(MOST - 1):
        assert list(framing.feed(bytes([byte]))) == []
    assert framing.unfinished == MOST + 4
    assert [whole(frame) for frame in framing.feed(b"\0")] == [Frame(Kind.MESSAGE, bytes(MOST))]


def test_a_large_frame_is_not_copied() -> None:
    framing, piece = Framing(8 * MIB), bytes(256 * 1024)
    begin = header(Kind.MESSAGE, 8 * MIB)
    (found,) = [frame for data in (begin, *[piece] * 32) for frame in framing.feed(data)]
    assert sum(each is piece for each in found.pieces) >= 31
    assert sum(map(len, found.pieces)) == 8 * MIB


def test_what_came_whole_before_rubbish_is_not_lost() -> None:
    framing = Framing(MOST).feed(header(Kind.MESSAGE, 2) + b"ab" + bytes(5))
    assert next(framing) == Frame(Kind.MESSAGE, b"ab")
    with pytest.raises(FramingError):
        next(framing)

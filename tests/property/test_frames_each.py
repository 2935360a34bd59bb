"""Messages of a stream that are given to whoever takes them: in order, one at a time, each once."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from kvstore.frames.framing import Kind, header
from kvstore.frames.incoming import Pieces, Rest, StreamEnded, StreamLost
from kvstore.frames.stream import FrameStream
from tests.patience import PATIENCE

AT_ONCE, LATER, LATER_TWICE = range(3)
"""How long a message takes: nothing is left to do, or something that takes passes of the loop."""


class Taker:
    """Takes messages as their first bytes say."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.done: list[bytes] = []

    def take(self, pieces: Pieces) -> Rest:
        (message,) = pieces
        assert self.begun == self.done, "the one before is not done"
        self.begun.append(message)
        if message[0] == AT_ONCE:
            self.done.append(message)
            return None
        return partial(self._rest, message)

    async def _rest(self, message: bytes) -> None:
        for _ in range(message[0]):
            await asyncio.sleep(0)
        self.done.append(message)


def framed(message: bytes, kind: Kind = Kind.MESSAGE) -> bytes:
    return header(kind, len(message)) + message


@given(
    kinds=st.lists(st.integers(AT_ONCE, LATER_TWICE), max_size=30),
    cuts=st.lists(st.integers(0, 300), max_size=20),
    passes=st.lists(st.integers(0, 3), min_size=21, max_size=21),
)
def test_each_message_is_taken_once_and_in_order(
    kinds: list[int], cuts: list[int], passes: list[int]
) -> None:
    messages = [bytes([kind, number]) for number, kind in enumerate(kinds)]
    data = b"".join(map(framed, messages)) + framed(b"", Kind.END)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]

    async def scenario() -> None:
        stream, taker = FrameStream(1000), Taker()
        reading = asyncio.ensure_future(stream.each(taker.take))
        for begin, end, count in zip(places, places[1:], passes, strict=False):
            for _ in range(count):
                await asyncio.sleep(0)
            stream.data_received(data[begin:end])
        await reading
        assert taker.done == messages

    asyncio.run(scenario())


def test_a_message_is_taken_when_it_arrives_but_few_before_others_have_the_loop() -> None:
    async def scenario() -> None:
        stream, taker = FrameStream(1000), Taker()
        reading = asyncio.ensure_future(stream.each(taker.take))
        await asyncio.sleep(0)
        for number in range(10):
            stream.data_received(framed(bytes([AT_ONCE, number])))
            assert len(taker.done) == number + 1
        stream.data_received(b"".join(framed(bytes([AT_ONCE, number])) for number in range(100)))
        assert len(taker.done) < 20
        stream.data_received(framed(b"", Kind.END))
        await reading
        assert len(taker.done) == 110

    asyncio.run(scenario())


@pytest.mark.parametrize("waiting", [False, True])
def test_what_the_taker_raises_ends_reading_and_is_raised_there(waiting: bool) -> None:
    def take(pieces: Pieces) -> Rest:
        raise ZeroDivisionError(pieces)

    async def scenario() -> None:
        stream = FrameStream(1000)
        reading = asyncio.ensure_future(stream.each(take))
        if waiting:
            await asyncio.sleep(0)
        stream.data_received(framed(b"first") + framed(b"second"))
        with pytest.raises(ZeroDivisionError, match="first"):
            async with asyncio.timeout(PATIENCE):
                await reading
        assert await stream.read() == b"second", "who reads afterwards gets what was not taken"

    asyncio.run(scenario())


def test_how_the_stream_ends_is_raised_when_all_is_taken() -> None:
    async def scenario() -> None:
        stream, taker = FrameStream(1000), Taker()
        end = Status(code=code_pb2.INTERNAL, message="why")
        stream.data_received(framed(bytes([LATER])) * 3 + framed(end.SerializeToString(), Kind.END))
        with pytest.raises(StreamEnded, match="why"):
            await stream.each(taker.take)
        assert len(taker.done) == 3
        broken = FrameStream(1000)
        reading = asyncio.ensure_future(broken.each(taker.take))
        await asyncio.sleep(0)
        broken.connection_lost(ConnectionResetError(104, "reset"))
        with pytest.raises(StreamLost):
            await reading

    asyncio.run(scenario())

"""The port of a node: connections that begin, go on or end as no stream does."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from google.rpc import code_pb2

from kvstore.config import KIB, MAX_REQUEST_BYTES, MIB
from kvstore.errors import InvalidRequest, Overloaded
from kvstore.frames.dial import connect, open_stream
from kvstore.frames.framing import PREFACE, Frame, Kind, header
from kvstore.frames.incoming import Incoming, StreamEnded, StreamLost
from kvstore.frames.stream import FrameStream
from kvstore.local.ports import free_ports
from kvstore.server import listener, stream_calls, unfinished, unread
from kvstore.server.listener import Listener
from kvstore.server.pass_through import Side
from kvstore.server.session import ClientStream
from kvstore.v1 import client_pb2 as pb
from kvstore.v1.stream_pb2 import Open
from tests.collector import no_collector
from tests.patience import PATIENCE
from tests.unit.memory_streams import StreamSession
from tests.unit.server_nodes import call, channel, cluster_state, run, serving, settings

SOON = 0.2
MOST = str(MAX_REQUEST_BYTES)


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    return header(kind, len(payload)) + payload


def opening(method: str) -> bytes:
    return PREFACE + frame(Kind.OPEN, Open(method=method).SerializeToString())


async def read_all(_stream: FrameStream) -> None:
    while await _stream.read() is not None:
        pass


class Port:
    """A listener whose streams of one method are served by `handler`; the number of its port."""

    def __init__(self, handler: Callable[[FrameStream], Awaitable[None]]) -> None:
        self.listener = Listener({"a/B": self._serve})
        self._handler = handler
        self.number = 0
        self.served: list[FrameStream] = []
        self._ends = AsyncExitStack()

    async def _serve(self, stream: FrameStream, _opened: Open) -> None:
        self.served.append(stream)
        await self._handler(stream)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Port]:
        listening = socket.create_server(("127.0.0.1", 0))
        self.number = listening.getsockname()[1]
        await self.listener.start(listening, grpc_port=1)
        async with self._ends:
            yield self
        await self.listener.stop(0.1)
        self.listener.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.number}"

    async def open(self) -> FrameStream:
        stream = await open_stream(self.address, "a/B", MIB)
        self._ends.push_async_callback(stream.leave)
        return stream

    async def bare(self, sent: bytes) -> FrameStream:
        """A stream that has sent these bytes and nothing else."""
        stream = FrameStream(MIB)
        await connect(self.address, stream)
        self._ends.push_async_callback(stream.leave)
        assert stream._transport is not None
        stream._transport.write(sent)
        return stream

    async def connect(self, sent: bytes) -> asyncio.StreamWriter:
        """A connection by hand, on which these bytes are sent."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.number)
        self._ends.callback(writer.close)
        writer.write(sent)
        return writer

    async def answer(self, sent: bytes) -> bytes:
        """All that comes until the connection is over, when these bytes were sent and no more."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number)
        writer.write(sent)
        try:
            async with asyncio.timeout(PATIENCE):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


def play(
    scenario: Callable[[Port], Awaitable[None]],
    handler: Callable[[FrameStream], Awaitable[None]] = read_all,
) -> None:
    async def whole() -> None:
        async with Port(handler).serving() as port:
            await scenario(port)

    run(whole())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  (a connection sets no event)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        PREFACE[:3],
        PREFACE,
        PREFACE + frame(Kind.OPEN, bytes(10))[:9],
        PREFACE + frame(Kind.MESSAGE, b"m"),
    ],
    ids=["nothing", "half a preface", "a preface", "half an opening", "a message first"],
)
def test_who_opens_no_stream_is_closed_out_in_time(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_BEGIN_SECONDS", SOON)

    async def scenario(port: Port) -> None:
        assert await port.answer(sent) == b""
        assert not port.served

    play(scenario)


@pytest.mark.parametrize(
    ("sent", "code", "text"),
    [
        (opening("a/C"), code_pb2.UNIMPLEMENTED, "a/C"),
        (opening("x" * 60_000), code_pb2.UNIMPLEMENTED, "'" + "x" * 100 + "'"),
        (PREFACE + frame(Kind.OPEN, b"\xff"), code_pb2.INVALID_ARGUMENT, "no stream can be opened"),
        (opening("a/B") + opening("a/B")[len(PREFACE) :], code_pb2.INVALID_ARGUMENT, "which is open"),
        (opening("a/B") + frame(Kind.END, b"\xff"), code_pb2.INVALID_ARGUMENT, "cannot be read"),
        (opening("a/B") + bytes(9), code_pb2.INVALID_ARGUMENT, "unknown kind 0"),
        (
            opening("a/B") + header(Kind.MESSAGE, 2**32 - 1),
            code_pb2.RESOURCE_EXHAUSTED,
            str(MAX_REQUEST_BYTES),
        ),
    ],
)
def test_what_is_no_stream_is_told_why(sent: bytes, code: int, text: str) -> None:
    async def scenario(port: Port) -> None:
        stream = await port.bare(sent)
        with pytest.raises(StreamEnded) as ended:
            await stream.read()
        assert ended.value.status.code == code
        assert text in ended.value.status.message

    play(scenario)


def test_a_defect_of_a_handler_ends_its_stream_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(stream: FrameStream) -> None:
        if await stream.read() == b"fail":
            raise ZeroDivisionError("by the test")
        await stream.write(b"fine")

    async def scenario(port: Port) -> None:
        streams = [await port.open() for _ in range(2)]
        await streams[0].write(b"fail")
        with pytest.raises(StreamEnded) as ended:
            await streams[0].read()
        assert ended.value.status.code == code_pb2.INTERNAL
        await streams[1].write(b"go on")
        assert await streams[1].read() == b"fine"

    play(scenario, fail)
    assert [record.getMessage()[:24] for record in caplog.records] == ["defect in the stream a/B"]


def test_an_error_that_is_raised_again_and_again_keeps_nothing_of_whom_it_refused() -> None:
    refusal = Overloaded(0.1, "by the test")

    async def refuse(stream: FrameStream) -> None:
        await stream.read()
        raise refusal

    async def scenario(port: Port) -> None:
        stream = await port.open()
        await stream.write(b"m")
        with pytest.raises(StreamEnded, match="by the test"):
            await stream.read()

    play(scenario, refuse)
    assert refusal.__traceback__ is None


def test_a_refusal_reaches_who_is_still_sending() -> None:
    async def refuse(stream: FrameStream) -> None:
        await stream.read()
        raise InvalidRequest("frame", "is wrong")

    async def scenario(port: Port) -> None:
        for _ in range(20):
            stream = await port.open()
            with suppress(StreamLost):
                for _ in range(40):
                    await stream.write(bytes(MIB))
            with pytest.raises(StreamEnded, match="is wrong"):
                await stream.read()

    play(scenario, refuse)


def test_connections_have_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(port: Port) -> None:
        port.listener._most = 3
        first, *_ = streams = [await port.open() for _ in range(3)]
        await until(lambda: len(port.served) == 3)
        assert await port.answer(opening("a/B")) == b""
        await first.leave()
        await until(lambda: len(port.listener._connections) == 2)
        streams.append(await port.open())
        await until(lambda: len(port.served) == 4)

    play(scenario)
    assert [record.getMessage() for record in caplog.records] == ["refused: a connection: 3 are open"]


def test_what_is_not_read_waits_with_who_sends_it() -> None:
    async def never_read(_stream: FrameStream) -> None:
        await asyncio.Event().wait()

    async def scenario(port: Port) -> None:
        stream = await port.open()
        for _ in range(1000):
            writing = asyncio.ensure_future(stream.write(bytes(64 * KIB)))
            done, _ = await asyncio.wait([writing], timeout=SOON)
            if not done:
                break
        assert not done
        (served,) = port.served
        assert served._incoming.unread <= 2 * MIB
        writing.cancel()

    play(scenario, never_read)


def test_of_a_large_message_little_waits_for_the_network_and_a_writer_that_leaves_ends_it() -> None:
    received: list[bytes] = []
    go_on = asyncio.Event()

    async def read_late(stream: FrameStream) -> None:
        stream.hold(True)
        await go_on.wait()
        stream.hold(False)
        while (message := await stream.read()) is not None:
            received.append(message)

    async def scenario(port: Port) -> None:
        stream = await port.open()
        transport = stream._transport
        assert transport is not None
        pieces = [bytes([i]) * (2 * MIB + i) for i in range(7)]
        writing = asyncio.ensure_future(stream.write(*pieces))
        await until(lambda: not stream._writable.is_set())
        assert 0 < transport.get_write_buffer_size() <= 512 * KIB
        assert not writing.done()
        writing.cancel()
        await asyncio.wait([writing])
        assert writing.cancelled()
        transport.write(frame(Kind.MESSAGE, b"the next"))
        stream.end()
        go_on.set()
        await until(lambda: len(received) == 2)
        assert received == [b"".join(pieces), b"the next"]

    play(scenario, read_late)


def test_a_large_message_is_not_written_to_a_connection_that_is_lost_meanwhile() -> None:
    async def leave(stream: FrameStream) -> None:
        stream.hold(True)
        await asyncio.Event().wait()

    async def scenario(port: Port) -> None:
        stream = await port.open()
        writing = asyncio.ensure_future(stream.write(bytes(15 * MIB)))
        await until(lambda: not stream._writable.is_set())
        stream.break_off()
        with pytest.raises(StreamLost):
            await writing

    play(scenario, leave)


def test_a_reader_lets_others_have_the_loop_between_messages() -> None:
    turns = 0
    others: list[int] = []

    async def read(stream: FrameStream) -> None:
        nonlocal turns
        asyncio.get_running_loop().call_soon(lambda: others.append(turns))
        while await stream.read() is not None:
            turns += 1

    async def scenario(port: Port) -> None:
        await port.answer(opening("a/B") + frame(Kind.MESSAGE) * 1000 + frame(Kind.END))
        assert turns == 1000
        assert others[0] < 10

    play(scenario, read)


def test_many_empty_messages_are_not_looked_for_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some 50,000 come at once: nobody may look through all of them while others want the loop."""
    taken, most, read, take = 0, 0, 0, Incoming._take

    def counted(stream: Incoming, frame: Frame) -> None:
        nonlocal taken
        taken += 1
        take(stream, frame)

    def turn() -> None:
        nonlocal taken, most
        most, taken = max(most, taken), 0
        if read < 50_000:  # the loop is that of all tests
            asyncio.get_running_loop().call_soon(turn)

    monkeypatch.setattr(Incoming, "_take", counted)

    async def read_and_count(stream: FrameStream) -> None:
        nonlocal read
        turn()
        while await stream.read() is not None:
            read += 1

    async def scenario(port: Port) -> None:
        await port.answer(opening("a/B") + frame(Kind.MESSAGE) * 50_000 + frame(Kind.END))

    play(scenario, read_and_count)
    assert read == 50_000
    assert most < 20


def test_messages_that_are_begun_have_a_bound_and_go_on_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "_MOST", MIB)
    size = 700 * KIB
    received: list[int] = []

    async def read(stream: FrameStream) -> None:
        while (message := await stream.read()) is not None:
            received.append(len(message))

    async def scenario(port: Port) -> None:
        writers = []
        for _ in range(10):
            begun = opening("a/B") + header(Kind.MESSAGE, size) + bytes(size - 1)
            writers.append(await port.connect(begun))
        room = port.listener._unfinished
        await until(lambda: len(room._held) >= 8)
        assert room.bytes <= 2 * MIB + 10 * 256 * KIB
        for writer in writers:
            writer.write(b"\0")
        await until(lambda: received == [size] * 10)
        await until(lambda: not room.bytes)
        assert not room._held

    play(scenario, read)


def test_a_message_that_others_wait_for_and_does_not_go_on_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unfinished, "_MOST", MIB)
    monkeypatch.setattr(unfinished, "_STALE", SOON)
    size = 900 * KIB

    async def scenario(port: Port) -> None:
        await port.connect(opening("a/B") + header(Kind.MESSAGE, size) + bytes(size - 1))
        room = port.listener._unfinished
        await until(lambda: room.bytes > 800 * KIB)
        await asyncio.sleep(2 * SOON)
        assert room.bytes > 800 * KIB, "nobody waits for it"
        stream = await port.open()
        await stream.write(bytes(size))
        stream.end()
        assert await stream.read() is None
        await until(lambda: not room.bytes)

    play(scenario)
    assert "the rest of a message does not come" in caplog.text


def test_what_speaks_http_reaches_grpc_and_nothing_else_does_harm(tmp_path: Path) -> None:
    async def scenario() -> None:
        (port,) = free_ports(1)
        async with serving(settings("n1", port, tmp_path, cluster_state([port]))), channel(port) as opened:
            for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + bytes(600), bytes(5000)):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                writer.write_eof()
                async with asyncio.timeout(PATIENCE):
                    with suppress(ConnectionError):
                        await reader.read()
                writer.close()
            put = pb.PutRequest(bucket="b", key=b"k", value=b"v")
            await call(opened, "Put", put, pb.WriteResponse)

    run(scenario())


def test_a_session_that_is_not_read_is_bounded_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "_PATIENCE", SOON)
    monkeypatch.setattr(unread, "_SLOWEST", 1 << 40)
    monkeypatch.setattr(unread, "_LOOK", SOON / 4)

    async def scenario() -> None:
        (port,) = free_ports(1)
        node = settings("n1", port, tmp_path, cluster_state([port]))
        async with serving(node) as (server,):
            session = await StreamSession.open(f"127.0.0.1:{port}")
            put = pb.PutRequest(bucket="b", key=b"k", value=bytes(1000))
            await session.exchange([pb.Call(id=1, put=put)])
            assert session.stream._transport is not None
            session.stream._transport.pause_reading()
            get = pb.GetRequest(bucket="b", key=b"k")
            calls = [pb.Call(id=number, get=get) for number in range(2, 2000)]
            with suppress(StreamLost):
                while True:
                    async with asyncio.timeout(PATIENCE):
                        await session.send(calls)
                    assert server.clients.replies.bytes < 32 * MIB
            await until(lambda: not server.clients.connected)
            await session.stream.leave()

    run(scenario())


@pytest.mark.parametrize(
    "sent",
    [
        b"PRI * HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_connection_of_grpc_that_is_closed_is_closed_on_both_sides(sent: bytes, tmp_path: Path) -> None:
    """Each kept two sockets, until the node took no more connections."""

    async def scenario() -> None:
        (port,) = free_ports(1)
        async with serving(settings("n1", port, tmp_path, cluster_state([port]))) as (server,):
            for answered in (False, True):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                await until(lambda: server._listener._connections)
                if answered:
                    assert await reader.read(1)
                writer.close()
                await until(lambda: not server._listener._connections)

    run(scenario())


@pytest.mark.parametrize(
    ("sent", "kinds"),
    [
        (opening("kvstore.v1.KV/Session"), (FrameStream, ClientStream)),
        (PREFACE + frame(Kind.OPEN, bytes(9))[:9], (FrameStream,)),
        (b"PRI * HTTP/2.0\r\n\r\n", (Side,)),
    ],
    ids=["a session", "half an opening", "gRPC"],
)
def test_who_comes_and_goes_leaves_nothing_to_the_garbage_collector(
    sent: bytes, kinds: tuple[type, ...], tmp_path: Path
) -> None:
    """A node collects seldom: 3,000 sessions that were opened and broken off left 50 MB."""

    def left() -> list[str]:
        return [type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds)]

    async def scenario() -> None:
        (port,) = free_ports(1)
        async with serving(settings("n1", port, tmp_path, cluster_state([port]))):
            for _ in range(5):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                await writer.drain()
                await until(left)
                writer.transport.abort()
            del writer
            await until(lambda: not left())

    with no_collector():
        run(scenario())


def test_a_call_whose_client_says_nothing_is_no_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        (port,) = free_ports(1)
        node = settings("n1", port, tmp_path, cluster_state([port]))
        async with serving(node) as (server,):
            stream = await open_stream(f"127.0.0.1:{port}", "kvstore.v1.KV/Put", MIB)
            stream.end()
            with pytest.raises(StreamEnded, match="request"):
                await stream.read()
            await stream.leave()
            await until(lambda: not server.clients.connected)

    run(scenario())


def test_a_client_that_leaves_before_its_call_has_begun_is_not_counted() -> None:
    counted: list[str] = []

    async def scenario() -> None:
        stream = FrameStream(MIB)
        stream.connection_lost(None)
        made = stream_calls._Call(stream, Open())
        made.when_over(lambda: counted.append("over"))

    run(scenario())
    assert counted == ["over"]

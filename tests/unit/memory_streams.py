"""Connections in memory, which fail as those of TCP do, at whichever piece that is sent or arrives is chosen.

Clients, listeners, streams and services are the real ones; only what carries their bytes is not.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

import pytest

from kvstore.frames import dial
from kvstore.frames.framing import PREFACE, Framing, Kind, header
from kvstore.frames.stream import FrameStream
from kvstore.server.listener import Listener
from kvstore.v1 import client_pb2 as pb
from kvstore.v1.stream_pb2 import Open
from tests.patience import PATIENCE
from tests.unit.server_nodes import SessionByHand

RUBBISH = b"\xff\xff\xff"
LATE_SECONDS = 7.0
"""Longer than anybody waits."""
_LATENCY = 0.001
_KEEPALIVE = 15.0
"""Seconds after which a connection that carries nothing any more is over."""
_MOST = 2**28

T = TypeVar("T")


class Fault(Enum):
    """What a piece meets: most are one frame each, the first of a connection opens its stream."""

    BREAK = "the connection breaks before it"
    BREAK_AT_END = "the connection breaks after what is sent has arrived, and before what arrives is seen"
    END = "the other side closes the connection"
    HANG = "nothing of this connection arrives any more"
    STUCK = "it does not get through while the connection lasts; all else does, as when nobody reads"
    LATE = "it arrives late"
    TWICE = "it arrives twice"
    GARBLED = "its message cannot be decoded"


@dataclass
class Plan:
    """The piece numbered `at` (from 0) of those sent by or arriving at one side meets `fault`.

    Of connections for `method`; those to the address `spared` do not count.
    """

    method: str
    side: str
    fault: Fault
    at: int
    armed: bool = False
    spared: str = ""
    pieces: int = 0

    def meets(self, connection: Connection, side: str) -> Fault | None:
        if not self.armed or connection.address == self.spared:
            return None
        if connection.method.rpartition("/")[2] != self.method or side != self.side:
            return None
        self.pieces += 1
        return self.fault if self.pieces == self.at + 1 else None

    @property
    def reached(self) -> bool:
        return self.pieces > self.at


class Network:
    """Listeners by their addresses, which every connection leads to that is opened meanwhile."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(dial, "connect", self.connect)
        self.plan: Plan | None = None
        self.hops = 0
        """Steps of the loop that a piece takes, and no time. 0: it takes time, and what needs no network
        overtakes it."""
        self.down: set[str] = set()
        self.connections: set[Connection] = set()
        self.written: list[tuple[str, bytes]] = []
        """The method and bytes of each message that a client has begun to write."""
        self._listeners: dict[str, Listener] = {}
        self._ports = 1

    def serve(self, address: str, listener: Listener) -> None:
        self._listeners[address] = listener

    async def connect(self, address: str, protocol: asyncio.Protocol) -> None:
        await self.travel()
        if address in self.down or address not in self._listeners:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody is there")
        self._ports += 1
        Connection(self, address, self._ports, protocol, self._listeners[address].protocol())

    async def travel(self) -> None:
        """Wait as long as a piece takes."""
        if not self.hops:
            await asyncio.sleep(_LATENCY)
        for _ in range(self.hops):
            await asyncio.sleep(0)

    def meets(self, connection: Connection, side: str) -> Fault | None:
        return self.plan.meets(connection, side) if self.plan else None

    def cut(self, address: str) -> None:
        """The node at `address` goes down."""
        self.down.add(address)
        self.lose([each for each in self.connections if each.address == address])

    def lose(self, connections: Sequence[Connection]) -> None:
        for connection in connections:
            connection.lose(ConnectionResetError("cut"))

    def methods(self) -> set[str]:
        """Of the streams that are open, but for those of nodes."""
        open_ones = {each.method for each in self.connections if not each.client.is_closing()}
        return open_ones - {"kvstore.v1.Peer/Link", "kvstore.v1.Peer/Bulk"}


class Connection:
    """A client's end and a node's, each with what is on its way to it."""

    def __init__(
        self,
        network: Network,
        address: str,
        port: int,
        client: asyncio.Protocol,
        server: asyncio.BaseProtocol,
    ) -> None:
        self.network, self.address = network, address
        self.method = ""
        self._hung = self._over = False
        network.connections.add(self)
        self.client = _End(self, "client", client, ("127.0.0.1", 1))
        self.server = _End(self, "server", server, ("127.0.0.1", port))
        self.client.other, self.server.other = self.server, self.client
        for end in (self.client, self.server):
            end.get_protocol().connection_made(end)

    def sent(self, side: str, data: bytes) -> None:
        if side == "client":
            if not self.method:
                (opened,) = Framing(_MOST).feed(data[len(PREFACE) :])
                self.method = Open.FromString(opened.payload).method
            else:
                messages = [each for each in Framing(_MOST).feed(data) if each.kind == Kind.MESSAGE]
                method = self.method.rpartition("/")[2]
                self.network.written += [(method, each.payload) for each in messages]

    def may_repeat(self, to: str) -> bool:
        """Nodes bear repeated messages of each other; a client's request must not be one."""
        return to == "client" or self.method.startswith("kvstore.v1.Peer/")

    def hang(self) -> None:
        """Until TCP's keepalive notices."""
        if not self._hung:
            self._hung = True
            loop = asyncio.get_running_loop()
            loop.call_later(_KEEPALIVE, self.lose, TimeoutError(errno.ETIMEDOUT, "timed out"))

    @property
    def carries(self) -> bool:
        return not (self._hung or self._over)

    def lose(self, error: Exception | None) -> None:
        """It is over for both sides, unless it is already."""
        if not self._over:
            self._over = True
            self.network.connections.discard(self)
            for end in (self.client, self.server):
                end.lost(error)


class _End(asyncio.Transport):
    """What asyncio gives to a protocol."""

    other: _End

    def __init__(
        self, connection: Connection, side: str, protocol: asyncio.BaseProtocol, peer: tuple[str, int]
    ) -> None:
        super().__init__({"peername": peer})
        self._connection = connection
        self._side = side
        self._protocol: Any = protocol
        self._arriving: deque[bytes | None] = deque()
        """None: there will be no more."""
        self._pump: asyncio.Task[None] | None = None
        self._reading = asyncio.Event()
        self._reading.set()
        self._closing = self._lost = self._stuck = False

    # as a protocol sees it

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()

    def is_closing(self) -> bool:
        return self._closing or self._lost

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self.is_closing() or self._stuck:
            return
        piece = bytes(data)
        self._connection.sent(self._side, piece)
        fault = self._connection.network.meets(self._connection, self._side)
        if fault is Fault.STUCK:
            self._stuck = True
            self._protocol.pause_writing()
        else:
            self._meet(fault)
            self.other.arrives(piece, fault)
        if fault is Fault.BREAK_AT_END:
            asyncio.get_running_loop().call_later(2 * _LATENCY, self._break)

    def write_eof(self) -> None:
        if not self.is_closing():
            self.other.arrives(None, None)

    def close(self) -> None:
        if not self.is_closing():
            self._closing = True
            self.other.arrives(None, None)
            asyncio.get_running_loop().call_soon(self.lost, None)

    def abort(self) -> None:
        self.close()

    def lost(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            if self._pump is not None:
                self._pump.cancel()
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, error)
            if self.other._lost:
                self._connection.lose(None)

    # what the network does

    def arrives(self, piece: bytes | None, fault: Fault | None) -> None:
        """The other end has sent this, or (None) has closed."""
        if self._lost:
            return
        if fault is Fault.GARBLED and piece is not None and self._connection.method:
            piece = _garbled(piece)
        self._arriving.append(piece)
        if fault is Fault.TWICE and self._connection.may_repeat(self._side) and not _begins(piece):
            self._arriving.append(piece)
        if self._pump is None:
            late = LATE_SECONDS if fault is Fault.LATE else 0.0
            self._pump = asyncio.ensure_future(self._deliver(late))

    async def _deliver(self, late: float) -> None:
        await asyncio.sleep(late)
        while self._arriving:
            await self._connection.network.travel()
            await self._reading.wait()
            if not self._connection.carries:
                return
            piece = self._arriving.popleft()
            if piece is None:
                self._protocol.eof_received()
                self.close()
                return
            await self._receive(piece)
        self._pump = None

    async def _receive(self, piece: bytes) -> None:
        fault = self._connection.network.meets(self._connection, self._side)
        if fault is Fault.STUCK:
            await asyncio.get_running_loop().create_future()
        if fault is Fault.LATE:
            await asyncio.sleep(LATE_SECONDS)
        self._meet(fault)
        if fault is Fault.BREAK_AT_END:
            self._break()
        if not self._connection.carries:
            return
        if fault is Fault.GARBLED:
            piece = _garbled(piece)
        self._protocol.data_received(piece)
        if fault is Fault.TWICE and self._connection.may_repeat(self._side) and not _begins(piece):
            self._protocol.data_received(piece)

    def _meet(self, fault: Fault | None) -> None:
        if fault is Fault.BREAK:
            self._break()
        elif fault is Fault.END:
            self.other.close()
        elif fault is Fault.HANG:
            self._connection.hang()

    def _break(self) -> None:
        self._connection.lose(ConnectionResetError(errno.ECONNRESET, "broken by the test"))


def _begins(piece: bytes | None) -> bool:
    """Whether it opens a stream, or ends one: TCP repeats nothing, and these are not messages."""
    return piece is None or piece.startswith(PREFACE) or piece[0] == Kind.END


def _garbled(piece: bytes) -> bytes:
    return piece if _begins(piece) else header(Kind.MESSAGE, len(RUBBISH)) + RUBBISH


class StreamSession(SessionByHand):
    """A session as our client has it."""

    stream: FrameStream

    @classmethod
    async def open(cls, address: str) -> StreamSession:
        """Raises StreamLost, StreamEnded."""
        stream = await dial.open_stream(address, "kvstore.v1.KV/Session", _MOST)
        await stream.read()
        return cls(stream)

    async def _response(self) -> pb.SessionResponse:
        message = await self.stream.read()
        assert message is not None
        return pb.SessionResponse.FromString(message)


async def call(
    address: str, method: str, request: Any, answer: Callable[[bytes], T], timeout: float = PATIENCE
) -> T:
    """A unary call of the KV service; raises StreamLost, StreamEnded, TimeoutError."""
    async with asyncio.timeout(timeout):
        stream = await dial.open_stream(address, f"kvstore.v1.KV/{method}", _MOST, timeout=timeout)
        try:
            await stream.write(request.SerializeToString())
            message = await stream.read()
        finally:
            await stream.leave()
    assert message is not None
    return answer(message)

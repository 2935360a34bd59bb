"""One stream of messages over a connection of its own, as both of its ends have it.

TCP is its flow control: what is not read stops the other side's writing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from kvstore.config import KIB
from kvstore.frames.framing import Frame, FrameTooLarge, Framing, FramingError, Kind, header

_MOST_UNREAD = 256 * KIB
"""Bytes of messages that nobody has read yet, after which no more are taken from the connection."""
_LINGER = 2.0
"""Seconds that the other side has to read how a stream has ended."""
_IN_A_TURN = 4
"""Messages that a reader gets before others have the loop; further ones are not even looked for."""
_UNWRITTEN = 256 * KIB
"""Bytes that wait for the network, after which a writer waits."""
_SMALL = 64 * KIB
"""A message that is no longer is copied behind its header: one packet instead of two."""

_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 1), ("TCP_USER_TIMEOUT", 15_000))
"""A connection that was cut without a word is noticed in seconds, also when nobody sends."""


class StreamLost(Exception):
    """The connection is over, and nobody has ended the stream; the text says why."""


class StreamEnded(Exception):
    """The other side has ended the stream with a status that is not OK, or (raised by a handler) shall."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message or code_pb2.Code.Name(status.code))
        self.status = status


class FrameStream(asyncio.Protocol):
    """Reads and writes messages, each at most `most` bytes when it is received."""

    def __init__(self, most: int) -> None:
        self._framing = Framing(most)
        self._transport: asyncio.Transport | None = None
        self._messages: deque[bytes] = deque()
        self._unread = 0
        self._end: Status | None = None
        """How reading ends when all is read."""
        self._broken = ""
        """Why the connection is over."""
        self._reader: asyncio.Future[None] | None = None
        self._in_turn = 0
        self._held = self._paused = False
        self._gone = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.on_open: Callable[[bytes], None] | None = None
        """Takes the frame that opens the stream."""
        self._on_lost: list[Callable[[], object]] = []
        self.on_unfinished: Callable[[FrameStream, int], None] | None = None
        """Is told how many bytes of the message that comes next are here, each time that more have come."""
        self.peer = ""
        """The address of the other side, as gRPC writes it."""

    # the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio
        self._transport.set_write_buffer_limits(_UNWRITTEN)
        self.peer = address_of(transport)
        _keep_alive(self._transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._end is None:
            self._framing.feed(data)
            self._find()

    def _find(self) -> None:
        """Take the next messages of what has come, a few: many, even empty ones, would take the loop long."""
        try:
            while self._looking and (frame := self._framing.next()) is not None:
                self._take(frame)
        except FramingError as error:
            large = isinstance(error, FrameTooLarge)
            code = code_pb2.RESOURCE_EXHAUSTED if large else code_pb2.INVALID_ARGUMENT
            self._over(Status(code=code, message=str(error)))
            if self.on_open is not None:
                self.close()  # nobody reads it
        if self.on_unfinished is not None and self._transport is not None:
            self.on_unfinished(self, self._framing.unfinished if self._looking else 0)
        self._pace()

    @property
    def _looking(self) -> bool:
        """Whether a reader has use for more messages."""
        return len(self._messages) < _IN_A_TURN and self._end is None

    def hold(self, held: bool) -> None:
        """Take nothing from the connection until told otherwise."""
        self._held = held
        self._pace()

    def _pace(self) -> None:
        unread = self._unread + (0 if self._looking else self._framing.unfinished)
        paused = self._held or unread > _MOST_UNREAD
        if self._transport is None or paused == self._paused:
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._broken = reason(error) if error else "the connection was closed"
        self._wake()
        self._transport = None
        self._gone.set()
        self._writable.set()
        acts, self._on_lost = self._on_lost, []
        self.on_open = (
            None  # each of these knows the stream, and may have what it holds wait for the collector
        )
        for act in acts:
            act()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.set()

    # what was received

    def _take(self, frame: Frame) -> None:
        if self.on_open is not None:
            if frame.kind != Kind.OPEN:
                raise FramingError("frame before the one that opens the stream")
            begin, self.on_open = self.on_open, None
            begin(frame.payload)
        elif frame.kind == Kind.MESSAGE:
            self._messages.append(frame.payload)
            self._unread += len(frame.payload)
            self._wake()
        elif frame.kind == Kind.END:
            self._over(_status(frame.payload))
        else:
            raise FramingError("frame that opens a stream which is open")

    def _over(self, end: Status) -> None:
        if self._end is None:
            self._end = end
            self._framing.clear()
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def read(self) -> bytes | None:
        """The next message; None when the other side has ended the stream, and all is well.

        Raises StreamEnded when it has ended it with an error, StreamLost when the connection broke.
        """
        self._in_turn += 1
        if self._in_turn > _IN_A_TURN:
            self._in_turn = 0
            await asyncio.sleep(0)
        while not self._messages:
            if self._end is not None:
                if self._end.code == code_pb2.OK:
                    return None
                raise StreamEnded(self._end)
            if self._broken:
                raise StreamLost(self._broken)
            self._in_turn = 0
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        message = self._messages.popleft()
        self._unread -= len(message)
        self._find()
        return message

    # what is sent

    @property
    def lost(self) -> bool:
        """Whether the connection is over."""
        return self._transport is None or self._transport.is_closing()

    async def write(self, message: bytes) -> None:
        """Send a message; returns when it may be followed by the next. Raises StreamLost."""
        self._send(Kind.MESSAGE, message)
        if not self._writable.is_set():
            await self._writable.wait()
            if self.lost:
                raise StreamLost("the connection was lost")

    def open(self, begin: bytes, payload: bytes) -> None:
        """Begin the stream: with the preface, and the frame that opens it."""
        assert self._transport is not None
        self._transport.write(begin + header(Kind.OPEN, len(payload)) + payload)

    def end(self) -> None:
        """Tell the other side that there are no more messages. Raises StreamLost."""
        self._send(Kind.END, b"")

    def finish(self, status: Status) -> None:
        """End the stream, and the connection when the other side has ended it as well. Raises StreamLost.

        What it is sending at this moment is taken and thrown away: the system would answer it by a reset,
        and the status would be lost with it.
        """
        self._send(Kind.END, status.SerializeToString())
        self._over(status)
        self._messages.clear()
        self._unread = 0
        self._held = False
        self._find()  # nothing: what waits is forgotten, and more is taken from the connection
        assert self._transport is not None
        self._transport.write_eof()
        leave = asyncio.get_running_loop().call_later(_LINGER, self.break_off)
        self.when_lost(leave.cancel)

    def _send(self, kind: Kind, payload: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            raise StreamLost("the connection was lost")
        before = header(kind, len(payload))
        if len(payload) <= _SMALL:
            transport.write(before + payload)
        else:
            transport.write(before)
            transport.write(payload)

    def when_lost(self, act: Callable[[], object]) -> None:
        """Call `act` when the connection is over."""
        if self._gone.is_set():
            act()
        else:
            self._on_lost.append(act)

    def close(self) -> None:
        """End the connection when what was written has left; what still comes is not read."""
        if self._transport is not None:
            self._transport.close()

    def break_off(self) -> None:
        """End the connection at once: what was written may be lost."""
        if self._transport is not None:
            # closed alone it would stay connected while a process that was forked has a copy of the socket
            opened: socket.socket | None = self._transport.get_extra_info("socket")
            if opened is not None:
                # of a copy, since uvloop's sockets have no `shutdown`
                with suppress(OSError), socket.socket(fileno=os.dup(opened.fileno())) as copy:
                    copy.shutdown(socket.SHUT_RDWR)
            self._transport.abort()

    async def leave(self) -> None:
        """End the connection at once, and return when that is done."""
        self.break_off()
        await self._gone.wait()


def reason(error: Exception) -> str:
    """Why a connection is over, or could not be made, without the number that the system has for it."""
    if isinstance(error, socket.gaierror):  # whose numbers are not those of the system
        return error.strerror or str(error)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def _keep_alive(transport: asyncio.Transport) -> None:
    opened: socket.socket | None = transport.get_extra_info("socket")
    if opened is None:
        return
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if (option := getattr(socket, name, None)) is not None:
            opened.setsockopt(socket.IPPROTO_TCP, option, value)


def _status(payload: bytes) -> Status:
    try:
        return Status.FromString(payload)
    except DecodeError as error:
        raise FramingError("the end of a stream cannot be read") from error


def address_of(transport: asyncio.BaseTransport) -> str:
    """The address of the other side of a connection, as gRPC writes it: `ipv4:127.0.0.1:7001`."""
    name = transport.get_extra_info("peername")
    if not name:
        return ""
    host, port = name[0].removeprefix("::ffff:"), name[1]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

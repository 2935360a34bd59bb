"""One stream of messages over a connection of its own, as both of its ends have it.

TCP is its flow control: what is not read stops the other side's writing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

from google.rpc.status_pb2 import Status

from kvstore.config import KIB, MIB
from kvstore.frames.framing import Kind, header
from kvstore.frames.incoming import Incoming, Pieces, StreamLost, Take

_MOST_UNREAD = 256 * KIB
"""Bytes of messages that nobody has read yet, after which no more are taken from the connection."""
_LINGER = 2.0
"""Seconds that the other side has to read how a stream has ended."""
_UNWRITTEN = 256 * KIB
"""Bytes that wait for the network, after which a writer waits."""
_FREE = 2 * MIB
"""From so many bytes on a message is joined on a thread, and there without the interpreter's lock."""
_SMALL = 64 * KIB
"""A message that is no longer is copied behind its header: one packet instead of two."""

_RECEIVED = 512 * KIB
"""More than what asyncio allocates to receive into."""

_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 1), ("TCP_USER_TIMEOUT", 15_000))
"""A connection that was cut without a word is noticed in seconds, also when nobody sends."""


class FrameStream(asyncio.Protocol):
    """Reads and writes messages, each at most `most` bytes when it is received."""

    def __init__(self, most: int) -> None:
        self._incoming = Incoming(most)
        self._transport: asyncio.Transport | None = None
        self._held = self._paused = False
        self._gone = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
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
        if not self._incoming.over:
            self._incoming.feed(data)
            self._received()

    def _received(self) -> None:
        """Something has come, or has been read."""
        incoming = self._incoming
        if incoming.over and incoming.on_open is not None:
            self.close()  # nobody reads it
        if self.on_unfinished is not None and self._transport is not None:
            self.on_unfinished(self, incoming.unfinished)
        self._pace()

    def when_opened(self, begin: Callable[[bytes], None]) -> None:
        """The other side opens the stream: `begin` takes the frame that does."""
        self._incoming.on_open = begin

    def hold(self, held: bool) -> None:
        """Take nothing from the connection until told otherwise."""
        self._held = held
        self._pace()

    def _pace(self) -> None:
        paused = self._held or self._incoming.unread > _MOST_UNREAD
        if self._transport is None or paused == self._paused:
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._incoming.lose(reason(error) if error else "the connection was closed")
        self._transport = None
        self._gone.set()
        self._writable.set()
        # each of these knows the stream, and would have what it holds wait for the collector
        acts, self._on_lost = self._on_lost, []
        self._incoming.on_open = None
        for act in acts:
            act()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.set()

    # what was received

    async def each(self, take: Take) -> None:
        """Give each message to `take`, as `read_pieces` does, until the other side has ended the stream.

        It is called as soon as a message arrives, which spares a pass of the loop, and after what it has left
        to do with the one before. Raises what it raises, and as `read`.
        """
        self._incoming.taker = take
        try:
            while (message := await self.read_pieces()) is not None:
                if (rest := take(message)) is not None:
                    await rest()
        finally:
            self._incoming.taker = None

    async def read(self) -> bytes | None:
        """As `read_pieces`, in one piece."""
        pieces = await self.read_pieces()
        return None if pieces is None else await joined(pieces)

    async def read_pieces(self) -> Pieces | None:
        """The next message, a large one in the pieces that have come.

        None when the other side has ended the stream, and all is well.

        Raises StreamEnded when it has ended it with an error, StreamLost when the connection broke.
        """
        message = await self._incoming.read()
        self._received()
        return message

    # what is sent

    @property
    def writable(self) -> bool:
        """Whether a message can be sent without waiting."""
        return self._writable.is_set() and not self.lost

    async def until_writable(self) -> None:
        """Return when a message can be sent without waiting. Raises StreamLost."""
        if not self._writable.is_set():
            await self._writable.wait()
            _opened(self._transport)

    def write_now(self, message: bytes) -> None:
        """Send a message, at once and whole, while the stream is writable. Raises StreamLost."""
        transport = _opened(self._transport)
        for packet in _packets(message):
            transport.write(packet)

    @property
    def lost(self) -> bool:
        """Whether the connection is over."""
        return self._transport is None or self._transport.is_closing()

    async def write(self, *pieces: bytes) -> None:
        """Send a message, in one piece or in some; returns when the next may follow. Raises StreamLost.

        A long one leaves at the pace of the network: what waits for it takes memory, and is copied.
        """
        left = _packets(*pieces)
        transport = _opened(self._transport)
        try:
            while left:
                transport.write(left.popleft())
                await self.until_writable()
        finally:
            # whoever writes may be cancelled: what follows, be it the end, must not come within the message
            while left and not self.lost:
                transport.write(left.popleft())

    def open(self, begin: bytes, payload: bytes) -> None:
        """Begin the stream: with the preface, and the frame that opens it."""
        assert self._transport is not None
        self._transport.write(begin + header(Kind.OPEN, len(payload)) + payload)

    def end(self) -> None:
        """Tell the other side that there are no more messages. Raises StreamLost."""
        _opened(self._transport).write(header(Kind.END, 0))

    def finish(self, status: Status) -> None:
        """End the stream, and the connection when the other side has ended it as well. Raises StreamLost.

        What it is sending at this moment is taken and thrown away: the system would answer it by a reset,
        and the status would be lost with it.
        """
        transport, payload = _opened(self._transport), status.SerializeToString()
        transport.write(header(Kind.END, len(payload)) + payload)
        self._incoming.end(status)
        self._held = False
        self._received()
        assert self._transport is not None
        self._transport.write_eof()
        leave = asyncio.get_running_loop().call_later(_LINGER, self.break_off)
        self.when_lost(leave.cancel)

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


def _keep_buffers() -> None:
    """Make the system's allocator keep the buffers that asyncio receives into.

    asyncio allocates 256 KiB for each `recv` and gives nearly all of it back. Until glibc has seen a larger
    block freed it maps and unmaps that each time, which costs as much as the rest of receiving.
    """
    bytearray(_RECEIVED)


_keep_buffers()


def _opened(transport: asyncio.Transport | None) -> asyncio.Transport:
    if transport is None or transport.is_closing():
        raise StreamLost("the connection was lost")
    return transport


def _packets(*pieces: bytes) -> deque[bytes | memoryview]:
    """What is written for a message, one after the other."""
    size = sum(map(len, pieces))
    before = header(Kind.MESSAGE, size)
    if size <= _SMALL:
        return deque((b"".join((before, *pieces)),))
    packets: deque[bytes | memoryview] = deque((before,))
    for piece in pieces:
        view = memoryview(piece)
        packets += [view[at : at + _UNWRITTEN] for at in range(0, len(view), _UNWRITTEN)]
    return packets


async def joined(pieces: Sequence[bytes]) -> bytes:
    """One from these; a large one is copied on a thread, without the interpreter's lock."""
    if sum(map(len, pieces)) < _FREE or len(pieces) == 1:
        return b"".join(pieces)
    return await asyncio.to_thread(b"".join, pieces)


def reason(error: BaseException) -> str:
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


def address_of(transport: asyncio.BaseTransport) -> str:
    """The address of the other side of a connection, as gRPC writes it: `ipv4:127.0.0.1:7001`."""
    name = transport.get_extra_info("peername")
    if not name:
        return ""
    host, port = name[0].removeprefix("::ffff:"), name[1]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

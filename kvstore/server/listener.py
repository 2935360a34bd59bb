"""The port of a node: streams of frames are served here, and what speaks gRPC is passed on to it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeAlias, cast

from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from kvstore.config import MAX_REQUEST_BYTES
from kvstore.errors import KVError
from kvstore.frames.framing import PREFACE
from kvstore.frames.incoming import StreamEnded, StreamLost
from kvstore.frames.stream import FrameStream
from kvstore.server.options import most_connections
from kvstore.server.pass_through import pass_on
from kvstore.server.refusals import Refusals
from kvstore.server.unfinished import UnfinishedMessages
from kvstore.v1.stream_pb2 import Open
from kvstore.wire.errors import error_to_status

_BEGIN_SECONDS = 5.0
"""Who has not said within this time what it wants makes room."""
_BACKLOG = 1024
LOOPBACK = "127.0.0.1"

_log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[FrameStream, Open], Awaitable[None]]
"""Serves one stream; the stream ends with it: well, or with the StreamEnded or KVError that it raises."""


def metadata_of(opened: Open) -> Iterator[tuple[str, str | bytes]]:
    """What has come with a stream; text, unless its name ends with "-bin"."""
    for name, value in opened.metadata.items():
        yield name, value if name.endswith("-bin") else value.decode(errors="replace")


class Listener:
    """Serves streams by their methods, and passes all other connections on to the gRPC server."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._stopping = False
        self._grpc_port = 0
        self._most = most_connections()
        self._connections: set[asyncio.Transport] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        """Those that serve streams."""
        self._refusals = Refusals()
        self._unfinished = UnfinishedMessages()

    async def start(self, listening: socket.socket, grpc_port: int) -> None:
        """Take connections from now on; what is gRPC's is served at `grpc_port` of the loopback interface."""
        self._grpc_port = grpc_port
        self._server = await asyncio.get_running_loop().create_server(
            self.protocol, sock=listening, backlog=_BACKLOG
        )

    def protocol(self) -> asyncio.Protocol:
        """What serves a connection that has just been made."""
        return _Arrival(self)

    async def stop(self, seconds: float) -> None:
        """Take no more connections; streams end when they have been served, or after so long."""
        self._stopping = True
        if self._server is not None:
            # asyncio leaves a connection open for ever that it has accepted and not told of when this closes
            for listening in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listening)
            await asyncio.sleep(0)
            self._server.close()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=seconds)
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=seconds)

    def close(self) -> None:
        """End the connections that are left: after `stop`, and when gRPC has ended its own."""
        for transport in self._connections:
            transport.close()

    def arrived(self, transport: asyncio.Transport) -> bool:
        """One more connection; whether there is room for it."""
        if self._stopping:
            return False
        if len(self._connections) >= self._most:
            self._refusals.tell(f"a connection: {self._most} are open")
            return False
        self._connections.add(transport)
        return True

    def gone(self, transport: asyncio.Transport) -> None:
        """A connection is over."""
        self._connections.discard(transport)

    def serve(self, transport: asyncio.Transport, opened: Callable[[], None]) -> FrameStream:
        """A stream begins on a connection; calls `opened` when it is known which."""
        stream = FrameStream(MAX_REQUEST_BYTES)

        def begin(payload: bytes) -> None:
            opened()
            task = asyncio.ensure_future(self._handle(stream, payload))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            stream.when_lost(task.cancel)

        stream.when_opened(begin)
        stream.on_unfinished = self._unfinished.progress
        stream.when_lost(lambda: self._unfinished.progress(stream, 0))
        stream.when_lost(lambda: self.gone(transport))
        transport.set_protocol(stream)
        stream.connection_made(transport)
        return stream

    async def _handle(self, stream: FrameStream, payload: bytes) -> None:
        try:
            stream.finish(await self._ended(stream, payload))
        except StreamLost:
            stream.break_off()  # nobody is there to be told
        except asyncio.CancelledError:
            stream.break_off()
            raise

    async def _ended(self, stream: FrameStream, payload: bytes) -> Status:
        """Serve a stream; with which status it ends."""
        try:
            opened = Open.FromString(payload)
        except DecodeError as error:
            return Status(code=code_pb2.INVALID_ARGUMENT, message=f"no stream can be opened by this: {error}")
        handler = self._handlers.get(opened.method)
        if handler is None:
            return Status(code=code_pb2.UNIMPLEMENTED, message=f"there is no stream {opened.method[:100]!r}")
        try:
            await handler(stream, opened)
        except StreamEnded as error:
            return error.status
        except KVError as error:
            # some are raised again and again, and would keep what the frames hold that they have passed
            return error_to_status(error.with_traceback(None))
        except StreamLost:
            raise
        except Exception as error:  # noqa: BLE001  (a defect: it ends this stream, and nothing else)
            _log.exception("defect in the stream %s from %s", opened.method, stream.peer)
            return Status(code=code_pb2.INTERNAL, message=repr(error))
        return Status()

    async def pass_on(self, transport: asyncio.Transport, begin: bytes) -> None:
        """What a connection begins with is no stream's: let gRPC see what it is."""
        try:
            await pass_on(transport, begin, (LOOPBACK, self._grpc_port), lambda: self.gone(transport))
        except OSError as error:
            self._refusals.tell(f"a connection cannot be passed on to gRPC: {error}")
            transport.abort()


class _Arrival(asyncio.Protocol):
    """A connection of which it is not known yet what it wants."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._begin = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio
        self._timer = asyncio.get_running_loop().call_later(_BEGIN_SECONDS, self._transport.abort)
        if not self._listener.arrived(self._transport):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._begin += data
        if self._begin.startswith(PREFACE):
            stream = self._listener.serve(self._transport, self._timer.cancel)
            if rest := self._begin[len(PREFACE) :]:
                stream.data_received(rest)
        elif not PREFACE.startswith(self._begin):
            self._timer.cancel()
            self._transport.pause_reading()
            self._passing = asyncio.ensure_future(self._listener.pass_on(self._transport, self._begin))

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._timer.cancel()
        self._listener.gone(self._transport)

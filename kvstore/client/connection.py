"""The connection to one node: one Session stream, opened again whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Protocol

import grpc

from kvstore.client.core.calls import Calls
from kvstore.client.core.retry import reconnect_pause
from kvstore.client.unary import close_channel, fetch_state, open_channel, reason
from kvstore.errors import KVError, NoNodeAvailable
from kvstore.ring import ClusterState
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.session import replies_from_wire

_HANDSHAKE_SECONDS = 2.0
_ENDING_SECONDS = 1.0

_log = logging.getLogger(__name__)

_Stream = grpc.aio.StreamStreamCall[bytes, pb.SessionResponse]


class Owner(Protocol):
    """Whose connection it is: a ClientCore."""

    def on_connected(self, calls: Calls, state: ClusterState, now: float) -> None:
        """The node can be reached; raises KVError if it must not be used."""

    def on_lost(self, calls: Calls, problem: str, now: float) -> None:
        """The connection broke, or could not be made."""


class Connection:
    """Keeps a stream for the calls to one node open until closed."""

    def __init__(self, calls: Calls, owner: Owner) -> None:
        self.address = calls.address
        self.channel = open_channel(calls.address)
        self._calls = calls
        self._clock = asyncio.get_running_loop().time
        self._owner = owner
        self._work = asyncio.Event()
        self._closing = False
        self._stream: _Stream | None = None
        self._writer: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """There may be calls to send."""
        self._work.set()

    def break_off(self) -> None:
        """Break the stream; another is opened when the node answers."""
        if self._stream is not None:
            self._stream.cancel()

    async def close(self) -> None:
        """Break the stream; open calls fail."""
        self._closing = True
        if self._stream is not None:
            # its operations end by themselves then, and none is left for a loop that is closed by that time
            self._stream.cancel()
            await asyncio.wait([self._task], timeout=_ENDING_SECONDS)
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._end_writer()
        self._owner.on_lost(self._calls, "the client was closed", self._clock())
        await close_channel(self.channel)

    async def _run(self) -> None:
        failures = 0
        # gRPC takes a cancellation that comes while a call breaks for the break, and raises that instead
        while not (self._closing or self._task.cancelling()):
            try:
                state = await fetch_state(self.channel, self.address, _HANDSHAKE_SECONDS)
                self._owner.on_connected(self._calls, state, self._clock())
                failures = 0
                problem = await self._exchange()
            except NoNodeAvailable as error:
                problem = error.errors[self.address]
            except KVError as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001  (a defect: without a connection it would last for ever)
                _log.exception("defect in the connection to %s", self.address)
                problem = repr(error)
            self._owner.on_lost(self._calls, problem, self._clock())
            await self._end_writer()
            if self._closing:
                return
            failures += 1
            await asyncio.sleep(reconnect_pause(failures, random.uniform))

    async def _exchange(self) -> str:
        """Open the stream and work until it ends; returns why it did."""
        stream = self._stream = _open_session(self.channel)
        self._writer = asyncio.create_task(self._write(stream))
        try:
            while (response := await stream.read()) is not grpc.aio.EOF:
                if response is None:  # so gRPC says that it could not parse it
                    return "the node sent a frame that cannot be read"
                assert isinstance(response, pb.SessionResponse)
                now = self._clock()
                self._calls.answer(replies_from_wire(response), now)
                if response.stopping:
                    self._calls.on_stopping(now)
                if self._calls.over:
                    return self._calls.problem
            return "the node closed the connection"
        except grpc.aio.AioRpcError as error:
            return f"connection lost: {reason(error)}"
        except asyncio.CancelledError:
            if self._task.cancelling():
                raise
            return "the node does not answer"  # the stream was cancelled, not this task
        finally:
            self._stream = None
            stream.cancel()
            self._writer.cancel()

    async def _write(self, stream: _Stream) -> None:
        try:
            while stream is self._stream:
                if frame := await self._next_frame():
                    await stream.write(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream is over: reading from it tells why
        finally:
            stream.cancel()

    async def _end_writer(self) -> None:
        if self._writer is not None:
            await asyncio.wait([self._writer])

    async def _next_frame(self) -> bytes:
        """Wait until there are calls to send, and take as many as one frame may carry."""
        calls = self._calls
        while not calls.sendable:
            self._work.clear()
            await self._work.wait()
        if seconds := calls.gathering():
            await asyncio.sleep(seconds)
        return calls.take_frame(self._clock())


def _open_session(channel: grpc.aio.Channel) -> _Stream:
    session: grpc.aio.StreamStreamMultiCallable[bytes, pb.SessionResponse] = channel.stream_stream(
        "/kvstore.v1.KV/Session",
        response_deserializer=pb.SessionResponse.FromString,
    )
    return session()

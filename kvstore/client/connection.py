"""The connection to one node: one Session stream, opened again whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from kvstore.client.core.calls import Calls
from kvstore.client.core.retry import reconnect_pause
from kvstore.client.jitter import uniform
from kvstore.client.unary import read_state, stream_errors, unary
from kvstore.config import MAX_MESSAGE_BYTES
from kvstore.errors import KVError, NoNodeAvailable
from kvstore.frames import dial
from kvstore.frames.gathering import AT_ONCE, Gathering
from kvstore.frames.incoming import Pieces, Rest, StreamEnded, StreamLost
from kvstore.frames.stream import FrameStream, joined
from kvstore.frames.turn_ends import TurnEnds
from kvstore.ring import ClusterState
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.session import replies_from_wire

Response = TypeVar("Response")

_METHOD = "kvstore.v1.KV/Session"
_HANDSHAKE_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Owner(Protocol):
    """Whose connection it is: a ClientCore."""

    def on_connected(self, calls: Calls, state: ClusterState, now: float) -> None:
        """The node can be reached; raises KVError if it must not be used."""

    def on_lost(self, calls: Calls, problem: str, now: float) -> None:
        """The connection broke, or could not be made."""


class _Over(Exception):
    """The stream is of no more use; the text says why."""


class Connection:
    """Keeps a stream for the calls to one node open until closed."""

    def __init__(self, calls: Calls, owner: Owner, turn_ends: TurnEnds) -> None:
        self.address = calls.address
        self._calls = calls
        self._clock = asyncio.get_running_loop().time
        self._owner = owner
        self._turn_ends = turn_ends
        self._gathering = Gathering(turn_ends, calls.gathering)
        self._large = b""
        """A frame that was taken, for the writer."""
        self._stream: FrameStream | None = None
        self._silent = self._closed = False
        self._asking: set[asyncio.Future[Any]] = set()
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """There may be calls to send."""
        self._gathering.add()

    def break_off(self) -> None:
        """Break the stream; another is opened when the node answers."""
        if self._stream is not None:
            self._silent = True
            self._stream.break_off()

    async def ask(
        self, method: str, request: Message, parse: Callable[[bytes], Response], timeout: float
    ) -> Response:
        """A call beside the stream: see `unary`. Raises NoNodeAvailable when this is closed meanwhile."""
        if self._closed:
            raise self._closed_error()
        asking = asyncio.ensure_future(unary(self.address, method, request, parse, timeout))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        try:
            return await asking
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._closed_error() from None

    def _closed_error(self) -> NoNodeAvailable:
        return NoNodeAvailable({self.address: "the connection was closed"})

    async def close(self) -> None:
        """Break the stream; open calls fail."""
        self._closed = True
        for asking in self._asking:
            asking.cancel()
        self._task.cancel()
        await asyncio.wait([self._task])
        self._owner.on_lost(self._calls, "the client was closed", self._clock())

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                with stream_errors(self.address):
                    async with asyncio.timeout(_HANDSHAKE_SECONDS) as handshake:
                        stream, state = await dial.open_answered(
                            self.address, _METHOD, MAX_MESSAGE_BYTES, self._state
                        )
                        try:
                            handshake.reschedule(None)
                            self._owner.on_connected(self._calls, state, self._clock())
                            failures = 0
                            problem = await self._exchange(stream)
                        finally:
                            await stream.leave()
            except NoNodeAvailable as error:
                problem = error.errors[self.address]
            except KVError as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001  (a defect: without a connection it would last for ever)
                _log.exception("defect in the connection to %s", self.address)
                problem = repr(error)
            self._owner.on_lost(self._calls, problem, self._clock())
            failures += 1
            await asyncio.sleep(reconnect_pause(failures, uniform))

    async def _state(self, stream: FrameStream) -> ClusterState:
        """What a node says first."""
        message = await stream.read()
        try:
            return read_state(self.address, pb.GetRingResponse.FromString(message or b""))
        except DecodeError as error:
            raise NoNodeAvailable({self.address: f"sent a ring that cannot be read: {error}"}) from error

    async def _exchange(self, stream: FrameStream) -> str:
        """Work until the stream ends; returns why it did."""
        self._stream, self._silent = stream, False
        self._gathering = Gathering(self._turn_ends, self._calls.gathering)  # the last one's may have failed
        writer = asyncio.create_task(self._write(stream))
        try:
            return await self._read(stream)
        except (StreamLost, StreamEnded) as error:
            return "the node does not answer" if self._silent else f"connection lost: {error}"
        finally:
            self._stream = None
            writer.cancel()
            await asyncio.wait([writer])

    async def _read(self, stream: FrameStream) -> str:
        try:
            await stream.each(self._take)
        except _Over as over:
            return str(over)
        return "the node closed the connection"

    def _take(self, message: Pieces) -> Rest:
        """Give the replies of a frame to those who wait for them. Raises _Over, InvalidRequest."""
        if len(message) > 1:
            return partial(self._take_large, message)
        self._answer(message[0])
        return None

    async def _take_large(self, message: Pieces) -> None:
        self._answer(await joined(message))

    def _answer(self, frame: bytes) -> None:
        try:
            response = pb.SessionResponse.FromString(frame)
        except DecodeError:
            raise _Over("the node sent a frame that cannot be read") from None
        now = self._clock()
        self._calls.answer(replies_from_wire(response), now)
        if response.stopping:
            self._calls.on_stopping(now)
        if self._calls.over:
            raise _Over(self._calls.problem)

    async def _write(self, stream: FrameStream) -> None:
        self._large = b""  # what was meant for another stream has failed with it
        calls, clock = self._calls, self._clock
        try:
            while True:
                while calls.sendable or self._large:
                    if not self._large and (seconds := calls.gathering()):
                        await asyncio.sleep(seconds)
                    await stream.until_writable()  # what has not been taken is known not to be applied
                    frame, self._large = self._large or calls.take_frame(clock()), b""
                    if frame:
                        await stream.write(frame)
                await self._gathering.until_due(partial(self._write_now, stream))
        except StreamLost:
            return  # the stream is over: reading from it tells why

    def _write_now(self, stream: FrameStream) -> bool:
        """Write the calls that wait if one frame can be written at once and holds all; whether it was so."""
        calls = self._calls
        if not stream.writable:
            return not calls.sendable
        frame = calls.take_frame(self._clock())
        if len(frame) > AT_ONCE:
            self._large = frame
            return False
        if frame:
            stream.write_now(frame)
        return not calls.sendable

"""The connection to one node: one Session stream, opened again whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import grpc

from kvstore.client.calls import Calls
from kvstore.client.unary import fetch_state, open_channel, reason
from kvstore.errors import KVError, NoNodeAvailable
from kvstore.protocol.messages import ClientRequest, Found, Stored
from kvstore.ring import ClusterState
from kvstore.v1 import client_pb2 as pb

_HANDSHAKE_SECONDS = 2.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0

_log = logging.getLogger(__name__)

_Stream = grpc.aio.StreamStreamCall[bytes, pb.SessionResponse]


class Connection:
    """Keeps a stream to the node at `address` open until closed.

    `on_ready` is called with address and cluster state whenever the node can be reached again; it may
    refuse the node by raising a KVError.
    """

    def __init__(
        self,
        address: str,
        required: Callable[[ClientRequest], int],
        on_ready: Callable[[str, ClusterState], None],
    ) -> None:
        self.address = address
        self.channel = open_channel(address)
        self.ready = False
        self.problem = "no connection yet"
        self._on_ready = on_ready
        self._calls = Calls(address, required, self._on_silence)
        self._stream: _Stream | None = None
        self._task = asyncio.create_task(self._run())

    def submit(self, request: ClientRequest, deadline: float, epoch: int) -> asyncio.Future[Found | Stored]:
        """Queue a request; the future ends by `deadline` (loop time) with a reply or a KVError."""
        return self._calls.submit(request, deadline, epoch)

    async def close(self) -> None:
        """Break the stream; open calls fail."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._lost("the client was closed")
        self._calls.close()
        await self.channel.close()

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        # gRPC takes a cancellation that comes while a call breaks for the break, and raises that instead
        while not self._task.cancelling():
            try:
                state = await fetch_state(self.channel, self.address, _HANDSHAKE_SECONDS)
                self._on_ready(self.address, state)
                pause = _FIRST_PAUSE
                problem = await self._exchange()
            except NoNodeAvailable as error:
                problem = error.errors[self.address]
            except KVError as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001  (a defect: without a connection it would last for ever)
                _log.exception("defect in the connection to %s", self.address)
                problem = repr(error)
            self._lost(problem)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _exchange(self) -> str:
        """Open the stream and work until it ends; returns why it did."""
        stream = _open_session(self.channel)
        writer = asyncio.create_task(self._write(stream))
        self._stream = stream
        self.ready = True
        try:
            while (response := await stream.read()) is not grpc.aio.EOF:
                if response is None:  # so gRPC says that it could not parse it
                    return "the node sent a frame that cannot be read"
                assert isinstance(response, pb.SessionResponse)
                self._calls.answer(response)
            return "the node closed the connection"
        except grpc.aio.AioRpcError as error:
            return f"connection lost: {reason(error)}"
        except asyncio.CancelledError:
            if self._task.cancelling():
                raise
            return "the node does not answer"  # the stream was cancelled, not this task
        finally:
            self._stream = None
            self.ready = False
            stream.cancel()
            writer.cancel()
            await asyncio.wait([writer])

    async def _write(self, stream: _Stream) -> None:
        try:
            while stream is self._stream:
                await stream.write(await self._calls.next_frame())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream is over: reading from it tells why
        finally:
            stream.cancel()

    def _on_silence(self) -> None:
        if self._stream is not None:
            self._stream.cancel()

    def _lost(self, problem: str) -> None:
        self.problem = problem
        self._calls.fail_all(problem)


def _open_session(channel: grpc.aio.Channel) -> _Stream:
    session: grpc.aio.StreamStreamMultiCallable[bytes, pb.SessionResponse] = channel.stream_stream(
        "/kvstore.v1.KV/Session",
        response_deserializer=pb.SessionResponse.FromString,
    )
    return session()

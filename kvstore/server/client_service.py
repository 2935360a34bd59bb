"""What clients call: unary requests, and the Session stream of batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from operator import methodcaller
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from kvstore.config import FRAME_BYTES
from kvstore.errors import InvalidRequest, KVError
from kvstore.quorum.messages import Failed, Found, Reply, Stored
from kvstore.server.driver import Driver
from kvstore.server.gathering import Gathering
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.client import (
    WireRequest,
    call_from_wire,
    found_to_wire,
    request_from_wire,
    result_to_wire,
    stored_to_delete,
    stored_to_put,
)
from kvstore.wire.errors import error_to_status
from kvstore.wire.ring import state_to_wire

SERVICE = pb.DESCRIPTOR.services_by_name["KV"].full_name

_SESSION_CALLS = 4096
"""Unanswered calls of one session beyond which no more of it are read."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ClientService:
    """The KV service of one node."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.session_frames = 0
        self.session_calls = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """The handlers of all methods."""
        methods = {
            "Get": _unary(self.get, pb.GetRequest),
            "Put": _unary(self.put, pb.PutRequest),
            "Delete": _unary(self.delete, pb.DeleteRequest),
            "ScanKeys": _unary(self.scan_keys, pb.ScanKeysRequest),
            "GetRing": _unary(self.get_ring, pb.GetRingRequest),
            "Session": grpc.stream_stream_rpc_method_handler(self.session),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def get(self, request: pb.GetRequest, context: Context) -> pb.GetResponse:
        """See client.proto."""
        reply = await self._unary(request, context)
        assert isinstance(reply, Found)
        return found_to_wire(reply)

    async def put(self, request: pb.PutRequest, context: Context) -> pb.PutResponse:
        """See client.proto."""
        reply = await self._unary(request, context)
        assert isinstance(reply, Stored)
        return stored_to_put(reply)

    async def delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:
        """See client.proto."""
        reply = await self._unary(request, context)
        assert isinstance(reply, Stored)
        return stored_to_delete(reply)

    async def scan_keys(self, request: pb.ScanKeysRequest, context: Context) -> pb.ScanKeysResponse:
        """See client.proto."""
        node = self._driver.node
        try:
            keys, after = node.scan_keys(
                request.bucket, request.partition, request.after, request.limit, self._driver.now()
            )
        except KVError as error:
            await _abort(context, error)
        return pb.ScanKeysResponse(keys=keys, next=after)

    async def get_ring(self, request: pb.GetRingRequest, context: Context) -> pb.GetRingResponse:
        """See client.proto."""
        return state_to_wire(self._driver.node.state)

    async def _unary(self, request: WireRequest, context: Context) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        remaining: float | None = context.time_remaining()  # None without a deadline, whatever its stub says
        if remaining is not None and not request.timeout_ms:
            request.timeout_ms = max(1, int(remaining * 1000))
        number = 0
        try:
            number = self._driver.request(request_from_wire(request), future.set_result)
            reply = await future
        except InvalidRequest as error:
            reply = Failed(error)
        finally:
            self._driver.forget(number)
        if isinstance(reply, Failed):
            await _abort(context, reply.error)
        return reply

    async def session(self, _requests: AsyncIterator[bytes], context: Context) -> None:
        """See client.proto. Frames stay bytes until here: gRPC has no need to look into them."""
        session = _Session(self._driver, context)
        writer = asyncio.ensure_future(session.write())
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                try:
                    request = pb.SessionRequest.FromString(data)
                except DecodeError as error:
                    await _abort(context, InvalidRequest("frame", str(error)))
                self.session_frames += 1
                self.session_calls += len(request.calls)
                session.take(request)
                await session.until(_SESSION_CALLS)
            await session.until(0)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)


def _unary(method: Any, request: type[Message]) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        method, request_deserializer=request.FromString, response_serializer=methodcaller("SerializeToString")
    )


class _Session:
    """One client's stream: calls under way, and results that wait for the next frame."""

    def __init__(self, driver: Driver, context: Context) -> None:
        self._driver = driver
        self._context = context
        self._results: list[pb.Result] = []
        self._wake = asyncio.Event()
        self._written = asyncio.Event()
        self._open = 0

    def take(self, request: pb.SessionRequest) -> None:
        """Start all calls of a frame."""
        for call in request.calls:
            self._open += 1
            answer = partial(self._answer, call.id)
            try:
                self._driver.request(call_from_wire(call), answer)
            except InvalidRequest as error:
                answer(Failed(error))

    def _answer(self, number: int, reply: Reply) -> None:
        self._results.append(result_to_wire(number, reply))
        self._wake.set()

    async def write(self) -> None:
        """Write whatever has been answered, in as few frames as make sense, until cancelled."""
        gathering = Gathering()
        while True:
            await self._wake.wait()
            await gathering.pause()
            self._wake.clear()
            results, self._results = self._results, []
            gathering.sent(len(results))
            for frame in _frames(results):
                await self._context.write(frame)
            self._open -= len(results)
            self._written.set()

    async def until(self, most: int) -> None:
        """Wait until at most `most` calls are unanswered."""
        while self._open > most:
            self._written.clear()
            await self._written.wait()


def _frames(results: list[pb.Result]) -> Iterator[bytes]:
    """Results in frames of at most FRAME_BYTES, a larger result alone."""
    batch: list[pb.Result] = []
    size = 0
    for result in results:
        more = result.ByteSize()
        if batch and size + more > FRAME_BYTES:
            yield pb.SessionResponse(results=batch).SerializeToString()
            batch, size = [], 0
        batch.append(result)
        size += more
    yield pb.SessionResponse(results=batch).SerializeToString()


async def _abort(context: Context, error: KVError) -> NoReturn:
    """End a call with the status and details of a typed error."""
    _, status = error_to_status(error)
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")

"""What clients call: unary requests, and the Session stream of batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from operator import methodcaller
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from kvstore.errors import InvalidRequest, KVError, Overloaded
from kvstore.protocol.messages import ClientRequest, Failed, Found, Reply, Stored
from kvstore.server.driver import Driver
from kvstore.server.session import Context, Session
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.client import WireRequest, fill_found, fill_stored, request_from_wire
from kvstore.wire.errors import error_to_status
from kvstore.wire.ring import state_to_wire

SERVICE = pb.DESCRIPTOR.services_by_name["KV"].full_name

_LONGEST_DEADLINE = 3600.0
_VERDICT_SHARE = 0.1
_VERDICT_SECONDS = 0.1

Answer = TypeVar("Answer", pb.PutResponse, pb.DeleteResponse)


class ClientService:
    """The KV service of one node."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.session_frames = 0
        self.session_calls = 0
        self.most_reply_bytes = 0
        """The most that has waited for the client of one session, of those that are over."""

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
        reply = await self._perform(request, context)
        assert isinstance(reply, Found)
        response = pb.GetResponse()
        fill_found(response, reply)
        return response

    async def put(self, request: pb.PutRequest, context: Context) -> pb.PutResponse:
        """See client.proto."""
        return _stored(pb.PutResponse(), await self._perform(request, context))

    async def delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:
        """See client.proto."""
        return _stored(pb.DeleteResponse(), await self._perform(request, context))

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

    async def _perform(self, request: WireRequest, context: Context) -> Reply:
        try:
            _limit_to_deadline(request, context)
            reply = await self._ask(request_from_wire(request))
        except Overloaded as error:
            self._driver.node.expired()
            reply = Failed(error)
        except InvalidRequest as error:
            reply = Failed(error)
        if isinstance(reply, Failed):
            await _abort(context, reply.error)
        return reply

    async def _ask(self, call: ClientRequest) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def respond(reply: Reply) -> None:
            if not future.done():  # cancelled a moment ago, with the client's call
                future.set_result(reply)

        number = self._driver.request(call, respond)
        try:
            return await future
        finally:
            self._driver.forget(number)

    async def session(self, _requests: AsyncIterator[bytes], context: Context) -> None:
        """See client.proto. Frames stay bytes until here: gRPC has no need to look into them."""
        session = Session(self._driver, context)
        reader = asyncio.ensure_future(self._read(session, context))
        writer = asyncio.ensure_future(session.write())
        try:
            # the writer ends only when it fails: nobody would get the replies any more
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, writer):
                task.cancel()
            try:
                results = await asyncio.gather(reader, writer, return_exceptions=True)
            finally:  # also when it is cancelled once more
                session.close()
                self.most_reply_bytes = max(self.most_reply_bytes, session.most_reply_bytes)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _read(self, session: Session, context: Context) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            try:
                self.session_calls += session.take(data)
            except InvalidRequest as error:
                await _abort(context, error)
            self.session_frames += 1
            await session.until_there_is_room()
        await session.until_answered()


def _unary(method: Any, request: type[Message]) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        method, request_deserializer=request.FromString, response_serializer=methodcaller("SerializeToString")
    )


def _stored(response: Answer, reply: Reply) -> Answer:
    assert isinstance(reply, Stored)
    fill_stored(response, reply)
    return response


def _limit_to_deadline(request: WireRequest, context: Context) -> None:
    """Give the request no more time than the call has, and a little less, so that the verdict arrives.

    Raises Overloaded when there is none left.
    """
    remaining: float | None = context.time_remaining()  # None without a deadline, whatever its stub says
    if remaining is None:
        return
    if remaining <= 0:
        raise Overloaded(0.1, "the time of the request was over when it arrived")
    seconds = min(remaining - min(_VERDICT_SHARE * remaining, _VERDICT_SECONDS), _LONGEST_DEADLINE)
    most = max(1, int(seconds * 1000))
    request.timeout_ms = min(request.timeout_ms or most, most)


async def _abort(context: Context, error: KVError) -> NoReturn:
    """End a call with the status and details of a typed error."""
    await context.abort_with_status(rpc_status.to_status(error_to_status(error)))
    raise AssertionError("abort_with_status raises")

"""What clients call: unary requests, and the Session stream of batches."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from kvstore.errors import InvalidRequest, KVError, NodeStopping, Overloaded
from kvstore.principal import ANYONE
from kvstore.protocol.client import ClientRequest, Failed, Found, Get, Success
from kvstore.protocol.sizes import size_of
from kvstore.server.driver import Driver
from kvstore.server.large_replies import LARGE, LargeReplies
from kvstore.server.refusals import Refusals
from kvstore.server.scans import Scans
from kvstore.server.session import ClientStream, Context
from kvstore.server.unread import SMALL, TOO_MUCH, UnreadReplies
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.client import WIRE_REQUESTS, WireReply, WireRequest, reply_to_wire, request_from_wire
from kvstore.wire.errors import error_to_status
from kvstore.wire.pieces import found_in_pieces
from kvstore.wire.ring import state_to_wire

SERVICE = pb.DESCRIPTOR.services_by_name["KV"].full_name

_SESSIONS = 32
"""Sessions of one connection: each may hold a frame and its share of replies. Our client has one."""
_QUIET, _LONGEST_WAIT = 0.25, 5.0
"""A stream that is refused ends when its client has written nothing for so long, and at the latest then."""
_TOO_MANY_SESSIONS = Overloaded(1.0, f"{_SESSIONS} sessions are open on this connection")


class ClientService:
    """The KV service of one node."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.scans = Scans(driver)
        self.replies = UnreadReplies()
        self.large = LargeReplies()
        self._sessions: Counter[str] = Counter()
        self._streams: set[ClientStream] = set()
        self._calls = 0
        self.serving = asyncio.Event()
        """Until it is set, calls wait; it is, unless somebody clears it."""
        self.serving.set()
        self._stopping = False
        self._refusals = Refusals()
        self.session_frames = 0
        self.session_calls = 0
        self.most_reply_bytes = 0
        """The most that has waited for the client of one session, of those that are over."""

    def announce_stop(self) -> None:
        """The node is about to stop: tell all clients, and take no new ones."""
        self._stopping = True
        for stream in self._streams:
            stream.announce_stop()

    @property
    def connected(self) -> int:
        """Sessions that are open, and unary calls under way."""
        return len(self._streams) + self._calls

    @property
    def unanswered(self) -> int:
        """Calls whose replies have not left."""
        return self._calls + sum(stream.unanswered for stream in self._streams)

    def handler(self) -> grpc.GenericRpcHandler:
        """The handlers of all methods."""
        unary: dict[str, tuple[Any, type[Message]]] = {
            **{call.__name__: (self.perform, message) for call, message in WIRE_REQUESTS.items()},
            "Get": (self.get, pb.GetRequest),
            "Scan": (self.scan, pb.ScanRequest),
            "GetRing": (self.get_ring, pb.GetRingRequest),
        }
        methods = {
            name: self.unary(self._when_serving(method), message) for name, (method, message) in unary.items()
        }
        methods["Session"] = grpc.stream_stream_rpc_method_handler(self._when_serving(self.session))
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _when_serving(self, method: Any) -> Any:
        """The same method, which waits until the node serves."""

        async def call(request: Any, context: Context) -> Any:
            await self.serving.wait()
            return await method(request, context)

        return call

    async def perform(self, request: WireRequest, context: Context) -> WireReply:
        """Any of the requests that a Session carries as well: see client.proto. Raises KVError."""
        return reply_to_wire(await self._executed(request_from_wire(request), context))

    async def _executed(self, call: ClientRequest, context: Context) -> Success:
        reply = await self._driver.executor.execute(ANYONE, call, _deadline(context))
        if isinstance(reply, Failed):
            raise reply.error
        return reply

    async def get(self, request: WireRequest, context: Context) -> WireReply | bytes:
        """A get, whose reply may be large. Raises KVError."""
        call, peer, large = request_from_wire(request), context.peer(), self.large
        assert isinstance(call, Get)
        while True:
            await self.replies.until_room(peer)
            await large.until_fair()
            async with large.room(large.expected(call)):
                if not self.replies.used_up(peer):
                    return await self._get(call, context)

    async def _get(self, call: Get, context: Context) -> WireReply | bytes:
        reply = await self._executed(call, context)
        assert isinstance(reply, Found)
        size = size_of(reply)
        self.large.learn(call, size)
        return reply_to_wire(reply) if size <= LARGE else await self.large.join(found_in_pieces(reply))

    async def scan(self, request: pb.ScanRequest, context: Context) -> pb.ScanResponse:
        """See client.proto. Raises KVError."""
        return await self.scans.page(request, _deadline(context))

    async def get_ring(self, request: pb.GetRingRequest, context: Context) -> pb.GetRingResponse:
        """See client.proto. Raises NodeStopping: who asks wants to connect."""
        if self._stopping:
            raise NodeStopping
        return state_to_wire(self._driver.node.state)

    async def session(self, _requests: AsyncIterator[bytes], context: Context) -> None:
        """See client.proto. Frames stay bytes until here: gRPC has no need to look into them."""
        peer = context.peer()
        if self._stopping:
            await abort(context, NodeStopping())
        if self._sessions[peer] >= _SESSIONS:
            self._refusals.tell(f"more than {_SESSIONS} sessions on the connection from {peer}")
            await _until_quiet(context)
            await abort(context, _TOO_MANY_SESSIONS)
        self._sessions[peer] += 1
        try:
            await self._serve(context)
        finally:
            self._sessions -= Counter([peer])  # one that has none is forgotten

    async def _serve(self, context: Context) -> None:
        session = ClientStream(self._driver, context, self.replies, self.large)
        self._streams.add(session)
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
                self._streams.discard(session)
                self.most_reply_bytes = max(self.most_reply_bytes, session.most_reply_bytes)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _read(self, session: ClientStream, context: Context) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            if refusal := await self._take(session, data):
                data = b""  # see `unary`
                await _until_quiet(context)
                await abort(context, refusal)
            await session.until_there_is_room()
        await session.until_answered()

    async def _take(self, session: ClientStream, data: bytes) -> KVError | None:
        """Hand in a frame; why that cannot be done."""
        try:
            self.session_calls += await session.take(data)
        except InvalidRequest as error:
            return error.with_traceback(None)
        self.session_frames += 1
        return None

    def unary(self, method: Any, request: type[Message]) -> Any:
        """The handler of a method that takes one request, and gives one answer or raises KVError.

        Bytes that are no request are refused here: gRPC's own deserializing would log a traceback for each.
        """
        refusals, name = Refusals(), request.DESCRIPTOR.name

        async def answer(data: bytes, context: Context) -> bytes | KVError:
            try:
                found: Message | bytes = await method(request.FromString(data), context)
            except DecodeError as error:
                refusals.tell(f"{len(data)} bytes that are no {name}")
                return InvalidRequest("request", f"is no {name}: {error}")
            except KVError as error:
                return error.with_traceback(None)
            reply = found if isinstance(found, bytes) else found.SerializeToString()
            return self._counted(reply, context)

        async def handle(data: bytes, context: Context) -> bytes:
            self._calls += 1
            _when_over(context, self._call_over)
            reply = await answer(data, context)
            if isinstance(reply, KVError):
                # gRPC keeps the exception that `abort` raises, in a circle with the frames it has passed:
                # what these hold would stay until garbage is collected, and that is seldom
                del data
                await abort(context, reply)
            return reply

        return grpc.unary_unary_rpc_method_handler(handle, response_serializer=bytes)

    def _call_over(self) -> None:
        self._calls -= 1

    def _counted(self, reply: bytes, context: Context) -> bytes | KVError:
        """A reply, which counts until its client has read it; or why there is no room for it."""
        size = len(reply)
        if size > SMALL:
            peer, replies = context.peer(), self.replies
            reader = replies.of_connection(peer)
            if reader.refuses(size, replies.share):
                return TOO_MUCH
            reader.hold(size)
            number = replies.give(peer, size)

            def read() -> None:
                reader.release(size)
                replies.taken(number)

            _when_over(context, read)
        return reply


def _when_over(context: Context, act: Callable[[], None]) -> None:
    """Call `act` when the client has the reply to a unary call, or has gone."""
    callback: Any = lambda _context: act()  # noqa: E731  (gRPC's stub has a wrong type)
    context.add_done_callback(callback)


def _deadline(context: Context) -> float:
    """When the time of a call is over, by the loop's clock."""
    remaining: float | None = context.time_remaining()  # None without a deadline, whatever its stub says
    return float("inf") if remaining is None else asyncio.get_running_loop().time() + remaining


async def _until_quiet(context: Context) -> None:
    """Take what a client is writing, for a moment.

    gRPC's Python client takes the end of a stream on which it writes for INTERNAL, whatever the status is.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_WAIT):
            while True:
                async with asyncio.timeout(_QUIET):
                    if await context.read() is grpc.aio.EOF:
                        return


async def abort(context: Context, error: KVError) -> NoReturn:
    """End a call with the status and details of a typed error."""
    await context.abort_with_status(rpc_status.to_status(error_to_status(error)))
    raise AssertionError("abort_with_status raises")

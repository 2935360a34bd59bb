"""What clients call: unary requests, and the Session stream of batches."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from google.protobuf.message import DecodeError, Message

from kvstore.errors import InvalidRequest, NodeStopping, Overloaded
from kvstore.principal import ANYONE
from kvstore.protocol.client import ClientRequest, Failed, Found, Get, Success
from kvstore.protocol.sizes import size_of
from kvstore.server.calls import Answer, Call, Messages, Service
from kvstore.server.driver import Driver
from kvstore.server.first_ended import first_ended
from kvstore.server.large_replies import LARGE, LargeReplies
from kvstore.server.refusals import Refusals
from kvstore.server.scans import Scans
from kvstore.server.session import ClientStream
from kvstore.server.turns import Turns
from kvstore.server.unread import SMALL, TOO_MUCH, UnreadReplies
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.client import WIRE_REQUESTS, WireReply, WireRequest, reply_to_wire, request_from_wire
from kvstore.wire.pieces import found_in_pieces
from kvstore.wire.ring import encoded_state

SERVICE = pb.DESCRIPTOR.services_by_name["KV"].full_name

_SESSIONS = 32
"""Sessions of one connection: each may hold a frame and its share of replies. Our client has one."""


class ClientService:
    """The KV service of one node."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.scans = Scans(driver)
        self.replies = UnreadReplies()
        self.large = LargeReplies()
        self.turns = Turns()
        self._sessions: Counter[str] = Counter()
        self._streams: set[ClientStream] = set()
        self._calls = 0
        self.serving = asyncio.Event()
        """Until it is set, calls wait; it is, unless somebody clears it."""
        self.serving.set()
        self._stopping = False
        self._refusals = Refusals()
        self._ended_frames = self._ended_calls = 0
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
    def session_frames(self) -> int:
        """Frames of all sessions so far."""
        return self._ended_frames + sum(stream.frames for stream in self._streams)

    @property
    def session_calls(self) -> int:
        """Calls in these frames."""
        return self._ended_calls + sum(stream.calls for stream in self._streams)

    @property
    def unanswered(self) -> int:
        """Calls whose replies have not left."""
        return self._calls + sum(stream.unanswered for stream in self._streams)

    def service(self) -> Service:
        """All methods."""
        unary: dict[str, tuple[Any, type[Message]]] = {
            **{call.__name__: (self.perform, message) for call, message in WIRE_REQUESTS.items()},
            "Get": (self.get, pb.GetRequest),
            "Scan": (self.scan, pb.ScanRequest),
            "GetRing": (self.get_ring, pb.GetRingRequest),
        }
        return Service(
            SERVICE,
            {
                name: self.unary(self._when_serving(method), message)
                for name, (method, message) in unary.items()
            },
            {"Session": self.session},
        )

    def _when_serving(self, method: Any) -> Any:
        """The same method, which waits until the node serves."""

        async def call(request: Any, call: Call) -> Any:
            await self.serving.wait()
            return await method(request, call)

        return call

    async def perform(self, request: WireRequest, call: Call) -> WireReply:
        """Any of the requests that a Session carries as well: see client.proto. Raises KVError."""
        return reply_to_wire(await self._executed(request_from_wire(request), call))

    async def _executed(self, request: ClientRequest, call: Call) -> Success:
        reply = await self._driver.executor.execute(ANYONE, request, call.deadline)
        if isinstance(reply, Failed):
            raise reply.error
        return reply

    async def get(self, request: WireRequest, call: Call) -> WireReply | bytes:
        """A get, whose reply may be large. Raises KVError."""
        get, large = request_from_wire(request), self.large
        assert isinstance(get, Get)
        while True:
            await self.replies.until_room(call.peer)
            await self.turns.share()
            async with large.room(large.expected(get)):
                if self.replies.used_up(call.peer):
                    continue
                reply = await self._get(get, call)
            # others on this connection may have been answered meanwhile; it is kept for nobody until there is
            # room, but read again
            if not (isinstance(reply, bytes) and self.replies.used_up(call.peer)):
                return reply

    async def _get(self, get: Get, call: Call) -> WireReply | bytes:
        reply = await self._executed(get, call)
        assert isinstance(reply, Found)
        size = size_of(reply)
        self.large.learn(get, size)
        return reply_to_wire(reply) if size <= LARGE else await self.large.join(found_in_pieces(reply))

    async def scan(self, request: pb.ScanRequest, call: Call) -> pb.ScanResponse:
        """See client.proto. Raises KVError."""
        return await self.scans.page(request, call.deadline)

    async def get_ring(self, request: pb.GetRingRequest, call: Call) -> bytes:
        """See client.proto. Raises NodeStopping: who asks wants to connect."""
        if self._stopping:
            raise NodeStopping
        return encoded_state(self._driver.node.state)

    async def session(self, messages: Messages, routed: bool) -> None:
        """See client.proto; with a GetRingResponse before its replies when `routed`. Raises KVError."""
        await self.serving.wait()
        if self._stopping:
            raise NodeStopping
        if routed:
            await messages.write(encoded_state(self._driver.node.state))
        peer = messages.peer
        if self._sessions[peer] >= _SESSIONS:
            self._refusals.tell(f"more than {_SESSIONS} sessions on the connection from {peer}")
            raise Overloaded(1.0, f"{_SESSIONS} sessions are open on this connection")
        self._sessions[peer] += 1
        try:
            await self._serve(messages)
        finally:
            self._sessions -= Counter([peer])  # one that has none is forgotten

    async def _serve(self, messages: Messages) -> None:
        session = ClientStream(self._driver, messages, self.replies, self.large, self.turns)
        self._streams.add(session)
        try:
            # the writer ends only when it fails: nobody would get the replies any more
            await first_ended(self._read(session, messages), session.write())
        finally:
            session.close()
            self._streams.discard(session)
            self._ended_frames += session.frames
            self._ended_calls += session.calls
            self.most_reply_bytes = max(self.most_reply_bytes, session.most_reply_bytes)

    async def _read(self, session: ClientStream, messages: Messages) -> None:
        """Begin what comes; raises InvalidRequest for a frame that is none."""
        await messages.each(session.take)
        await session.until_answered()

    def unary(self, method: Any, request: type[Message]) -> Answer:
        """A method that takes one request, and gives one answer or raises KVError."""
        refusals, name = Refusals(), request.DESCRIPTOR.name

        async def answer(data: bytes, call: Call) -> bytes:
            self._calls += 1
            call.when_over(self._call_over)
            try:
                # to parse what is refused anyway would take its size once more, and the loop meanwhile
                self._driver.limits.check_size(len(data))
                found: Message | bytes = await method(request.FromString(data), call)
            except DecodeError as error:
                refusals.tell(f"{len(data)} bytes that are no {name}")
                raise InvalidRequest("request", f"is no {name}: {error}") from None
            reply = found if isinstance(found, bytes) else found.SerializeToString()
            self._count(reply, call)
            return reply

        return answer

    def _call_over(self) -> None:
        self._calls -= 1

    def _count(self, reply: bytes, call: Call) -> None:
        """A reply counts until its client has read it; raises Overloaded when there is no room for it."""
        size = len(reply)
        if size <= SMALL:
            return
        peer, replies = call.peer, self.replies
        reader = replies.of_connection(peer)
        if reader.refuses(size, replies.share):
            raise TOO_MUCH.with_traceback(None)
        reader.hold(size)
        number = replies.give(peer, size)

        def read() -> None:
            reader.release(size)
            replies.taken(number)

        call.when_over(read)

"""One outgoing stream to one peer, made again whenever it breaks.

Whatever is queued while the last frame is being written leaves as the next one. Sending is best effort:
the protocol above tolerates loss, so nothing is kept for a peer that is not connected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import grpc

from kvstore.config import MIB
from kvstore.gossip import GossipMessage
from kvstore.node.outbox import PeerMessage
from kvstore.quorum.messages import (
    Forward,
    ForwardReply,
    RangeDifference,
    RangeItems,
    ReadReply,
    ReapCheck,
    ReplicaRead,
    ReplicaWrite,
    TreeHashes,
    TreeRead,
    WriteAck,
)
from kvstore.ring import Member
from kvstore.server.batches import Batches
from kvstore.server.gathering import Gathering
from kvstore.server.handshake import Metadata, Refused, check_welcome
from kvstore.v1.peer_pb2 import Welcome
from kvstore.wire.client import reply_bytes, request_bytes
from kvstore.wire.peer import encode_frame

QUEUE_BYTES = 64 * MIB
"""What waits for a peer that is slow to read, on one stream, and leaves no room for more."""
_SHORT_QUEUE_BYTES = MIB
"""In a longer queue the failure detector's messages go first: a slow peer is not a dead one."""
_QUESTIONS = (ReplicaWrite, ReplicaRead, Forward, TreeRead, RangeItems, ReapCheck)
"""Messages to which an operation of this node, that of their `request`, waits for an answer."""
_HANDSHAKE_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.25  # beside the channel's own backoff

_log = logging.getLogger(__name__)

Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, Welcome]"
OnUnsent: TypeAlias = Callable[[str, Sequence[int]], None]


def message_bytes(message: PeerMessage) -> int:
    """About how many bytes a message takes in a frame."""
    match message:
        case ReplicaWrite():
            return 64 + len(message.key) + len(message.version)
        case WriteAck(requests):
            return 10 * len(requests)
        case ReplicaRead():
            return 64 + len(message.key)
        case ReadReply():
            return 64 + len(message.version)
        case Forward(_, _, call):
            return request_bytes(call)
        case ForwardReply(_, reply):
            return reply_bytes(reply)
        case ReapCheck(_, _, candidates):
            return 64 + sum(24 + len(key) for key, _ in candidates)
        case TreeRead(_, _, nodes):
            return 64 + 8 * len(nodes)
        case TreeHashes(_, hashes):
            return 64 + 12 * len(hashes)
        case RangeItems():
            return 64 + len(message.leaves) + len(message.after) + len(message.until) + len(message.items)
        case RangeDifference(_, versions, wanted):
            return 64 + 4 * len(wanted) + sum(16 + len(key) + len(version) for key, version in versions)
        case _:
            return 64


def _messages(batch: list[PeerMessage]) -> int:
    """How many messages a batch holds; acks, when there are no others, come many in one."""
    first = batch[0]
    return len(first.requests) if len(batch) == 1 and isinstance(first, WriteAck) else len(batch)


class Stream:
    """Sends to `peer` with one method of the Peer service, while it is connected.

    `on_open` is called with the peer's id when messages can be sent, `on_lost` when what was sent may be
    lost, `on_unsent` with it and the numbers of the requests whose messages were dropped.
    """

    def __init__(
        self,
        method: str,
        peer: Member,
        introduction: Metadata,
        on_open: Callable[[str], None],
        on_lost: Callable[[str], None],
        on_unsent: OnUnsent,
    ) -> None:
        self._method = method
        self._peer = peer
        self._introduction = introduction
        self._on_open = on_open
        self._on_lost = on_lost
        self._on_unsent = on_unsent
        self._queue: Batches[PeerMessage] = Batches()
        self._wake = asyncio.Event()
        self._unsent: list[int] = []
        self._problem = ""
        self.connected = False
        self.frames = 0
        self.messages = 0
        self.dropped = 0
        self.most_bytes = 0
        """The longest that the queue was."""

    @property
    def queued_bytes(self) -> int:
        """What waits to be written."""
        return self._queue.bytes

    def send(self, message: PeerMessage, size: int) -> None:
        """Queue a message for the next frame; dropped when not connected or far behind."""
        queue = self._queue
        if not self.connected:
            self._drop(message)
            return
        if queue.bytes > _SHORT_QUEUE_BYTES and isinstance(message, GossipMessage):
            queue.add_first(message, size)
        elif queue.bytes + size > QUEUE_BYTES and queue:
            self._drop(message)
        else:
            queue.add(message, size)
            if queue.bytes > self.most_bytes:
                self.most_bytes = queue.bytes
        self._wake.set()

    def _drop(self, message: PeerMessage) -> None:
        """Whoever waits for an answer need not wait for its patience; probes find out by themselves."""
        self.dropped += 1
        if isinstance(message, _QUESTIONS):
            # in a turn of its own: whoever sends must have returned first
            if not self._unsent:
                asyncio.get_running_loop().call_soon(self._tell)
            self._unsent.append(message.request)

    def _tell(self) -> None:
        unsent, self._unsent = self._unsent, []
        self._on_unsent(self._peer.node, unsent)

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Keep the stream open until cancelled."""
        pause = _FIRST_PAUSE
        while not _cancelled():
            try:
                await self._connect_and_send(channel)
            except TimeoutError:
                self._note("does not answer")
            except Refused as error:
                self._note(str(error), logging.WARNING)
            except grpc.aio.AioRpcError as error:
                refused = error.code() is grpc.StatusCode.FAILED_PRECONDITION
                self._note(error.details() or error.code().name, logging.WARNING if refused else logging.INFO)
            except Exception:  # noqa: BLE001  (a defect: without the stream the peer would count as dead)
                _log.exception("defect in the stream to node %s", self._peer.node)
            if self.connected:
                pause = _FIRST_PAUSE
                self._disconnected()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _note(self, problem: str, level: int = logging.INFO) -> None:
        """Log why there is no connection, once for each reason."""
        if problem != self._problem:
            self._problem = problem
            _log.log(level, "no %s to node %s: %s", self._method, self._peer.node, problem)

    def _disconnected(self) -> None:
        self.connected = False
        self._queue.clear()
        asyncio.get_running_loop().call_soon(self._on_lost, self._peer.node)

    async def _connect_and_send(self, channel: grpc.aio.Channel) -> None:
        """Open the stream and work until it ends; raises the reason."""
        call: Call = channel.stream_stream(self._method, response_deserializer=Welcome.FromString)(
            metadata=self._introduction
        )
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                welcome = await call.read()
            if isinstance(welcome, Welcome):
                check_welcome(welcome, self._peer.node)
                _log.info("connected %s to node %s", self._method, self._peer.node)
                self._problem = ""
                self.connected = True
                self._on_open(self._peer.node)
                await self._work(call)
            self._note("the other side ended the stream")
        finally:
            call.cancel()

    async def _work(self, call: Call) -> None:
        """Write frames until the other side ends the stream or it breaks."""
        writing = asyncio.ensure_future(self._write(call))
        ended = asyncio.ensure_future(call.read())
        try:
            await asyncio.wait((writing, ended), return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
            await ended
        finally:
            for task in (writing, ended):
                task.cancel()
            await asyncio.gather(writing, ended, return_exceptions=True)

    async def _write(self, call: Call) -> None:
        gathering = Gathering()
        clock = asyncio.get_running_loop().time
        while not _cancelled():
            await self._wake.wait()
            await gathering.pause()
            self._wake.clear()
            sent = 0
            for _ in range(len(self._queue)):  # what comes meanwhile is gathered
                batch = self._queue.take()
                sent += _messages(batch)
                frame = encode_frame(batch, int(clock() * 1000))
                try:
                    await call.write(frame)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    return  # the stream is over: reading from it tells why
                self.frames += 1
                self.messages += len(batch)
            gathering.sent(sent)


def _cancelled() -> bool:
    """Whether this task was told to end.

    gRPC takes a cancellation that comes while a call breaks for the break, and raises that or nothing.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

"""Streams to the other nodes: one for what is small and urgent, one for bulk.

Whatever is queued while the last frame is being written leaves as the next one. Sending is best effort:
the protocol above tolerates loss, so nothing is kept for a peer that is not connected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeAlias

import grpc

from kvstore.config import FRAME_BYTES, KIB, MIB
from kvstore.gossip import GossipMessage
from kvstore.node.outbox import PeerMessage
from kvstore.quorum.messages import Forward, ForwardReply, Found, Put, ReadReply, ReplicaWrite
from kvstore.ring import Member
from kvstore.server.gathering import Gathering
from kvstore.server.options import CHANNEL
from kvstore.v1.peer_pb2 import Welcome
from kvstore.wire.peer import encode_frame

NODE_METADATA = "kvstore-node"
CLUSTER_METADATA = "kvstore-cluster"
LINK_METHOD = "/kvstore.v1.Peer/Link"
BULK_METHOD = "/kvstore.v1.Peer/Bulk"

_BULK_MESSAGE = 64 * KIB
_QUEUE_BYTES = 64 * MIB
_HANDSHAKE_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

_log = logging.getLogger(__name__)

Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, Welcome]"


def message_bytes(message: PeerMessage) -> int:
    """About how many bytes a message takes in a frame."""
    match message:
        case ReplicaWrite() | ReadReply():
            return len(message.version) + 64
        case Forward(_, _, Put(value=value)):
            return len(value) + 64
        case ForwardReply(_, Found(siblings=siblings)):
            return sum(len(sibling.value) for sibling in siblings) + 64
        case _:
            return 64


class Stream:
    """One outgoing stream to one peer, made again whenever it breaks."""

    def __init__(
        self, method: str, peer: Member, metadata: list[tuple[str, str]], on_lost: Callable[[str], None]
    ) -> None:
        self._method = method
        self._peer = peer
        self._metadata = metadata
        self._on_lost = on_lost
        self._queue: list[PeerMessage] = []
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self.connected = False
        self._telling = False
        self.frames = 0
        self.messages = 0
        self.dropped = 0

    def send(self, message: PeerMessage, size: int) -> None:
        """Queue a message for the next frame; dropped when not connected or far behind."""
        if not self.connected or self._queued_bytes + size > _QUEUE_BYTES:
            self._drop(message)
            return
        self._queue.append(message)
        self._queued_bytes += size
        self._wake.set()

    def _drop(self, message: PeerMessage) -> None:
        self.dropped += 1
        # whoever waits for an answer need not wait for its patience; probes find out by themselves
        if not isinstance(message, GossipMessage) and not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        self._on_lost(self._peer.node)

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Keep the stream open until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            call: Call = channel.stream_stream(self._method, response_deserializer=Welcome.FromString)(
                metadata=self._metadata
            )
            try:
                async with asyncio.timeout(_HANDSHAKE_SECONDS):
                    await call.read()
                self.connected = True
                pause = _FIRST_PAUSE
                await self._pump(call)
            except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError) as error:
                _log.debug("stream %s to %s: %s", self._method, self._peer.node, error)
            finally:
                call.cancel()
                self._disconnected()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _disconnected(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        if self.connected:
            self.connected = False
            self._on_lost(self._peer.node)

    async def _pump(self, call: Call) -> None:
        """Write frames until the other side ends the stream or it breaks."""
        writing = asyncio.ensure_future(self._write(call))
        ended = asyncio.ensure_future(call.read())
        try:
            await asyncio.wait((writing, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, ended):
                task.cancel()
            await asyncio.gather(writing, ended, return_exceptions=True)

    async def _write(self, call: Call) -> None:
        gathering = Gathering()
        while True:
            await self._wake.wait()
            await gathering.pause()
            self._wake.clear()
            messages, self._queue, self._queued_bytes = self._queue, [], 0
            gathering.sent(len(messages))
            for batch in split(messages):
                self.frames += 1
                self.messages += len(batch)
                await call.write(encode_frame(batch))


def split(messages: list[PeerMessage]) -> list[list[PeerMessage]]:
    """Messages in batches of at most FRAME_BYTES, a larger message alone."""
    batches: list[list[PeerMessage]] = [[]]
    size = 0
    for message in messages:
        more = message_bytes(message)
        if size + more > FRAME_BYTES and batches[-1]:
            batches.append([])
            size = 0
        batches[-1].append(message)
        size += more
    return batches if messages else []


class Links:
    """The streams of one node to all others."""

    def __init__(self, me: str, cluster_id: str, members: tuple[Member, ...]) -> None:
        self._me = me
        self._metadata = [(NODE_METADATA, me), (CLUSTER_METADATA, cluster_id)]
        self._peers = [member for member in members if member.node != me]
        self._streams: dict[str, tuple[Stream, Stream]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._channels: list[grpc.aio.Channel] = []

    def open(self, on_lost: Callable[[str], None]) -> None:
        """Begin to connect; `on_lost` is called with the node whenever its connection breaks."""
        for peer in self._peers:
            streams = (
                Stream(LINK_METHOD, peer, self._metadata, on_lost),
                Stream(BULK_METHOD, peer, self._metadata, on_lost),
            )
            self._streams[peer.node] = streams
            for stream in streams:
                channel = grpc.aio.insecure_channel(peer.address, options=CHANNEL)
                self._channels.append(channel)
                self._tasks.append(asyncio.create_task(stream.run(channel)))

    def send(self, to: str, message: PeerMessage) -> None:
        """Send to a peer, best effort; bulk goes its own way so that probes do not wait behind it."""
        link, bulk = self._streams[to]
        size = message_bytes(message)
        replay = isinstance(message, ReplicaWrite) and message.replay
        (bulk if replay or size > _BULK_MESSAGE else link).send(message, size)

    def connected(self, peer: str) -> bool:
        """Whether what is sent to a peer now is sent at once."""
        return peer in self._streams and all(stream.connected for stream in self._streams[peer])

    @property
    def frames(self) -> int:
        """Frames written since the start."""
        return sum(stream.frames for pair in self._streams.values() for stream in pair)

    @property
    def messages(self) -> int:
        """Messages in these frames."""
        return sum(stream.messages for pair in self._streams.values() for stream in pair)

    async def close(self) -> None:
        """End all streams."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

"""The streams of one node to all others: one each for what is small and urgent, one for bulk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import grpc

from kvstore.node.outbox import PeerMessage
from kvstore.ring import ClusterState, Member
from kvstore.server.handshake import introduction
from kvstore.server.options import CHANNEL
from kvstore.server.stream import OnUnsent, Stream
from kvstore.wire.queue import is_bulk, message_bytes

_LINK = "/kvstore.v1.Peer/Link"
_BULK = "/kvstore.v1.Peer/Bulk"
_END_SECONDS = 3.0

_log = logging.getLogger(__name__)


class Links:
    """Sends to the other members, best effort."""

    def __init__(self, me: str, state: ClusterState) -> None:
        self._introduction = introduction(me, state)
        self._peers: Sequence[Member] = [member for member in state.members if member.node != me]
        self._streams: dict[str, tuple[Stream, Stream]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._channels: list[grpc.aio.Channel] = []

    def open(
        self, on_open: Callable[[str], None], on_lost: Callable[[str], None], on_unsent: OnUnsent
    ) -> None:
        """Begin to connect; what `on_open`, `on_lost` and `on_unsent` are told: see Stream."""
        for peer in self._peers:
            streams = (
                Stream(_LINK, peer, self._introduction, on_open, on_lost, on_unsent),
                Stream(_BULK, peer, self._introduction, on_open, on_lost, on_unsent),
            )
            self._streams[peer.node] = streams
            for stream in streams:
                channel = grpc.aio.insecure_channel(peer.address, options=CHANNEL)
                self._channels.append(channel)
                self._tasks.append(asyncio.create_task(stream.run(channel)))

    def send(self, to: str, message: PeerMessage) -> None:
        """Send to a peer; bulk goes its own way so that probes do not wait behind it."""
        link, bulk = self._streams[to]
        size = message_bytes(message)
        (bulk if is_bulk(message, size) else link).send(message, size)

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

    @property
    def dropped(self) -> int:
        """Messages that were not sent: their peer was not connected, or too far behind."""
        return sum(stream.queue.dropped for pair in self._streams.values() for stream in pair)

    @property
    def queued_bytes(self) -> int:
        """What waits to be written now, to all peers."""
        return sum(stream.queue.bytes for pair in self._streams.values() for stream in pair)

    @property
    def most_queued_bytes(self) -> int:
        """The longest that the queue of any stream was."""
        return max((stream.queue.most_bytes for pair in self._streams.values() for stream in pair), default=0)

    async def close(self) -> None:
        """End all streams; takes no longer than a few seconds."""
        for task in self._tasks:
            task.cancel()
        for channel in self._channels:
            await channel.close()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=_END_SECONDS)
            if left:
                _log.error("%d streams have not ended: %s", len(left), left)

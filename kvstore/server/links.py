"""The streams of one node to all others: one each for what is small and urgent, one for bulk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvstore.frames.turn_ends import TurnEnds
from kvstore.protocol.sizes import size_of
from kvstore.protocol.table import PeerMessage, awaited, is_bulk
from kvstore.ring import ClusterState, Member
from kvstore.server.configuration import DEFAULTS, Configuration
from kvstore.server.handshake import Metadata, introduction
from kvstore.server.stream import BULK, LINK, OnUnsent, Stream

_END_SECONDS = 3.0

_log = logging.getLogger(__name__)


class Links:
    """Sends to the other members, best effort."""

    def __init__(self, me: str, state: ClusterState, configuration: Configuration = DEFAULTS) -> None:
        self._me = me
        self._state = state
        self._configuration = configuration
        self._pairs: dict[str, _Pair] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._told: _Told | None = None

    def open(
        self,
        on_open: Callable[[str], None],
        on_lost: Callable[[str], None],
        on_unsent: OnUnsent,
        turn_ends: TurnEnds,
    ) -> None:
        """Begin to connect; what `on_open`, `on_lost` and `on_unsent` are told: see Stream."""
        self._told = _Told(on_open, on_lost, on_unsent, turn_ends)
        self.on_state(self._state)

    def on_state(self, state: ClusterState) -> None:
        """Connect to the members that are new, or at another address; leave those that are none any more."""
        self._state = state
        present, self._pairs = self._pairs, {}
        for peer in state.members:
            if peer.node != self._me:
                known = present.get(peer.node)
                if known is not None and known.address == peer.address:
                    self._pairs[peer.node] = present.pop(peer.node)
                else:
                    self._pairs[peer.node] = self._open(peer)
        for left in present.values():
            leaving = asyncio.get_running_loop().create_task(left.close())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def _open(self, peer: Member) -> _Pair:
        assert self._told is not None
        return _Pair(peer, self._introduce, self._told)

    def _introduce(self) -> Metadata:
        return introduction(self._me, self._state, self._configuration)

    def send(self, to: str, message: PeerMessage) -> None:
        """Send to a peer; bulk goes its own way so that probes do not wait behind it."""
        pair = self._pairs.get(to)
        if pair is None:  # a member no more
            number = awaited(message)
            if number is not None and self._told is not None:
                asyncio.get_running_loop().call_soon(self._told.on_unsent, to, [number])
            return
        size = size_of(message)
        (pair.bulk if is_bulk(message, size) else pair.link).send(message, size)

    def connected(self, peer: str) -> bool:
        """Whether what is sent to a peer now is sent at once."""
        return peer in self._pairs and all(stream.connected for stream in self._pairs[peer].streams)

    def heard(self, peer: str) -> None:
        """A peer has called: it is there."""
        if pair := self._pairs.get(peer):
            for stream in pair.streams:
                stream.heard()

    def tried(self, peer: str) -> bool:
        """Whether it is known if a peer can be reached."""
        return all(stream.tried for stream in self._pairs[peer].streams)

    @property
    def peers(self) -> Sequence[str]:
        """The other members."""
        return tuple(self._pairs)

    @property
    def frames(self) -> int:
        """Frames written since the start."""
        return sum(stream.frames for stream in self._all())

    @property
    def messages(self) -> int:
        """Messages in these frames."""
        return sum(stream.messages for stream in self._all())

    @property
    def dropped(self) -> int:
        """Messages that were not sent: their peer was not connected, or too far behind."""
        return sum(stream.queue.dropped for stream in self._all())

    @property
    def queued_bytes(self) -> int:
        """What waits to be written now, to all peers."""
        return sum(stream.queue.bytes for stream in self._all())

    @property
    def most_queued_bytes(self) -> int:
        """The longest that the queue of any stream was."""
        return max((stream.queue.most_bytes for stream in self._all()), default=0)

    def _all(self) -> list[Stream]:
        return [stream for pair in self._pairs.values() for stream in pair.streams]

    async def close(self) -> None:
        """End all streams; takes no longer than a few seconds."""
        await asyncio.gather(*self._leaving, *(pair.close() for pair in self._pairs.values()))


class _Told(NamedTuple):
    """Who is told of what becomes of streams, and when they send: see Stream."""

    on_open: Callable[[str], None]
    on_lost: Callable[[str], None]
    on_unsent: OnUnsent
    turn_ends: TurnEnds


class _Pair:
    """The streams to one peer."""

    def __init__(self, peer: Member, introduce: Callable[[], Metadata], told: _Told) -> None:
        self.address = peer.address
        self.link = Stream(LINK, peer, introduce, *told)
        self.bulk = Stream(BULK, peer, introduce, *told)
        self.streams = (self.link, self.bulk)
        self._tasks = [asyncio.create_task(stream.run()) for stream in self.streams]

    async def close(self) -> None:
        """End both; takes no longer than a few seconds."""
        for task in self._tasks:
            task.cancel()
        _, left = await asyncio.wait(self._tasks, timeout=_END_SECONDS)
        if left:
            _log.error("%d streams have not ended: %s", len(left), left)

"""One outgoing stream to one peer, made again whenever it breaks.

Whatever is queued while the last frame is being written leaves as the next one. Sending is best effort:
the protocol above tolerates loss, so nothing is kept for a peer that is not connected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

from google.rpc import code_pb2

from kvstore.config import MAX_REQUEST_BYTES
from kvstore.frames import dial
from kvstore.frames.gathering import AT_ONCE, Gathering
from kvstore.frames.incoming import StreamEnded, StreamLost
from kvstore.frames.stream import FrameStream
from kvstore.frames.turn_ends import TurnEnds
from kvstore.protocol.peer import ReadSame, WriteAck
from kvstore.protocol.table import PeerMessage
from kvstore.ring import Member
from kvstore.server.handshake import Metadata, Refused, check_welcome
from kvstore.wire.large_versions import in_pieces
from kvstore.wire.parts import parts_of
from kvstore.wire.peer import encode_frame
from kvstore.wire.queue import LIMITS, PeerQueue, QueueLimits

LINK = "kvstore.v1.Peer/Link"
BULK = "kvstore.v1.Peer/Bulk"

_HANDSHAKE_SECONDS = 2.0
_STARTING_SECONDS = 10.0
"""For so long it is no news that a peer cannot be reached: nodes of a cluster start one after another."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.25
"""Seconds between two attempts to connect."""

_ENDED = "the other side ended the stream"

_log = logging.getLogger(__name__)

OnUnsent: TypeAlias = Callable[[str, Sequence[int]], None]


def _messages(batch: list[PeerMessage]) -> int:
    """How many messages a batch holds; acks, or equal answers, when there are no others come many in one."""
    first = batch[0]
    return len(first.numbers) if len(batch) == 1 and isinstance(first, WriteAck | ReadSame) else len(batch)


class Stream:
    """Sends to `peer` on a stream of `method`, LINK or BULK, while it is connected.

    `introduction` gives the metadata whenever a stream is opened: the node's cluster state may have changed.
    `on_open` is called with the peer's id when messages can be sent, `on_lost` when what was sent may be
    lost, `on_unsent` with it and the numbers of the requests whose messages were dropped.
    """

    def __init__(
        self,
        method: str,
        peer: Member,
        introduction: Callable[[], Metadata],
        on_open: Callable[[str], None],
        on_lost: Callable[[str], None],
        on_unsent: OnUnsent,
        turn_ends: TurnEnds,
        limits: QueueLimits = LIMITS,
    ) -> None:
        self._method = method
        self._speaks = method == LINK
        self._peer = peer
        self._introduction = introduction
        self._on_open = on_open
        self._on_lost = on_lost
        self._on_unsent = on_unsent
        self.queue = PeerQueue(limits)
        self._gathering = Gathering(turn_ends)
        self._open: FrameStream | None = None
        self._heard = asyncio.Event()
        self.tried = False
        """Whether an attempt to open the stream has ended, well or not."""
        self._problem: tuple[str, int] | None = None
        """What was logged last, unless the stream is open."""
        self._clock = asyncio.get_running_loop().time
        self._began = 0.0
        self.frames = 0
        self.messages = 0

    @property
    def connected(self) -> bool:
        """Whether what is sent now is sent at once."""
        return self.queue.open

    def send(self, message: PeerMessage, size: int) -> None:
        """Queue a message for the next frame; dropped when not connected or far behind."""
        queue = self.queue
        if queue.put(message, size):
            self._gathering.add()
        elif len(queue.unsent) == 1:
            # in a turn of its own: whoever sends must have returned first
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        if unsent := self.queue.take_unsent():
            self._on_unsent(self._peer.node, unsent)

    def heard(self) -> None:
        """The peer is there, as it has called: if it is not connected, there is nothing to wait for."""
        if not self.connected:
            self._heard.set()

    async def run(self) -> None:
        """Keep the stream open until cancelled."""
        self._began = self._clock()
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._connect_and_send()
            except TimeoutError:
                self._note("it does not answer", self._unreached)
            except Refused as error:
                self._note(str(error), logging.WARNING)
            except StreamEnded as error:
                refused = error.status.code == code_pb2.FAILED_PRECONDITION
                self._note(str(error), logging.WARNING if refused else self._unreached)
            except StreamLost as error:
                self._note(str(error), self._unreached)
            except Exception:  # noqa: BLE001  (a defect: without the stream the peer would count as dead)
                _log.exception("defect in the stream to node %s", self._peer.node)
            if self.connected:
                pause = _FIRST_PAUSE
                self._disconnected()
            self.tried = True
            pause = _FIRST_PAUSE if await self._heard_within(pause) else min(pause * 2, _LONGEST_PAUSE)

    async def _heard_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard.wait()
        heard = self._heard.is_set()
        self._heard.clear()
        return heard

    @property
    def _unreached(self) -> int:
        """The level at which to tell that a peer cannot be reached: one of its streams speaks for both."""
        starting = not self.frames and self._clock() < self._began + _STARTING_SECONDS
        return logging.DEBUG if starting or not self._speaks else logging.INFO

    def _note(self, problem: str, level: int) -> None:
        """Log why there is no connection, once for each reason and level."""
        if (problem, level) != self._problem:
            self._problem = problem, level
            peer = self._peer
            _log.log(level, "not connected to node %s at %s: %s", peer.node, peer.address, problem)

    def _disconnected(self) -> None:
        self.queue.close()
        self._open = None
        asyncio.get_running_loop().call_soon(self._on_lost, self._peer.node)

    async def _connect_and_send(self) -> None:
        """Open the stream and work until it ends; raises the reason."""
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            stream, _ = await dial.open_answered(
                self._peer.address,
                self._method,
                MAX_REQUEST_BYTES,
                self._welcomed,
                metadata=self._introduction(),
            )
        try:
            level = logging.INFO if self._speaks else logging.DEBUG
            _log.log(level, "connected to node %s at %s", self._peer.node, self._peer.address)
            self._problem = None
            self._open = stream
            self.queue.open = self.tried = True
            self._heard.clear()
            self._on_open(self._peer.node)
            await self._work(stream)
            self._note(_ENDED, self._unreached)
        finally:
            await stream.leave()

    async def _welcomed(self, stream: FrameStream) -> None:
        """Return when the peer has answered. Raises StreamLost, StreamEnded; Refused if it is another."""
        message = await stream.read()
        if message is None:
            raise StreamLost(_ENDED)
        check_welcome(message, self._peer.node)

    async def _work(self, stream: FrameStream) -> None:
        """Write frames until the other side ends the stream or it breaks."""
        writing = asyncio.ensure_future(self._write(stream))
        ended = asyncio.ensure_future(stream.read())
        try:
            await asyncio.wait((writing, ended), return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
            await ended
        finally:
            for task in (writing, ended):
                task.cancel()
            await asyncio.gather(writing, ended, return_exceptions=True)

    async def _write(self, stream: FrameStream) -> None:
        while True:
            await self._gathering.until_due(self._write_now)
            sent = 0
            for _ in range(len(self.queue)):  # what comes meanwhile is gathered
                batch, now_ms = self._next_batch()
                sent += _messages(batch)
                try:
                    if large := in_pieces(batch, now_ms):
                        await stream.write(*large)
                    else:
                        for part in parts_of(encode_frame(batch, now_ms)):
                            await stream.write(part)
                except StreamLost:
                    return  # the stream is over: reading from it tells why
            self._gathering.sent(sent)

    def _write_now(self) -> bool:
        """Write what is queued if it is one frame, and the stream takes it at once; whether that was so."""
        stream, queue = self._open, self.queue
        if stream is None or not stream.writable or len(queue) != 1 or queue.bytes > AT_ONCE:
            return False
        batch, now_ms = self._next_batch()
        stream.write_now(encode_frame(batch, now_ms))
        self._gathering.sent(_messages(batch))
        return True

    def _next_batch(self) -> tuple[list[PeerMessage], int]:
        """What was queued for one frame, and the time that goes with it, in milliseconds."""
        batch = self.queue.take()
        self.frames += 1
        self.messages += len(batch)
        return batch, int(self._clock() * 1000)

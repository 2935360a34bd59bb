"""What other nodes call: the receiving ends of their streams."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from functools import partial
from pathlib import Path

from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from kvstore.errors import InvalidRequest, Overloaded
from kvstore.frames.incoming import Pieces, Rest, StreamEnded
from kvstore.frames.stream import FrameStream, joined
from kvstore.node.transit import Transit
from kvstore.protocol.table import PeerMessage
from kvstore.server.driver import Driver
from kvstore.server.first_ended import first_ended
from kvstore.server.frame_parts import FrameParts, PartsRoom
from kvstore.server.handshake import Refused, check_caller, welcome
from kvstore.server.links import Links
from kvstore.server.listener import Handler, metadata_of
from kvstore.server.stream import BULK, LINK
from kvstore.v1.stream_pb2 import Open
from kvstore.wire.large_versions import apart
from kvstore.wire.peer import decode_timed_frame, with_version

_STREAMS = 2
_MOST_TOLD = 1000
"""Troubles that have had their line."""

_log = logging.getLogger(__name__)


class PeerService:
    """Link and Bulk differ only in what their senders put on them.

    What comes in parts is kept in `directory` until it is whole.
    """

    def __init__(self, driver: Driver, links: Links, directory: Path | None = None) -> None:
        self._driver = driver
        self._links = links
        self._clock = asyncio.get_running_loop().time
        self._told: set[str] = set()
        self._heard: Counter[str] = Counter()
        self._closing = asyncio.Event()
        self.parts = PartsRoom(directory)

    def hears(self, peer: str) -> bool:
        """Whether both streams of a peer are open."""
        return self._heard[peer] >= _STREAMS

    def handlers(self) -> dict[str, Handler]:
        """Those of both streams."""
        return {LINK: self._receive, BULK: self._receive}

    def close(self) -> None:
        """End all streams."""
        self._closing.set()

    async def _receive(self, stream: FrameStream, opened: Open) -> None:
        node, mine = self._driver.node, self._driver.configuration
        try:
            caller = check_caller(metadata_of(opened), node.name, node.state, mine)
        except Refused as refused:
            self._log_once(f"refused a stream: {refused}")
            raise StreamEnded(Status(code=code_pb2.FAILED_PRECONDITION, message=str(refused))) from None
        if caller.differences:
            self._log_once(f"node {caller.node!r} has other settings: {caller.differences}")
        self._links.heard(caller.node)
        await stream.write(welcome(node.name, node.state))
        self._heard[caller.node] += 1
        try:
            await first_ended(self._read(caller.node, stream), self._until_closed())
        finally:
            self._heard[caller.node] -= 1

    async def _until_closed(self) -> None:
        await self._closing.wait()

    async def _read(self, sender: str, stream: FrameStream) -> None:
        transit, parts = Transit(), FrameParts(self.parts)
        try:
            await stream.each(partial(self._take, sender, transit, parts))
        finally:
            parts.drop()

    def _take(self, sender: str, transit: Transit, parts: FrameParts, data: Pieces) -> Rest:
        """Hand in a frame at once, or say what is left to do with it. Raises InvalidRequest."""
        if len(data) > 1 or parts.concern(data[0]):
            return partial(self._take_large, sender, transit, parts, data)
        try:
            return self._hand_in(sender, transit, *decode_timed_frame(data[0]))
        except InvalidRequest as error:
            self._refuse(sender, error)
            raise

    async def _take_large(self, sender: str, transit: Transit, parts: FrameParts, data: Pieces) -> None:
        """Hand in a frame, or keep a part of it. Raises InvalidRequest, Overloaded."""
        try:
            found = await _decoded(data, parts)
            if found and (rest := self._hand_in(sender, transit, *found)):
                await rest()
        except (InvalidRequest, Overloaded) as error:
            self._refuse(sender, error)
            raise

    def _hand_in(self, sender: str, transit: Transit, sent_ms: int, messages: list[PeerMessage]) -> Rest:
        delay = transit.delay(sent_ms / 1000, self._clock())
        return self._driver.receive(sender, messages, delay)

    def _refuse(self, sender: str, error: InvalidRequest | Overloaded) -> None:
        wrong = isinstance(error, InvalidRequest)
        sent = "a frame that is wrong" if wrong else "more than there is room for"
        self._log_once(f"refused a stream: node {sender!r} sent {sent}: {error}")

    def _log_once(self, trouble: str) -> None:
        """Whoever is refused comes back every second, and each of them is worth one line."""
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()  # strangers who make up names must not keep the others' lines out
        if trouble not in self._told:
            self._told.add(trouble)
            _log.warning("%s", trouble)


async def _decoded(data: Pieces, parts: FrameParts) -> tuple[int, list[PeerMessage]] | None:
    """When a frame was sent, and its messages; None for a part of one. Raises InvalidRequest, Overloaded."""
    if large := apart(data):
        if parts.concern(large.rest):
            await parts.add(large.rest)  # raises: it may not come among parts
        sent_ms, messages = decode_timed_frame(large.rest)
        if len(messages) == 1:
            return sent_ms, with_version(messages[0], await joined(large.value))
    frame = await joined(data)
    if parts.concern(frame):
        frame = await parts.add(frame)
    return decode_timed_frame(frame) if frame else None

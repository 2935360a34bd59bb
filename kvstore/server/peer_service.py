"""What other nodes call: the receiving ends of their streams."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from kvstore.errors import InvalidRequest, Overloaded
from kvstore.node.transit import Transit
from kvstore.server.driver import Driver
from kvstore.server.frame_parts import FrameParts, PartsRoom
from kvstore.server.handshake import Refused, check_caller
from kvstore.server.links import Links
from kvstore.v1.peer_pb2 import DESCRIPTOR, Welcome
from kvstore.wire.peer import decode_timed_frame

SERVICE = DESCRIPTOR.services_by_name["Peer"].full_name

_STREAMS = 2

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, Welcome]"

_log = logging.getLogger(__name__)


class PeerService:
    """Link and Bulk differ only in what their senders put on them.

    What comes in parts is kept in `directory` until it is whole.
    """

    def __init__(self, driver: Driver, links: Links, directory: Path | None = None) -> None:
        self._driver = driver
        self._links = links
        self._told: set[str] = set()
        self._heard: Counter[str] = Counter()
        self._closing = asyncio.Event()
        self.parts = PartsRoom(directory)

    def hears(self, peer: str) -> bool:
        """Whether both streams of a peer are open."""
        return self._heard[peer] >= _STREAMS

    def handler(self) -> grpc.GenericRpcHandler:
        """The handlers of both streams; frames stay bytes, the codec reads them."""
        stream: Any = grpc.stream_stream_rpc_method_handler(
            self._receive, response_serializer=Welcome.SerializeToString
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Link": stream, "Bulk": stream})

    def close(self) -> None:
        """End all streams."""
        self._closing.set()

    async def _receive(self, frames: AsyncIterator[bytes], context: Context) -> None:
        node, mine = self._driver.node, self._driver.configuration
        try:
            caller = check_caller(context.invocation_metadata() or (), node.name, node.state, mine)
        except Refused as refused:
            self._log_once(f"refused a stream: {refused}")
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refused))
        if caller.differences:
            self._log_once(f"node {caller.node!r} has other settings: {caller.differences}")
        self._links.heard(caller.node)
        await context.write(Welcome(node=node.name, cluster_id=node.state.cluster_id))
        self._heard[caller.node] += 1
        reading = asyncio.ensure_future(self._read(caller.node, frames, context))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((reading, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            closing.cancel()
            result, _ = await asyncio.gather(reading, closing, return_exceptions=True)
            self._heard[caller.node] -= 1
        if isinstance(result, Exception):
            raise result

    async def _read(self, sender: str, frames: AsyncIterator[bytes], context: Context) -> None:
        transit, parts = Transit(), FrameParts(self.parts)
        try:
            async for data in frames:
                if refusal := await self._take(sender, data, parts, transit):
                    del data  # gRPC keeps what `abort` raises, and with it what this frame of the stack holds
                    await context.abort(*refusal)
        finally:
            parts.drop()

    async def _take(
        self, sender: str, data: bytes, parts: FrameParts, transit: Transit
    ) -> tuple[grpc.StatusCode, str] | None:
        """Hand in a frame, or keep a part of it; how the stream has to end if that cannot be done."""
        try:
            if frame := await parts.add(data):
                sent_ms, messages = decode_timed_frame(frame)
                delay = transit.delay(sent_ms / 1000, asyncio.get_running_loop().time())
                await self._driver.receive(sender, messages, delay)
        except InvalidRequest as error:
            self._log_once(f"refused a stream: node {sender!r} sent a frame that is wrong: {error}")
            return grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except Overloaded as error:
            self._log_once(f"refused a stream: node {sender!r} sent more than there is room for: {error}")
            return grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
        return None

    def _log_once(self, trouble: str) -> None:
        """Whoever is refused comes back every second, and each of them is worth one line."""
        if trouble not in self._told and len(self._told) < 1000:
            self._told.add(trouble)
            _log.warning("%s", trouble)

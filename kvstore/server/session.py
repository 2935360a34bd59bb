"""One client's Session: calls come in frames, replies leave in frames, in whatever order they are ready."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, TypeAlias

import grpc

from kvstore.config import FRAME_BYTES, MIB
from kvstore.errors import InvalidRequest
from kvstore.quorum.messages import ClientRequest, Delete, Failed, Reply
from kvstore.server.driver import Driver, Respond
from kvstore.server.gathering import Gathering
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.client import call_from_wire, fill_reply, reply_bytes

_MOST_CALLS = 4096
_MOST_BYTES = 64 * MIB
"""Unanswered calls of one session, and their bytes, beyond which no more of it are read."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Session:
    """Calls under way, and replies that wait for the next frame."""

    def __init__(self, driver: Driver, context: Context) -> None:
        self._driver = driver
        self._context = context
        self._frames: list[pb.SessionResponse] = []
        self._frame_bytes = FRAME_BYTES
        self._open = 0
        self._open_bytes = self._answered_bytes = 0.0
        self._wake = asyncio.Event()
        self._written = asyncio.Event()

    def take(self, request: pb.SessionRequest, size: int) -> None:
        """Start all calls of a frame of `size` bytes."""
        if not request.calls:
            return
        self._open += len(request.calls)
        self._open_bytes += size
        share = size / len(request.calls)
        calls: list[tuple[ClientRequest, Respond]] = []
        for call in request.calls:
            try:
                parsed = call_from_wire(call)
            except InvalidRequest as error:
                self._answer(call.id, share, False, Failed(error))
            else:
                calls.append((parsed, partial(self._answer, call.id, share, type(parsed) is Delete)))
        self._driver.request_all(calls)

    def _answer(self, number: int, share: float, deleted: bool, reply: Reply) -> None:
        size = reply_bytes(reply)
        if self._frame_bytes + size > FRAME_BYTES:
            self._frames.append(pb.SessionResponse())
            self._frame_bytes = 0
        self._frame_bytes += size
        fill_reply(self._frames[-1].results.add(id=number), reply, deleted)
        self._answered_bytes += share
        self._wake.set()

    async def write(self) -> None:
        """Write whatever has been answered, in as few frames as make sense, until cancelled."""
        gathering = Gathering()
        while True:
            await self._wake.wait()
            await gathering.pause()
            self._wake.clear()
            frames, self._frames, self._frame_bytes = self._frames, [], FRAME_BYTES
            answered, self._answered_bytes = self._answered_bytes, 0.0
            count = sum(len(frame.results) for frame in frames)
            gathering.sent(count)
            for frame in frames:
                await self._context.write(frame.SerializeToString())
            self._open -= count
            self._open_bytes -= answered
            self._written.set()

    async def until_there_is_room(self) -> None:
        """Wait until the next frame may be read."""
        while self._open > _MOST_CALLS or self._open_bytes > _MOST_BYTES:
            await self._until_written()

    async def until_answered(self) -> None:
        """Wait until all calls have been answered."""
        while self._open:
            await self._until_written()

    async def _until_written(self) -> None:
        self._written.clear()
        await self._written.wait()

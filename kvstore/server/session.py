"""One client's Session: calls come in frames, replies leave in frames, in whatever order they are ready."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, TypeAlias

import grpc

from kvstore.config import MIB
from kvstore.errors import InvalidRequest
from kvstore.quorum.messages import ClientRequest, Delete, Failed, Reply
from kvstore.server.batches import Batches
from kvstore.server.driver import Driver, Respond
from kvstore.server.gathering import Gathering
from kvstore.wire.client import call_from_wire, reply_bytes
from kvstore.wire.session import Answer, Form, decode_calls, encode_replies

_MOST_CALLS = 4096
_MOST_BYTES = 64 * MIB
"""Unanswered calls of one session, and their bytes, beyond which no more of it are read."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Session:
    """Calls under way, and replies that wait for the next frame."""

    def __init__(self, driver: Driver, context: Context) -> None:
        self._driver = driver
        self._context = context
        self._answers: Batches[Answer] = Batches()
        self._open = 0
        self._open_bytes = self._answered_bytes = 0.0
        self._wake = asyncio.Event()
        self._written = asyncio.Event()

    def take(self, frame: bytes) -> int:
        """Start all calls of a frame; returns how many. Raises InvalidRequest when it is none."""
        calls, plain_puts = decode_calls(frame)
        count = len(calls) + len(plain_puts)
        if not count:
            return 0
        self._open += count
        self._open_bytes += len(frame)
        share = len(frame) / count
        answer, plain_put = self._answer, Form.PLAIN_PUT
        requests: list[tuple[ClientRequest, Respond]] = [
            (put, partial(answer, number, plain_put, share)) for number, put in plain_puts
        ]
        for call in calls:
            try:
                request = call_from_wire(call)
            except InvalidRequest as error:
                answer(call.id, Form.CALL, share, Failed(error))
            else:
                form = Form.DELETE if isinstance(request, Delete) else Form.CALL
                requests.append((request, partial(answer, call.id, form, share)))
        self._driver.request_all(requests)
        return count

    def _answer(self, number: int, form: Form, share: float, reply: Reply) -> None:
        self._answers.add((number, reply, form), reply_bytes(reply))
        self._answered_bytes += share
        self._wake.set()

    async def write(self) -> None:
        """Write whatever has been answered, in as few frames as make sense, until cancelled."""
        gathering = Gathering()
        while True:
            await self._wake.wait()
            await gathering.pause()
            self._wake.clear()
            frames = self._answers.take()
            answered, self._answered_bytes = self._answered_bytes, 0.0
            count = sum(map(len, frames))
            gathering.sent(count)
            for frame in frames:
                await self._context.write(encode_replies(frame))
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

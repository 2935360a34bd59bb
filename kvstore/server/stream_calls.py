"""The services of a node for clients that speak by streams: one connection for each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from kvstore.errors import InvalidRequest
from kvstore.frames.stream import FrameStream
from kvstore.server.calls import Answer, Service, Session
from kvstore.server.listener import Handler
from kvstore.v1.stream_pb2 import Open


def handlers(services: Iterable[Service]) -> dict[str, Handler]:
    """Those of all methods of these services."""
    found: dict[str, Handler] = {}
    for service in services:
        found |= {f"{service.name}/{name}": _unary(answer) for name, answer in service.unary.items()}
        found |= {f"{service.name}/{name}": _session(serve) for name, serve in service.sessions.items()}
    return found


class _Call:
    """See Call."""

    def __init__(self, stream: FrameStream, opened: Open) -> None:
        self._stream = stream
        self.peer = stream.peer
        now = asyncio.get_running_loop().time()
        self.deadline = now + opened.timeout_ms / 1000 if opened.timeout_ms else float("inf")

    def when_over(self, act: Callable[[], object]) -> None:
        """See Call: a client leaves when it has the answer."""
        self._stream.when_lost(act)


def _unary(answer: Answer) -> Handler:
    async def handle(stream: FrameStream, opened: Open) -> None:
        call = _Call(stream, opened)
        request = await stream.read()
        if request is None:
            raise InvalidRequest("request", "is missing")
        await stream.write(await answer(request, call))

    return handle


def _session(serve: Session) -> Handler:
    async def handle(stream: FrameStream, _opened: Open) -> None:
        await serve(stream, True)

    return handle

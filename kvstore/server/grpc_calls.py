"""The services of a node for clients that speak gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
from grpc_status import rpc_status

from kvstore.errors import KVError
from kvstore.frames.incoming import Take
from kvstore.server.calls import Answer, Service, Session
from kvstore.wire.errors import error_to_status

_QUIET, _LONGEST_WAIT = 0.25, 5.0
"""A stream that is refused ends when its client has written nothing for so long, and at the latest then."""

T = TypeVar("T")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def handlers(service: Service) -> grpc.GenericRpcHandler:
    """Those of all methods of a service."""
    methods: dict[str, Any] = {name: _unary(answer) for name, answer in service.unary.items()}
    methods |= {name: _session(serve) for name, serve in service.sessions.items()}
    return grpc.method_handlers_generic_handler(service.name, methods)


class _Call:
    """See Call."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.peer = context.peer()
        remaining: float | None = context.time_remaining()  # None without a deadline, whatever its stub says
        now = asyncio.get_running_loop().time()
        self.deadline = float("inf") if remaining is None else now + remaining

    def when_over(self, act: Callable[[], object]) -> None:
        """See Call."""
        callback: Any = lambda _context: act()  # noqa: E731  (gRPC's stub has a wrong type)
        self._context.add_done_callback(callback)


class _Messages:
    """See Messages."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.peer = context.peer()

    async def each(self, take: Take) -> None:
        """See Messages."""
        read: Callable[[], Awaitable[Any]] = self._context.read
        while (message := await read()) is not grpc.aio.EOF:
            if (rest := take((message,))) is not None:
                await rest()

    @property
    def writable(self) -> bool:
        """See Messages: gRPC has no way that needs no waiting."""
        return False

    def write_now(self, message: bytes) -> None:
        """See Messages."""
        raise AssertionError("they are never writable")

    async def write(self, message: bytes) -> None:
        """See Messages."""
        await self._context.write(message)


def _unary(answer: Answer) -> Any:
    async def handle(data: bytes, context: Context) -> bytes:
        reply = await _or_error(answer(data, _Call(context)))
        if isinstance(reply, KVError):
            # gRPC keeps the exception that `abort` raises, in a circle with the frames it has passed: what
            # these hold would stay until garbage is collected, and that is seldom
            del data
            await _abort(context, reply)
        return reply

    # requests stay bytes: of those that cannot be read, gRPC's own deserializing would log tracebacks
    return grpc.unary_unary_rpc_method_handler(handle, response_serializer=bytes)


def _session(serve: Session) -> Any:
    async def handle(_requests: object, context: Context) -> None:
        refusal = await _or_error(serve(_Messages(context), False))
        if refusal is not None:
            await _until_quiet(context)
            await _abort(context, refusal)

    return grpc.stream_stream_rpc_method_handler(handle)


async def _or_error(result: Awaitable[T]) -> T | KVError:
    try:
        return await result
    except KVError as error:
        return error.with_traceback(None)


async def _until_quiet(context: Context) -> None:
    """Take what a client is writing, for a moment.

    gRPC's Python client takes the end of a stream on which it writes for INTERNAL, whatever the status is.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_WAIT):
            while True:
                async with asyncio.timeout(_QUIET):
                    if await context.read() is grpc.aio.EOF:
                        return


async def _abort(context: Context, error: KVError) -> NoReturn:
    """End a call with the status and details of a typed error."""
    await context.abort_with_status(rpc_status.to_status(error_to_status(error)))
    raise AssertionError("abort_with_status raises")

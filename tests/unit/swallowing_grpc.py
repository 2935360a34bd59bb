"""A call as gRPC's are at times: it takes the cancellation of who waits in it for the end of the call."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc


class Call:
    """Its peer says `answers`, then nothing."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    def __call__(self, **_: object) -> Call:
        return self

    async def read(self) -> object:
        if self._answers:
            return self._answers.pop(0)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())

    async def write(self, _frame: bytes) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    def cancel(self) -> None:
        pass


class Channel:
    """Each of its calls is such a one."""

    def __init__(self, *answers: object) -> None:
        self._answers = answers

    def stream_stream(self, _method: str, **_: object) -> Call:
        return Call(*self._answers)

    async def close(self) -> None:
        pass

"""Channels to services in the same loop, whose calls fail as gRPC's do, at whichever await is chosen.

Clients and services are the real ones; only what carries their messages is not. A call behaves as those of
grpc.aio: it is over for both sides at once, its handler is cancelled, and reading from it tells why.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

import grpc

RUBBISH = b"\xff\xff\xff"
LATE_SECONDS = 7.0
"""Longer than anybody waits."""
_LATENCY = 0.001
_KEEPALIVE = 15.0
"""Seconds after which a connection that carries nothing any more is over."""


class Fault(Enum):
    """What an await of a call meets."""

    BREAK = "breaks as it begins"
    BREAK_AT_END = "breaks as it would end: what was written has arrived, what was read is lost"
    CANCEL = "the call is cancelled, and not who awaits"
    END = "the other side ends the call without an error"
    HANG = "nothing of this call arrives any more, and no await of it ends"
    STUCK = "does not end while the call lasts; all else arrives, as when the other side does not read"
    SWALLOW = "hangs, and takes the cancellation of who awaits for the end of the call"
    LATE = "the message arrives late"
    TWICE = "the message arrives twice"
    GARBLED = "the message cannot be decoded"


@dataclass
class Plan:
    """The await numbered `at` (from 0) of those on one side of the calls of `method` meets `fault`.

    Calls to the address `spared` do not count.
    """

    method: str
    side: str
    fault: Fault
    at: int
    armed: bool = False
    spared: str = ""
    awaits: int = 0

    def meets(self, call: MemoryCall, side: str) -> Fault | None:
        if not self.armed or call.address == self.spared:
            return None
        if call.method.rpartition("/")[2] != self.method or side != self.side:
            return None
        self.awaits += 1
        return self.fault if self.awaits == self.at + 1 else None

    @property
    def reached(self) -> bool:
        return self.awaits > self.at


class Network:
    """Servers by their addresses."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.hops = 0
        """Steps of the loop that a message takes, and no time. 0: it takes time, and what needs no network
        overtakes it."""
        self.down: set[str] = set()
        self.calls: set[MemoryCall] = set()
        self.channels: set[MemoryChannel] = set()
        """Those that have not been closed."""
        self.written: list[tuple[str, bytes]] = []
        """The method and bytes of each message that a client has begun to write."""
        self._handlers: dict[str, Sequence[grpc.GenericRpcHandler]] = {}

    async def travel(self) -> None:
        """Wait as long as a message takes."""
        if not self.hops:
            await asyncio.sleep(_LATENCY)
        for _ in range(self.hops):
            await asyncio.sleep(0)

    def serve(self, address: str, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._handlers[address] = handlers

    def channel(self, address: str, options: object = None) -> MemoryChannel:
        opened = MemoryChannel(self, address)
        self.channels.add(opened)
        return opened

    def meets(self, call: MemoryCall, side: str) -> Fault | None:
        return self.plan.meets(call, side) if self.plan else None

    def handler(self, address: str, details: Any) -> Any:
        if address in self.down:
            return None
        found = (each.service(details) for each in self._handlers.get(address, ()))
        return next((handler for handler in found if handler is not None), None)

    def cut(self, address: str) -> None:
        """The node at `address` goes down."""
        self.down.add(address)
        for call in [call for call in self.calls if call.address == address]:
            call.end(broken("cut"))


def broken(details: str = "broken by the test", code: Any = grpc.StatusCode.UNAVAILABLE) -> Any:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


@dataclass
class _Details:
    method: str
    invocation_metadata: Any


class MemoryCall:
    """One call: two queues, and how it ended. Client and handler each see it through an end of their own."""

    def __init__(
        self, network: Network, address: str, method: str, metadata: Any, until: float | None
    ) -> None:
        self.network, self.address, self.method = network, address, method
        self.metadata = metadata or ()
        self.until = until
        self.arrived: dict[str, deque[Any]] = {"client": deque(), "server": deque()}
        self.status: Any = None
        """None while it goes on, "OK", "cancelled" or an AioRpcError."""
        self.hung = self.half_closed = False
        self._waiters: set[asyncio.Future[None]] = set()
        self.when_over: list[Callable[[Any], None]] = []
        self._handling: asyncio.Task[None] | None = None
        network.calls.add(self)
        handler = network.handler(address, _Details(method, self.metadata))
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(until, self._expire) if until is not None else None
        if handler is None:
            loop.call_soon(self.end, broken("nobody is there"))
        else:
            self._handling = loop.create_task(self._handle(handler))

    def _expire(self) -> None:
        self.hung = False
        self.end(broken("Deadline Exceeded", grpc.StatusCode.DEADLINE_EXCEEDED))

    def hang(self) -> None:
        """Until the keepalive of its channel notices."""
        self.hung = True
        self._timer = self._timer or asyncio.get_running_loop().call_later(_KEEPALIVE, self._expire)

    def end(self, status: Any) -> None:
        """It is over for both sides, unless it is already."""
        if self.status is None:
            self.status = status
            self.network.calls.discard(self)
            if self._timer:
                self._timer.cancel()
            if self._handling is not None and self._handling is not asyncio.current_task():
                self._handling.cancel()
            for act in self.when_over:
                act(None)
            self.changed()

    def changed(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until_true(self, condition: Callable[[], object]) -> None:
        while self.hung or not condition():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    async def pass_time(self, seconds: float) -> None:
        """Wait, but not after the end."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        timer = loop.call_at(until, self.changed)
        try:
            await self.until_true(lambda: self.status is not None or loop.time() >= until)
        finally:
            timer.cancel()

    def deliver(self, to: str, message: Any) -> None:
        if self.status is None:
            self.arrived[to].append(message)
            self.changed()

    async def _handle(self, handler: Any) -> None:
        context = ServerEnd(self)
        try:
            if handler.stream_stream:
                await handler.stream_stream(context.requests(), context)
            else:
                request = await context.read()
                if handler.request_deserializer:  # else the method is given the bytes
                    request = handler.request_deserializer(request)
                await context.write(handler.response_serializer(await handler.unary_unary(request, context)))
        except grpc.aio.AbortError:
            self.end(context.aborted)
        except Exception as error:  # noqa: BLE001  (as gRPC does)
            self.end(broken(repr(error), grpc.StatusCode.UNKNOWN))
        else:
            await self.until_true(lambda: True)
            self.finish()

    def finish(self) -> None:
        """The handler has returned: what it has written still arrives."""
        if self.status is None:
            self.half_closed = True
            self.changed()


class _End:
    """What client and handler do alike."""

    side = other = ""

    def __init__(self, call: MemoryCall) -> None:
        self._call = call

    def over(self) -> bool:
        call = self._call
        return call.status is not None or (call.half_closed and not call.arrived[self.side])

    async def send(self, message: Any) -> None:
        call = self._call
        fault = call.network.meets(call, self.side)
        await self._meet(fault)
        await call.network.travel()
        await call.until_true(lambda: True)
        if call.status is not None:
            return
        if fault is Fault.GARBLED:
            message = RUBBISH
        if fault is Fault.LATE:
            await call.pass_time(LATE_SECONDS)
        call.deliver(self.other, message)
        if fault is Fault.TWICE and self._may_repeat(self.other):
            call.deliver(self.other, message)
        if fault is Fault.BREAK_AT_END:
            await asyncio.sleep(_LATENCY / 2)  # time for the other side to act on it
            call.end(broken())

    async def receive(self) -> Any:
        """The next message; EOF when it is over."""
        call = self._call
        fault = call.network.meets(call, self.side)
        await self._meet(fault)
        arrived = call.arrived[self.side]
        await call.until_true(lambda: arrived or self.over())
        if fault is Fault.BREAK_AT_END and arrived:
            arrived.popleft()
            call.end(broken())
        if not arrived or call.status is not None:
            if call.status is None:
                call.end("OK")
            return grpc.aio.EOF
        if fault is Fault.LATE:
            await call.pass_time(LATE_SECONDS)
            if call.status is not None:
                return grpc.aio.EOF
        message = arrived.popleft()
        if fault is Fault.TWICE and self._may_repeat(self.side):
            arrived.appendleft(message)
        return RUBBISH if fault is Fault.GARBLED else message

    def _may_repeat(self, to: str) -> bool:
        """Nodes bear repeated messages of each other; a client's request must not be one."""
        return to == "client" or self._call.method.startswith("/kvstore.v1.Peer/")

    async def _meet(self, fault: Fault | None) -> None:
        call = self._call
        if fault is Fault.BREAK:
            call.end(broken())
        elif fault is Fault.CANCEL:
            call.end("cancelled")
        elif fault is Fault.END:
            call.end("OK")
        elif fault is Fault.HANG:
            call.hang()
        elif fault is Fault.STUCK:
            await call.until_true(lambda: call.status is not None)
        elif fault is Fault.SWALLOW:
            call.hang()
            try:
                await call.until_true(lambda: call.status is not None)
            except asyncio.CancelledError:
                call.hung = False
                call.end(broken("cancelled, and taken for this"))


class ClientEnd(_End):
    """What grpc.aio gives to who calls a stream."""

    side, other = "client", "server"

    def __init__(self, call: MemoryCall, parse: Callable[[bytes], Any] | None) -> None:
        super().__init__(call)
        self._parse = parse or (lambda data: data)

    async def read(self) -> Any:
        call = self._call
        try:
            data: Any = await self.receive() if call.status is None else grpc.aio.EOF
        except asyncio.CancelledError:
            self.cancel()
            raise
        if data is grpc.aio.EOF:
            self._raise_for_status()
            return data
        try:
            return self._parse(data)
        except Exception:  # noqa: BLE001  (gRPC logs it, and gives nothing)
            return None

    async def write(self, data: bytes) -> None:
        call = self._call
        if call.status is not None:
            raise asyncio.InvalidStateError("RPC already finished.")
        call.network.written.append((call.method.rpartition("/")[2], data))
        try:
            await self.send(data)
        except asyncio.CancelledError:
            self.cancel()
            raise
        if call.status is not None:
            self._raise_for_status()

    def cancel(self) -> bool:
        self._call.hung = False
        self._call.end("cancelled")
        return True

    def _raise_for_status(self) -> None:
        status = self._call.status
        if status == "cancelled":
            raise asyncio.CancelledError
        if isinstance(status, grpc.aio.AioRpcError):
            raise status


class ServerEnd(_End):
    """What grpc.aio gives to a handler."""

    side, other = "server", "client"
    aborted: Any = None

    def invocation_metadata(self) -> Any:
        return self._call.metadata

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._call.when_over.append(callback)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        until = self._call.until
        return None if until is None else until - asyncio.get_running_loop().time()

    async def read(self) -> Any:
        return await self.receive()

    async def write(self, message: Any) -> None:
        await self.send(message if isinstance(message, bytes) else message.SerializeToString())
        if self._call.status is not None:
            raise grpc.aio.UsageError("RPC already finished.")

    async def requests(self) -> AsyncIterator[bytes]:
        while (message := await self.receive()) is not grpc.aio.EOF:
            yield message

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> None:
        metadata = grpc.aio.Metadata(*trailing_metadata)
        self.aborted = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details)
        raise grpc.aio.AbortError

    async def abort_with_status(self, status: Any) -> None:
        await self.abort(status.code, status.details, status.trailing_metadata)


class MemoryChannel:
    """A channel to `address`; closing it cancels its calls."""

    def __init__(self, network: Network, address: str) -> None:
        self._network = network
        self._address = address
        self._calls: list[MemoryCall] = []
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._closed = True
        self._network.channels.discard(self)
        for call in self._calls:
            call.hung = False
            call.end("cancelled")

    def _begin(self, method: str, metadata: Any = None, timeout: float | None = None) -> MemoryCall:
        if self._closed:
            raise grpc.aio.UsageError("Channel is closed.")
        until = None if timeout is None else asyncio.get_running_loop().time() + timeout
        call = MemoryCall(self._network, self._address, method, metadata, until)
        self._calls = [each for each in self._calls if each.status is None] + [call]
        return call

    def stream_stream(
        self, method: str, response_deserializer: Callable[[bytes], Any] | None = None
    ) -> Callable[..., ClientEnd]:
        return lambda metadata=None: ClientEnd(self._begin(method, metadata), response_deserializer)

    def unary_unary(
        self, method: str, request_serializer: Any, response_deserializer: Any
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def invoke(request: Any, timeout: float | None = None) -> Any:
            end = ClientEnd(self._begin(method, timeout=timeout), response_deserializer)
            with suppress(asyncio.InvalidStateError):
                await end.write(request_serializer(request))
            answer = await end.read()
            if answer is grpc.aio.EOF:
                raise broken("no message", grpc.StatusCode.INTERNAL)
            end._call.end("OK")
            return answer

        return invoke

"""`make bench-transports`: what a frame costs on the ways that frames could take between two processes.

One process sends frames, the other answers each with a frame of 16 bytes, as nodes acknowledge what they
were sent. Each way is measured with one frame under way at a time, which shows its latency, and with 32,
which shows what a frame costs under load; CPU is user and system time of both processes, threads included.
"""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
import os
import socket
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, cast

import click
import grpc

_ANSWER = bytes(16)
_LENGTH = 4
_METHOD = "/bench.Frames/Exchange"
_HOST = "127.0.0.1"

Loops = Callable[[], asyncio.AbstractEventLoop]


class Sender(ABC):
    """The end that sends frames."""

    @abstractmethod
    async def send(self, frame: bytes) -> None:
        """Send one frame; waits when too much is on its way."""

    @abstractmethod
    async def answer(self) -> None:
        """Wait for the next answer."""


class Transport(ABC):
    """One way for frames."""

    @abstractmethod
    async def serve(self) -> int:
        """Answer frames from now on; returns the port."""

    @abstractmethod
    async def stop(self) -> None:
        """Answer no more."""

    @abstractmethod
    def connect(self, port: int) -> AbstractAsyncContextManager[Sender]:
        """Connect, and give the end that sends."""


# gRPC, as nodes use it now


class _GrpcSender(Sender):
    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._call = call

    async def send(self, frame: bytes) -> None:
        await self._call.write(frame)

    async def answer(self) -> None:
        await self._call.read()


class Grpc(Transport):
    """A stream of grpc.aio."""

    async def serve(self) -> int:
        async def exchange(
            frames: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
        ) -> None:
            async for _ in frames:
                await context.write(_ANSWER)

        self._server = grpc.aio.server()
        handler: Any = grpc.stream_stream_rpc_method_handler(exchange)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("bench.Frames", {"Exchange": handler}),)
        )
        port = self._server.add_insecure_port(f"{_HOST}:0")
        await self._server.start()
        return port

    async def stop(self) -> None:
        await self._server.stop(0)

    @asynccontextmanager
    async def connect(self, port: int) -> AsyncIterator[Sender]:
        async with grpc.aio.insecure_channel(f"{_HOST}:{port}") as channel:
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(_METHOD)()
            yield _GrpcSender(call)
            call.cancel()


# gRPC in Python, by grpclib on h2


class _Bytes:
    """A codec of grpclib that leaves frames as they are."""

    __content_subtype__ = "bytes"

    def encode(self, message: bytes, message_type: type) -> bytes:
        return message

    def decode(self, data: bytes, message_type: type) -> bytes:
        return data


class _GrpclibSender(Sender):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def send(self, frame: bytes) -> None:
        await self._stream.send_message(frame)

    async def answer(self) -> None:
        await self._stream.recv_message()


class Grpclib(Transport):
    """A stream of grpclib, which has no types."""

    def __mapping__(self) -> dict[str, Any]:
        async def exchange(stream: Any) -> None:
            async for _ in stream:
                await stream.send_message(_ANSWER)

        const: Any = importlib.import_module("grpclib.const")
        return {_METHOD: const.Handler(exchange, const.Cardinality.STREAM_STREAM, bytes, bytes)}

    async def serve(self) -> int:
        self._server: Any = importlib.import_module("grpclib.server").Server([self], codec=_Bytes())
        with socket.create_server((_HOST, 0)) as free:
            port: int = free.getsockname()[1]
        await self._server.start(_HOST, port)
        return port

    async def stop(self) -> None:
        self._server.close()

    @asynccontextmanager
    async def connect(self, port: int) -> AsyncIterator[Sender]:
        client: Any = importlib.import_module("grpclib.client")
        cardinality: Any = importlib.import_module("grpclib.const").Cardinality.STREAM_STREAM
        channel = client.Channel(_HOST, port, codec=_Bytes())
        async with channel.request(_METHOD, cardinality, bytes, bytes) as stream:
            yield _GrpclibSender(stream)
            await stream.cancel()
        channel.close()


# frames with their length in front, on a plain connection


class _Frames(asyncio.Protocol):
    """Cuts what arrives into frames."""

    def __init__(self, on_frame: Callable[[asyncio.Transport, bytes], None]) -> None:
        self._on_frame = on_frame
        self._data = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        buffer = self._data
        buffer += data
        at = 0
        while len(buffer) - at >= _LENGTH:
            end = at + _LENGTH + int.from_bytes(buffer[at : at + _LENGTH], "big")
            if len(buffer) < end:
                break
            self._on_frame(self.transport, bytes(memoryview(buffer)[at + _LENGTH : end]))
            at = end
        del buffer[:at]

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def write(self, frame: bytes) -> None:
        self.transport.writelines((len(frame).to_bytes(_LENGTH, "big"), frame))
        if not self._writable.is_set():
            await self._writable.wait()


class _PlainSender(Sender):
    def __init__(self) -> None:
        self._answered = asyncio.Semaphore(0)
        self.frames = _Frames(lambda _, __: self._answered.release())

    async def send(self, frame: bytes) -> None:
        await self.frames.write(frame)

    async def answer(self) -> None:
        await self._answered.acquire()


class Plain(Transport):
    """Frames with their length in front on a connection of asyncio's."""

    async def serve(self) -> int:
        answer = len(_ANSWER).to_bytes(_LENGTH, "big") + _ANSWER
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Frames(lambda transport, _: transport.write(answer)), _HOST, 0
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self._server.close()

    @asynccontextmanager
    async def connect(self, port: int) -> AsyncIterator[Sender]:
        sender = _PlainSender()
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: sender.frames, _HOST, port)
        yield sender
        transport.close()


# measuring


@dataclass(frozen=True, slots=True)
class Measured:
    """Microseconds: of CPU for each frame, and the median from a frame to its answer."""

    cpu: float
    p50: float


def _serve(transport: Transport, loops: Loops, pipe: Connection) -> None:
    async def serve() -> None:
        pipe.send(await transport.serve())
        loop = asyncio.get_running_loop()
        while True:  # each question is answered with the CPU that was used
            if await loop.run_in_executor(None, pipe.recv) is None:
                await transport.stop()
                return
            pipe.send(_cpu())

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(serve())


def _cpu() -> float:
    return sum(os.times()[:2])


async def _measure(
    transport: Transport, port: int, pipe: Connection, size: int, under_way: int, seconds: float
) -> Measured:
    frame = bytes(size)
    latencies: list[float] = []
    clock = time.perf_counter
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(transport.connect(port))
        sent: list[float] = []

        async def exchange(until: float) -> None:
            while clock() < until:
                while len(sent) < under_way:
                    sent.append(clock())
                    await sender.send(frame)
                await sender.answer()
                latencies.append(clock() - sent.pop(0))

        await exchange(clock() + seconds / 4)
        latencies.clear()
        pipe.send(True)
        before = _cpu() + pipe.recv()
        await exchange(clock() + seconds)
        pipe.send(True)
        used = _cpu() + pipe.recv() - before
        while sent:
            await sender.answer()
            sent.pop(0)
    return Measured(used / len(latencies) * 1e6, statistics.median(latencies) * 1e6)


def _run(transport: Transport, loops: Loops, size: int, under_way: int, seconds: float) -> Measured:
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    server = spawn.Process(target=_serve, args=(transport, loops, theirs))
    server.start()
    try:
        port: int = mine.recv()
        with asyncio.Runner(loop_factory=loops) as runner:
            measured = runner.run(_measure(transport, port, mine, size, under_way, seconds))
        mine.send(None)
        return measured
    finally:
        server.join(5)
        server.kill()


def _ways() -> dict[str, tuple[Transport, Loops]]:
    ways: dict[str, tuple[Transport, Loops]] = {
        "grpc.aio": (Grpc(), asyncio.new_event_loop),
        "plain frames": (Plain(), asyncio.new_event_loop),
    }
    if importlib.util.find_spec("grpclib"):
        ways["grpclib"] = (Grpclib(), asyncio.new_event_loop)
    if importlib.util.find_spec("uvloop"):
        loops: Loops = importlib.import_module("uvloop").new_event_loop
        ways["grpc.aio, uvloop"] = (Grpc(), loops)
        ways["plain frames, uvloop"] = (Plain(), loops)
    return ways


@click.command()
@click.option("--seconds", default=1.0, show_default=True, help="For each measurement.")
@click.option("--rounds", default=3, show_default=True, help="All ways in turn, so many times.")
def main(seconds: float, rounds: int) -> None:
    """Print a line for each way, size of frames and number under way: medians, and ratios to grpc.aio."""
    for size in (200, 8_000, 200_000):
        for under_way in (1, 32):
            found: dict[str, list[Measured]] = {name: [] for name in _ways()}
            for _ in range(rounds):
                for name, (transport, loops) in _ways().items():
                    found[name].append(_run(transport, loops, size, under_way, seconds))
            reference = found["grpc.aio"]
            for name, each in found.items():
                cpu = statistics.median(one.cpu for one in each)
                p50 = statistics.median(one.p50 for one in each)
                ratios = [one.cpu / other.cpu for one, other in zip(each, reference, strict=True)]
                print(
                    f"{size:>7} bytes, {under_way:>2} under way: {name:<21} {cpu:6.1f} us of CPU a frame "
                    f"({statistics.median(ratios):.2f} of grpc.aio, {min(ratios):.2f}-{max(ratios):.2f}), "
                    f"p50 {p50:7.1f} us",
                    flush=True,
                )


if __name__ == "__main__":
    main()

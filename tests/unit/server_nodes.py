"""Whole nodes with their gRPC servers, in the test's own process: real sockets, real disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from kvstore.client.background import shared_background
from kvstore.config import MAX_REQUEST_BYTES, BucketSettings, Limits
from kvstore.frames.dial import open_stream
from kvstore.frames.incoming import StreamEnded, StreamLost
from kvstore.frames.stream import FrameStream
from kvstore.node.settings import NodeSettings
from kvstore.ring import ClusterState, initial_state, parse_members
from kvstore.server.handshake import introduction
from kvstore.server.server import NodeServer, ServerSettings
from kvstore.server.stream import LINK
from kvstore.v1 import client_pb2 as pb
from tests.patience import PATIENCE

run = shared_background().run
"""All of a process's gRPC wants one loop."""


def member_list(ports: Sequence[int], hosts: Sequence[str] = ()) -> str:
    labels = [f"//{host}" for host in hosts] or [""] * len(ports)
    members = enumerate(zip(ports, labels, strict=True), 1)
    return ",".join(f"n{i}=127.0.0.1:{port}{label}" for i, (port, label) in members)


def cluster_state(
    ports: Sequence[int],
    cluster_id: str = "",
    partitions: int = 8,
    buckets: Sequence[BucketSettings] = (),
    hosts: Sequence[str] = (),
) -> ClusterState:
    members = parse_members(member_list(ports, hosts))
    return initial_state(cluster_id, members, partitions, len(ports), buckets)


def fail(error: BaseException) -> None:
    raise AssertionError("the storage failed") from error


def settings(node: str, port: int, directory: Path, state: ClusterState) -> ServerSettings:
    return ServerSettings(
        node, "127.0.0.1", port, directory / node, state, NodeSettings(limits=Limits(value=1000))
    )


@asynccontextmanager
async def serving(*nodes: ServerSettings) -> AsyncIterator[list[NodeServer]]:
    servers = [NodeServer(node, fail) for node in nodes]
    started: list[NodeServer] = []
    try:
        for server in servers:
            await server.start()
            started.append(server)
        yield servers
    finally:
        for server in started:
            await server.stop()


@asynccontextmanager
async def channel(port: int, *more: tuple[str, int]) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_send_message_length", -1), *more]
    opened = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
    try:
        yield opened
    finally:
        await opened.close()


async def call(
    opened: grpc.aio.Channel, method: str, request: Any, answer: Any, timeout: float = PATIENCE
) -> Any:
    """A unary call of the KV service."""
    stub: Any = opened.unary_unary(
        f"/kvstore.v1.KV/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    return await stub(request, timeout=timeout)


async def peer_stream(sender: str, port: int, state: ClusterState, method: str = LINK) -> FrameStream:
    """A stream to the node at `port` as another member has it, after the handshake.

    Raises StreamEnded, StreamLost; the connection is closed then, since the loop of a test may end at once.
    """
    stream = await open_stream(
        f"127.0.0.1:{port}", method, MAX_REQUEST_BYTES, metadata=introduction(sender, state)
    )
    try:
        assert await stream.read()
    except (StreamEnded, StreamLost):
        stream.break_off()
        raise
    return stream


class SessionByHand(ABC):
    """A session whose frames are made by a test; `stream` carries them."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    @abstractmethod
    async def _response(self) -> pb.SessionResponse:
        """The next one, which must come."""

    async def exchange(self, calls: Sequence[pb.Call]) -> dict[int, pb.Result]:
        """Send one frame and wait for all its results."""
        await self.send(calls)
        return await self.results(len(calls))

    async def send(self, calls: Sequence[pb.Call]) -> None:
        await self.stream.write(pb.SessionRequest(calls=calls).SerializeToString())

    async def results(self, count: int) -> dict[int, pb.Result]:
        found: dict[int, pb.Result] = {}
        while len(found) < count:
            found.update((result.id, result) for result in (await self._response()).results)
        return found


class SessionClient(SessionByHand):
    """The Session stream as a client in another language would use it."""

    def __init__(self, opened: grpc.aio.Channel) -> None:
        begin: Any = opened.stream_stream(
            "/kvstore.v1.KV/Session", response_deserializer=pb.SessionResponse.FromString
        )
        super().__init__(begin())

    async def _response(self) -> pb.SessionResponse:
        response: Any = await self.stream.read()
        assert response is not grpc.aio.EOF
        assert isinstance(response, pb.SessionResponse)
        return response

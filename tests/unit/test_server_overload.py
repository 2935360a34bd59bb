"""A node's server under load: clients that do not read, leave or come too late; a peer that does not read."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.config import FRAME_BYTES, MIB, Limits
from kvstore.frames.stream import FrameStream
from kvstore.frames.turn_ends import TurnEnds
from kvstore.local.ports import free_ports
from kvstore.node.settings import NodeSettings
from kvstore.protocol.gossip import Ack
from kvstore.protocol.peer import ReplicaWrite
from kvstore.protocol.sizes import size_of
from kvstore.ring import Member
from kvstore.server import session_gets, unread
from kvstore.server.handshake import introduction
from kvstore.server.listener import Listener
from kvstore.server.server import NodeServer
from kvstore.server.stream import LINK, Stream
from kvstore.v1 import client_pb2 as pb
from kvstore.v1.peer_pb2 import Welcome
from kvstore.versions import EncodedVersion, InternalKey
from kvstore.wire.peer import decode_frame
from kvstore.wire.queue import QueueLimits
from tests.patience import PATIENCE
from tests.unit.server_nodes import SessionClient, call, channel, cluster_state, run, serving, settings

VALUE = b"v" * MIB


@asynccontextmanager
async def node_of(directory: Path, members: int) -> AsyncIterator[tuple[NodeServer, grpc.aio.Channel]]:
    """The first of so many nodes; the others are never there."""
    ports = free_ports(members)
    node = settings("n1", ports[0], directory, cluster_state(ports))
    node = dataclasses.replace(node, node_settings=NodeSettings(limits=Limits()))
    async with serving(node) as (server,), channel(ports[0]) as opened:
        yield server, opened


async def until(condition: Any, seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (a node has no event for it)
            await asyncio.sleep(0.005)


def gets(count: int, timeout_ms: int = 30_000) -> list[pb.Call]:
    return [
        pb.Call(id=number, get=pb.GetRequest(bucket="b", key=b"k", timeout_ms=timeout_ms))
        for number in range(1, count + 1)
    ]


def test_a_client_that_does_not_read_holds_a_bounded_part_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 4 * MIB
    monkeypatch.setattr(unread, "MOST_OF_A_CLIENT", most)
    monkeypatch.setattr(session_gets, "_AT_ONCE", 4)

    async def scenario() -> None:
        async with node_of(tmp_path, 1) as (server, opened):
            put = pb.PutRequest(bucket="b", key=b"k", value=VALUE)
            await call(opened, "Put", put, pb.WriteResponse)
            client = SessionClient(opened)
            await client.send(gets(40))
            driver = server.driver
            await until(lambda: driver.node.status(driver.now()).counters.gets >= 4)
            begun = -1
            while begun != (begun := driver.node.status(driver.now()).counters.gets):  # noqa: ASYNC110  (begins no more)
                await asyncio.sleep(0.2)
            assert begun < 30, "not all: nobody takes the replies"
            results = await client.results(40)
            assert {len(result.found.siblings[0].value) for result in results.values()} == {MIB}
            await client.stream.done_writing()
            assert await client.stream.read() is grpc.aio.EOF
            most_waited = server.clients.most_reply_bytes
            assert MIB < most_waited <= most + 5 * MIB

    run(scenario())


def test_unary_calls_that_are_cancelled_leave_nothing_under_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with node_of(tmp_path, 3) as (server, opened):
            request = pb.GetRequest(bucket="b", key=b"k")
            calls = [
                asyncio.ensure_future(call(opened, "Get", request, pb.GetResponse, 30.0)) for _ in range(20)
            ]
            driver = server.driver
            await until(lambda: driver.node.status(driver.now()).in_flight == 20)
            for each in calls:
                each.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await until(lambda: driver.node.status(driver.now()).in_flight == 0)
            assert driver.node.status(driver.now()).counters.cancelled == 20

    run(scenario())


def test_a_session_that_ends_leaves_nothing_under_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with node_of(tmp_path, 3) as (server, opened):
            other, client = SessionClient(opened), SessionClient(opened)
            await other.send(gets(5))
            await client.send(gets(20))
            driver = server.driver
            await until(lambda: driver.node.status(driver.now()).in_flight == 25)
            client.stream.cancel()
            await until(lambda: driver.node.status(driver.now()).in_flight == 5)
            assert driver.node.status(driver.now()).counters.cancelled == 20

    run(scenario())


def frame(calls: Sequence[pb.Call], sent_ms: int) -> bytes:
    return pb.SessionRequest(calls=calls, sent_ms=sent_ms).SerializeToString()


def test_what_has_waited_too_long_is_refused_and_not_carried_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with node_of(tmp_path, 1) as (server, opened):
            client = SessionClient(opened)
            await client.stream.write(frame(gets(1), 1_000_000))
            await client.results(1)
            plain = pb.PlainPuts(ids=[7, 8, 9], epochs=[0] * 3, timeouts_ms=[500, 60_000, 30_000])
            plain.buckets.extend(["b"] * 3)
            plain.keys.extend([b"x", b"y", b"z"])
            plain.values.extend([b"v"] * 3)
            plain.contexts.extend([b""] * 3)
            late = pb.SessionRequest(calls=gets(2, 500), plain_puts=plain, sent_ms=1_000_000 - 20_000)
            await client.stream.write(late.SerializeToString())
            refused: dict[int, pb.Error] = {}
            while len(refused) < 4:
                response = await client.stream.read()
                refused.update((result.id, result.failed) for result in response.results)
                refused.update((number, each.error) for each in response.plain_refused for number in each.ids)
            assert sorted(refused) == [1, 2, 7, 9], "the last has lost more than half of its time"
            for error in refused.values():
                assert (error.reason, error.outcome_unknown) == (pb.Error.OVERLOADED, False)
            counters = server.driver.node.status(server.driver.now()).counters
            assert (counters.expired, counters.gets, counters.puts) == (4, 1, 1)

    run(scenario())


class Deaf:
    """A peer that accepts a stream and reads nothing of it until told to."""

    def __init__(self) -> None:
        self.listens = asyncio.Event()
        self.frames: list[bytes] = []
        self.listener = Listener({LINK: self._receive})

    async def _receive(self, stream: FrameStream, _opened: object) -> None:
        await stream.write(Welcome(node="n2").SerializeToString())
        await self.listens.wait()
        while (frame := await stream.read()) is not None:
            self.frames.append(frame)


def test_a_peer_that_does_not_read_fills_a_bounded_queue_and_probes_overtake_it() -> None:
    most = 4 * FRAME_BYTES

    async def scenario() -> None:
        peer = Deaf()
        (port,) = free_ports(1)
        await peer.listener.start(socket.create_server(("127.0.0.1", port)), grpc_port=1)
        lost: list[str] = []
        unsent: list[int] = []
        link = Stream(
            LINK,
            Member("n2", f"127.0.0.1:{port}"),
            lambda: introduction("n1", cluster_state([1, 2])),
            lambda _node: None,
            lost.append,
            lambda _node, numbers: unsent.extend(numbers),
            TurnEnds(),
            QueueLimits(queue=most),
        )
        running = asyncio.create_task(link.run())
        await until(lambda: link.connected)
        for number in range(400):
            message = ReplicaWrite(number, 1, InternalKey(b"k"), EncodedVersion(b"v" * 100_000))
            link.send(message, size_of(message))
            if number % 40 == 0:
                await asyncio.sleep(0.01)
        await until(lambda: len(unsent) == link.queue.dropped)
        assert link.queue.dropped > 100
        assert most - 200_000 < link.queue.bytes <= link.queue.most_bytes <= most
        link.send(Ack(1, ()), 64)
        peer.listens.set()
        await until(lambda: not link.queue.bytes)
        link.send(Ack(2, ()), 64)
        await until(lambda: peer.frames and Ack(2, ()) in decode_frame(peer.frames[-1]))
        running.cancel()
        await asyncio.wait([running])
        await peer.listener.stop(1.0)
        peer.listener.close()
        messages = [decode_frame(each) for each in peer.frames]
        writes = [m.number for each in messages for m in each if isinstance(m, ReplicaWrite)]
        assert sorted(writes + unsent) == list(range(400)), "each was sent or told of"
        overtaken = next(i for i, each in enumerate(messages) if Ack(1, ()) in each)
        assert len(messages) - overtaken > 3, "the queue's frames come after it"
        assert lost == []

    run(scenario())

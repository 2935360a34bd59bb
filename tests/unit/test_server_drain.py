"""A node that is about to stop, at every step of the requests that are under way: no client notices."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from google.rpc import code_pb2

from kvstore import aio
from kvstore.errors import KVError, NodeStopping
from kvstore.frames.incoming import StreamEnded, StreamLost
from kvstore.server.drain import drain
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.errors import error_from_status
from tests.unit.memory_client import MOST, Play, ready, routing_of, settled
from tests.unit.memory_nodes import Cluster, MemoryNode
from tests.unit.memory_streams import StreamSession, call
from tests.unit.stepped_loop import stepped

WRITERS = 3
STEPS = 25
"""Of the loop: a put takes fewer."""
PUT = pb.PutRequest(bucket="b", key=b"k", value=b"v", timeout_ms=60_000)


async def leave(cluster: Cluster, node: MemoryNode) -> float:
    """Stop a node as NodeServer does; how long its clients held it up, in seconds."""
    begun = stepped().now
    await drain(node.driver, node.clients, node.links)
    took = stepped().now - begun
    cluster.network.cut(node.address)
    await node.driver.stop()
    return took


def begin(left: list[asyncio.Task[float]], cluster: Cluster, node: MemoryNode) -> None:
    left.append(asyncio.ensure_future(leave(cluster, node)))


async def write_while_one_leaves(cluster: Cluster, db: aio.Client, step: int) -> int:
    """Puts, one after the other by each of some writers, and one node stops at a step; how many were made."""
    bucket, leaving = db.bucket("b"), cluster.nodes[step % len(cluster.nodes)]
    left: list[asyncio.Task[float]] = []
    stepped().at_step(step, partial(begin, left, cluster, leaving))

    async def write(writer: int) -> int:
        number = 0
        while not (left and left[0].done()):
            await bucket.put(f"{step} {writer} {number}", "v")  # an error of any kind fails the test
            number += 1
        return number

    written = await asyncio.gather(*map(write, range(WRITERS)))
    assert left[0].result() < 0.1, "it waited for clients that knew that they should leave"
    for writer, count in enumerate(written):
        for number in range(count):
            assert (await bucket.get(f"{step} {writer} {number}")).value == b"v"
    return sum(written)


def test_no_write_ends_with_an_error_wherever_a_node_stops(
    monkeypatch: pytest.MonkeyPatch, play: Play
) -> None:
    async def scenario() -> None:
        for step in range(STEPS):
            cluster = Cluster(monkeypatch, 3)
            async with aio.connect(cluster.endpoints, timeout=5.0) as db:
                await ready(db, 3)
                assert await write_while_one_leaves(cluster, db, step) >= WRITERS
                assert len(routing_of(db).reached) == 2
            await stop_the_rest(cluster)

    play(scenario())


async def stop_the_rest(cluster: Cluster) -> None:
    for node in cluster.nodes:
        if node.address not in cluster.network.down:
            await node.stop()
    await settled(lambda: not cluster.network.connections)


async def outcome(address: str, method: str, request: Any, answer: Any) -> Any:
    """The answer of a unary call, or its error; None: it had no connection."""
    try:
        return await call(address, method, request, answer.FromString)
    except StreamLost:
        return None
    except StreamEnded as error:
        return typed(error)


def typed(error: StreamEnded) -> KVError | None:
    assert error.status.code == code_pb2.UNAVAILABLE
    return error_from_status(error.status)


def test_a_unary_call_is_answered_or_never_taken_wherever_its_node_stops(
    monkeypatch: pytest.MonkeyPatch, play: Play
) -> None:
    async def scenario() -> None:
        kinds: set[type] = set()
        for step in range(MOST):
            cluster = Cluster(monkeypatch, 3)
            node = cluster.nodes[0]
            await cluster.connected()
            left: list[asyncio.Task[float]] = []
            stepped().at_step(step, partial(begin, left, cluster, node))
            found = await outcome(node.address, "Put", PUT, pb.WriteResponse)
            kinds.add(type(found))
            in_time = bool(left)
            await settled(lambda left=left: bool(left))  # type: ignore[misc]
            await left[0]
            if found is None:  # it was on its way when the node closed its connections, and never taken
                get = pb.GetRequest(bucket="b", key=b"k", timeout_ms=60_000)
                other = cluster.nodes[1].address
                assert not (await call(other, "Get", get, pb.GetResponse.FromString)).siblings
            await stop_the_rest(cluster)
            if not in_time:
                break
        assert kinds > {pb.WriteResponse}

    play(scenario())


def test_a_client_that_does_not_leave_is_told_refused_and_cut_off(
    monkeypatch: pytest.MonkeyPatch, play: Play
) -> None:
    """One in another language may not know `stopping`: it learns it from its calls."""

    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        node = cluster.nodes[0]
        await cluster.connected()
        session = await StreamSession.open(node.address)
        assert (await session.exchange([pb.Call(id=1, put=PUT)]))[1].WhichOneof("reply") == "stored"
        leaving = asyncio.ensure_future(leave(cluster, node))
        told = await session.stream.read()
        assert told is not None
        assert pb.SessionResponse.FromString(told).stopping
        for number in (2, 3):
            result = await session.exchange([pb.Call(id=number, put=PUT)])
            assert result[number].failed.reason == pb.Error.NODE_STOPPING
            assert not result[number].failed.outcome_unknown
        for method, request, answer in (
            ("Put", PUT, pb.WriteResponse),
            ("GetRing", pb.GetRingRequest(), pb.GetRingResponse),
        ):
            assert isinstance(await outcome(node.address, method, request, answer), NodeStopping)
        with pytest.raises(StreamEnded) as caught:
            await StreamSession.open(node.address)
        assert isinstance(typed(caught.value), NodeStopping)
        assert 0.4 < await leaving < 0.6
        await stop_the_rest(cluster)

    play(scenario())


def test_a_call_that_takes_too_long_does_not_keep_its_node(
    monkeypatch: pytest.MonkeyPatch, play: Play
) -> None:
    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        await cluster.connected()
        node, *others = cluster.nodes
        for other in others:
            monkeypatch.setattr(other.driver, "receive", nothing_of)
        session = await StreamSession.open(node.address)
        await session.send([pb.Call(id=1, put=PUT)])
        await settled(lambda: node.driver.busy)
        assert 4.9 < await leave(cluster, node) < 5.1
        await stop_the_rest(cluster)

    play(scenario())


def nothing_of(_sender: str, _messages: object, _delay: float) -> None:
    """As if it had not arrived."""

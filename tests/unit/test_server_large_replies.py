"""Large replies: few at a time, in the order in which they were asked for; others are served in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.config import MIB, Limits
from kvstore.local.ports import free_ports
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Get
from kvstore.server.large_replies import LARGE, LargeReplies
from kvstore.server.server import NodeServer
from kvstore.v1 import client_pb2 as pb
from kvstore.versions import BucketName, UserKey
from tests.patience import PATIENCE
from tests.unit.server_nodes import SessionClient, call, channel, cluster_state, run, serving, settings

VALUES = [bytes([i]) * 900_000 for i in range(4)]
GET = pb.GetRequest(bucket="b", key=b"k")


def get(key: bytes) -> Get:
    return Get(BucketName("b"), UserKey(key))


async def idle(large: LargeReplies) -> None:
    """Wait until nothing is under way, and what was has given way to others."""
    async with asyncio.timeout(PATIENCE):
        while large.bytes:  # noqa: ASYNC110  (it sets no event)
            await asyncio.sleep(0.01)


def test_after_a_large_reply_others_have_the_loop_for_as_long_as_it_took() -> None:
    async def scenario() -> None:
        large, clock = LargeReplies(), asyncio.get_running_loop().time
        async with large.room(22 * MIB):
            begun = clock()
            await asyncio.sleep(0.2)
        ended = clock()
        async with large.room(22 * MIB):
            assert clock() - ended >= 0.9 * (ended - begun)

    run(scenario())


def test_as_many_bytes_as_fit_are_under_way_and_the_next_in_their_order() -> None:
    async def scenario() -> None:
        large, order = LargeReplies(), []

        async def one(name: int, size: int) -> None:
            async with large.room(size):
                order.append(name)
                assert large.bytes <= 8 * MIB or large.bytes == size
                await asyncio.sleep(0)

        tasks = [asyncio.ensure_future(one(i, (5, 3, 22, 1, 1)[i] * MIB)) for i in range(5)]
        await asyncio.sleep(0)
        assert order == [0, 1], "22 MiB do not fit, and whoever comes after them waits as well"
        tasks[3].cancel()
        await asyncio.wait(tasks)
        assert order == [0, 1, 2, 4]
        await idle(large)

    run(scenario())


def test_whoever_is_given_up_when_his_turn_has_come_leaves_it_to_the_next() -> None:
    async def scenario() -> None:
        large = LargeReplies()

        async def one() -> None:
            async with large.room(22 * MIB):
                pass

        async with large.room(22 * MIB):
            tasks = [asyncio.ensure_future(one()) for _ in range(3)]
            await asyncio.sleep(0)
        tasks[0].cancel()  # it has its turn and has not begun
        done, _ = await asyncio.wait(tasks, timeout=5)
        assert len(done) == 3
        await idle(large)

    run(scenario())


def test_what_was_large_is_known_until_it_is_small_again() -> None:
    async def scenario() -> None:
        large = LargeReplies()
        for i in range(5000):
            large.learn(get(b"%d" % i), LARGE + 1 + i)
        assert len(large.known) == 4096
        assert large.expected(get(b"0")) == 0
        assert large.expected(get(b"4999")) == LARGE + 5000
        large.learn(get(b"4999"), LARGE)
        assert large.expected(get(b"4999")) == 0

    run(scenario())


@asynccontextmanager
async def node_with_siblings(directory: Path) -> AsyncIterator[tuple[NodeServer, grpc.aio.Channel]]:
    (port,) = free_ports(1)
    node = settings("n1", port, directory, cluster_state([port]))
    node = replace(node, node_settings=NodeSettings(limits=Limits()))
    async with serving(node) as (server,), channel(port) as opened:
        for value in VALUES:
            await call(opened, "Put", pb.PutRequest(bucket="b", key=b"k", value=value), pb.WriteResponse)
        yield server, opened


def test_large_replies_are_whole_for_unary_calls_and_sessions(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with node_with_siblings(tmp_path) as (server, opened):
            for _ in range(2):
                unary = await asyncio.gather(*(call(opened, "Get", GET, pb.GetResponse) for _ in range(4)))
                results = await SessionClient(opened).exchange([pb.Call(id=i, get=GET) for i in range(4)])
                for found in [*unary, *(result.found for result in results.values())]:
                    assert sorted(sibling.value for sibling in found.siblings) == VALUES
                    assert found.context
            large = server.clients.large
            assert list(large.known) == [("b", b"k")]
            await idle(large)
            async with asyncio.timeout(PATIENCE):
                while server.clients.replies.bytes:  # noqa: ASYNC110  (a node has no event for it)
                    await asyncio.sleep(0.01)

    run(scenario())


@pytest.mark.parametrize("kind", ["unary", "session"])
def test_a_large_get_that_is_given_up_leaves_no_trace(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with node_with_siblings(tmp_path) as (server, opened):
            await call(opened, "Get", GET, pb.GetResponse)
            large = server.clients.large
            async with large.room(8 * MIB):
                if kind == "unary":
                    method: Any = opened.unary_unary("/kvstore.v1.KV/Get")
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await method(GET.SerializeToString(), timeout=0.2)
                    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                else:
                    session = SessionClient(opened)
                    await session.send([pb.Call(id=1, get=GET), pb.Call(id=2)])
                    await session.results(1)
                    session.stream.cancel()
            await call(opened, "Get", GET, pb.GetResponse)
            await idle(large)
            assert server.driver.executor.idle

    run(scenario())

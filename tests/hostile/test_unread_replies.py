"""Clients that ask for much and read nothing: bounded memory, and others are served."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from kvstore.config import KIB, MIB, Limits
from kvstore.local.ports import free_ports
from kvstore.node.settings import NodeSettings
from kvstore.server import unread
from kvstore.server.server import NodeServer
from kvstore.v1 import client_pb2 as pb
from tests.hostile.raw_http2 import RawConnection
from tests.patience import PATIENCE
from tests.unit.server_nodes import SessionClient, call, channel, cluster_state, run, serving, settings

VALUE = b"v" * 256 * KIB
GET = pb.GetRequest(bucket="b", key=b"k")
SESSIONS = 12
NO_ESTIMATE = ("grpc.http2.bdp_probe", 0)
"""By its estimate of the line gRPC would take tens of MiB that nobody has read."""


@asynccontextmanager
async def node_with_a_value(directory: Path) -> AsyncIterator[tuple[NodeServer, int, grpc.aio.Channel]]:
    (port,) = free_ports(1)
    node = settings("n1", port, directory, cluster_state([port]))
    node = replace(node, node_settings=NodeSettings(limits=Limits()))
    async with serving(node) as (server,), channel(port, NO_ESTIMATE) as opened:
        await call(opened, "Put", pb.PutRequest(bucket="b", key=b"k", value=VALUE), pb.WriteResponse)
        await call(opened, "Put", pb.PutRequest(bucket="b", key=b"small", value=b"v"), pb.WriteResponse)
        yield server, port, opened


async def steady(server: NodeServer) -> int:
    """What waits for clients, when something does, and nothing more is added to it."""
    driver, looks = server.driver, deque[tuple[int, int]](maxlen=4)
    async with asyncio.timeout(5 * PATIENCE):
        while len(looks) < 4 or not looks[0][0] or len(set(looks)) > 1:
            looks.append((server.clients.replies.bytes, driver.status().counters.gets))
            await asyncio.sleep(0.1)
    return looks[0][0]


async def others_are_served(opened: grpc.aio.Channel) -> None:
    small = pb.GetRequest(bucket="b", key=b"small")
    for _ in range(5):
        assert (await call(opened, "Get", small, pb.GetResponse)).siblings
    calls = [pb.Call(id=i, get=small) for i in range(100)]
    results = await SessionClient(opened).exchange(calls)
    assert {result.WhichOneof("reply") for result in results.values()} == {"found"}


def test_sessions_that_are_not_read_share_a_bounded_part_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "MOST_OF_ALL", 8 * MIB)

    async def scenario() -> None:
        async with node_with_a_value(tmp_path) as (server, port, opened), AsyncExitStack() as stack:
            sessions = []
            for _ in range(SESSIONS):
                sessions.append(SessionClient(await stack.enter_async_context(channel(port, NO_ESTIMATE))))
                await sessions[-1].send([pb.Call(id=i, get=GET) for i in range(200)])
            held = await steady(server)
            assert 2 * MIB < held <= 2 * unread.MOST_OF_ALL + MIB, "of 600 MiB that were asked for"
            await others_are_served(opened)
            results = await sessions[0].results(200)
            kinds = [result.WhichOneof("reply") for result in results.values()]
            assert set(kinds) <= {"found", "failed"}
            assert kinds.count("found") > 100, "who reads gets what he asked for"
            errors = {result.failed.reason for result in results.values() if result.HasField("failed")}
            assert errors <= {pb.Error.OVERLOADED}
            for session in sessions:
                session.stream.cancel()
            async with asyncio.timeout(PATIENCE):
                while server.clients.replies.bytes:  # noqa: ASYNC110  (a node has no event for it)
                    await asyncio.sleep(0.01)
            assert server.clients.replies.readers == 0

    run(scenario())


def test_unary_replies_that_are_not_read_are_refused_beyond_the_share_of_their_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unread, "MOST_OF_A_CLIENT", 4 * MIB)

    async def scenario() -> None:
        async with node_with_a_value(tmp_path) as (server, port, opened):
            slow = await RawConnection.open(port)
            try:
                for _ in range(200):
                    await slow.call("/kvstore.v1.KV/Get", GET.SerializeToString())
                held = await steady(server)
                assert 2 * MIB < held <= unread.MOST_OF_A_CLIENT + MIB, "of 50 MiB that were asked for"
                await others_are_served(opened)
                async with asyncio.timeout(PATIENCE):
                    while len(slow.ended) < 184:  # noqa: ASYNC110  (it sets no event)
                        await asyncio.sleep(0.01)
                begun = server.driver.status().counters.gets
                for _ in range(20):
                    await slow.call("/kvstore.v1.KV/Get", GET.SerializeToString())
                async with asyncio.timeout(PATIENCE):
                    while len(slow.ended) < 204:  # noqa: ASYNC110  (it sets no event)
                        await asyncio.sleep(0.01)
                assert server.driver.status().counters.gets == begun, "nothing is done for the last 20"
                slow.read_all()
                async with asyncio.timeout(PATIENCE):
                    while len(slow.ended) < 220:  # noqa: ASYNC110  (it sets no event)
                        await asyncio.sleep(0.01)
                assert all(size > len(VALUE) for size in slow.bytes.values())
                assert len(slow.bytes) == 16, "the others were refused"
                async with asyncio.timeout(PATIENCE):  # a client knows of the end of a call first
                    while server.clients.replies.bytes:  # noqa: ASYNC110  (it sets no event)
                        await asyncio.sleep(0.01)
                assert server.clients.replies.readers == 0
            finally:
                await slow.close()

    run(scenario())
    lines = [record for record in caplog.records if "clients that do not read" in record.getMessage()]
    assert [line.levelno for line in lines] == [logging.WARNING], "one line for all of them"


def test_large_replies_wait_for_a_client_that_reads_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not it is known how large they are; a reply that is being read is no sign of not reading."""
    monkeypatch.setattr(unread, "MOST_OF_A_CLIENT", MIB)
    monkeypatch.setattr(unread, "_NOT_READING", 0.1)
    monkeypatch.setattr(unread, "_SLOWEST", 64 * KIB)
    large = b"v" * 700 * KIB

    async def scenario() -> None:
        async with node_with_a_value(tmp_path) as (server, port, opened):
            for key in (b"k0", b"k1", b"k2", b"k3"):
                await call(opened, "Put", pb.PutRequest(bucket="b", key=key, value=large), pb.WriteResponse)
            for _ in range(2):
                slow = await RawConnection.open(port)
                for key in (b"k0", b"k1", b"k2", b"k3"):
                    request = pb.GetRequest(bucket="b", key=key).SerializeToString()
                    await slow.call("/kvstore.v1.KV/Get", request)
                held = await steady(server)
                assert held <= 2 * MIB
                assert not slow.ended
                slow.read_all()
                async with asyncio.timeout(PATIENCE):
                    while len(slow.ended) < 4:  # noqa: ASYNC110  (it sets no event)
                        await asyncio.sleep(0.01)
                assert sorted(slow.bytes) == sorted(slow.ended), "one was refused"
                await slow.close()

    run(scenario())


def test_so_many_gets_of_a_client_are_begun_before_it_is_known_how_large_its_replies_are() -> None:
    async def scenario() -> None:
        reader = unread.UnreadReplies().of_connection("ipv4:127.0.0.1:1")
        assert reader.room(0) == 32
        for _ in range(8):
            reader.learn(100)
        assert reader.room(0) > 1000

    run(scenario())


def test_beyond_its_share_a_client_gets_small_replies_alone_and_no_more_gets_are_begun() -> None:
    async def scenario() -> None:
        replies = unread.UnreadReplies()
        reader = replies.of_connection("ipv4:127.0.0.1:1")
        reader.learn(MIB)
        assert reader.room(3) == replies.share // MIB - 3
        reader.hold(replies.share)
        assert reader.room(0) == 0
        assert reader.refuses(unread.SMALL + 1, replies.share)
        assert not reader.refuses(unread.SMALL, replies.share)
        assert replies.used_up("ipv4:127.0.0.1:1")
        reader.release(1)
        assert not reader.refuses(unread.SMALL + 1, replies.share + 1)
        assert not replies.used_up("ipv4:127.0.0.1:1")

    run(scenario())


def test_when_clients_hold_all_that_they_may_only_small_replies_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "_LOOK", 0.05)
    if unread._SHORT_PATIENCE < 60:
        monkeypatch.setattr(unread, "_SHORT_PATIENCE", 1.0)

    async def scenario() -> None:
        async with node_with_a_value(tmp_path) as (server, port, opened):
            replies = server.clients.replies
            slow = await RawConnection.open(port)
            await slow.call("/kvstore.v1.KV/Get", GET.SerializeToString())
            async with asyncio.timeout(PATIENCE):
                while not replies.bytes:  # noqa: ASYNC110  (a node has no event for it)
                    await asyncio.sleep(0.01)
            monkeypatch.setattr(unread, "MOST_OF_ALL", replies.bytes // 2)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(opened, "Get", GET, pb.GetResponse)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await others_are_served(opened)
            async with asyncio.timeout(PATIENCE):
                await slow.over.wait()
            assert (await call(opened, "Get", GET, pb.GetResponse)).siblings
            await slow.close()

    run(scenario())


@pytest.mark.parametrize("kind", ["unary", "session"])
@pytest.mark.parametrize("strained", [False, True], ids=["room", "no room"])
def test_a_client_that_leaves_a_reply_unread_for_too_long_loses_its_connection(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    strained: bool,
) -> None:
    patience, most = ("_SHORT_PATIENCE", 1) if strained else ("_PATIENCE", 64 * MIB)
    monkeypatch.setattr(unread, patience, 0.5)
    monkeypatch.setattr(unread, "MOST_OF_ALL", most)
    monkeypatch.setattr(unread, "_SLOWEST", MIB)
    monkeypatch.setattr(unread, "_LOOK", 0.05)

    async def scenario() -> None:
        async with node_with_a_value(tmp_path) as (server, port, opened):
            replies = server.clients.replies
            slow = await RawConnection.open(port)
            if kind == "unary":
                await slow.call("/kvstore.v1.KV/Get", GET.SerializeToString())
            else:
                calls = [pb.Call(id=1, get=GET)]
                frame = pb.SessionRequest(calls=calls).SerializeToString()
                await slow.call("/kvstore.v1.KV/Session", frame)
            async with asyncio.timeout(PATIENCE):
                while not replies.bytes:  # noqa: ASYNC110  (a node has no event for it)
                    await asyncio.sleep(0.01)
                begun = asyncio.get_running_loop().time()
                while replies.bytes:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await slow.over.wait()
            assert asyncio.get_running_loop().time() - begun > 0.5
            assert replies.readers == 0
            monkeypatch.setattr(unread, "MOST_OF_ALL", 64 * MIB)
            await others_are_served(opened)
            await slow.close()

    run(scenario())
    assert len([line for line in caplog.records if "is ended" in line.getMessage()]) == 1


def test_a_client_that_reads_what_it_gets_keeps_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "_PATIENCE", 0.5)
    monkeypatch.setattr(unread, "_LOOK", 0.01)

    async def scenario() -> None:
        async with node_with_a_value(tmp_path) as (server, _port, opened):
            session, ends = SessionClient(opened), asyncio.get_running_loop().time() + 1.5
            turn = 0
            while asyncio.get_running_loop().time() < ends:
                turn += 1
                await session.exchange([pb.Call(id=turn, get=GET)])
                assert (await call(opened, "Get", GET, pb.GetResponse)).siblings
            async with asyncio.timeout(PATIENCE):
                while server.clients.replies._given:  # noqa: ASYNC110  (a node has no event for it)
                    await asyncio.sleep(0.01)

    run(scenario())

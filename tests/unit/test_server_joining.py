"""A node that starts takes requests when it is connected in both ways with those who are there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kvstore.local.ports import free_ports
from kvstore.server.joining import join
from kvstore.v1 import client_pb2 as pb
from tests.patience import PATIENCE
from tests.unit.memory_client import Play, settled
from tests.unit.memory_nodes import Cluster
from tests.unit.memory_streams import Fault, Plan
from tests.unit.server_nodes import SessionClient, call, channel, cluster_state, run, serving, settings
from tests.unit.stepped_loop import stepped


async def joined(cluster: Cluster) -> float:
    """How long the first node takes to join the others, in seconds."""
    begun = stepped().now
    await join(cluster.nodes[0].links, cluster.nodes[0].peers)
    return stepped().now - begun


def test_it_waits_for_streams_to_and_from_all_others(monkeypatch: pytest.MonkeyPatch, play: Play) -> None:
    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        first, *others = cluster.nodes
        cluster.network.down.add(first.address)
        await settled(lambda: all(map(first.links.connected, first.links.peers)))
        cluster.network.down.clear()
        assert 0.0 < await joined(cluster) < 0.5
        assert all(other.links.connected("n1") for other in others)
        assert all(map(first.peers.hears, first.links.peers))
        await cluster.stop()

    play(scenario())


def test_it_does_not_wait_for_those_who_are_not_there(monkeypatch: pytest.MonkeyPatch, play: Play) -> None:
    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        cluster.network.cut(cluster.nodes[2].address)
        await cluster.nodes[2].stop()
        assert await joined(cluster) < 0.1
        assert not cluster.nodes[0].links.connected("n3")
        await cluster.nodes[0].stop()
        await cluster.nodes[1].stop()
        await settled(lambda: not cluster.network.connections)

    play(scenario())


def test_it_waits_a_second_at_most_for_one_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, play: Play
) -> None:
    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        cluster.network.plan = Plan("Link", "server", Fault.STUCK, 0, armed=True)
        assert 0.9 < await joined(cluster) < 1.1
        await cluster.stop()

    play(scenario())


def test_one_that_comes_back_is_connected_as_soon_as_it_has_called(
    monkeypatch: pytest.MonkeyPatch, play: Play
) -> None:
    """The others try only now and then while it is away."""

    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 2)
        await cluster.connected()
        here, away = cluster.nodes
        cluster.network.cut(here.address)
        await asyncio.sleep(0.1)
        cluster.network.cut(away.address)
        await asyncio.sleep(3.0)  # of its virtual time: their attempts are a quarter of a second apart
        cluster.network.down.clear()
        await settled(lambda: here.links.connected("n2") or away.links.connected("n1"))
        begun = stepped().now
        await cluster.connected()
        assert stepped().now - begun < 0.03
        await cluster.stop()

    play(scenario())


def test_every_call_of_a_client_waits_until_the_node_serves(tmp_path: Path) -> None:
    async def scenario() -> None:
        (port,) = free_ports(1)
        async with (
            serving(settings("n1", port, tmp_path, cluster_state([port]))) as (server,),
            channel(port) as opened,
        ):
            server.clients.serving.clear()
            session = SessionClient(opened)
            put = pb.PutRequest(bucket="b", key=b"k", value=b"v")
            calls = [
                asyncio.ensure_future(call(opened, method, request, answer))
                for method, request, answer in (
                    ("Put", put, pb.WriteResponse),
                    ("Get", pb.GetRequest(bucket="b", key=b"k"), pb.GetResponse),
                    ("Delete", pb.DeleteRequest(bucket="b", key=b"k"), pb.WriteResponse),
                    ("Scan", pb.ScanRequest(bucket="b"), pb.ScanResponse),
                    ("GetRing", pb.GetRingRequest(), pb.GetRingResponse),
                )
            ]
            calls.append(asyncio.ensure_future(session.exchange([pb.Call(id=1, put=put)])))
            async with asyncio.timeout(PATIENCE):
                while server.clients.connected < len(calls) - 1:  # noqa: ASYNC110  (it sets no event)
                    await asyncio.sleep(0.01)
            health: Any = opened.unary_unary("/grpc.health.v1.Health/Check")
            for _ in range(3):
                await health(b"")  # those before would have been answered by now
            assert not any(each.done() for each in calls)
            assert server.driver.executor.idle
            server.clients.serving.set()
            assert all(await asyncio.gather(*calls))

    run(scenario())

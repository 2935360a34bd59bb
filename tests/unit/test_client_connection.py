"""The client's connection to one node ends when it is closed, whatever gRPC makes of a cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kvstore.client import connection
from kvstore.client.dispatcher import Dispatcher
from kvstore.client.unary import fetch_state, open_channel
from kvstore.errors import NoNodeAvailable
from kvstore.ring import ClusterState
from tests.patience import PATIENCE
from tests.plain import Put
from tests.unit.client_node import FakeCluster, run
from tests.unit.server_nodes import cluster_state
from tests.unit.swallowing_grpc import Channel


@pytest.mark.parametrize("busy", [False, True], ids=["reading", "writing"])
def test_a_cancellation_that_grpc_swallows_closes_a_connection_all_the_same(
    monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    async def fetch_state(*_: Any) -> ClusterState:
        return cluster_state([1])

    async def scenario() -> None:
        monkeypatch.setattr(connection, "open_channel", lambda _: Channel())
        monkeypatch.setattr(connection, "fetch_state", fetch_state)
        dispatcher = Dispatcher(["h:1"], cluster_state([1]))
        (found,) = dispatcher.connections.values()
        while not dispatcher.core.routing.reached:  # noqa: ASYNC110  (it has no event for it)
            await asyncio.sleep(0)
        put = Put("b", b"k", b"v", timeout=PATIENCE)
        calls = [asyncio.ensure_future(dispatcher.execute(put))] if busy else []
        for _ in range(5):
            await asyncio.sleep(0)
        done, _pending = await asyncio.wait([asyncio.ensure_future(found.close())], timeout=PATIENCE)
        assert done
        await dispatcher.close()
        await asyncio.gather(*calls, return_exceptions=True)

    run(scenario())


def test_the_calls_of_a_connection_that_is_closed_end_with_an_error_of_ours() -> None:
    """gRPC cancels who waits for them, and refuses to begin others with an error of its own."""

    async def scenario() -> None:
        cluster = FakeCluster()
        await cluster.start()
        address = cluster.endpoints.partition(",")[0]
        channel = open_channel(address)
        under_way = asyncio.ensure_future(fetch_state(channel, address, PATIENCE))
        await asyncio.sleep(0)
        await channel.close()
        for call in (under_way, fetch_state(channel, address, PATIENCE)):
            with pytest.raises(NoNodeAvailable, match="the connection was closed"):
                await call
        await cluster.stop()

    run(scenario())

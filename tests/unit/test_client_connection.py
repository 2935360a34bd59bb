"""The client's connection to one node ends when it is closed, whatever gRPC makes of a cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kvstore.client import connection
from kvstore.client.connection import Connection
from kvstore.quorum.messages import Put
from kvstore.ring import ClusterState
from tests.patience import PATIENCE
from tests.unit.client_node import run
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
        found = Connection("h:1", lambda _: 1, lambda *_: None)
        while not found.ready:  # noqa: ASYNC110  (it has no event for it)
            await asyncio.sleep(0)
        deadline = asyncio.get_running_loop().time() + PATIENCE
        calls = [found.submit(Put("b", b"k", b"v"), deadline, 1)] if busy else []
        for _ in range(5):
            await asyncio.sleep(0)
        done, _pending = await asyncio.wait([asyncio.ensure_future(found.close())], timeout=PATIENCE)
        assert done
        await asyncio.gather(*calls, return_exceptions=True)

    run(scenario())

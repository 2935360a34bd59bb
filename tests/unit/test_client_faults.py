"""The real client and real nodes, over connections that fail at every piece in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kvstore import aio
from kvstore.errors import KVError
from tests.unit.memory_client import (
    MOST,
    TIMEOUT,
    Play,
    at_last,
    ended,
    judge_write,
    left_client,
    ready,
    settled,
    values,
)
from tests.unit.memory_nodes import Cluster
from tests.unit.memory_streams import Fault, Plan

_LATER = 0.0015


POINTS = [
    (method, side, fault)
    for method in ("Session", "GetRing")
    for side in ("client", "server")
    for fault in Fault
]
name: Callable[[object], str] = lambda value: getattr(value, "name", str(value))  # noqa: E731


@pytest.mark.parametrize(("method", "side", "fault"), POINTS, ids=name)
def test_each_request_has_one_outcome_wherever_its_connection_fails(
    monkeypatch: pytest.MonkeyPatch, play: Play, method: str, side: str, fault: Fault
) -> None:
    async def scenario() -> None:
        for nodes in (1, 3) if method == "Session" else (3,):
            cluster = Cluster(monkeypatch, nodes)
            for at in range(MOST):
                plan = cluster.network.plan = Plan(method, side, fault, at)
                await one(cluster, plan, f"k{at}")
                if not plan.reached:
                    break
            assert not plan.reached
            assert at >= 2, "nothing was met"
            for node in cluster.nodes:
                await settled(node.idle)
            await cluster.stop()

    play(scenario())


async def later(put: Awaitable[object]) -> object:
    """It finds the stream at work, or broken."""
    await asyncio.sleep(_LATER)
    return await put


async def one(cluster: Cluster, plan: Plan, key: str) -> None:
    plan.armed = plan.method == "GetRing"
    async with asyncio.timeout(10.0):
        db = aio.connect(cluster.endpoints, timeout=TIMEOUT)
        while isinstance(error := await ended(db._open(), TIMEOUT), KVError):
            assert plan.reached, error
        bucket = db.bucket("b")
        if plan.method == "Session":
            await ready(db, len(cluster.nodes))
            plan.armed = True
    put, get, late = await asyncio.gather(
        ended(bucket.put(key, "v"), TIMEOUT),
        ended(bucket.get("other"), TIMEOUT),
        ended(later(bucket.put(f"{key} late", "v")), TIMEOUT + _LATER),
    )
    again = await ended(bucket.get("other"), TIMEOUT)
    plan.armed = False
    for error in (get, again):
        assert not isinstance(error, KVError) or plan.reached, error
    for written, outcome in ((key, put), (f"{key} late", late)):
        left = left_client(cluster.network, written)
        judge_write(outcome, await values(bucket, written), left)
    await at_last(lambda: bucket.put(f"{key} again", "v"))
    await ended(db.close(), 1.0)

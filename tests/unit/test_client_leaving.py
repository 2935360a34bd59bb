"""Callers that are cancelled, and clients that are closed, at every step of the event loop in turn."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kvstore import aio
from kvstore.client import dispatcher
from kvstore.client.core.calls import Calls
from kvstore.client.core.client import ClientCore
from kvstore.client.errors import ClientClosed
from kvstore.errors import KVError, StaleRing
from kvstore.protocol.client import Failed
from kvstore.ring import ClusterState
from tests.unit.memory_client import (
    MOST,
    TIMEOUT,
    Play,
    at_last,
    ended,
    judge_write,
    left_client,
    ready,
    routing_of,
    settled,
    values,
)
from tests.unit.memory_nodes import Cluster
from tests.unit.memory_streams import Fault, Plan
from tests.unit.stepped_loop import stepped

Operation = Callable[[aio.Client, str], Awaitable[Any]]


class Closing:
    """Closes a client before a step of the loop; `in_time` says whether `task` was still under way then."""

    def __init__(self, db: aio.Client, step: int, task: asyncio.Task[Any]) -> None:
        self.in_time = False
        self._db = db
        self._other = task
        self._task: asyncio.Task[None] | None = None
        stepped().at_step(step, self._begin)

    def _begin(self) -> None:
        self.in_time = not self._other.done()
        self._task = asyncio.ensure_future(self._db.close())

    async def done(self) -> None:
        await settled(lambda: self._task is not None)
        assert self._task
        await ended(self._task, 1.0)


async def scan(db: aio.Client, _key: str) -> list[bytes]:
    return [key async for key in db.bucket("b").scan_keys()]


OPERATIONS: dict[str, Operation] = {
    "put": lambda db, key: db.bucket("b").put(key, "v"),
    "get": lambda db, key: db.bucket("b").get(key),
    "update": lambda db, key: db.bucket("b").update(key, lambda _: "v"),
    "put_many": lambda db, key: db.bucket("b").put_many({key: "v", f"{key} other": "v"}),
    "get_many": lambda db, key: db.bucket("b").get_many([key, f"{key} other"]),
    "scan": scan,
    "ring": lambda db, _: db.ring(),
    "status": lambda db, _: db.status(),
}


def calls_of(db: aio.Client) -> list[tuple[int, int]]:
    """What each connection counts as waiting and in flight."""
    return [(each._waiting, each._in_flight) for each in routing_of(db).nodes.values()]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_caller_may_leave_at_any_step(monkeypatch: pytest.MonkeyPatch, play: Play, operation: str) -> None:
    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        async with aio.connect(cluster.endpoints, timeout=TIMEOUT) as db:
            await ready(db, 3)
            for step in range(MOST):
                key = f"k{step}"
                task = asyncio.ensure_future(OPERATIONS[operation](db, key))
                stepped().at_step(step, task.cancel)
                await asyncio.wait([task])
                if not task.cancelled():
                    break
                applied = await values(db.bucket("b"), key)
                assert applied in ([], [b"v"])
                assert not applied or left_client(cluster.network, key)
            assert not task.exception()
            assert step >= 5
            await settled(lambda: calls_of(db) == [(0, 0)] * 3)
        for node in cluster.nodes:
            await settled(node.idle)
        assert not cluster.network.methods()
        await cluster.stop()

    play(scenario())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_client_closed_at_any_step_leaves_each_call_with_an_outcome(
    monkeypatch: pytest.MonkeyPatch, play: Play, operation: str
) -> None:
    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        for step in range(MOST):
            key = f"k{step}"
            db = await aio.connect(cluster.endpoints, timeout=TIMEOUT)
            await ready(db, 3)
            task = asyncio.ensure_future(ended(OPERATIONS[operation](db, key), 2 * TIMEOUT))
            closing = Closing(db, step, task)
            result = await task
            await closing.done()
            assert not cluster.network.methods()
            if operation == "put":
                async with aio.connect(cluster.endpoints, timeout=TIMEOUT) as other:
                    judge_write(
                        result, await values(other.bucket("b"), key), left_client(cluster.network, key)
                    )
            if not closing.in_time:
                break
        assert not isinstance(result, KVError)
        assert step >= 5
        await cluster.stop()

    play(scenario())


def test_closing_ends_whatever_becomes_of_who_closes(monkeypatch: pytest.MonkeyPatch, play: Play) -> None:
    """A second call did nothing: after one that was cancelled the connections stayed open."""

    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        for step in range(MOST):
            db = await aio.connect(cluster.endpoints, timeout=TIMEOUT)
            await ready(db, 3)
            task = asyncio.ensure_future(db.close())
            stepped().at_step(step, task.cancel)
            await asyncio.wait([task])
            await ended(db.close(), 1.0)
            assert not cluster.network.methods()
            if not task.cancelled():
                break
        assert step >= 2
        await cluster.stop()

    play(scenario())


@pytest.mark.parametrize("leave", ["cancelled", "closed"])
def test_connecting_may_end_at_any_step(monkeypatch: pytest.MonkeyPatch, play: Play, leave: str) -> None:
    """One that was closed while it connected stayed connected for ever."""

    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        for step in range(MOST):
            db = aio.connect(cluster.endpoints, timeout=TIMEOUT)
            task = asyncio.ensure_future(db._open())
            if leave == "cancelled":
                stepped().at_step(step, task.cancel)
                await asyncio.wait([task])
                in_time = task.cancelled()
                if not in_time:
                    await db.close()
            else:
                closing = Closing(db, step, task)
                await asyncio.wait([task])
                await closing.done()
                in_time = closing.in_time
                assert isinstance(task.exception(), ClientClosed | None)
            await settled(lambda: not cluster.network.methods())
            if not in_time:
                break
        assert step >= 5
        await cluster.stop()

    play(scenario())


def test_two_that_connect_one_client_share_its_connections(
    monkeypatch: pytest.MonkeyPatch, play: Play
) -> None:
    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        db = aio.connect(cluster.endpoints, timeout=TIMEOUT)
        await asyncio.gather(db._open(), db._open())
        await ready(db, 3)
        await db.close()
        assert not cluster.network.methods()
        await cluster.stop()

    play(scenario())


def test_a_ring_that_cannot_be_fetched_takes_no_longer_than_the_request_has(
    monkeypatch: pytest.MonkeyPatch, play: Play
) -> None:
    """What was refused as stale fetched it for two seconds, whatever its own timeout was."""

    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 1)
        driver = cluster.nodes[0].driver

        def refuse(calls: Any, *_: object) -> None:
            for number, _ in list(calls):
                driver.reply(number, Failed(StaleRing(2)))

        monkeypatch.setattr(driver.node, "on_requests", refuse)
        async with aio.connect(cluster.endpoints, timeout=TIMEOUT) as db:
            await ready(db, 1)
            cluster.network.plan = Plan("GetRing", "server", Fault.HANG, 0, armed=True)
            assert isinstance(await ended(db.bucket("b").put("k", "v", timeout=0.3), 0.3), StaleRing)
            assert cluster.network.plan.reached
        await cluster.stop()

    play(scenario())


def test_a_newer_ring_that_arrives_while_a_client_closes_connects_nobody(
    monkeypatch: pytest.MonkeyPatch, play: Play
) -> None:
    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        cluster.network.hops = 2
        newer = dataclasses.replace(
            cluster.state,
            epoch=2,
            members=tuple(
                dataclasses.replace(member, address=f"{member.address}0") for member in cluster.state.members
            ),
        )
        for step in range(MOST):
            for node in cluster.nodes:
                node.driver.node.base.placements.state = cluster.state
            db = await aio.connect(cluster.endpoints, timeout=TIMEOUT)
            routing = routing_of(db)
            for node in cluster.nodes:
                node.driver.node.base.placements.state = newer
            task = asyncio.ensure_future(asyncio.sleep(0.02))
            closing = Closing(db, step, task)
            await task
            await closing.done()
            assert not cluster.network.methods()
            if not closing.in_time:
                break
        assert routing.state.epoch == newer.epoch
        await cluster.stop()

    play(scenario())


def test_a_defect_met_while_connecting_does_not_end_the_connection(
    monkeypatch: pytest.MonkeyPatch, play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 1)
        defects = iter([ZeroDivisionError()])
        on_connected = ClientCore.on_connected

        def fail_once(core: ClientCore, calls: Calls, state: ClusterState, now: float) -> None:
            for defect in defects:
                raise defect
            on_connected(core, calls, state, now)

        monkeypatch.setattr(ClientCore, "on_connected", fail_once)
        async with aio.connect(cluster.endpoints, timeout=TIMEOUT) as db:
            await at_last(lambda: db.bucket("b").put("k", "v"))
        await cluster.stop()

    play(scenario())
    assert [record.getMessage() for record in caplog.records] == ["defect in the connection to 127.0.0.1:1"]


def test_a_defect_met_while_fetching_the_ring_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> ClusterState:
        raise ZeroDivisionError

    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 1)
        async with aio.connect(cluster.endpoints, timeout=TIMEOUT) as db:
            await ready(db, 1)
            with monkeypatch.context() as broken:
                broken.setattr(dispatcher, "discover", fail)
                assert await ended(db.ring(), TIMEOUT) == cluster.state
            assert await ended(db.ring(), TIMEOUT) == cluster.state
        await cluster.stop()

    play(scenario())
    assert [record.getMessage() for record in caplog.records] == ["defect in fetching the cluster state"]


def test_who_waits_for_a_node_is_told_at_once_that_the_client_was_closed(
    monkeypatch: pytest.MonkeyPatch, play: Play
) -> None:
    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 1)
        db = await aio.connect(cluster.endpoints, timeout=60.0)
        await ready(db, 1)
        cluster.network.cut(cluster.nodes[0].address)
        await asyncio.sleep(0.1)
        waiting = asyncio.ensure_future(ended(db.bucket("b").put("k", "v"), 1.0))
        await asyncio.sleep(0.1)
        await ended(db.close(), 1.0)
        assert isinstance(await waiting, ClientClosed)
        await cluster.stop()

    play(scenario())

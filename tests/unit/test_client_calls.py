"""The client against honest nodes that break, stall and answer out of order."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from kvstore import aio
from kvstore.client.core import calls
from kvstore.client.core.retry import ATTEMPTS
from kvstore.client.core.routing import Routing
from kvstore.client.dispatcher import Dispatcher
from kvstore.client.errors import ClientClosed, PartialFailure
from kvstore.client.results import UnresolvedSiblings
from kvstore.config import FRAME_BYTES
from kvstore.errors import (
    InternalError,
    InvalidRequest,
    KVError,
    NoNodeAvailable,
    Outcome,
    Overloaded,
    ReadTimeout,
    StaleRead,
    StaleRing,
    TooManySiblings,
    Unavailable,
    WriteTimeout,
)
from kvstore.ring import place_of
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster, run

Scenario = Callable[[FakeCluster, aio.Client, aio.Bucket], Awaitable[None]]


@asynccontextmanager
async def serving(timeout: float = 5.0) -> AsyncIterator[tuple[FakeCluster, aio.Client, aio.Bucket]]:
    cluster = FakeCluster()
    await cluster.start()
    try:
        async with aio.connect(cluster.endpoints, timeout=timeout) as db:
            await connected(db, 3)
            yield cluster, db, db.bucket("carts")
    finally:
        await cluster.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  (what is waited for has no event)
            await asyncio.sleep(0.005)


def routing_of(db: aio.Client) -> Routing:
    dispatcher = db._dispatcher
    assert isinstance(dispatcher, Dispatcher)
    return dispatcher.core.routing


async def connected(db: aio.Client, nodes: int) -> None:
    """Wait until the client has a stream to so many nodes."""
    routing = routing_of(db)
    await until(lambda: len(routing.reached) == nodes)


def play(scenario: Scenario, timeout: float = 5.0) -> None:
    async def whole() -> None:
        async with serving(timeout) as (cluster, db, bucket):
            await scenario(cluster, db, bucket)

    run(whole())


def test_put_get_delete_and_contexts() -> None:
    async def scenario(_cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        assert not await carts.get("k")
        stored = await carts.put("k", "ünïcode", content_type="text/plain")
        got = await carts.get(b"k")
        assert got.exists
        assert got.value == "ünïcode".encode()
        assert got.siblings[0].content_type == "text/plain"
        await carts.put("k", b"2", context=stored.context)
        assert (await carts.get("k")).value == b"2"
        await carts.delete("k")
        got = await carts.get("k")
        assert got.value is None
        assert not got
        assert got.context

    play(scenario)


def test_a_context_of_another_key_is_refused_with_the_field() -> None:
    async def scenario(_cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        stored = await carts.put("k", "1")
        with pytest.raises(InvalidRequest, match="context") as caught:
            await carts.put("other", "1", context=stored.context)
        assert caught.value.field == "context"

    play(scenario)


def test_siblings_need_a_resolver() -> None:
    async def scenario(_cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        await carts.put("k", b"1")
        assert (await carts.put("k", b"2", blind=True)).siblings == 2
        got = await carts.get("k")
        with pytest.raises(UnresolvedSiblings, match="2 concurrent values") as caught:
            _ = got.value
        assert caught.value.result is got
        largest = lambda siblings: max(s.value for s in siblings)  # noqa: E731
        assert (await carts.get("k", resolver=largest)).value == b"2"
        with pytest.raises(UnresolvedSiblings):
            await carts.update("k", lambda value: value)
        stored = await carts.update("k", lambda value: (value or b"") + b"!", resolver=largest)
        assert stored.siblings == 1
        assert (await carts.get("k")).value == b"2!"

    play(scenario)


def test_update_deletes_on_none_and_never_blindly() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        await carts.update("k", lambda _: None)
        assert cluster.store.applied == []
        await carts.put("k", "1")
        await carts.update("k", lambda _: None)
        assert not await carts.get("k")

    play(scenario)


def test_concurrent_calls_share_frames() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        await asyncio.gather(*(carts.put(f"k{i}", "v") for i in range(300)))
        frames = [size for node in cluster.nodes for size in node.frames]
        assert sum(frames) == 300
        assert len(frames) == 3, "calls of one turn of the loop did not leave in one frame per node"

    play(scenario)


def test_calls_that_trickle_in_while_many_are_in_flight_share_a_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "GATHER_SECONDS", 1.0)

    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        first = cluster.first(b"k")
        first.silent = True
        tasks = [asyncio.create_task(carts.put("k", "v", timeout=PATIENCE)) for _ in range(100)]
        await until(lambda: sum(first.frames) == 100)
        for _ in range(20):
            tasks.append(asyncio.create_task(carts.put("k", "v", timeout=PATIENCE)))
            for _ in range(3):
                await asyncio.sleep(0)
        await until(lambda: sum(first.frames) == 120)
        assert first.frames == [100, 20]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    play(scenario)


def test_a_lone_caller_does_not_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "GATHER_SECONDS", 60)

    async def scenario(_cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        for i in range(3):
            await carts.put(f"k{i}", "v")

    play(scenario)


def test_frames_are_split_at_the_limit() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        value = b"x" * 1_000_000
        await carts.put_many({f"k{i}": value for i in range(30)})
        sizes = [size for node in cluster.nodes for size in node.frame_bytes]
        assert max(sizes) <= FRAME_BYTES < sum(sizes)
        await carts.put("big", b"x" * (FRAME_BYTES + 1000))
        assert len((await carts.get("big")).value or b"") == FRAME_BYTES + 1000

    play(scenario)


def test_answers_out_of_order_reach_their_callers() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        for node in cluster.nodes:
            node.backwards = True
        await carts.put_many({f"k{i}": f"v{i}" for i in range(100)})
        got = await carts.get_many([f"k{i}" for i in range(100)])
        assert {key: result.value for key, result in got.items()} == {
            f"k{i}": f"v{i}".encode() for i in range(100)
        }
        assert max(size for node in cluster.nodes for size in node.frames) > 1

    play(scenario)


def test_a_write_whose_connection_broke_is_unknown_and_not_repeated() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        cluster.first(b"k").break_after = True
        with pytest.raises(NoNodeAvailable, match="broken by the test") as caught:
            await carts.put("k", "v")
        assert caught.value.outcome is Outcome.UNKNOWN
        assert not caught.value.retryable
        assert cluster.store.applied == [(b"k", b"v")]

    play(scenario)


def test_a_read_whose_connection_broke_is_repeated_elsewhere() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        await carts.put("k", "v")
        cluster.first(b"k").break_before = True
        assert (await carts.get("k")).value == b"v"
        assert sum(len(node.calls) for node in cluster.nodes if node is not cluster.first(b"k")) == 1

    play(scenario)


def test_what_a_program_draws_from_a_seed_does_not_depend_on_its_client() -> None:
    """Hypothesis, too, refuses to go on when somebody has drawn from the common generator meanwhile."""

    async def scenario(cluster: FakeCluster, db: aio.Client, carts: aio.Bucket) -> None:
        before = random.getstate()
        await cluster.nodes[0].stop()
        await until(lambda: len(routing_of(db).reached) == 2)
        await carts.put("k", "v")
        await cluster.nodes[0].start()
        await connected(db, 3)
        assert random.getstate() == before

    play(scenario)


def test_a_client_reconnects_to_a_node_that_returns() -> None:
    async def scenario(cluster: FakeCluster, db: aio.Client, carts: aio.Bucket) -> None:
        first = cluster.first(b"k")
        await first.stop()
        await connected(db, 2)
        await carts.put("k", "v")
        assert first.calls == []
        await first.start()
        await connected(db, 3)
        assert (await carts.get("k")).value == b"v"
        assert len(first.calls) == 1

    play(scenario)


def test_with_no_node_left_calls_wait_and_then_say_why() -> None:
    async def scenario(cluster: FakeCluster, db: aio.Client, carts: aio.Bucket) -> None:
        await cluster.stop()
        await connected(db, 0)
        begin = time.monotonic()
        with pytest.raises(NoNodeAvailable) as caught:
            await carts.put("k", "v", timeout=0.3)
        assert time.monotonic() - begin >= 0.3
        assert caught.value.outcome is Outcome.NOT_APPLIED
        assert set(caught.value.errors) == set(cluster.endpoints.split(","))
        waiting = asyncio.create_task(carts.put("k", "v"))
        await asyncio.sleep(0)
        await cluster.nodes[1].start()
        assert (await waiting).siblings == 1

    play(scenario)


def test_nobody_at_the_endpoints() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        await cluster.start()
        endpoints = cluster.endpoints
        await cluster.stop()
        with pytest.raises(NoNodeAvailable, match="Connection refused") as caught:
            await aio.connect(endpoints)
        assert list(caught.value.errors) == endpoints.split(",")

    run(scenario())


def test_one_live_endpoint_is_enough() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, _carts: aio.Bucket) -> None:
        async with aio.connect(f"127.0.0.1:1,127.0.0.1:{cluster.nodes[2].port}") as other:
            await other.bucket("carts").put("k", "v")

    play(scenario)


def test_a_node_of_another_cluster_is_not_used() -> None:
    async def scenario(cluster: FakeCluster, db: aio.Client, carts: aio.Bucket) -> None:
        first = cluster.first(b"k")
        await first.stop()
        assert first.state is not None
        first.state = replace(first.state, cluster_id="another")
        await connected(db, 2)
        await first.start()
        unreached = next(each for each in routing_of(db).nodes.values() if not each.ready)
        await until(lambda: "another cluster" in unreached.problem)
        await carts.put("k", "v")
        assert first.calls == []

    play(scenario)


@pytest.mark.parametrize("error", [Unavailable(2, 1), Overloaded(0.01), StaleRing(1)], ids=type)
def test_what_was_not_applied_is_repeated(error: KVError) -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        cluster.first(b"k").refusals.append(error)
        assert (await carts.put("k", "v")).siblings == 1
        assert cluster.store.applied == [(b"k", b"v")]
        assert sorted(len(node.calls) for node in cluster.nodes) == [0, 1, 1], "not tried elsewhere"

    play(scenario)


@pytest.mark.parametrize("error", [WriteTimeout(1, 2), TooManySiblings(100, 100)], ids=type)
def test_what_may_be_applied_or_has_no_chance_is_not_repeated(error: KVError) -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        cluster.first(b"k").refusals.append(error)
        with pytest.raises(type(error)) as caught:
            await carts.put("k", "v")
        assert str(caught.value) == str(error)
        assert sum(len(node.calls) for node in cluster.nodes) == 1

    play(scenario)


def test_a_reply_of_another_kind_is_an_error_of_the_node() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        for node in cluster.nodes:
            node.wrong_kind = True
        for call in (carts.get("k"), carts.put("k", "v"), carts.delete("k")):
            with pytest.raises(InternalError, match="does not fit"):
                await call

    play(scenario)


def test_attempts_end() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        for node in cluster.nodes:
            node.refusals.extend([Unavailable(2, 1)] * 5)
        with pytest.raises(Unavailable, match="2 replicas required, 1 alive"):
            await carts.put("k", "v")
        assert sum(len(node.calls) for node in cluster.nodes) == 3

    play(scenario)


def test_a_stale_ring_is_fetched_anew() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        for node in cluster.nodes:
            assert node.state is not None
            node.state = replace(node.state, epoch=7)
        cluster.first(b"k").refusals.append(StaleRing(7))
        await carts.put("k", "v")
        epochs = [call.epoch for node in cluster.nodes for call in node.calls]
        assert sorted(epochs) == [1, 7]

    play(scenario)


def test_ring_follows_members_that_left() -> None:
    async def scenario(cluster: FakeCluster, db: aio.Client, carts: aio.Bucket) -> None:
        assert (await db.ring()).epoch == 1
        gone = cluster.nodes[0]
        for node in cluster.nodes:
            assert node.state is not None
            ring = replace(
                node.state.ring,
                replica_lists=tuple(
                    tuple(n for n in names if n != "n0") for names in node.state.ring.replica_lists
                ),
            )
            members = node.state.members[1:]
            node.state = replace(node.state, epoch=2, members=members, ring=ring, buckets=(), replicas=2)
        assert (await db.ring()).epoch == 2
        await carts.put_many({f"k{i}": "v" for i in range(50)})
        assert gone.calls == []
        assert len(cluster.store.applied) == 50

    play(scenario)


def test_timeouts_are_typed_and_in_time() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        for node in cluster.nodes:
            node.silent = True
        begin = time.monotonic()
        with pytest.raises(WriteTimeout, match="0 of 2") as write:
            await carts.put("k", "v", timeout=0.2)
        assert write.value.outcome is Outcome.UNKNOWN
        with pytest.raises(ReadTimeout, match="0 of 3") as read:
            await carts.get("k", timeout=0.2, r=3)
        assert read.value.outcome is Outcome.NOT_APPLIED
        assert 0.38 <= time.monotonic() - begin < PATIENCE

    play(scenario)


def test_a_read_from_a_stalled_node_goes_to_another_in_time() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        await carts.put("k", "v")
        cluster.first(b"k").silent = True
        for timeout in (1.0, 4.0, PATIENCE):
            try:
                assert (await carts.get("k", timeout=timeout)).value == b"v"
                break
            except ReadTimeout:  # half of the time is for the other node: a busy machine may need more
                assert timeout < PATIENCE

    play(scenario)


def test_a_silent_node_is_given_up_and_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SILENCE", 0.1)

    async def scenario(cluster: FakeCluster, db: aio.Client, carts: aio.Bucket) -> None:
        first = cluster.first(b"k")
        first.silent = True
        broken = asyncio.create_task(carts.put("k", "v", timeout=5))
        with pytest.raises(WriteTimeout):
            await carts.put("k", "v", timeout=0.2)
        with pytest.raises(NoNodeAvailable, match="does not answer") as caught:
            await broken
        assert caught.value.outcome is Outcome.UNKNOWN
        first.silent = False
        await connected(db, 3)
        await carts.put("k", "v")
        assert len(first.calls) == 1

    play(scenario)


def test_calls_beyond_the_bound_wait_and_are_not_applied_when_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "MAX_IN_FLIGHT", 2)

    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        await asyncio.gather(*(carts.put(f"k{i}", "v") for i in range(50)))
        assert max(size for node in cluster.nodes for size in node.frames) == 2
        first = cluster.first(b"k")
        first.silent = True
        before = sum(first.frames)
        tasks = [asyncio.create_task(carts.put("k", "v", timeout=2.0)) for _ in range(5)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(type(each).__name__ for each in outcomes) == ["Overloaded"] * 3 + ["WriteTimeout"] * 2
        assert sum(first.frames) - before == 2

    play(scenario)


def test_what_is_refused_because_of_load_is_sent_again_as_long_as_there_is_time() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        for node in cluster.nodes:
            node.refusals.extend(Overloaded(0.01) for _ in range(2))
        assert (await carts.put("k", "v")).siblings == 1
        assert sum(len(node.calls) for node in cluster.nodes) > ATTEMPTS + 1
        cluster.first(b"k").refusals.append(Overloaded(5.0))
        with pytest.raises(Overloaded) as caught:  # at once: there is no time for that
            await carts.put("k", "v", timeout=1.0)
        assert caught.value.retry_after == 5.0

    play(scenario)


@pytest.mark.parametrize(("attempts", "sent"), [(1, 1), (2, 2), (5, 5)])
def test_how_often_a_request_is_sent_is_a_setting_of_the_client(attempts: int, sent: int) -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, _carts: aio.Bucket) -> None:
        for node in cluster.nodes:
            node.refusals.extend(Unavailable(2, 1) for _ in range(10))
        async with aio.connect(cluster.endpoints, attempts=attempts) as db:
            with pytest.raises(Unavailable):
                await db.bucket("carts").put("k", "v")
        assert sum(len(node.calls) for node in cluster.nodes) == sent

    play(scenario)


@pytest.mark.parametrize("error", [Overloaded(0.01), StaleRead(2)])
def test_with_one_attempt_nothing_at_all_is_repeated(error: KVError) -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, _carts: aio.Bucket) -> None:
        for node in cluster.nodes:
            node.refusals.append(error)
        async with aio.connect(cluster.endpoints, attempts=1) as db:
            with pytest.raises(type(error)):
                await db.bucket("carts").get("k")
        assert sum(len(node.calls) for node in cluster.nodes) == 1

    play(scenario)


@pytest.mark.parametrize("attempts", [0, -1, 1.5, True, "3", 1001])
def test_a_number_of_attempts_that_is_none_is_refused(attempts: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^attempts: "):
        aio.connect("h:1", attempts=attempts)


def test_a_cancelled_call_leaves_the_others_alone() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        tasks = [asyncio.create_task(carts.put("k", f"{i}")) for i in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(each, asyncio.CancelledError) for each in outcomes) == 1
        assert len(cluster.store.applied) == 9

    play(scenario)


def test_many_keys_report_each_failure() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        cluster.first(b"k1").refusals.append(WriteTimeout(1, 2))
        with pytest.raises(PartialFailure) as caught:
            await carts.put_many({"k1": "v", "k2": "v"})
        assert len(caught.value.failed) == 1
        assert len(caught.value.succeeded) == 1
        assert set(caught.value.failed) | set(caught.value.succeeded) == {"k1", "k2"}
        assert caught.value.outcome is Outcome.UNKNOWN
        assert not caught.value.retryable
        twice: list[tuple[str | bytes, str]] = [("a", "1"), (b"a", "2")]
        with pytest.raises(InvalidRequest, match="given twice"):
            await carts.put_many(twice)
        assert await carts.get_many([]) == {}
        contexts = {"x": (await carts.put("x", "1")).context}
        stored = await carts.put_many({"x": "2"}, contexts=contexts)
        assert stored["x"].siblings == 1

    play(scenario)


def test_a_scan_sees_every_key_once_and_asks_another_node_when_one_fails() -> None:
    async def scenario(cluster: FakeCluster, db: aio.Client, carts: aio.Bucket) -> None:
        keys = {f"k{i}".encode() for i in range(200)}
        await carts.put_many([(key, "v") for key in keys])
        await carts.delete("k7")
        found = [key async for key in carts.scan_keys()]
        assert len(found) == 199
        assert set(found) == keys - {b"k7"}
        assert all(len(node.scans) > 20 for node in cluster.nodes), "the pages are spread"
        cluster.nodes[2].scan_fails = True
        assert len([key async for key in carts.scan_keys()]) == 199, "another node was not asked instead"
        cluster.nodes[2].scan_fails = False
        await cluster.nodes[0].stop()
        await connected(db, 2)
        assert len([key async for key in carts.scan_keys()]) == 199
        for node in cluster.nodes:
            node.scan_refusals.extend([Unavailable(3, 2)] * 2)
        with pytest.raises(Unavailable, match="3 replicas required, 2 alive"):
            _ = [key async for key in carts.scan_keys()]

    play(scenario)


def test_a_page_can_be_asked_for_with_all_that_narrows_it() -> None:
    async def scenario(cluster: FakeCluster, db: aio.Client, carts: aio.Bucket) -> None:
        await carts.put_many({"a:1": "1", "a:2": "2", "a:3": "3", "b": "4"})
        found = await carts.scan_page(prefix="a:", values=True, limit=7)
        assert len(found.keys) == 2
        rest = await carts.scan_page(found.next, prefix=b"a:", values=True)
        read = {each.key: [value.value for value in each.siblings] for each in (*found.keys, *rest.keys)}
        assert read == {b"a:1": [b"1"], b"a:2": [b"2"], b"a:3": [b"3"]}
        assert rest.next == b""
        first, second = sorted(
            (scan for node in cluster.nodes for scan in node.scans), key=lambda s: s.cursor
        )
        assert (first.limit, first.w, first.bucket, first.values) == (7, 0, "carts", True)
        assert 1.0 < first.timeout < 60.0
        assert second.cursor == found.next
        await db.bucket("carts", w=3).scan_page()
        assert {scan.w for node in cluster.nodes for scan in node.scans} == {0, 3}
        wrong = {"limit": 0}, {"limit": 1001}, {"prefix": 7}, {"cursor": "t"}, {"until": 7}, {"timeout": 0}
        for options in wrong:
            with pytest.raises(InvalidRequest, match=next(iter(options))):
                await carts.scan_page(**options)

    play(scenario)


def test_replicas_make_pages_in_turn_also_of_one_place() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        for _ in range(6):
            await carts.scan_page()
        assert [len(node.scans) for node in cluster.nodes] == [2, 2, 2]

    play(scenario)


@pytest.mark.parametrize("knows_until", [True, False])
def test_a_scan_ends_where_it_should_also_with_nodes_of_an_earlier_version(knows_until: bool) -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        await carts.put_many({f"k{i}": "v" for i in range(20)})
        for node in cluster.nodes:
            node.knows_until = knows_until
        found: list[bytes] = []
        for start, until in pairwise((b"", place_of(1 << 62), place_of(1 << 63), b"")):
            cursor, goes_on = start, True
            while goes_on:
                page = await carts.scan_page(cursor, until=until)
                found += [each.key for each in page.keys]
                cursor, goes_on = page.next, bool(page.next)
        assert sorted(found) == sorted(b"k%d" % i for i in range(20))

    play(scenario)


def test_a_node_whose_pages_do_not_go_on_is_an_error_and_no_endless_scan() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, carts: aio.Bucket) -> None:
        await carts.put_many({f"k{i}": "v" for i in range(9)})
        page = await carts.scan_page()
        for node in cluster.nodes:
            node.stands_still = True
        with pytest.raises(InternalError, match="ends before it begins"):
            await carts.scan_page(page.next)

    play(scenario)


def test_close_is_idempotent_and_final() -> None:
    async def scenario(cluster: FakeCluster, db: aio.Client, carts: aio.Bucket) -> None:
        for node in cluster.nodes:
            node.silent = True
        read = asyncio.create_task(carts.get("k"))
        write = asyncio.create_task(carts.put("k", "v"))
        await until(lambda: sum(sum(node.frames) for node in cluster.nodes) == 2)
        await db.close()
        await db.close()
        with pytest.raises(ClientClosed):
            await read
        with pytest.raises(NoNodeAvailable) as caught:
            await write
        assert caught.value.outcome is Outcome.UNKNOWN
        for use in (carts.get("k"), db.ring(), db.status(), carts.get_many(["k"])):
            with pytest.raises(ClientClosed, match="closed"):
                await use
        with pytest.raises(ClientClosed):
            db.bucket("carts")
        with pytest.raises(ClientClosed):
            await db
        left = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
        assert not [name for name in left if name.startswith(("Dispatcher.", "Connection."))]

    play(scenario)


def test_a_client_that_was_not_awaited_says_so() -> None:
    async def scenario(cluster: FakeCluster, _db: aio.Client, _carts: aio.Bucket) -> None:
        with pytest.raises(ClientClosed, match="await it"):
            aio.connect(cluster.endpoints).bucket("carts")

    play(scenario)


def test_a_node_that_sends_what_cannot_be_read_is_used_again_when_it_does_not() -> None:
    """The connection's task ended with it, and never came back."""

    async def scenario(cluster: FakeCluster, db: aio.Client, carts: aio.Bucket) -> None:
        for node in cluster.nodes:
            node.garbled = True
        with pytest.raises(NoNodeAvailable, match="cannot be read") as caught:
            await carts.put("k", "1")
        assert caught.value.outcome is Outcome.UNKNOWN
        while not isinstance(error := await problem(carts.get("k", timeout=0.3)), NoNodeAvailable):
            assert error
        await until(
            lambda: any("ring that cannot be read" in each for each in routing_of(db).problems.values())
        )
        for node in cluster.nodes:
            node.garbled = False
        await connected(db, 3)
        assert (await carts.get("k")).value == b"1"

    play(scenario)


async def problem(call: Awaitable[object]) -> KVError | None:
    try:
        await call
    except KVError as error:
        return error
    return None

"""The client against three real nodes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial

import psutil
import pytest

import kvstore
from kvstore import aio
from kvstore.client.background import shared_background
from kvstore.local.cluster import LocalCluster
from tests.patience import PATIENCE


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    cluster = LocalCluster.create(tmp_path_factory.mktemp("cluster") / "local", first_port=None)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def db(cluster: LocalCluster) -> Iterator[kvstore.Client]:
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        yield db


def lines(siblings: tuple[kvstore.Sibling, ...]) -> bytes:
    """Resolve by the union of lines."""
    return b"\n".join(sorted({line for s in siblings for line in s.value.split(b"\n")}))


def with_line(line: bytes, old: bytes | None) -> bytes:
    return b"\n".join(filter(None, (old, line)))


def test_two_unseen_writes_leave_siblings_and_a_third_with_their_context_one(cluster: LocalCluster) -> None:
    with (
        kvstore.connect(cluster.endpoints, timeout=PATIENCE) as one,
        kvstore.connect(cluster.endpoints, timeout=PATIENCE) as two,
    ):
        one.bucket("carts").put("k", "apples", w=3)
        assert two.bucket("carts").put("k", "pears", w=3).siblings == 2
        got = one.bucket("carts").get("k", r=3, explain=True)
        assert {s.value for s in got.siblings} == {b"apples", b"pears"}
        assert got.explain is not None
        assert set(got.explain.answered) == set(cluster.nodes)
        with pytest.raises(kvstore.UnresolvedSiblings):
            _ = got.value
        assert one.bucket("carts").put("k", "both", context=got.context).siblings == 1
        assert two.bucket("carts").get("k", r=3).value == b"both"


def test_content_type_ttl_and_delete(db: kvstore.Client) -> None:
    carts = db.bucket("carts")
    carts.put("typed", b"{}", content_type="application/json", ttl=3600)
    sibling = carts.get("typed").siblings[0]
    assert sibling.content_type == "application/json"
    assert 3000_000 < sibling.expiry - time.time() * 1000 <= 3600_000
    carts.delete("typed")
    assert not carts.get("typed")


def test_updates_at_the_same_time_lose_nothing(db: kvstore.Client) -> None:
    words = db.bucket("words", resolver=lines)

    def add(number: int) -> None:
        for i in range(15):
            words.update("set", partial(with_line, f"{number}.{i}".encode()))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5 * PATIENCE)
    found = set((words.get("set").value or b"").decode().split("\n"))
    assert found == {f"{number}.{i}" for number in range(4) for i in range(15)}
    words.update("set", lambda old: old)
    assert len(words.get("set").siblings) == 1


def test_many_keys_and_a_scan(db: kvstore.Client) -> None:
    bulk = db.bucket("bulk")
    items = {f"key {i}": f"value {i}" for i in range(1500)}
    assert {stored.siblings for stored in bulk.put_many(items).values()} == {1}
    got = bulk.get_many(items)
    assert {key: result.value for key, result in got.items()} == {k: v.encode() for k, v in items.items()}
    found = list(bulk.scan_keys())
    assert len(found) == len(set(found))
    assert {key.decode() for key in found} == set(items)


def test_ring_and_status_name_all_nodes(cluster: LocalCluster, db: kvstore.Client) -> None:
    assert {member.node for member in db.ring().members} == set(cluster.nodes)
    statuses = db.status()
    assert set(statuses) == set(cluster.nodes)
    for node, status in statuses.items():
        assert not isinstance(status, kvstore.KVError), status
        assert status.node == node


def test_what_a_node_refuses_is_typed(db: kvstore.Client) -> None:
    carts = db.bucket("carts")
    with pytest.raises(kvstore.InvalidRequest, match="w: is 4"):
        carts.put("k", "v", w=4)
    with pytest.raises(kvstore.InvalidRequest, match="value: has"):
        carts.put("k", b"x" * (1024 * 1024 + 1))
    with pytest.raises(kvstore.InvalidRequest, match="context"):
        carts.put("k", "v", context=b"rubbish")


def test_a_node_killed_under_load_costs_no_acknowledged_write(cluster: LocalCluster) -> None:
    acknowledged: list[str] = []
    errors: list[kvstore.KVError] = []

    async def load() -> None:
        async with aio.connect(cluster.endpoints, timeout=PATIENCE) as db:
            bucket = db.bucket("load")

            async def caller(name: int) -> None:
                for i in range(150):
                    try:
                        await bucket.put(f"{name}/{i}", f"{i}")
                        acknowledged.append(f"{name}/{i}")
                    except kvstore.KVError as error:
                        errors.append(error)

            tasks = [asyncio.create_task(caller(name)) for name in range(32)]
            while len(acknowledged) < 1000:  # noqa: ASYNC110  (progress has no event)
                await asyncio.sleep(0.01)
            await asyncio.to_thread(cluster.kill, "n2")
            await asyncio.gather(*tasks)
            got = await bucket.get_many(acknowledged)
            assert [key for key, result in got.items() if result.value is None] == []

    try:
        shared_background().run(load())
    finally:
        cluster.start(["n2"])
    assert len(acknowledged) > 4000
    assert all(error.outcome is kvstore.Outcome.UNKNOWN for error in errors), errors


def outcome(bucket: kvstore.Bucket, key: str) -> kvstore.KVError | None:
    try:
        bucket.put(key, "w", timeout=0.5)
    except (kvstore.WriteTimeout, kvstore.NoNodeAvailable) as error:
        return error
    return None


def test_reads_pass_by_a_hanging_node_and_writes_end_in_time(cluster: LocalCluster) -> None:
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        carts = db.bucket("hang")
        keys = [f"k{i}" for i in range(30)]
        carts.put_many(dict.fromkeys(keys, "v"))
        hanging = psutil.Process(cluster.pid("n1"))
        hanging.suspend()
        try:
            begin = time.monotonic()
            got = carts.get_many(keys, timeout=10)
            assert all(result.value == b"v" for result in got.values())
            # those that a running node coordinates are stored, the others end in time
            refused = [error for key in keys[:6] if (error := outcome(carts, key)) is not None]
            assert {error.outcome for error in refused} <= {kvstore.Outcome.UNKNOWN}
            assert time.monotonic() - begin < 10 + 6 * 0.5 + PATIENCE
        finally:
            hanging.resume()


def test_two_nodes_down_is_unavailable_and_typed(cluster: LocalCluster) -> None:
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        carts = db.bucket("carts")
        carts.put("lonely", "v", w=3)
        cluster.kill("n2")
        cluster.kill("n3")
        try:
            assert carts.get("lonely", r=1)
            with pytest.raises((kvstore.Unavailable, kvstore.WriteTimeout, kvstore.NoNodeAvailable)):
                carts.put("lonely", "w", timeout=2)
            with pytest.raises(kvstore.Unavailable):
                list(carts.scan_keys(timeout=5))
        finally:
            cluster.start(["n2", "n3"])
        assert carts.get("lonely")

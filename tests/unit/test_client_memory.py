"""What a bucket remembers for its caller: the next put replaces what that has seen, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import kvstore
from kvstore import aio
from kvstore.client import memory
from kvstore.client.memory import Memory
from kvstore.contexts import Keyring, encode_context
from kvstore.errors import InvalidRequest, UnverifiedContext
from kvstore.versions import NO_CONTEXT, Dot, InternalKey, SignedContext, UserKey
from tests.unit import client_node
from tests.unit.client_node import FakeCluster, run

Scenario = Callable[[aio.Bucket], Coroutine[Any, Any, None]]


@pytest.fixture
def carts(fake_cluster: FakeCluster) -> Any:
    with kvstore.connect(fake_cluster.endpoints) as db:
        yield db.bucket("carts")


def values(bucket: kvstore.Bucket, key: str = "k") -> list[bytes]:
    return sorted(sibling.value for sibling in bucket.get(key).siblings)


def play(cluster: FakeCluster, scenario: Scenario) -> None:
    async def whole() -> None:
        async with aio.connect(cluster.endpoints) as db:
            await scenario(db.bucket("carts"))

    run(whole())


def found(bucket: kvstore.Bucket, key: str = "k") -> list[bytes]:
    """What is stored, without anything being remembered of it by this thread."""
    seen: list[bytes] = []
    in_a_thread(lambda: seen.extend(values(bucket, key)))
    return seen


def in_a_thread(act: Callable[[], object]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def test_a_loop_of_puts_leaves_the_last_value(carts: kvstore.Bucket) -> None:
    for i in range(300):
        stored = carts.put("visits", str(i))
        assert stored.siblings == 1
    assert values(carts, "visits") == [b"299"]


def test_beside_values_of_others_it_replaces_its_own_alone(carts: kvstore.Bucket) -> None:
    in_a_thread(lambda: carts.put("k", "theirs"))
    for i in range(300):
        assert carts.put("k", f"mine {i}").siblings == 2
    assert found(carts) == [b"mine 299", b"theirs"]
    assert len(values(carts)) == 2
    assert carts.put("k", "resolved").siblings == 1


def test_a_blind_put_and_an_empty_context_replace_nothing(carts: kvstore.Bucket) -> None:
    carts.put("k", "1")
    carts.put("k", "2", blind=True)
    carts.put("k", "3", context=b"")
    assert found(carts) == [b"1", b"2", b"3"]
    with pytest.raises(InvalidRequest, match="blind put"):
        carts.put("k", "4", context=carts.get("k").context, blind=True)


def test_looking_and_listing_is_no_reading(carts: kvstore.Bucket) -> None:
    in_a_thread(lambda: carts.put("k", "theirs"))
    assert carts.exists("k")
    assert "k" in carts
    assert list(carts.keys()) == [b"k"]
    carts.put("k", "mine")
    assert found(carts) == [b"mine", b"theirs"]


@pytest.mark.parametrize("many", [False, True])
def test_two_threads_that_have_read_the_same_both_survive(carts: kvstore.Bucket, many: bool) -> None:
    carts.put("k", "first")
    both = threading.Barrier(2)

    def read_and_write(value: str) -> None:
        _ = carts.get_many(["k"]) if many else carts.get("k")
        both.wait(30)
        if many:
            carts.put_many({"k": value})
        else:
            carts.put("k", value)

    threads = [threading.Thread(target=read_and_write, args=(value,)) for value in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found(carts) == [b"a", b"b"]


def test_two_tasks_that_have_read_the_same_both_survive(fake_cluster: FakeCluster) -> None:
    async def scenario(bucket: aio.Bucket) -> None:
        await bucket.put("k", "first")
        both = asyncio.Barrier(2)

        async def read_and_write(value: str) -> None:
            await bucket.get("k")
            await both.wait()
            await bucket.put("k", value)

        await asyncio.gather(read_and_write("a"), read_and_write("b"))
        assert sorted(s.value for s in (await bucket.get("k")).siblings) == [b"a", b"b"]

    play(fake_cluster, scenario)


def test_a_call_that_another_task_awaits_is_its_callers(fake_cluster: FakeCluster) -> None:
    """asyncio.wait_for and gather make a task of what they are given."""

    async def scenario(bucket: aio.Bucket) -> None:
        for i in range(5):
            stored = await asyncio.create_task(bucket.put("k", str(i)))
            assert stored.siblings == 1
        await asyncio.create_task(bucket.get("k"))
        await asyncio.gather(bucket.put("k", "5"), bucket.put("other", "x"))
        await asyncio.create_task(bucket.update("k", lambda value: b"6"))
        assert (await bucket.put("k", "7")).siblings == 1
        assert [s.value for s in (await bucket.get("k")).siblings] == [b"7"]

    play(fake_cluster, scenario)


def test_after_a_delete_the_next_put_is_alone(carts: kvstore.Bucket) -> None:
    carts.put("k", "1")
    carts.delete("k")
    carts.put_many({"k": "2"})
    carts.delete_many(["k"])
    assert carts.put("k", "3").siblings == 1


def test_a_cluster_that_began_anew_does_not_refuse_what_is_remembered(
    carts: kvstore.Bucket, fake_cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    carts.put("k", "1")
    monkeypatch.setattr(client_node, "KEYRING", Keyring([b"n" * 16]))
    fake_cluster.store.versions.clear()
    assert carts.put("k", "2").siblings == 1
    assert carts.put("k", "3").siblings == 1
    monkeypatch.setattr(client_node, "KEYRING", Keyring([b"m" * 16]))
    fake_cluster.store.versions.clear()
    assert carts.put_many({"k": "4", "new": "1"})["k"].siblings == 1
    with pytest.raises(kvstore.PartialFailure):
        carts.put_many(
            {"k": "5"}, contexts={"k": encode_context((), InternalKey(b"place"), Keyring([bytes(16)]))}
        )
    stale = encode_context((), InternalKey(b"place"), Keyring([b"k" * 16]))
    with pytest.raises((InvalidRequest, UnverifiedContext)):
        carts.put("k", "4", context=stale)


def signed(*dots: Dot) -> SignedContext:
    return encode_context(dots, InternalKey(b"place"), Keyring([b"k" * 16]))


def test_an_older_read_does_not_take_the_place_of_the_last_write() -> None:
    key, mine = UserKey(b"k"), Memory()
    mine.has_written(key, signed(Dot("a", 2)))
    for older in (NO_CONTEXT, signed(Dot("a", 1)), signed(Dot("b", 9))):
        mine.has_read(key, older)
        assert mine.context(key) == signed(Dot("a", 2))
    later = signed(Dot("a", 3), Dot("b", 9))
    mine.has_read(key, later)
    assert mine.context(key) == later


def test_of_all_keys_the_last_ones_used_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEYS", 5)
    mine, context = Memory(), signed(Dot("a", 1))
    keys = [UserKey(b"%d" % number) for number in range(40)]
    used: list[UserKey] = []
    picked = random.Random("keys")
    for turn in range(2000):
        key = picked.choice(keys if turn % 3 else keys[:7])
        if mine.context(key) and turn % 2:
            mine.has_read(key, context)
        else:
            mine.has_written(key, context)
        used = [key, *(other for other in used if other != key)]
        assert all(map(mine.context, used[:5])), turn
        assert sum(map(bool, map(mine.context, keys))) <= 10
    mine.forget(used[0])
    assert not mine.context(used[0])


def test_memory_is_bounded_and_ends_with_its_thread(
    carts: kvstore.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "KEYS", 3)
    carts.put("k0", "1")
    carts.put_many({f"k{i}": "1" for i in range(1, 6)})
    assert [carts.put(f"k{i}", "2").siblings for i in range(6)] == [2, 2, 2, 2, 2, 2]
    carts.put("k5", "3")
    assert values(carts, "k5") == [b"1", b"3"]
    in_a_thread(lambda: carts.put("k", "theirs"))
    gc.collect()
    assert len(carts._inner._memories._of) == 1

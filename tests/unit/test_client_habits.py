"""What people of other stores try first with a bucket: it works so, or one line says what to call."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import kvstore
from kvstore import aio
from kvstore.client.guidance import names
from kvstore.errors import ConfigError
from kvstore.protocol.client import Delete, Get, Put
from kvstore.testing import Cluster
from tests.unit.client_node import FakeCluster, run


@pytest.fixture
def db(fake_cluster: FakeCluster) -> Iterator[kvstore.Client]:
    with kvstore.connect(fake_cluster.endpoints) as db:
        yield db


@pytest.fixture
def carts(db: kvstore.Client) -> kvstore.Bucket:
    return db.bucket("carts")


def test_a_bucket_is_used_like_a_dict(carts: kvstore.Bucket) -> None:
    assert not carts.exists("k")
    assert "k" not in carts
    with pytest.raises(KeyError, match="k"):
        _ = carts["k"]
    carts["k"] = "1"
    assert carts.exists(b"k")
    assert "k" in carts
    assert carts["k"] == b"1"
    carts[b"k"] += b", 2"
    assert carts["k"] == b"1, 2"
    assert list(carts) == [b"k"]
    del carts["k"]
    del carts["k"]
    assert "k" not in carts


def test_several_values_are_not_one(carts: kvstore.Bucket) -> None:
    carts.put("k", "1")
    carts.put("k", "2", blind=True)
    assert "k" in carts
    with pytest.raises(kvstore.UnresolvedSiblings):
        _ = carts["k"]


def test_writing_by_index_replaces_what_its_writer_has_seen_and_nothing_else(
    fake_cluster: FakeCluster, carts: kvstore.Bucket
) -> None:
    for i in range(150):
        carts["k"] = str(i)
    assert carts["k"] == b"149"
    with kvstore.connect(fake_cluster.endpoints) as another:
        other = another.bucket("carts")
        assert other["k"] == b"149"
        carts["k"] = "mine"
        other["k"] = "theirs"
    assert {sibling.value for sibling in carts.get("k").siblings} == {b"mine", b"theirs"}
    carts["k"] = "both"
    assert carts["k"] == b"both"
    with pytest.raises(kvstore.InvalidRequest):
        carts["k"] = 7  # type: ignore[assignment]


def test_keys_and_items_are_found_by_prefix(carts: kvstore.Bucket) -> None:
    carts.put_many({f"user:{i}": str(i) for i in range(150)} | {"other": "x"})
    users = {f"user:{i}".encode(): str(i).encode() for i in range(150)}
    assert sorted(carts.keys("user:")) == sorted(users)
    assert sorted(carts.keys(prefix=b"user:14")) == sorted(key for key in users if key.startswith(b"user:14"))
    assert set(carts.keys()) == set(carts) == {*users, b"other"}
    assert {key: got.value for key, got in carts.items("user:")} == users
    assert dict(carts.items("nobody")) == {}
    assert [got.value for _, got in carts.items("other")] == [b"x"]


@pytest.mark.parametrize("limit", [1, 64, 65, 150, 151])
def test_items_end_at_their_limit_and_read_no_more_values(
    fake_cluster: FakeCluster, carts: kvstore.Bucket, limit: int
) -> None:
    carts.put_many({f"k{i}": "v" for i in range(150)})
    assert len(dict(carts.items(limit=limit))) == min(limit, 150)
    read = {call.key for call in fake_cluster.store.calls if isinstance(call, Get)}
    assert len(read) == min(limit, 150)  # one that was slow may have been read twice


def test_what_goes_away_meanwhile_is_left_out_and_does_not_count(carts: kvstore.Bucket) -> None:
    carts.put_many({f"k{i}": "v" for i in range(130)})
    listed = list(carts.keys())
    items = carts.items(limit=129)
    found = [next(items)[0]]
    carts.delete(listed[64])  # listed with the 64 before it, which are read at once, and not read yet
    found += [key for key, _ in items]
    assert found == listed[:64] + listed[65:]


@pytest.mark.parametrize(("field", "arguments"), [("prefix", {"prefix": 7}), ("limit", {"limit": 0})])
def test_bad_arguments_are_named(carts: kvstore.Bucket, field: str, arguments: dict[str, int]) -> None:
    with pytest.raises(kvstore.InvalidRequest) as caught:
        list(carts.items(**arguments))  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda b: b.put("k", 7), 'value: must be str or bytes, not int; db.bucket(name, serializer="json")'),
        (lambda b: b.put(7, "v"), "key: must be str or bytes, not int"),
        (lambda b: b.put_many(["ab"]), "items: 'ab' is no pair of a key and a value"),
        (lambda b: b.put_many([("a", "b", "c")]), "items: ('a', 'b', 'c') is no pair"),
        (lambda b: b.put_many([7]), "items: 7 is no pair"),
        (lambda b: b.put_many(7), "items: must be several, not one int"),
        (lambda b: b.get_many(7), "keys: must be several, not one int"),
        (lambda b: b.get_many([["k"]]), "key: must be str or bytes, not list"),
        (lambda b: b.delete_many([bytearray(b"k")]), "key: must be str or bytes, not bytearray"),
        (lambda b: b.put_many([("k", "v")], contexts=[b"c"]), "contexts: must be by key, in a mapping"),
        (lambda b: b.delete_many(["k"], contexts=b"c"), "contexts: must be by key, in a mapping"),
        (lambda b: b.get("k", quorum=["strict"]), "quorum: ['strict'] is not one of strict|sloppy"),
        (lambda b: b.update("k", "v"), "change: must be a function, not str"),
        (lambda b: b.get("k", resolver="last"), "resolver: must be a function, not str"),
        (lambda b: b.get_many(["k"], resolver="last"), "resolver: must be a function, not str"),
    ],
)
def test_what_is_no_value_pair_or_function_is_refused_by_name(
    carts: kvstore.Bucket, call: Callable[[Any], object], said: str
) -> None:
    with pytest.raises(kvstore.InvalidRequest) as refused:
        call(carts)
    assert str(refused.value).startswith(said)
    assert not carts.exists("k")


def test_a_resolver_that_is_no_function_makes_no_bucket(db: Any) -> None:
    with pytest.raises(kvstore.InvalidRequest, match="resolver: must be a function, not str"):
        db.bucket("carts", resolver="last")


def test_a_buffer_is_a_value_as_it_is_now(carts: Any) -> None:
    buffer = bytearray(b"first")
    carts.put("array", buffer)
    carts.put("view", memoryview(buffer)[::2])
    buffer[:] = b"later"
    assert carts.get("array").value == b"first"
    assert carts.get("view").value == b"frt"


def test_keys_are_deleted_together(carts: kvstore.Bucket) -> None:
    stored = carts.put_many({f"k{i}": "v" for i in range(20)})
    deleted = carts.delete_many(iter(stored))
    assert set(deleted) == set(stored)
    assert not list(carts)
    with pytest.raises(kvstore.InvalidRequest, match="is one key: pass a list"):
        carts.delete_many("abc")
    assert carts.delete_many([]) == {}


def test_delete_many_leaves_what_the_contexts_have_not_seen(carts: kvstore.Bucket) -> None:
    seen = {key: stored.context for key, stored in carts.put_many({"a": "1", "b": "1"}).items()}
    carts.put("a", "2")
    carts.delete_many(["a", "b"], contexts=seen)
    assert carts["a"] == b"2"
    assert "b" not in carts


def test_a_session_deletes_together_what_it_has_seen(fake_cluster: FakeCluster, db: kvstore.Client) -> None:
    carts = db.session().bucket("carts")
    carts.put_many({"a": "1", "b": "1", "c": "1"})
    fake_cluster.store.calls.clear()
    carts.delete_many(["a", "b"])
    reads = [call for call in fake_cluster.store.calls if isinstance(call, Get)]
    deletes = [call for call in fake_cluster.store.calls if isinstance(call, Delete)]
    assert len(reads) == 2
    assert all(call.seen for call in reads)
    assert all(call.context for call in deletes)
    assert list(carts) == [b"c"]


def test_what_a_session_could_not_read_is_not_deleted(fake_cluster: FakeCluster, db: kvstore.Client) -> None:
    carts = db.session().bucket("carts")
    carts.put_many({"a": "1", "b": "1"})
    for node in fake_cluster.nodes:
        node.refusals.append(kvstore.Corruption("part", "reason", 1))
    with pytest.raises(kvstore.PartialFailure) as caught:
        carts.delete_many(["a", "b"])
    assert {*caught.value.failed, *caught.value.succeeded} == {"a", "b"}
    assert all(isinstance(error, kvstore.Corruption) for error in caught.value.failed.values())
    assert set(carts) == {str(key).encode() for key in caught.value.failed}


def test_a_time_to_live_may_be_a_timedelta(fake_cluster: FakeCluster, carts: kvstore.Bucket) -> None:
    carts.put("k", "v", ttl=timedelta(hours=1))
    carts.put_many({"l": "v"}, ttl=timedelta(days=1))
    assert [call.ttl for call in fake_cluster.store.calls if isinstance(call, Put)] == [3600, 86_400]


def test_asyncio_has_the_same_and_says_where_a_dict_cannot_wait(fake_cluster: FakeCluster) -> None:
    async def scenario(carts: aio.Bucket) -> None:
        await carts.put_many({f"user:{i}": str(i) for i in range(100)} | {"other": "x"})
        assert await carts.exists("other")
        assert len([key async for key in carts]) == 101
        assert len([key async for key in carts.keys("user:")]) == 100
        assert {key: got.value async for key, got in carts.items("o")} == {b"other": b"x"}
        assert len([got async for _, got in carts.items(limit=70)]) == 70
        await carts.delete_many(["other"])
        assert not await carts.exists("other")
        with pytest.raises(TypeError, match=r"await bucket.exists\(key\)"):
            print("k" in carts)  # type: ignore[operator]
        with pytest.raises(TypeError, match=r"bucket.get\(key\)"):
            print(carts["k"])  # type: ignore[index]
        with pytest.raises(TypeError, match=r"bucket.delete\(key\)"):
            del carts["k"]  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match=r"await bucket.put\(key, value\)"):
            carts["k"] = b"v"  # type: ignore[index]
        with pytest.raises(TypeError, match="async for key in bucket"):
            list(carts)  # type: ignore[call-overload]
        with pytest.raises(AttributeError, match="come later"):
            await carts.incr("k")  # type: ignore[attr-defined]

    async def connected() -> None:
        async with aio.connect(fake_cluster.endpoints) as db:
            await scenario(db.bucket("carts"))
            with pytest.raises(AttributeError, match=r"db.bucket\(name\)"):
                await db.get("k")  # type: ignore[attr-defined]

    run(connected())


def test_a_simulated_cluster_has_the_same(kvcluster: Cluster) -> None:
    carts = kvcluster.connect().bucket("carts")
    carts.put_many({f"user:{i}": str(i) for i in range(70)} | {"other": "x"})
    assert len(list(carts.keys("user:"))) == 70
    assert len(dict(carts.items("user:", limit=69))) == 69
    carts.delete_many(["other"])
    assert "other" not in carts


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("incr", r"counters come later.*update\(key, change\)"),
        ("put_if_absent", "conditional writes come later"),
        ("sadd", r"come later.*update\(key, change\)"),
        ("range", r"spread by their hash.*keys\(prefix=...\)"),
        ("scan", r"items\(prefix=...\)"),
        ("set", r"put\(key, value\)"),
        ("mget", r"get_many\(keys\)"),
        ("remove", r"delete\(key\)"),
        ("expire", "ttl="),
    ],
)
def test_what_does_not_exist_names_the_right_call(carts: kvstore.Bucket, name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint) as caught:
        getattr(carts, name)
    assert "\n" not in str(caught.value)
    assert not hasattr(carts, name)


def test_what_nobody_would_guess_is_an_ordinary_attribute_error(
    db: kvstore.Client, carts: kvstore.Bucket
) -> None:
    with pytest.raises(AttributeError, match=r"^'Bucket' object has no attribute 'xyz'$"):
        _ = carts.xyz  # type: ignore[attr-defined]
    with pytest.raises(
        AttributeError, match=r"^'Client' object has no attribute 'put': .* db.bucket\(name\)"
    ):
        db.put("k", "v")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["decode", "split", "json", "startswith"])
def test_who_takes_a_result_for_its_value_is_told(name: str) -> None:
    result = kvstore.Result(b"k", (kvstore.Sibling(b"v"),), b"")
    with pytest.raises(AttributeError, match=f"no attribute '{name}': what was read is .value"):
        getattr(result, name)
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
        _ = result.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize("travel", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_has_connections_says_that_it_cannot_be_pickled_or_copied(
    fake_cluster: FakeCluster, travel: Callable[[object], object]
) -> None:
    with kvstore.connect(fake_cluster.endpoints) as db:
        asynchronous = db._inner
        for each in (db, db.bucket("b"), db.session(), asynchronous, asynchronous.bucket("b")):
            with pytest.raises(
                TypeError, match=f"a {type(each).__name__} has connections, and cannot be pickled"
            ):
                travel(each)


@pytest.mark.parametrize("endpoints", [b"127.0.0.1:7001", ("127.0.0.1", 7001), 7, [None], "a:" + "7" * 5000])
def test_endpoints_that_are_no_text_are_refused(endpoints: Any) -> None:
    with pytest.raises(ConfigError, match="of the form host:port"):
        kvstore.connect(endpoints)


@pytest.mark.parametrize("kind", ["Bucket", "Client"])
def test_no_name_with_a_hint_exists(kind: str) -> None:
    """Whoever builds one of them must take its hint away."""
    for module in (kvstore, aio):
        assert not [name for name in names(kind) if hasattr(getattr(module, kind), name)]
    assert not [name for name in names("Result") if hasattr(kvstore.Result, name)]

"""Buckets whose values are more than bytes: what is stored, what comes back, what cannot, and the types."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, assert_type, get_args, get_type_hints

import pytest

import kvstore
from kvstore import aio
from kvstore.protocol.client import Put
from tests.unit.client_node import FakeCluster, run


@dataclass(frozen=True)
class User:
    name: str


class Users:
    """Notes the threads that it is called in."""

    def __init__(self) -> None:
        self.threads: set[threading.Thread] = set()

    def dumps(self, value: User) -> bytes:
        self.threads.add(threading.current_thread())
        return value.name.encode()

    def loads(self, data: bytes) -> User:
        self.threads.add(threading.current_thread())
        return User(data.decode())


@pytest.fixture
def db(fake_cluster: FakeCluster) -> Iterator[kvstore.Client]:
    with kvstore.connect(fake_cluster.endpoints) as db:
        yield db


CART: dict[str, Any] = {"items": [1, 2.5, "ünïcode", None, True], "": {}}


@pytest.mark.parametrize("serializer", ["json", "msgpack", json, pickle])
def test_what_is_put_comes_back(db: kvstore.Client, serializer: Any) -> None:
    carts = db.bucket("carts", serializer=serializer)
    carts.put("k", CART)
    assert carts.get("k").value == carts["k"] == CART
    carts.put_many({"l": [1], "m": "text"})
    assert {key: got.value for key, got in carts.get_many(["l", "m"]).items()} == {"l": [1], "m": "text"}
    carts.update("l", lambda value: [*(value or []), 2])
    assert {key: got.value for key, got in carts.items("l")} == {b"l": [1, 2]}
    assert carts.update("k", lambda _: None).siblings == 0
    assert "k" not in carts


def test_what_is_stored_is_what_others_expect(fake_cluster: FakeCluster, db: kvstore.Client) -> None:
    db.bucket("carts", serializer="json").put("k", {"a": ["ü"]})
    db.bucket("carts", serializer="msgpack").put("k", {1: b"bytes"})
    stored = [call.value for call in fake_cluster.store.calls if isinstance(call, Put)]
    assert stored == ['{"a":["ü"]}'.encode(), b"\x81\x01\xc4\x05bytes"]
    assert db.bucket("carts", serializer="msgpack").get("k").siblings[1].value == {1: b"bytes"}


def test_none_is_a_value_of_json_and_no_missing_one(db: kvstore.Client) -> None:
    carts = db.bucket("carts", serializer="json")
    carts.put("k", None)
    assert carts["k"] is None
    assert carts.get("k", "default").value is None
    with pytest.raises(KeyError):
        _ = carts["other"]


def test_siblings_are_decoded_and_resolved(db: kvstore.Client) -> None:
    carts = db.bucket(
        "carts", serializer="json", resolver=lambda siblings: [each for s in siblings for each in s.value]
    )
    carts.put("k", [1])
    carts.put("k", [2], content_type="x", blind=True)
    got = carts.get("k")
    assert [(s.value, s.content_type) for s in got.siblings] == [([1], ""), ([2], "x")]
    assert carts["k"] == [1, 2]
    assert carts.update("k", lambda value: [*(value or []), 3]).siblings == 1
    assert carts["k"] == [1, 2, 3]


def test_a_default_stands_where_there_is_no_value(db: kvstore.Client) -> None:
    carts = db.bucket("carts")
    got = carts.get("k", b"none")
    assert got.value == b"none"
    assert not got
    carts.put("k", "v")
    assert carts.get("k", b"none").value == b"v"
    carts.put("k", "w", blind=True)
    assert carts.get("k", b"none", resolver=lambda _: None).value == b"none"
    assert pickle.loads(pickle.dumps(got)).value == copy.deepcopy(got).value == b"none"


@pytest.mark.parametrize(
    ("serializer", "value"), [("json", float("nan")), ("json", {1, 2}), ("msgpack", object())]
)
def test_what_cannot_be_stored_is_refused_before_anything_is_sent(
    fake_cluster: FakeCluster, db: kvstore.Client, serializer: Any, value: object
) -> None:
    carts = db.bucket("carts", serializer=serializer)
    with pytest.raises(kvstore.InvalidRequest, match="value: the serializer does not take it: ") as caught:
        carts.put_many({"a": 1, "k": value})
    assert caught.value.field == "value"
    assert caught.value.__cause__ is not None
    assert not fake_cluster.store.calls


@pytest.mark.parametrize("serializer", ["json", "msgpack", json, Users()])
def test_what_cannot_be_decoded_is_named_when_it_is_looked_at(db: kvstore.Client, serializer: Any) -> None:
    db.bucket("carts").put_many({"k": b"\xff\xfe{", "good": b"1"})
    carts = db.bucket("carts", serializer=serializer)
    got = carts.get("k")
    assert got
    assert "k" in carts
    with pytest.raises(kvstore.UndecodableValue, match="key b'k' of bucket 'carts'") as caught:
        _ = got.value
    assert (caught.value.bucket, caught.value.key, caught.value.stored) == ("carts", b"k", b"\xff\xfe{")
    assert repr(got.siblings[0]).startswith("Sibling(UndecodableValue(")
    assert set(dict(carts.items())) == {b"k", b"good"}, "one that is damaged must not hide the others"
    travelled = pickle.loads(pickle.dumps(got))
    with pytest.raises(kvstore.UndecodableValue, match="of bucket 'carts'"):
        _ = copy.deepcopy(travelled).value
    carts.delete("k", context=got.context)
    assert "k" not in carts


@pytest.mark.parametrize("serializer", ["yaml", 7, object(), ""])
def test_a_serializer_that_is_none_is_refused(db: kvstore.Client, serializer: Any) -> None:
    for place in (db, db.session()):
        with pytest.raises(kvstore.InvalidRequest, match=r"^serializer: "):
            place.bucket("carts", serializer=serializer)


def test_a_serializer_works_in_the_calling_thread_and_may_use_the_client(db: kvstore.Client) -> None:
    class Nosy(Users):
        def loads(self, data: bytes) -> User:
            assert db.bucket("plain").get("k").value == b"v"
            return super().loads(data)

    db.bucket("plain").put("k", "v")
    serializer = Nosy()
    users = db.bucket("users", serializer=serializer)
    users.put_many([("ann", User("ann")), ("bob", User("bob"))])
    users.put("ann", User("eve"), context=users.get("ann").context)
    assert users.get_many(["bob"])["bob"].value == User("bob")
    users.update("bob", lambda user: user)
    assert dict(users.items("ann"))[b"ann"].value == User("eve")
    assert serializer.threads == {threading.current_thread()}


def test_a_session_decodes_too(fake_cluster: FakeCluster, db: kvstore.Client) -> None:
    users = assert_type(db.session().bucket("users", serializer=Users()), kvstore.Bucket[User])
    users.put("ann", User("ann"))
    assert users["ann"] == User("ann")
    assert fake_cluster.store.calls[-1].seen  # type: ignore[union-attr]


def test_asyncio_has_the_same(fake_cluster: FakeCluster) -> None:
    async def scenario() -> None:
        async with aio.connect(fake_cluster.endpoints) as db:
            users = assert_type(db.bucket("users", serializer=Users()), aio.Bucket[User])
            await users.put("ann", User("ann"))
            assert_type((await users.get("ann")).value, User | None)
            assert (await users.get("bob", User("nobody"))).value == User("nobody")
            assert {key: got.value async for key, got in users.items()} == {b"ann": User("ann")}

    run(scenario())


def test_the_types_follow(db: kvstore.Client) -> None:
    """To mypy, which checks this file."""
    users = assert_type(db.bucket("users", serializer=Users()), kvstore.Bucket[User])
    users.put("ann", User("ann"), ttl=60)
    assert_type(users.get("ann"), kvstore.Result[User])
    assert_type(users.get("ann").value, User | None)
    assert_type(users.get("ann", User("none")).value, User)
    assert_type(users["ann"], User)
    assert_type(users.get_many(["ann"]), dict[str, kvstore.Result[User]])
    assert_type(users.get("ann").siblings, tuple[kvstore.Sibling[User], ...])
    for key, got in users.items():
        assert_type(key, bytes)
        assert_type(got.value, User | None)
    with pytest.raises(kvstore.InvalidRequest):
        users.put("ann", 7)  # type: ignore[arg-type]
    with pytest.raises(kvstore.InvalidRequest):
        users.put_many({"ann": 7})  # type: ignore[arg-type]
    assert_type(db.bucket("carts", serializer="json"), kvstore.Bucket[Any])
    assert_type(db.bucket("carts", serializer=json), kvstore.Bucket[Any])
    plain = assert_type(db.bucket("carts"), kvstore.Bucket)
    assert_type(plain, kvstore.Bucket[bytes])
    assert_type(plain.get("k").value, bytes | None)
    assert_type(plain.get("k", b"").value, bytes)
    plain.put("k", "text")


def test_the_types_can_be_written_down() -> None:
    def typed(
        users: kvstore.Bucket[User], got: kvstore.Result[User], resolver: kvstore.Resolver[User]
    ) -> None:
        """Checked by mypy, and by those who read annotations at run time."""

    assert get_args(get_type_hints(typed)["users"]) == (User,)

"""Arguments and names that other stores' clients have: one line says what it is called here."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import kvstore
from kvstore import aio
from kvstore.client.guidance import guessed_arguments, guessed_names
from kvstore.errors import ConfigError
from tests.unit.client_node import FakeCluster

CALLS = ("get", "put", "delete", "update", "exists", "get_many", "put_many", "delete_many", "keys", "items")


@pytest.fixture
def carts(fake_cluster: FakeCluster) -> Any:
    return kvstore.connect(fake_cluster.endpoints).bucket("carts")


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda b: b.put("k", "v", ex=5), r"^put\(\) got an unexpected keyword argument 'ex': it is ttl="),
        (lambda b: b.put("k", "v", nx=True), "'nx': conditional writes come later; today update"),
        (lambda b: b.put("k", "v", if_absent=True), "'if_absent': conditional writes come later"),
        (lambda b: b.put_many({"k": "v"}, expire=5), r"^put_many\(\) .*: it is ttl="),
        (lambda b: b.get("k", consistency="ONE"), "'consistency': it is r= for reads and w= for writes"),
        (lambda b: b.items(count=5), "'count': it is limit="),
        (lambda b: b.keys(start="a", end="b"), "'start': keys are spread by their hash"),
        (lambda b: b.put("k", "v", nonsense=1), r"^put\(\) got an unexpected keyword argument 'nonsense'$"),
        (lambda b: b.put("k"), r"^put\(\) missing 1 required positional argument: 'value'$"),
    ],
)
def test_an_argument_of_another_store_names_the_right_one(
    carts: Any, call: Callable[[Any], object], hint: str
) -> None:
    with pytest.raises(TypeError, match=hint) as caught:
        call(carts)
    assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match=hint):
        call(carts._inner)


@pytest.mark.parametrize("connect", [kvstore.connect, kvstore.Client, aio.connect, aio.Client])
@pytest.mark.parametrize(
    ("positional", "named", "hint"),
    [
        (("127.0.0.1", 7001), {}, r"endpoints are one argument: connect\('host:port,host:port'\)"),
        ((), {}, r"endpoints are one argument: connect\('host:port,host:port'\)"),
        ((), {"host": "127.0.0.1", "port": 7001}, r"'host': endpoints are one argument"),
        (("h:1",), {"socket_timeout": 5}, r"^(connect|Client)\(\) got .* 'socket_timeout': it is timeout="),
        (("h:1",), {"max_retries": 5}, "'max_retries': it is attempts="),
        (("h:1",), {"password": "x"}, "'password': there is no authentication"),
        (("h:1",), {"decode_responses": True}, r"'decode_responses': values are bytes; db.bucket\("),
    ],
)
def test_connecting_as_to_another_store_names_the_right_call(
    connect: Callable[..., object], positional: tuple[object, ...], named: dict[str, object], hint: str
) -> None:
    with pytest.raises(TypeError, match=hint):
        connect(*positional, **named)


def test_a_type_error_of_what_was_called_stays_as_it_was(carts: Any) -> None:
    def keys() -> Iterator[str]:
        raise TypeError("of the caller's own")
        yield "k"

    with pytest.raises(TypeError, match="of the caller's own") as caught:
        carts.get_many(keys())
    assert caught.traceback[-1].name == "keys"


def test_no_argument_with_a_hint_exists() -> None:
    """Whoever builds one of them must take its hint away."""
    for owner in (kvstore.Bucket, aio.Bucket):
        for name in CALLS:
            taken = set(inspect.signature(getattr(owner, name)).parameters)
            assert not taken & set(guessed_arguments()), name
    for connect in (kvstore.connect, aio.connect):
        assert not set(inspect.signature(connect).parameters) & set(guessed_arguments())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("KeyNotFound", "a key without a value is no error"),
        ("NotFoundError", "a key without a value is no error"),
        ("TimeoutError", r"it is kvstore\.Timeout"),
        ("ConnectionError", r"it is kvstore\.NoNodeAvailable"),
        ("KVStoreError", r"it is kvstore\.KVError"),
        ("AsyncClient", r"it is kvstore\.aio\.connect"),
        ("Redis", r"it is kvstore\.connect"),
        ("Cluster", r"it is kvstore\.connect"),
        ("ConflictError", r"it is kvstore\.UnresolvedSiblings"),
    ],
)
def test_a_name_of_the_module_names_the_right_one(name: str, hint: str) -> None:
    with pytest.raises(
        AttributeError, match=f"^module 'kvstore' has no attribute '{name}': {hint}"
    ) as caught:
        getattr(kvstore, name)
    assert "\n" not in str(caught.value)
    assert not set(guessed_names()) & set(kvstore.__all__)


def test_who_takes_one_client_for_the_other_is_told(fake_cluster: FakeCluster) -> None:
    async def asynchronously() -> None:
        async with kvstore.connect(fake_cluster.endpoints):  # type: ignore[attr-defined]
            pass

    def synchronously() -> None:
        with aio.connect(fake_cluster.endpoints):  # type: ignore[attr-defined]
            pass

    with pytest.raises(TypeError, match=r"`with kvstore\.connect\(\.\.\.\)`, or `async with kvstore\.aio"):
        asyncio.run(asynchronously())
    with pytest.raises(TypeError, match=r"`async with kvstore\.aio\.connect\(\.\.\.\)`, or `with kvstore\.c"):
        synchronously()


def test_an_index_of_a_client_names_the_bucket(fake_cluster: FakeCluster) -> None:
    with (
        kvstore.connect(fake_cluster.endpoints) as db,
        pytest.raises(TypeError, match=r"db\.bucket\('carts'\)"),
    ):
        _ = db["carts"]  # type: ignore[index]


def test_clients_and_buckets_show_what_they_are(fake_cluster: FakeCluster) -> None:
    with kvstore.connect(fake_cluster.endpoints) as db:
        assert repr(db.bucket("carts")) == "<kvstore.Bucket 'carts'>"
        assert repr(db.bucket("carts")._inner) == "<kvstore.aio.Bucket 'carts'>"


def test_endpoints_in_bytes_are_shown_as_they_were_given() -> None:
    with pytest.raises(ConfigError, match=r"endpoints b'127\.0\.0\.1:7001' are no text"):
        kvstore.connect(b"127.0.0.1:7001")  # type: ignore[arg-type]

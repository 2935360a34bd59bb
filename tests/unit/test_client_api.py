"""The client's surface: names, signatures, what is refused before anything is sent, the sync facade."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version
from inspect import getattr_static
from typing import assert_type, get_origin, get_type_hints

import pytest

import kvstore
from kvstore import aio
from kvstore.client import asynchronous, synchronous
from kvstore.client.background import shared_background
from kvstore.client.endpoints import parse_endpoints
from kvstore.client.requests import requests_for
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster, run


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    run(cluster.start())
    yield cluster
    run(cluster.stop())


def in_fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


AT_THE_END = """
import sys
import kvstore
class Holder:
    def __del__(self, closed=kvstore.ClientClosed):
        try:
            self.db.bucket("b").get("k")
        except closed as error:
            print(error)
        self.db.close()
        print("closed")
holder = Holder()
holder.db = kvstore.connect(sys.argv[1])
"""


def test_a_client_that_is_used_when_python_ends_keeps_nobody_waiting(cluster: FakeCluster) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END, cluster.endpoints],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"the program is over, and with it the client\nclosed\n"


def test_the_core_is_imported_without_grpc() -> None:
    code = "import sys, kvstore, kvstore.protocol; print('grpc' in sys.modules)"
    assert in_fresh_python(code) == "False\n"


def test_the_client_is_imported_without_the_server() -> None:
    code = (
        "import sys, kvstore; kvstore.connect; kvstore.aio.connect;"
        "print([m for m in sys.modules if m.startswith(('kvstore.server', 'kvstore.lsm', 'kvstore.gossip'))])"
    )
    assert in_fresh_python(code) == "[]\n"


def test_every_public_name_exists_and_no_other() -> None:
    for name in kvstore.__all__:
        assert getattr(kvstore, name) is not None
        assert name in dir(kvstore)
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        _ = kvstore.conect


def public(kind: type) -> dict[str, str]:
    """Each public method with its parameters, and what it gives once it has been awaited."""
    members = {
        name: member.fget if isinstance(member, property) else member
        for name, member in ((name, getattr_static(kind, name)) for name in dir(kind))
        if not name.startswith("_")
    }
    return {
        name: str(inspect.signature(member)).replace("AsyncIterator", "Iterator")
        for name, member in members.items()
        if member is not None
    }


@pytest.mark.parametrize("name", ["Client", "Session", "Bucket"])
def test_sync_and_async_have_the_same_signatures_and_docstrings(name: str) -> None:
    here, there = getattr(synchronous, name), getattr(asynchronous, name)
    assert public(here) == public(there)
    for member in public(here):
        assert inspect.getdoc(getattr(here, member)) == inspect.getdoc(getattr(there, member)) != ""
        assert not inspect.iscoroutinefunction(getattr(here, member))


def test_the_types_of_the_sync_client_are_known(cluster: FakeCluster) -> None:
    """To mypy, which checks this file, and at run time."""
    with kvstore.connect(cluster.endpoints) as db:
        carts = assert_type(db.bucket("carts"), kvstore.Bucket)
        assert_type(carts.put("k", "v", ttl=60), kvstore.Stored)
        assert_type(carts.update("k", lambda _: None), kvstore.Stored)
        assert_type(carts.get_many(["k"]), dict[str, kvstore.Result])
        assert_type(carts.put_many({b"k": "v"}), dict[bytes, kvstore.Stored])
        assert_type(carts.scan_keys(), Iterator[bytes])
        assert_type(carts.delete_many([b"k"], contexts={b"k": b""}), dict[bytes, kvstore.Stored])
        assert_type(carts.keys("k"), Iterator[bytes])
        assert_type(carts.items(prefix=b"k", limit=1), Iterator[tuple[bytes, kvstore.Result]])
        assert_type(list(carts), list[bytes])
        assert_type("k" in carts, bool)
        assert_type(carts["k"], bytes) if "k" in carts else None
        assert_type(db.session().bucket("carts").get("k").value, bytes | None)
        with pytest.raises(TypeError):
            carts.get("k", w=1)  # type: ignore[call-arg]
    assert get_type_hints(kvstore.Client.bucket)["return"] is kvstore.Bucket
    assert get_origin(get_type_hints(kvstore.Bucket.get)["return"]) is kvstore.Result
    assert get_type_hints(kvstore.Bucket.get)["key"] == str | bytes


def test_what_calls_back_is_called_in_the_calling_thread(cluster: FakeCluster) -> None:
    threads: list[threading.Thread] = []

    def noted(number: int) -> str:
        threads.append(threading.current_thread())
        return f"k{number}"

    def change(value: bytes | None) -> bytes | None:
        threads.append(threading.current_thread())
        return value

    def resolve(_: tuple[kvstore.Sibling, ...]) -> bytes:
        threads.append(threading.current_thread())
        return b"v"

    with kvstore.connect(cluster.endpoints) as db:
        carts = db.bucket("carts", resolver=resolve)
        carts.put_many((noted(i), "v") for i in range(2))
        carts.put_many(items=((noted(i), "v") for i in range(2)), blind=True)
        carts.get_many(keys=map(noted, range(2)))
        carts.update("k0", change)
    assert threads == [threading.current_thread()] * 8


def test_both_connect_alike() -> None:
    assert inspect.signature(kvstore.connect) == inspect.signature(aio.connect)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "host",
        "host:",
        ":7001",
        "host:0",
        "host:65536",
        "host:x",
        "::1:7001",
        "[::1]",
        "a b:1",
        "http://h:1",
        "kvstore://",
        "kvstore://h",
        "kvstore://h:1/1",
        "h:1,kvstore://h:2",
    ],
)
def test_bad_endpoints_are_named(text: str) -> None:
    with pytest.raises(kvstore.ConfigError, match="endpoint"):
        kvstore.connect(text)


def test_endpoints_are_read_once_each() -> None:
    assert parse_endpoints("a:1, b:2,a:1,[::1]:3") == ("a:1", "b:2", "[::1]:3")
    assert parse_endpoints(["a:1", "b:2"]) == ("a:1", "b:2")
    assert parse_endpoints("kvstore://a:1,[::1]:3") == ("a:1", "[::1]:3")
    assert parse_endpoints("kvstore://a:1/") == ("a:1",)


def test_the_class_is_as_good_as_connect(cluster: FakeCluster) -> None:
    assert inspect.signature(kvstore.Client) == inspect.signature(aio.Client)
    with kvstore.Client("kvstore://" + cluster.endpoints) as db:
        assert not db.bucket("carts").get("k")

    async def awaited() -> None:
        async with aio.Client(cluster.endpoints) as db:
            assert not await db.bucket("carts").get("k")

    run(awaited())


def test_a_text_is_no_list_of_keys_or_items(cluster: FakeCluster) -> None:
    with kvstore.connect(cluster.endpoints) as db:
        carts = db.bucket("carts")
        for text in ("abc", b"abc"):
            with pytest.raises(kvstore.InvalidRequest, match="is one key: pass a list"):
                carts.get_many(text)  # type: ignore[type-var]
            with pytest.raises(kvstore.InvalidRequest, match="is one text: pass a mapping"):
                carts.put_many(text)  # type: ignore[arg-type]
    assert not cluster.store.calls


def test_the_version_is_the_one_that_is_installed() -> None:
    assert kvstore.__version__ == version("kvstore")


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("key", {"key": ""}),
        ("key", {"key": b"x" * 4097}),
        ("key", {"key": 7}),
        ("key", {"key": "\ud800"}),
        ("value", {"value": b"x" * (16 * 1024 * 1024 + 1)}),
        ("value", {"value": None}),
        ("context", {"context": "text"}),
        ("content_type", {"content_type": b"text/plain"}),
        ("content_type", {"content_type": "x" * 256}),
        ("ttl", {"ttl": 0}),
        ("ttl", {"ttl": -1}),
        ("ttl", {"ttl": 2**32}),
        ("ttl", {"ttl": 1.5}),
        ("ttl", {"ttl": timedelta(seconds=1.5)}),
        ("ttl", {"ttl": timedelta(0)}),
        ("ttl", {"ttl": timedelta(days=-1)}),
        ("ttl", {"ttl": timedelta(days=50_000)}),
        ("w", {"w": 0}),
        ("w", {"w": True}),
        ("w", {"w": 2**40}),
        ("quorum", {"quorum": "loose"}),
        ("timeout", {"timeout": 0}),
        ("timeout", {"timeout": "5"}),
        ("timeout", {"timeout": float("nan")}),
        ("timeout", {"timeout": float("inf")}),
    ],
)
def test_bad_arguments_are_refused_by_name_and_nothing_is_sent(
    cluster: FakeCluster, field: str, arguments: dict[str, object]
) -> None:
    with kvstore.connect(cluster.endpoints) as db:
        with pytest.raises(kvstore.InvalidRequest) as caught:
            db.bucket("carts").put(**{"key": "k", "value": "v", **arguments})  # type: ignore[arg-type]
        assert caught.value.field == field
        db.bucket("carts").put(b"x" * 4096, "the connection still works")
    assert sum(len(node.calls) for node in cluster.nodes) == 1


@pytest.mark.parametrize("name", ["", "Carts", "a" * 65, "-a", "a/b", None])
def test_bad_bucket_names(name: str) -> None:
    with pytest.raises(kvstore.InvalidRequest, match="bucket"):
        requests_for(name, None, None, None, 1.0, None)


def test_defaults_of_a_bucket_hold_until_a_call_overrides_them(cluster: FakeCluster) -> None:
    with kvstore.connect(cluster.endpoints, timeout=3) as db:
        carts = db.bucket("carts", r=1, w=3, quorum="sloppy")
        carts.put("k", "v")
        carts.put("k", "v", w=2, quorum="strict", timeout=1, explain=True, ttl=60)
        carts.get("k")
        carts.get("k", r=2)
        carts.delete("k")
    calls = cluster.store.calls
    assert [getattr(call, "w", None) or getattr(call, "r", None) for call in calls] == [3, 2, 1, 2, 3]
    assert [call.quorum.value for call in calls if call.quorum] == ["sloppy", "strict"] + ["sloppy"] * 3
    assert 2.5 < calls[0].timeout < 3
    assert 0.8 < calls[1].timeout < 1
    assert [call.explain for call in calls] == [False, True, False, False, False]


def test_sync_client_does_what_the_async_one_does(cluster: FakeCluster) -> None:
    with kvstore.connect(cluster.endpoints) as db:
        carts = db.bucket("carts", resolver=lambda siblings: b"+".join(sorted(s.value for s in siblings)))
        assert carts.name == "carts"
        stored = carts.put("k", "1")
        carts.put("k", "2", context=stored.context)
        carts.put("k", "3", blind=True)
        assert carts.get("k").value == b"2+3"
        assert carts.update("k", lambda value: (value or b"") + b"!").siblings == 1
        assert carts.get("k").value == b"2+3!"
        carts.update("k", lambda _: None)
        assert not carts.get("k")
        before = len(cluster.store.applied)
        assert carts.update("k", lambda _: None).siblings == 0
        assert len(cluster.store.applied) == before, "deleted without having seen anything"
        carts.put_many((f"k{i}", str(i)) for i in range(1200))
        assert {key: r.value for key, r in carts.get_many(f"k{i}" for i in range(1200)).items()} == {
            f"k{i}": str(i).encode() for i in range(1200)
        }
        assert len(list(carts.scan_keys())) == 1200
        assert db.ring().cluster_id == "test"
        assert all(isinstance(status, kvstore.NoNodeAvailable) for status in db.status().values())
    db.close()
    with pytest.raises(kvstore.ClientClosed):
        carts.get("k")


def test_threads_share_a_sync_client(cluster: FakeCluster) -> None:
    wrong: list[object] = []

    def work(carts: kvstore.Bucket, name: int) -> None:
        for i in range(20):
            carts.put(f"{name}/{i}", f"{name}-{i}")
            value = carts.get(f"{name}/{i}").value
            if value != f"{name}-{i}".encode():
                wrong.append(value)

    with kvstore.connect(cluster.endpoints) as db:
        threads = [threading.Thread(target=work, args=(db.bucket("carts"), n)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not wrong
    assert len(cluster.store.applied) == 160
    assert [t.name for t in threading.enumerate()].count("kvstore-client") == 1


def test_callbacks_of_a_sync_client_may_use_it(cluster: FakeCluster) -> None:
    with kvstore.connect(cluster.endpoints) as db:
        carts = db.bucket("carts")
        carts.put("other", "7")
        carts.update("k", lambda _: carts.get("other").value)
        assert carts.get("k").value == b"7"


def test_a_call_from_the_loop_itself_is_refused(cluster: FakeCluster) -> None:
    async def inside() -> None:
        with pytest.raises(RuntimeError, match="event loop"):
            carts.get("k")

    with kvstore.connect(cluster.endpoints) as db:
        carts = db.bucket("carts")
        shared_background().run(inside())


def test_after_a_fork_the_client_says_so() -> None:
    code = (
        "import os, kvstore\n"
        "from kvstore.client.background import shared_background\n"
        "background = shared_background()\n"
        "async def nothing(): return 7\n"
        "assert background.run(nothing()) == 7\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        background.run(nothing())\n"
        "    except kvstore.ClientClosed as error:\n"
        "        os.write(1, str(error).encode())\n"
        "    assert shared_background() is not background\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    assert "connect after the fork" in in_fresh_python(code)

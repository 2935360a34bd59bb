"""A client that nobody can use any more is closed, though nobody has closed it; and not before."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

import kvstore
from kvstore import aio
from kvstore.client.background import shared_background
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster


def connections() -> int:
    """The sockets of this process; the nodes of the test are in it, too."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # closed since it was listed, as the one that lists is
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


def comes_down_to(count: int) -> bool:
    until = time.monotonic() + PATIENCE
    while connections() > count:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def without(fake_cluster: FakeCluster) -> int:
    """How many there are when no client is open."""
    assert fake_cluster.endpoints
    shared_background()
    return connections()


USES: dict[str, Callable[[kvstore.Client], object]] = {
    "client": lambda db: db,
    "bucket": lambda db: db.bucket("b"),
    "session": lambda db: db.session(),
    "bucket of a session": lambda db: db.session().bucket("b"),
    "keys": lambda db: db.bucket("b").keys(),
    "items": lambda db: db.bucket("b").items(),
}


@pytest.mark.parametrize("use", USES)
def test_it_is_open_while_there_is_a_way_to_use_it_and_no_longer(
    fake_cluster: FakeCluster, without: int, use: str
) -> None:
    kept = USES[use](kvstore.connect(fake_cluster.endpoints, timeout=PATIENCE))
    gc.collect()
    if isinstance(kept, kvstore.Client | kvstore.Session):
        kept = kept.bucket("b")
    if isinstance(kept, kvstore.Bucket):
        kept.put("k", "v")
    else:
        assert list(kept) == []  # type: ignore[call-overload]
    del kept
    gc.collect()
    assert comes_down_to(without)


def test_a_call_that_is_under_way_is_a_use(fake_cluster: FakeCluster, without: int) -> None:
    assert not kvstore.connect(fake_cluster.endpoints).bucket("b").scan_page().keys
    assert not list(kvstore.connect(fake_cluster.endpoints).bucket("b").items())
    assert kvstore.connect(fake_cluster.endpoints).bucket("b").put("k", "v").siblings
    assert kvstore.connect(fake_cluster.endpoints).ring().members
    gc.collect()
    assert comes_down_to(without)


def test_an_asyncio_client_that_is_dropped_as_its_loop_ends_says_nothing(
    fake_cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        db = await aio.connect(fake_cluster.endpoints)
        await db.bucket("b").get("k")

    for _ in range(3):
        asyncio.run(leave(), debug=True)
    gc.collect()
    assert not caplog.records

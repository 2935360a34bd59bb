"""What other threads hand to a loop, and the thread that waits for its answer."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Sequence

import pytest

import kvstore
from kvstore.client.background import shared_background
from kvstore.client.blocked_thread import BlockedThread
from kvstore.client.core.waiter import Waiter
from kvstore.from_threads import FromThreads
from kvstore.protocol.client import Stored
from kvstore.versions import NO_CONTEXT
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster

_EACH = 2000
_STORED = Stored(NO_CONTEXT, 1)


def test_all_arrives_once_and_in_the_order_of_its_thread() -> None:
    """More than a pipe holds while the loop does not look."""

    async def scenario() -> None:
        came: list[tuple[int, int]] = []
        everything = asyncio.Event()

        def take(items: Sequence[tuple[int, int]]) -> None:
            came.extend(items)
            if len(came) >= 40 * _EACH:
                everything.set()

        handed: FromThreads[tuple[int, int]] = FromThreads(take)

        def hand_in(name: int) -> None:
            for number in range(_EACH):
                handed.put((name, number))

        threads = [threading.Thread(target=hand_in, args=(name,)) for name in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:  # the loop stands still: 80,000 bytes do not fit into the pipe
            thread.join()
        async with asyncio.timeout(PATIENCE):
            await everything.wait()
        handed.close()
        handed.close()
        for name in range(40):
            assert [number for who, number in came if who == name] == list(range(_EACH))

    asyncio.run(scenario())


def test_what_it_was_given_is_closed_with_it() -> None:
    async def scenario() -> int:
        FromThreads[int](lambda _: None).close()
        return len(os.listdir("/proc/self/fd"))

    assert asyncio.run(scenario()) == asyncio.run(scenario())


@pytest.mark.parametrize("error", [kvstore.ClientClosed("closed"), ZeroDivisionError("a defect")])
def test_whoever_asks_gets_what_begin_raises_and_the_loop_goes_on(error: Exception) -> None:
    def begin(_waiter: Waiter) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        shared_background().ask(begin)
    assert raised.value is error
    assert shared_background().ask(lambda waiter: waiter.set_result(_STORED)) is _STORED


def test_an_interrupt_leaves_the_call_and_what_has_not_begun_never_does() -> None:
    waiters: list[Waiter] = []

    def never(waiter: Waiter) -> None:
        waiters.append(waiter)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        shared_background().ask(never)
    assert waiters[0].done(), "the client would go on with it"
    waiter = BlockedThread()
    waiter.leave()
    assert waiter.done()


def test_a_call_that_was_left_before_the_loop_came_to_it_is_not_begun(
    fake_cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is busy while the caller is interrupted: nothing of its put may reach a node."""
    held = threading.Event()

    async def busy() -> None:
        held.wait(PATIENCE)

    def interrupted(_waiter: BlockedThread) -> None:
        raise KeyboardInterrupt

    with kvstore.connect(fake_cluster.endpoints) as db:
        carts = db.bucket("carts")
        loop = asyncio.run_coroutine_threadsafe(busy(), shared_background()._loop)
        with monkeypatch.context() as patch:
            patch.setattr(BlockedThread, "answer", interrupted)
            with pytest.raises(KeyboardInterrupt):
                carts.put("k", "v")
        held.set()
        loop.result(PATIENCE)
        assert not carts.get("k")
        assert not fake_cluster.store.applied


def test_a_session_of_threads_remembers_what_the_loop_was_told(fake_cluster: FakeCluster) -> None:
    with kvstore.connect(fake_cluster.endpoints) as db:
        carts = db.session().bucket("carts")
        carts.put("k", "v")
        assert carts.get("k").value == b"v"
        assert [bool(getattr(call, "seen", b"")) for call in fake_cluster.store.calls] == [False, True]

"""The door for front ends: replies find who asked, leaving gives up, a deadline bounds what is handed in."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable

from kvstore.errors import Overloaded
from kvstore.principal import ANYONE, Principal
from kvstore.protocol.client import ClientRequest, Failed, Found, Reply
from kvstore.server.execution import Executor
from kvstore.versions import NO_CONTEXT
from tests.plain import Get, Put

GET = Get("carts", b"k")
NOTHING = Found((), NO_CONTEXT)
INFINITE = float("inf")


class Recorder:
    """A node that answers when the test says so."""

    def __init__(self) -> None:
        self.handed_in: dict[int, tuple[ClientRequest, Principal]] = {}
        self.turns = 0
        self.given_up: list[set[int]] = []
        self.late = 0

    def hand_in(self, requests: Iterable[tuple[int, ClientRequest]], principal: Principal) -> None:
        self.turns += 1
        self.handed_in.update((number, (call, principal)) for number, call in requests)

    def give_up(self, numbers: Container[int]) -> None:
        self.given_up.append({number for number in self.handed_in if number in numbers})

    def expired(self) -> None:
        self.late += 1


def test_a_reply_finds_who_asked_and_the_principal_comes_along() -> None:
    async def run() -> None:
        node = Recorder()
        executor = Executor(node)
        somebody = Principal("somebody")
        asked = [asyncio.create_task(executor.execute(p, GET, INFINITE)) for p in (ANYONE, somebody)]
        await asyncio.sleep(0)
        assert [principal for _, principal in node.handed_in.values()] == [ANYONE, somebody]
        first, second = node.handed_in
        executor.reply(second, NOTHING)
        executor.reply(first, Failed(Overloaded(1.0)))
        assert isinstance(await asked[0], Failed)
        assert await asked[1] == NOTHING
        assert executor.idle
        assert node.given_up == []

    asyncio.run(run())


def test_who_is_cancelled_has_left_and_a_late_reply_finds_nobody() -> None:
    async def run() -> None:
        node = Recorder()
        executor = Executor(node)
        asked = [asyncio.create_task(executor.execute(ANYONE, GET, INFINITE)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in asked[:2]:
            task.cancel()
        await asyncio.wait(asked[:2])
        await asyncio.sleep(0)
        first, second, third = node.handed_in
        assert node.given_up == [{first, second}], "those that leave in one turn are given up together"
        executor.reply(first, NOTHING)
        executor.reply(third, NOTHING)
        assert await asked[2] == NOTHING
        assert executor.idle

    asyncio.run(run())


def test_requests_of_one_client_share_a_turn_and_leave_together() -> None:
    async def run() -> None:
        node = Recorder()
        executor = Executor(node)
        replies: list[Reply] = []
        one, other = object(), object()
        executor.begin(one, ANYONE, [(GET, replies.append), (GET, replies.append)])
        executor.begin(other, ANYONE, [(GET, replies.append)])
        assert node.turns == 2
        first, second, third = node.handed_in
        executor.reply(first, NOTHING)
        executor.leave(one)
        executor.reply(second, NOTHING)
        executor.reply(third, NOTHING)
        await asyncio.sleep(0)
        assert node.given_up == [{second}]
        assert replies == [NOTHING, NOTHING]
        executor.leave(one)
        await asyncio.sleep(0)
        assert len(node.given_up) == 1, "who has nothing under way has nothing to give up"

    asyncio.run(run())


def test_a_deadline_leaves_the_node_a_little_less_time_than_the_call_has() -> None:
    async def timeout_of(request: ClientRequest, seconds: float) -> float:
        node = Recorder()
        executor = Executor(node)
        deadline = asyncio.get_running_loop().time() + seconds
        task = asyncio.create_task(executor.execute(ANYONE, request, deadline))
        await asyncio.sleep(0)
        task.cancel()
        ((call, _),) = node.handed_in.values()
        return call.timeout

    async def run() -> None:
        put = Put("carts", b"k", b"v", timeout=2.0)
        assert 0.85 < await timeout_of(GET, 1.0) <= 0.9
        assert 9.8 < await timeout_of(GET, 10.0) <= 9.9
        assert await timeout_of(put, 10.0) == 2.0
        assert 0.85 < await timeout_of(put, 1.0) <= 0.9
        assert await timeout_of(GET, 1e6) == 3600.0
        assert await timeout_of(GET, INFINITE) == 0.0, "the node's default"

    asyncio.run(run())


def test_what_comes_too_late_is_not_handed_in() -> None:
    async def run() -> None:
        node = Recorder()
        executor = Executor(node)
        reply = await executor.execute(ANYONE, GET, asyncio.get_running_loop().time())
        assert isinstance(reply, Failed)
        assert isinstance(reply.error, Overloaded)
        assert (node.handed_in, node.late) == ({}, 1)

    asyncio.run(run())

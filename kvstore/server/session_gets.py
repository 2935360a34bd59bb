"""The gets of one session: each is begun when there is room for its reply, and how large that is shows late.

A client may leave thousands of them waiting that it does not read, so what is kept of each is small.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

from kvstore.node.transit import NOTICED
from kvstore.principal import ANYONE
from kvstore.protocol.client import Failed, Get, Reply, aged
from kvstore.protocol.sizes import size_of
from kvstore.server.driver import Driver
from kvstore.server.execution import EXPIRED, Respond, in_time
from kvstore.server.large_replies import LARGE, LargeReplies
from kvstore.server.turns import Turns, fitting
from kvstore.server.unread import MOST_OF_ALL, SMALL, TOO_MUCH, Reader

_FIRST, _AT_ONCE = 8, 32
"""Gets that are begun before it is looked again how large replies are, and how long it took."""
_LARGE_AT_ONCE = 8
"""Of those whose replies are known to be large."""
_NO_DEADLINE = float("inf")
"""The request has its own."""


class Arrived(NamedTuple):
    """What the calls of one frame have in common.

    `since` is when they were sent, by this node's loop; `share` the bytes of the frame for each of them;
    `in_columns` whether they came so: their replies go back so as well.
    """

    since: float
    share: float
    in_columns: bool


Waiting: TypeAlias = tuple[Get, int, Arrived]
"""A get, and the number of its call."""
Answer = Callable[[int, Arrived, Reply, int], None]
"""Takes the number of a call, the frame that it was in, its reply, and the size of that."""


class SessionGets:
    """Those that wait and those under way. `client` is who waits for them, for Executor.leave.

    `written` is set when replies have left.
    """

    def __init__(
        self,
        driver: Driver,
        client: object,
        unread: Reader,
        large: LargeReplies,
        turns: Turns,
        answer: Answer,
        written: asyncio.Event,
    ) -> None:
        self._driver = driver
        self._client = client
        self._unread = unread
        self._large = large
        self._turns = turns
        self._answer = answer
        self._written = written
        self._clock = asyncio.get_running_loop().time
        self._held: deque[Waiting] = deque()
        self._held_large: deque[tuple[int, Waiting]] = deque()
        self._large_gets: set[asyncio.Task[None]] = set()
        self._large_bytes = 0
        self._under_way = 0
        self._at_once = _FIRST

    def add(self, get: Get, number: int, arrived: Arrived) -> None:
        """One has arrived."""
        if size := self._large.expected(get):
            self._held_large.append((size, (get, number, arrived)))
        else:
            self._held.append((get, number, arrived))

    @property
    def held(self) -> bool:
        """Whether any wait until replies have left."""
        return bool(self._held or self._held_large)

    async def begin(self) -> None:
        """Begin those for whose replies there is room."""
        more = self.begin_first()
        while more:
            await self._turns.share()
            more = self._begin_some()

    def begin_first(self) -> bool:
        """Begin as many as may be at once; whether there is room for others, in later turns."""
        self._begin_large()
        return bool(self._held) and self._begin_some()

    def _begin_some(self) -> bool:
        begun = self._clock()
        if requests := self._next(min(self._room(), self._at_once), begun):
            self._driver.executor.begin(self._client, ANYONE, requests)
            took = self._clock() - begun
            self._turns.spend(took)
            self._at_once = fitting(len(requests), took, _AT_ONCE)
        return bool(self._held) and self._room() > 0

    def _next(self, count: int, now: float) -> list[tuple[Get, Respond]]:
        held = self._held
        requests: list[tuple[Get, Respond]] = []
        while held and len(requests) < count:
            get, _, arrived = waiting = held.popleft()
            self._under_way += 1
            waited = now - arrived.since
            if waited <= NOTICED:
                requests.append((get, partial(self._answered, waiting)))
            elif in_time(get, waited):
                requests.append((aged(get, waited), partial(self._answered, waiting)))
            else:
                self._too_late(waiting)
        return requests

    def _room(self) -> int:
        """How many may be begun at once now."""
        # with nothing under way nothing of this session's would begin them later
        least = 0 if self._under_way or self._unread.bytes else 1
        room = 0 if self._driver.node.strained else self._unread.room(self._under_way)
        return max(room, least)

    def _begin_large(self) -> None:
        """Begin gets that have large replies: some of them wait for their turn."""
        while self._held_large and len(self._large_gets) < _LARGE_AT_ONCE:
            task = asyncio.ensure_future(self._get_large(*self._held_large.popleft()))
            self._large_gets.add(task)
            task.add_done_callback(self._large_done)

    def _large_done(self, task: asyncio.Task[None]) -> None:
        self._large_gets.discard(task)
        self._begin_large()

    async def _get_large(self, size: int, waiting: Waiting) -> None:
        while not self._unread.fits(size, self._large_bytes):
            self._written.clear()
            await self._written.wait()
        self._large_bytes += size
        try:
            async with self._large.room(size):
                get, _, arrived = waiting
                waited = self._clock() - arrived.since
                self._under_way += 1
                if not in_time(get, waited):
                    self._too_late(waiting)
                    return
                executor = self._driver.executor
                self._answered(waiting, await executor.execute(ANYONE, aged(get, waited), _NO_DEADLINE))
        finally:
            self._large_bytes -= size

    def _too_late(self, waiting: Waiting) -> None:
        self._driver.executor.expired()
        self._answered(waiting, EXPIRED)

    def _answered(self, waiting: Waiting, reply: Reply) -> None:
        get, number, arrived = waiting
        self._under_way -= 1
        size, unread = size_of(reply), self._unread
        if size > LARGE or self._large.known:
            self._large.learn(get, size)
        unread.learn(size)
        if size > SMALL and unread.refuses(size, MOST_OF_ALL):
            reply = Failed(TOO_MUCH)
            size = size_of(reply)
        self._answer(number, arrived, reply, size)

    def close(self) -> None:
        """The client has gone."""
        self._held_large.clear()
        for task in self._large_gets:
            task.cancel()
        self._held.clear()

"""One client's Session: calls come in frames, replies leave in frames, in whatever order they are ready.

Nothing of it grows without bound: no more calls are read while many are unanswered, and no more gets are
begun while many replies wait for a client that is slow to read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

from kvstore.config import MIB
from kvstore.errors import InvalidRequest, Overloaded
from kvstore.node.transit import NOTICED, Transit
from kvstore.principal import ANYONE
from kvstore.protocol.client import ClientRequest, Failed, Found, Get, Reply, aged
from kvstore.protocol.sizes import size_of
from kvstore.server.calls import Messages
from kvstore.server.driver import Driver
from kvstore.server.execution import Respond
from kvstore.server.gathering import Gathering
from kvstore.server.large_replies import LARGE, LargeReplies
from kvstore.server.unread import MOST_OF_ALL, SMALL, TOO_MUCH, Reader, UnreadReplies
from kvstore.wire.client import call_from_wire
from kvstore.wire.pieces import answer_in_pieces
from kvstore.wire.queue import Batches
from kvstore.wire.session import Answer, decode_calls, encode_replies, encode_stopping

_MOST_CALLS = 4096
_MOST_BYTES = 16 * MIB
"""Unanswered calls of one session, and their bytes, beyond which no more of it are read."""

_REPLY_FRAME = MIB
"""Replies in one frame, unless one is larger: gRPC keeps a frame or two of a client that does not read."""
_GETS = 32
"""Gets that are begun before it is looked again: how large a reply is shows only then."""

_LARGE_GETS = 8
"""Of those whose replies are known to be large."""

_CALLS = 128
"""Calls other than gets that are begun before it is looked how long that took; fewer when they take long."""
_TURN = 0.01
"""Seconds after which the rest of a frame waits for the next turn of the loop: a put on a key with many
siblings takes as long as a hundred others. What is begun in one turn leaves in one frame: that is cheaper.
"""

_NO_DEADLINE = float("inf")
"""The request has its own."""
_EXPIRED = Overloaded(0.1, "the request waited too long on its way to the node")
_OWN_SHARE = 2
"""Calls that have spent more than a half of their time on the way here are refused: what is begun so late is
mostly done too late, at the full price, and the next ones wait for it."""

Started: TypeAlias = tuple[ClientRequest, Respond]


class ClientStream:
    """Calls under way, gets that wait, and replies that wait for the next frame."""

    def __init__(
        self, driver: Driver, messages: Messages, replies: UnreadReplies, large: LargeReplies
    ) -> None:
        self._driver = driver
        self._messages = messages
        self._clock = asyncio.get_running_loop().time
        self._transit = Transit()
        self._answers: Batches[Answer] = Batches(_REPLY_FRAME)
        self._unread = Reader(replies)
        self._replies = replies
        self._large = large
        self._held_large: deque[tuple[int, float, Get, Respond]] = deque()
        self._large_gets: set[asyncio.Task[None]] = set()
        self._large_bytes = 0
        self._held: deque[tuple[float, Get, Respond]] = deque()
        self._open = self._gets = 0
        self._open_bytes = self._answered_bytes = 0.0
        self.most_reply_bytes = 0
        """The most that has waited to be written."""
        self._wake = asyncio.Event()
        self._written = asyncio.Event()
        self._stopping = False
        """Whether the client has yet to be told that the node is about to stop."""

    @property
    def unanswered(self) -> int:
        """Calls that were taken and whose replies have not left."""
        return self._open

    def announce_stop(self) -> None:
        """Tell the client that the node is about to stop."""
        self._stopping = True
        self._wake.set()

    async def take(self, frame: bytes) -> int:
        """Start all calls of a frame; returns how many. Raises InvalidRequest when it is none.

        Not all in one turn, when they are many: what others want is done in between.
        """
        sent_ms, calls, plain = decode_calls(frame)
        count = len(calls) + len(plain)
        if not count:
            return 0
        now = self._clock()
        delay = self._transit.delay(sent_ms / 1000, now)
        self._open += count
        self._open_bytes += len(frame)
        share = len(frame) / count
        answer = self._answer
        arrived = [(number, request, True) for number, request in plain]
        for call in calls:
            try:
                arrived.append((call.id, call_from_wire(call), False))
            except InvalidRequest as error:
                answer(call.id, False, share, Failed(error))
        if delay:
            arrived = [
                (number, request if isinstance(request, Get) else aged(request, delay), in_columns)
                for number, request, in_columns in arrived
                if self._in_time(request, partial(answer, number, in_columns, share), _OWN_SHARE * delay)
            ]
        requests: list[Started] = []
        held, known, since = self._held, self._large.known, now - delay
        for number, request, in_columns in arrived:
            if not isinstance(request, Get):
                requests.append((request, partial(answer, number, in_columns, share)))
                continue
            respond = partial(self._answer_get, request, number, in_columns, share)
            if known and (size := self._large.expected(request)):
                self._held_large.append((size, since, request, respond))
            else:
                held.append((since, request, respond))
        self._begin_large()
        await self._begin(requests, now)
        await self._begin_gets()
        return count

    async def _begin(self, requests: Sequence[Started], now: float) -> None:
        first, count = 0, _CALLS
        while first < len(requests):
            begun = self._clock()
            if first and begun - now > _TURN:
                await asyncio.sleep(0)
                now = begun = self._clock()
            self._driver.executor.begin(self, ANYONE, requests[first : first + count])
            first += count
            took = self._clock() - begun
            count = max(1, min(_CALLS, int(count * _TURN / took))) if took > 0 else _CALLS

    def _in_time(self, request: ClientRequest, respond: Respond, waited: float) -> bool:
        """Whether a request has more time than it has `waited`; else it is refused."""
        if not request.timeout or request.timeout > waited:
            return True
        self._driver.executor.expired()
        respond(Failed(_EXPIRED))
        return False

    async def _begin_gets(self) -> None:
        """Begin those for whose replies there is room."""
        held = self._held
        begun = self._clock()
        while held and (count := self._room_for_gets()):
            now = self._clock()
            if now - begun > _TURN:
                await asyncio.sleep(0)
                begun = self._clock()
                continue
            requests: list[Started] = []
            while held and len(requests) < count:
                since, get, respond = held.popleft()
                self._gets += 1
                waited = now - since
                if waited <= NOTICED:
                    requests.append((get, respond))
                elif self._in_time(get, respond, waited):
                    requests.append((aged(get, waited), respond))
            self._driver.executor.begin(self, ANYONE, requests)

    def _begin_large(self) -> None:
        """Begin gets that have large replies: some of them wait for their turn."""
        while self._held_large and len(self._large_gets) < _LARGE_GETS:
            task = asyncio.ensure_future(self._get_large(*self._held_large.popleft()))
            self._large_gets.add(task)
            task.add_done_callback(self._large_done)

    def _large_done(self, task: asyncio.Task[None]) -> None:
        self._large_gets.discard(task)
        self._begin_large()

    async def _get_large(self, size: int, since: float, get: Get, respond: Respond) -> None:
        while (held := self._unread.bytes + self._large_bytes) and held + size > self._replies.share:
            await self._until_written()
        self._large_bytes += size
        try:
            async with self._large.room(size):
                waited = self._clock() - since
                self._gets += 1
                if self._in_time(get, respond, waited):
                    respond(await self._driver.executor.execute(ANYONE, aged(get, waited), _NO_DEADLINE))
        finally:
            self._large_bytes -= size

    def _room_for_gets(self) -> int:
        """How many gets may be begun at once now."""
        # with nothing under way nothing of this session's would begin them later
        least = 0 if self._gets or self._unread.bytes else 1
        room = 0 if self._driver.node.strained else self._unread.room(self._gets)
        return min(_GETS, max(room, least))

    def _answer_get(self, get: Get, number: int, in_columns: bool, share: float, reply: Reply) -> None:
        self._gets -= 1
        size = size_of(reply)
        unread = self._unread
        if size > LARGE or self._large.known:
            self._large.learn(get, size)
        unread.learn(size)
        if size > SMALL and unread.refuses(size, MOST_OF_ALL):
            self._answer(number, in_columns, share, Failed(TOO_MUCH))
        else:
            self._add(number, in_columns, share, reply, size)

    def _answer(self, number: int, in_columns: bool, share: float, reply: Reply) -> None:
        self._add(number, in_columns, share, reply, size_of(reply))

    def _add(self, number: int, in_columns: bool, share: float, reply: Reply, size: int) -> None:
        self._answers.add((number, reply, in_columns), size)
        self._unread.hold(size)
        self._answered_bytes += share
        self._wake.set()

    async def write(self) -> None:
        """Write whatever has been answered, in as few frames as make sense, until cancelled."""
        gathering = Gathering()
        while True:
            await self._wake.wait()
            await gathering.pause()
            self._wake.clear()
            answered, self._answered_bytes = self._answered_bytes, 0.0
            count = 0
            if self._stopping:
                self._stopping = False
                await self._messages.write(encode_stopping())
            for _ in range(len(self._answers)):  # what comes meanwhile is gathered
                waiting = self._answers.bytes
                self.most_reply_bytes = max(self.most_reply_bytes, self._unread.bytes)
                frame = self._answers.take()
                taken = waiting - self._answers.bytes
                count += len(frame)
                await self._write(await self._encoded(frame, taken))
                self._unread.release(taken)
            gathering.sent(count)
            self._open -= count
            self._open_bytes -= answered
            self._written.set()
            await self._begin_gets()

    async def _write(self, frame: bytes) -> None:
        """Write a frame; a client that does not read it in time loses its connection."""
        number = self._replies.give(self._messages.peer, len(frame))
        try:
            await self._messages.write(frame)
        finally:
            self._replies.taken(number)

    async def _encoded(self, answers: Sequence[Answer], size: int) -> bytes:
        """A frame of these answers: one that is larger than a frame is alone in it."""
        number, reply, _ = answers[0]
        if size > _REPLY_FRAME and isinstance(reply, Found):
            return await self._large.join(answer_in_pieces(number, reply))
        return encode_replies(answers)

    def close(self) -> None:
        """The client has gone."""
        self._held_large.clear()
        for task in self._large_gets:
            task.cancel()
        self._held.clear()
        self._answers.clear()
        self._driver.executor.leave(self)
        self._unread.release(self._unread.bytes)

    async def until_there_is_room(self) -> None:
        """Wait until the next frame may be read."""
        while self._open > _MOST_CALLS or self._open_bytes > _MOST_BYTES:
            await self._until_written()

    async def until_answered(self) -> None:
        """Wait until all calls have been answered."""
        while self._open:
            await self._until_written()

    async def _until_written(self) -> None:
        self._written.clear()
        await self._written.wait()

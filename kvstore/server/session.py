"""One client's Session: calls come in frames, replies leave in frames, in whatever order they are ready.

Nothing of it grows without bound: no more calls are read while many are unanswered, and no more gets are
begun while many replies wait for a client that is slow to read (kvstore.server.session_gets).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

from kvstore.config import KIB, MIB
from kvstore.errors import InvalidRequest
from kvstore.frames.gathering import AT_ONCE, Gathering
from kvstore.frames.incoming import Pieces, Rest
from kvstore.frames.stream import joined
from kvstore.node.transit import Transit
from kvstore.principal import ANYONE
from kvstore.protocol.client import ClientRequest, Failed, Found, Get, Reply, aged
from kvstore.protocol.sizes import size_of
from kvstore.server.calls import Messages
from kvstore.server.driver import Driver
from kvstore.server.execution import EXPIRED, Respond, in_time
from kvstore.server.large_replies import LargeReplies
from kvstore.server.session_gets import Arrived, SessionGets
from kvstore.server.turns import Turns, fitting
from kvstore.server.unread import Reader, UnreadReplies
from kvstore.wire.client import call_from_wire
from kvstore.wire.pieces import answer_in_pieces
from kvstore.wire.queue import Batches
from kvstore.wire.session import (
    Answer,
    Calls,
    decode_calls,
    encode_replies,
    encode_stopping,
    put_apart,
    with_value,
)

_MOST_CALLS = 4096
_MOST_BYTES = 16 * MIB
"""Unanswered calls of one session, and their bytes, beyond which no more of it are read."""

_REPLY_FRAME = MIB
"""Replies in one frame, unless one is larger: gRPC keeps a frame or two of a client that does not read."""

_LONG = 64 * KIB
"""Frames above this take milliseconds to parse: those of many clients are parsed one after the other."""
_CALLS = 128
"""Calls other than gets that are begun before it is looked how long that took; fewer when they take long: a
put on a key with many siblings takes as long as a hundred others. What is begun in one turn of the loop
leaves in one frame: that is cheaper.
"""

_OWN_SHARE = 2
"""Calls that have spent more than a half of their time on the way here are refused: what is begun so late is
mostly done too late, at the full price, and the next ones wait for it."""

Started: TypeAlias = tuple[ClientRequest, Respond]
Called: TypeAlias = tuple[int, ClientRequest, Arrived]


class ClientStream:
    """Calls under way, gets that wait, and replies that wait for the next frame."""

    def __init__(
        self, driver: Driver, messages: Messages, replies: UnreadReplies, large: LargeReplies, turns: Turns
    ) -> None:
        self._driver = driver
        self._messages = messages
        self._clock = asyncio.get_running_loop().time
        self._transit = Transit()
        self._answers: Batches[Answer] = Batches(_REPLY_FRAME)
        self._unread = Reader(replies)
        self._replies = replies
        self._large = large
        self._turns = turns
        self._at_once = _CALLS
        self._open = 0
        self._open_bytes = self._answered_bytes = 0.0
        self.most_reply_bytes = 0
        """The most that has waited to be written."""
        self.frames = self.calls = 0
        """That have come so far."""
        self._gathering = Gathering(driver.turn_ends)
        self._written = asyncio.Event()
        self._gets = SessionGets(driver, self, self._unread, large, turns, self._add, self._written)
        self._stopping = False
        """Whether the client has yet to be told that the node is about to stop."""

    @property
    def unanswered(self) -> int:
        """Calls that were taken and whose replies have not left."""
        return self._open

    def announce_stop(self) -> None:
        """Tell the client that the node is about to stop."""
        self._stopping = True
        self._gathering.add()

    def take(self, frame: Pieces) -> Rest:
        """Start the calls of a frame; raises InvalidRequest when it is none.

        Not all at once, when they are many: what others want is done in between. What is left is returned.
        """
        self.frames += 1
        if len(frame) > 1 or len(frame[0]) > _LONG:
            return partial(self._take_long, frame)
        return self._take(len(frame[0]), decode_calls(frame[0]))

    async def _take_long(self, frame: Pieces) -> None:
        await self._turns.share()
        if (rest := self._take(sum(map(len, frame)), await _decoded(frame))) is not None:
            await rest()

    def _take(self, size: int, decoded: Calls) -> Rest:
        sent_ms, calls, plain = decoded
        count = len(calls) + len(plain)
        if not count:
            return None
        self.calls += count
        now = self._clock()
        delay = self._transit.delay(sent_ms / 1000, now)
        self._open += count
        self._open_bytes += size
        in_columns = Arrived(now - delay, size / count, in_columns=True)
        alone = in_columns._replace(in_columns=False)
        arrived = [(number, request, in_columns) for number, request in plain]
        for call in calls:
            try:
                arrived.append((call.id, call_from_wire(call), alone))
            except InvalidRequest as error:
                self._answer(call.id, alone, Failed(error))
        return self._begin(self._in_time(arrived, delay) if delay else arrived)

    def _in_time(self, arrived: Sequence[Called], delay: float) -> list[Called]:
        """Those that are left of calls that were under way for `delay` seconds; the others are refused."""
        left = []
        for number, request, frame in arrived:
            if not in_time(request, _OWN_SHARE * delay):
                self._driver.executor.expired()
                self._answer(number, frame, EXPIRED)
            else:
                # a get waits for longer, and counts that from when it was sent
                rest = request if isinstance(request, Get) else aged(request, delay)
                left.append((number, rest, frame))
        return left

    def _begin(self, arrived: Sequence[Called]) -> Rest:
        """Begin the first of these at once, so that a client with few need not wait."""
        requests: list[Started] = []
        for number, request, frame in arrived:
            if isinstance(request, Get):
                self._gets.add(request, number, frame)
            else:
                requests.append((request, partial(self._answer, number, frame)))
        left: Sequence[Started] = ()
        if requests:
            left = self._begin_some(requests)
        more_gets = not left and self._gets.begin_first()
        return partial(self._begin_rest, left) if left or more_gets or self._full else None

    async def _begin_rest(self, requests: Sequence[Started]) -> None:
        """Begin what is left of a frame, and wait until the next one may be read."""
        while requests:
            await self._turns.share()
            requests = self._begin_some(requests)
        await self._gets.begin()
        while self._full:
            await self._until_written()

    def _begin_some(self, requests: Sequence[Started]) -> Sequence[Started]:
        """Begin as many requests other than gets as fit into a turn; returns the others."""
        some, begun = requests[: self._at_once], self._clock()
        self._driver.executor.begin(self, ANYONE, some)
        took = self._clock() - begun
        self._turns.spend(took)
        self._at_once = fitting(len(some), took, _CALLS)
        return requests[len(some) :]

    def _answer(self, number: int, frame: Arrived, reply: Reply) -> None:
        self._add(number, frame, reply, size_of(reply))

    def _add(self, number: int, frame: Arrived, reply: Reply, size: int) -> None:
        self._answers.add((number, reply, frame.in_columns), size)
        self._unread.hold(size)
        self._answered_bytes += frame.share
        self._gathering.add()

    async def write(self) -> None:
        """Write whatever has been answered, in as few frames as make sense, until cancelled."""
        while True:
            await self._gathering.until_due(self._write_now)
            answered, self._answered_bytes = self._answered_bytes, 0.0
            count = 0
            if self._stopping:
                self._stopping = False
                await self._messages.write(encode_stopping())
            for _ in range(len(self._answers)):  # what comes meanwhile is gathered
                count += await self._write_next()
            self._have_left(count, answered)
            await self._gets.begin()

    def _write_now(self) -> bool:
        """Write the answers if they are one frame that can be written at once; whether that was so."""
        answers, messages = self._answers, self._messages
        if self._stopping or len(answers) != 1 or self._gets.held or not messages.writable:
            return False
        waiting = answers.bytes
        if waiting > AT_ONCE:
            return False
        self.most_reply_bytes = max(self.most_reply_bytes, self._unread.bytes)
        taken = answers.take()
        messages.write_now(encode_replies(taken))
        self._unread.release(waiting)
        answered, self._answered_bytes = self._answered_bytes, 0.0
        self._have_left(len(taken), answered)
        return True

    def _have_left(self, count: int, answered: float) -> None:
        """So many answers have left, to calls of so many bytes."""
        self._gathering.sent(count)
        self._open -= count
        self._open_bytes -= answered
        self._written.set()

    async def _write_next(self) -> int:
        """Write the answers that wait for the next frame; returns how many."""
        waiting = self._answers.bytes
        self.most_reply_bytes = max(self.most_reply_bytes, self._unread.bytes)
        answers = self._answers.take()
        count, taken = len(answers), waiting - self._answers.bytes
        frame = await self._encoded(answers, taken)
        del answers  # the frame has all of it, and its client may leave that unread
        await self._write(frame)
        self._unread.release(taken)
        return count

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
        self._gets.close()
        del self._gets  # which knows this session: both would wait for the collector
        self._answers.clear()
        self._driver.executor.leave(self)
        self._unread.release(self._unread.bytes)

    @property
    def _full(self) -> bool:
        """Whether no frame may be read for now."""
        return self._open > _MOST_CALLS or self._open_bytes > _MOST_BYTES

    async def until_answered(self) -> None:
        """Wait until all calls have been answered."""
        while self._open:
            await self._until_written()

    async def _until_written(self) -> None:
        self._written.clear()
        await self._written.wait()


async def _decoded(frame: Pieces) -> Calls:
    """See decode_calls; a large value is joined when it is cut out."""
    if large := put_apart(frame):
        sent_ms, calls, plain = decode_calls(large.rest)
        if len(plain) == 1 and not calls:
            return sent_ms, calls, with_value(plain[0], await joined(large.value))
    return decode_calls(await joined(frame))

"""The open calls of one connection: queued, sent in frames, answered, or failed when their time is up.

Calls queued in one turn of the loop, and those queued while a frame is still being written, leave
together in the next frame: that is where the throughput comes from. One timer serves all deadlines.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from itertools import count

from kvstore.config import FRAME_BYTES
from kvstore.errors import (
    InternalError,
    InvalidRequest,
    KVError,
    NoNodeAvailable,
    Outcome,
    Overloaded,
    ReadTimeout,
    WriteTimeout,
)
from kvstore.protocol.messages import ClientRequest, Failed, Found, Get, Stored
from kvstore.quorum.admission import retry_after
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.client import request_bytes
from kvstore.wire.session import OpenCall, encode_calls, replies_from_wire

MAX_IN_FLIGHT = 4096
"""Calls sent and not answered, per connection; more wait here, which is what slows producers down."""

MAX_QUEUED = 65_536
"""Calls that wait here, per connection; more are refused at once."""

_MEASURED = 0.5
"""Seconds over which the rate of replies is measured."""

GATHER_SHARE = 2
GATHER_SECONDS, GATHER_SECONDS_PER_CALL = 0.002, 0.00004
"""A frame with less than half of the calls in flight waits for more, the longer the more there are in
flight: replies that trickle in would else make the next frames as small, and a frame costs as much as ten
calls. A lone caller never waits."""

SILENCE = 1.0
"""Seconds without any reply, while calls run out of time, after which a node counts as lost."""

_SWEEP_PAUSE = 0.01
_VERDICT_SHARE = 0.1
_VERDICT_SECONDS = 0.1


class Call:
    """One call: its request, the epoch it was routed by, and the future of its reply."""

    __slots__ = ("deadline", "epoch", "expected", "future", "request", "sent")

    def __init__(
        self, request: ClientRequest, deadline: float, epoch: int, future: asyncio.Future[Found | Stored]
    ) -> None:
        self.request = request
        self.expected: type[Found | Stored] = Found if type(request) is Get else Stored
        self.deadline = deadline
        self.epoch = epoch
        self.sent = False
        self.future = future

    @property
    def read(self) -> bool:
        """Whether it changes nothing, whatever becomes of it."""
        return self.expected is Found

    def fail(self, error: KVError) -> None:
        """End the call with an error, unless its caller has left."""
        if not self.future.done():
            self.future.set_exception(error)


class Calls:
    """All open calls to one node.

    `required` tells how many replicas a request needs; `on_silence` is called when the node seems lost.
    """

    def __init__(
        self, address: str, required: Callable[[ClientRequest], int], on_silence: Callable[[], None]
    ) -> None:
        self._address = address
        self._required = required
        self._on_silence = on_silence
        self._loop = asyncio.get_running_loop()
        self._numbers = count(1)
        self._open: dict[int, Call] = {}
        self._queue: deque[int] = deque()
        self._waiting = 0
        self._in_flight = 0
        self._answered = 0
        self._rate = 0.0
        self._measured_at = self._loop.time()
        self._work = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = math.inf
        self._unheard_since = math.inf

    def submit(self, request: ClientRequest, deadline: float, epoch: int) -> asyncio.Future[Found | Stored]:
        """Queue a request; the future ends by `deadline` (loop time) with a reply or a KVError."""
        number = next(self._numbers)
        future: asyncio.Future[Found | Stored] = self._loop.create_future()
        if self._waiting >= MAX_QUEUED:
            future.set_exception(self._overloaded())
            return future
        self._waiting += 1
        self._open[number] = Call(request, deadline, epoch, future)
        self._queue.append(number)
        self._work.set()
        if deadline < self._wake_at:
            self._set_timer(deadline)
        return future

    async def next_frame(self) -> bytes:
        """Wait until there are calls to send, and take as many as one frame may carry."""
        while True:
            if self._queue and self._in_flight < MAX_IN_FLIGHT:
                if GATHER_SHARE * len(self._queue) < self._in_flight:
                    await asyncio.sleep(min(GATHER_SECONDS, GATHER_SECONDS_PER_CALL * self._in_flight))
                if calls := self._take():
                    return encode_calls(calls, int(self._loop.time() * 1000))
                continue
            self._work.clear()
            await self._work.wait()

    def _take(self) -> list[OpenCall]:
        """The calls of the next frame. Their time runs from now on: what they waited here is gone."""
        taken: list[OpenCall] = []
        size = 0
        now = self._loop.time()
        while self._queue and self._in_flight < MAX_IN_FLIGHT:
            number = self._queue[0]
            call = self._open.get(number)
            if call is None or call.future.done():
                if self._open.pop(number, None):  # its caller left: never sent
                    self._waiting -= 1
                self._queue.popleft()
                continue
            size += request_bytes(call.request)
            if taken and size > FRAME_BYTES:
                break
            self._queue.popleft()
            taken.append(OpenCall(number, call.request, time_for_node(call.deadline - now), call.epoch))
            call.sent = True
            self._waiting -= 1
            self._in_flight += 1
        if taken and self._unheard_since == math.inf:
            self._unheard_since = now
        return taken

    def answer(self, response: pb.SessionResponse) -> None:
        """Give the replies of a frame to their callers; one that comes too late is dropped.

        Raises InvalidRequest when the frame is not what it should be.
        """
        for number, reply in replies_from_wire(response):
            call = self._open.pop(number, None)
            if call is None:
                continue
            if not call.sent:
                self._open[number] = call
                raise InvalidRequest("frame", f"it answers call {number}, which has not been sent")
            self._in_flight -= 1
            self._answered += 1
            if call.future.done():
                continue
            if isinstance(reply, call.expected):
                call.future.set_result(reply)
            elif isinstance(reply, Failed):
                call.fail(reply.error)
            else:
                call.fail(InternalError(f"{self._address} sent a reply that does not fit the request"))
        # whatever is still in flight may be in a frame that never arrives
        self._unheard_since = self._loop.time() if self._in_flight else math.inf
        self._work.set()
        self._measure()

    def _measure(self) -> None:
        """Replies a second, over the last half second or so in which there were any."""
        elapsed = self._loop.time() - self._measured_at
        if elapsed >= _MEASURED:
            self._rate = self._answered / elapsed
            self._answered = 0
            self._measured_at += elapsed

    def _overloaded(self) -> Overloaded:
        """With the time that the node needs for the calls it has, at its present rate."""
        return Overloaded(
            retry_after(self._in_flight / self._rate if self._rate else 0.0),
            f"{self._in_flight} calls to {self._address} are already in flight, {self._waiting} wait",
        )

    def fail_all(self, reason: str) -> None:
        """The connection broke: what was sent and is a write may have been applied."""
        calls, self._open = self._open, {}
        self._queue.clear()
        self._waiting = self._in_flight = 0
        self._unheard_since = math.inf
        for call in calls.values():
            known = call.read or not call.sent
            call.fail(
                NoNodeAvailable({self._address: reason}, Outcome.NOT_APPLIED if known else Outcome.UNKNOWN)
            )

    def close(self) -> None:
        """Stop the timer; `fail_all` has been called."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wake_at = when
        self._timer = self._loop.call_at(when, self._sweep)

    def _sweep(self) -> None:
        """End the calls whose time is up; arm the timer for the next."""
        now = self._loop.time()
        self._wake_at = math.inf
        self._timer = None
        due = [number for number, call in self._open.items() if call.deadline <= now]
        for number in due:
            self._expire(self._open.pop(number))
        if due:
            self._queue = deque(number for number in self._queue if number in self._open)
        if self._open:
            nearest = min(call.deadline for call in self._open.values())
            self._set_timer(max(nearest, now + _SWEEP_PAUSE))
        if due and now - self._unheard_since >= SILENCE:
            self._on_silence()

    def _expire(self, call: Call) -> None:
        if not call.sent:
            self._waiting -= 1
            call.fail(self._overloaded())
            return
        self._in_flight -= 1
        self._work.set()
        required = self._required(call.request)
        call.fail(ReadTimeout(0, required) if call.read else WriteTimeout(0, required))


def time_for_node(seconds: float) -> int:
    """Milliseconds that the node is given: a little less, so that its verdict arrives in time."""
    return max(1, int((seconds - min(_VERDICT_SHARE * seconds, _VERDICT_SECONDS)) * 1000))

"""The open calls of one connection: queued, sent in frames, answered, or failed when their time is up.

Calls that are queued before a frame is taken leave together in it: that is where the throughput comes from.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Protocol

import msgspec

from kvstore.client.core.waiter import Answer
from kvstore.config import FRAME_BYTES, BucketSettings
from kvstore.errors import (
    InternalError,
    InvalidRequest,
    KVError,
    NodeStopping,
    NoNodeAvailable,
    Outcome,
    Overloaded,
)
from kvstore.protocol.client import ClientRequest, Failed, Reply, timed_out
from kvstore.protocol.sizes import size_of
from kvstore.quorum.admission import retry_after
from kvstore.wire.session import OpenCall, encode_calls

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


class Asker(Protocol):
    """Who has submitted a call."""

    def left(self) -> bool:
        """Whether nobody wants the reply any more: then the call need not be sent."""

    def on_answer(self, answer: Answer, now: float) -> None:
        """How the call ended."""


class Call(msgspec.Struct, eq=False):
    """One call: its request, the epoch it was routed by, and who waits for its reply."""

    request: ClientRequest
    deadline: float
    epoch: int
    asker: Asker
    sent: bool = False

    @property
    def read(self) -> bool:
        """Whether it changes nothing, whatever becomes of it."""
        return not self.request.writes


class Calls:
    """All open calls to the node at `address`, and whether it can be reached now.

    `bucket` gives the settings of a bucket; `wake` is called when there may be a frame to take.
    """

    def __init__(
        self, address: str, bucket: Callable[[str], BucketSettings], wake: Callable[[Calls], None]
    ) -> None:
        self.address = address
        self.ready = False
        self.problem = "no connection yet"
        self.stopping = False
        """Whether the node has said in this connection that it takes no more calls."""
        self.due = math.inf
        """When `sweep` has something to do."""
        self._bucket = bucket
        self._wake = wake
        self._numbers = count(1)
        self._open: dict[int, Call] = {}
        self._queue: deque[int] = deque()
        self._waiting = 0
        self._in_flight = 0
        self._answered = 0
        self._rate = 0.0
        self._measured_at = -math.inf
        self._unheard_since = math.inf

    def submit(self, request: ClientRequest, deadline: float, epoch: int, asker: Asker) -> None:
        """Queue a request; its asker has an answer by `deadline`. Raises Overloaded if too many wait."""
        if self._waiting >= MAX_QUEUED:
            raise self._overloaded()
        number = next(self._numbers)
        self._waiting += 1
        self._open[number] = Call(request, deadline, epoch, asker)
        self._queue.append(number)
        if len(self._queue) == 1:
            self._wake(self)
        if deadline < self.due:
            self.due = deadline

    # frames

    @property
    def sendable(self) -> bool:
        """Whether there are calls that may be sent now."""
        return bool(self._queue) and self._in_flight < MAX_IN_FLIGHT

    def gathering(self) -> float:
        """Seconds to wait for more calls before the next frame is taken."""
        if GATHER_SHARE * len(self._queue) >= self._in_flight:
            return 0.0
        return min(GATHER_SECONDS, GATHER_SECONDS_PER_CALL * self._in_flight)

    def take_frame(self, now: float) -> bytes:
        """As many calls as one frame may carry; empty if there are none."""
        calls = self._take(now)
        return encode_calls(calls, int(now * 1000)) if calls else b""

    def _take(self, now: float) -> list[OpenCall]:
        """The calls of the next frame. Their time runs from now on: what they waited here is gone."""
        taken: list[OpenCall] = []
        size = 0
        while self._queue and self._in_flight < MAX_IN_FLIGHT:
            number = self._queue[0]
            call = self._open.get(number)
            if call is None or call.asker.left():
                if self._open.pop(number, None):  # its caller left: never sent
                    self._waiting -= 1
                self._queue.popleft()
                continue
            size += size_of(call.request)
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

    # how calls end

    def answer(self, replies: Iterable[tuple[int, Reply | None]], now: float) -> None:
        """Give the replies of a frame to those who asked; one that comes too late is dropped.

        Raises InvalidRequest when the frame is not what it should be.
        """
        for number, reply in replies:
            call = self._open.pop(number, None)
            if call is None:
                continue
            if not call.sent:
                self._open[number] = call
                raise InvalidRequest("frame", f"it answers call {number}, which has not been sent")
            self._in_flight -= 1
            self._answered += 1
            if isinstance(reply, call.request.reply):
                call.asker.on_answer(reply, now)
            elif isinstance(reply, Failed):
                call.asker.on_answer(reply.error, now)
            else:
                error = InternalError(f"{self.address} sent a reply that does not fit the request")
                call.asker.on_answer(error, now)
        # whatever is still in flight may be in a frame that never arrives
        self._unheard_since = now if self._in_flight else math.inf
        if self._queue:
            self._wake(self)
        self._measure(now)

    def _measure(self, now: float) -> None:
        """Replies a second, over the last half second or so in which there were any."""
        elapsed = now - self._measured_at
        if elapsed >= _MEASURED:
            self._rate = self._answered / elapsed
            self._answered = 0
            self._measured_at = now

    def _overloaded(self) -> Overloaded:
        """With the time that the node needs for the calls it has, at its present rate."""
        return Overloaded(
            retry_after(self._in_flight / self._rate if self._rate else 0.0),
            f"{self._in_flight} calls to {self.address} are already in flight, {self._waiting} wait",
        )

    def on_stopping(self, now: float) -> None:
        """The node takes no more calls: those not sent are for other nodes, the others will be answered."""
        self.ready = False
        self.problem = "the node is stopping"
        self.stopping = True
        queue, self._queue = self._queue, deque()
        for number in queue:
            if call := self._open.pop(number, None):
                self._waiting -= 1
                call.asker.on_answer(NodeStopping(), now)

    @property
    def over(self) -> bool:
        """Whether the node is stopping and has answered all: then it waits for its client to leave."""
        return self.stopping and not self._in_flight

    def fail_all(self, reason: str, now: float) -> None:
        """The connection broke: what was sent and is a write may have been applied."""
        calls, self._open = self._open, {}
        self.stopping = False
        self._queue.clear()
        self._waiting = self._in_flight = 0
        self.due = self._unheard_since = math.inf
        for call in calls.values():
            known = call.read or not call.sent
            outcome = Outcome.NOT_APPLIED if known else Outcome.UNKNOWN
            call.asker.on_answer(NoNodeAvailable({self.address: reason}, outcome), now)

    def sweep(self, now: float) -> bool:
        """End the calls whose time is up; whether the node seems lost."""
        due = [number for number, call in self._open.items() if call.deadline <= now]
        for number in due:
            call = self._open.pop(number)
            call.asker.on_answer(self._expired(call), now)
        if due:
            self._queue = deque(number for number in self._queue if number in self._open)
            if self._queue:
                self._wake(self)
        nearest = min((call.deadline for call in self._open.values()), default=math.inf)
        self.due = max(nearest, now + _SWEEP_PAUSE)
        return bool(due) and now - self._unheard_since >= SILENCE

    def _expired(self, call: Call) -> KVError:
        if not call.sent:
            self._waiting -= 1
            return self._overloaded()
        self._in_flight -= 1
        return timed_out(call.request, self._bucket(call.request.bucket))


def time_for_node(seconds: float) -> int:
    """Milliseconds that the node is given: a little less, so that its reply arrives in time."""
    return max(1, int((seconds - min(_VERDICT_SHARE * seconds, _VERDICT_SECONDS)) * 1000))

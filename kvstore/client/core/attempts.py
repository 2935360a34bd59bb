"""One request from its caller to its end: an attempt at one node, and others where that is safe."""

from __future__ import annotations

from typing import Protocol

import msgspec

from kvstore.client.core.calls import Calls
from kvstore.client.core.retry import Uniform, may_retry, pause
from kvstore.client.core.routing import Routing
from kvstore.client.core.states import MOVES, TIMED, Event, State
from kvstore.client.core.waiter import Answer, Waiter
from kvstore.client.errors import ClientClosed
from kvstore.errors import KVError, NoNodeAvailable, Overloaded, ReadTimeout, StaleRing
from kvstore.protocol.client import ClientRequest

_CHOOSING = State.CHOOSING
_CHOSEN, _REPLY, _LEFT = Event.CHOSEN, Event.REPLY, Event.LEFT
"""Python 3.11 takes long to find a member in its Enum, and every request needs some of these."""


class Shared(Protocol):
    """What requests share."""

    routing: Routing
    uniform: Uniform
    attempts: int
    closed: bool

    def watch(self, calls: Calls) -> None:
        """A call was submitted: its deadline may be the next."""

    def wake_at(self, when: float, request: Attempts) -> None:
        """Call `on_timer` then, unless another time is said before, and `on_reached` if a node is by then."""

    def await_state(self, request: Attempts) -> None:
        """Fetch the cluster state, and call `on_fetched` when that has ended."""

    def retried(self, error: KVError) -> None:
        """A request is sent again, after this error."""


class Attempts(msgspec.Struct, eq=False):
    """One request: what was tried, and what is next. All times are of the shell's clock."""

    _request: ClientRequest
    _waiter: Waiter
    _shared: Shared
    _deadline: float
    _partition: int
    _read: bool
    state: State = _CHOOSING
    due: float = 0.0
    """When `on_timer` is to be called, as `wake_at` was told last."""
    _failed: tuple[Calls, ...] = ()
    _calls: Calls | None = None
    _began: float = 0.0
    _error: KVError | None = None
    _pause: float = 0.0

    @staticmethod
    def start(request: ClientRequest, waiter: Waiter, shared: Shared, now: float) -> None:
        """Make the first attempt; it answers its `waiter` in time."""
        partition = shared.routing.partition(request.bucket, request.key)
        read = not request.writes
        begun = Attempts(request, waiter, shared, now + request.timeout, partition, read)
        if read:
            begun._try_slow(now)
        begun._choose(now)

    # inputs

    def left(self) -> bool:
        """See Asker."""
        return self._waiter.done()

    def on_answer(self, answer: Answer, now: float) -> None:
        """See Asker."""
        if self._read and (not isinstance(answer, KVError) or isinstance(answer, ReadTimeout)):
            assert self._calls is not None
            self._shared.routing.hedging.answered(self._calls.address, now - self._began)
        if isinstance(answer, KVError):
            self._on_error(answer, now)
        elif self._waiter.done():
            self._move(_LEFT)
        else:
            self._move(_REPLY)
            self._waiter.set_result(answer)

    def on_reached(self, now: float) -> None:
        """Some node can be reached."""
        if self.state is State.UNROUTED and self._still_wanted():
            self._move(Event.REACHED)
            self._choose(now)

    def on_fetched(self, now: float) -> None:
        """The cluster state was fetched anew, or could not be."""
        if self.state is not State.REFRESHING or not self._still_wanted():
            return
        self._move(Event.FETCHED)
        if now + self._pause >= self._deadline:
            self._time_up()
        else:
            self._shared.wake_at(now + self._pause, self)

    def on_timer(self, now: float) -> None:
        """The time has come that `wake_at` was told."""
        if self.state not in TIMED or not self._still_wanted():
            return
        if self.state is State.PAUSING:
            self._move(Event.PAUSED)
            self._choose(now)
        else:
            self._time_up()

    def on_closed(self) -> None:
        """The client is closed; what has been submitted ends with its connection."""
        if self.state in TIMED:
            self._close()

    # what follows

    def _choose(self, now: float) -> None:
        """Submit to the best node, or wait until there is one."""
        shared = self._shared
        routing = shared.routing
        calls = self._calls = routing.pick(self._partition, self._failed)
        if calls is None:
            self._move(Event.NONE_REACHED)
            shared.wake_at(self._deadline, self)
            return
        until = self._deadline
        if self._read and not self._failed:
            until -= self._request.timeout / 2  # so that another replica can be asked
        self._began = now
        self._move(_CHOSEN)
        try:
            calls.submit(self._request, until, routing.state.epoch, self)
        except Overloaded as error:
            self._on_error(error, now)
        else:
            shared.watch(calls)

    def _on_error(self, error: KVError, now: float) -> None:
        if not self._still_wanted():
            return
        assert self._calls is not None
        self._failed += (self._calls,)
        if not may_retry(self._request, error, len(self._failed), self._shared.attempts):
            self._end(Event.ERROR, error)
            return
        if self._shared.closed:
            self._close()
            return
        self._pause = pause(len(self._failed), error, self._shared.uniform)
        if now + self._pause >= self._deadline:
            self._end(Event.ERROR, error)
            return
        self._shared.retried(error)
        if isinstance(error, StaleRing):
            self._error = error
            self._move(Event.STALE)
            self._shared.await_state(self)
            self._shared.wake_at(self._deadline, self)
        else:
            self._move(Event.RETRY)
            self._shared.wake_at(now + self._pause, self)

    def _still_wanted(self) -> bool:
        """Whether there is somebody to tell; else that is the end."""
        if self._waiter.done():
            self._move(_LEFT)
            return False
        return True

    def _time_up(self) -> None:
        error = self._error if self.state is not State.UNROUTED else None
        self._end(Event.TIME_UP, error or NoNodeAvailable(self._shared.routing.problems))

    def _close(self) -> None:
        self._end(_LEFT, closed_error())

    def _end(self, event: Event, error: KVError) -> None:
        self._move(event)
        if not self._waiter.done():
            self._waiter.set_exception(error)

    def _move(self, event: Event) -> None:
        self.state = MOVES[self.state, event]

    # slow replicas

    def _try_slow(self, now: float) -> None:
        """Send a read to a slow replica as well, now and then: nobody waits, but its time is taken."""
        routing = self._shared.routing
        hedging = routing.hedging
        hedging.earn()
        if hedging.slow and (calls := routing.to_try(self._partition, now)):
            Trial(self._request, calls, self._shared, now)


class Trial:
    """A read of which only the time it takes is of interest."""

    def __init__(self, request: ClientRequest, calls: Calls, shared: Shared, now: float) -> None:
        self._hedging = shared.routing.hedging
        self._address = calls.address
        self._began = now
        try:
            calls.submit(request, now + request.timeout, shared.routing.state.epoch, self)
        except Overloaded:
            return  # it is as slow as it was
        shared.watch(calls)

    def left(self) -> bool:
        """See Asker."""
        return False

    def on_answer(self, answer: Answer, now: float) -> None:
        """See Asker."""
        if not isinstance(answer, KVError) or isinstance(answer, ReadTimeout):
            self._hedging.answered(self._address, now - self._began)


def closed_error() -> ClientClosed:
    """What ends every request that is not on its way when its client is closed."""
    return ClientClosed("the client is closed")

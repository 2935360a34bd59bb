"""The client without its transport: all requests under way, the nodes they go to, and the ring they go by."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable
from itertools import count

from kvstore.client.core.attempts import Attempts, closed_error
from kvstore.client.core.calls import Calls
from kvstore.client.core.ports import Port
from kvstore.client.core.retry import ATTEMPTS, Uniform
from kvstore.client.core.routing import Routing
from kvstore.client.core.waiter import Waiter
from kvstore.config import BucketSettings
from kvstore.errors import KVError, NoNodeAvailable
from kvstore.protocol.client import ClientRequest
from kvstore.ring import ClusterState

_REFRESH_SECONDS = 30.0
_OUTAGE_SECONDS = 1.0


class ClientCore:
    """Carries out requests until it is closed. All times are of the shell's clock."""

    def __init__(
        self, state: ClusterState, port: Port, uniform: Uniform, now: float, attempts: int = ATTEMPTS
    ) -> None:
        self.uniform = uniform
        self.attempts = attempts
        self.closed = False
        self.retries: Counter[str] = Counter()
        """How often a request was sent again, by the class of the error before."""
        self._port = port
        self._sequence = count()
        self._timers: list[tuple[float, int, Attempts]] = []
        self._armed = math.inf
        self._refreshing: list[Callable[[float], None]] | None = None
        self.routing = Routing(state, self._open_calls)
        self._refresh_at = now + _OUTAGE_SECONDS
        self._arm(self._refresh_at)

    # requests

    def begin(self, request: ClientRequest, waiter: Waiter, now: float) -> None:
        """Carry out a request: `waiter` gets its reply, or the error of the last attempt, in time.

        A waiter that is done has left: what has not been sent by then never is.
        """
        if self.closed:
            waiter.set_exception(closed_error())
        else:
            Attempts.start(request, waiter, self, now)

    def refresh(self, ended: Callable[[float], None]) -> None:
        """Fetch the cluster state anew and call `ended` with the time; concurrent callers share one fetch."""
        if self._refreshing is None:
            self._refreshing = []
            self._refresh_at = math.inf
            self._port.fetch_state(self.routing.reached)
        self._refreshing.append(ended)

    def close(self, now: float) -> None:
        """End all requests: those that wait with ClientClosed, what was sent as when a node is lost."""
        self.closed = True
        self._refresh_at = math.inf
        for calls in self.routing.nodes.values():
            self.on_lost(calls, "the client was closed", now)
        for _, _, request in self._timers:
            request.on_closed()
        self._timers.clear()
        self._fetched(now)

    # what the transport has met

    def on_connected(self, calls: Calls, state: ClusterState, now: float) -> None:
        """A node can be reached, and has this cluster state.

        Raises NoNodeAvailable if it is of another cluster: then it must not be used.
        """
        mine = self.routing.state
        if state.cluster_id != mine.cluster_id:
            raise NoNodeAvailable({calls.address: f"is a node of another cluster, {state.cluster_id}"})
        if self.closed:
            return
        self._adopt(state, now)
        if self.routing.nodes.get(calls.address) is calls:
            calls.ready = True
            for _, _, request in sorted(self._timers):
                request.on_reached(now)

    def on_lost(self, calls: Calls, problem: str, now: float) -> None:
        """The connection to a node broke, or could not be made."""
        calls.ready = False
        calls.problem = problem
        calls.fail_all(problem, now)

    def on_fetched(self, state: ClusterState | None, now: float) -> None:
        """What `fetch_state` has found; None: nothing. Then all stays as it was."""
        if self.closed:
            return
        if state is not None and state.cluster_id == self.routing.state.cluster_id:
            self._adopt(state, now)
        self._refresh_at = now + (_REFRESH_SECONDS if self.routing.reached else _OUTAGE_SECONDS)
        self._arm(self._refresh_at)
        self._fetched(now)

    def _fetched(self, now: float) -> None:
        ended, self._refreshing = self._refreshing, None
        for each in ended or ():
            each(now)

    def on_timer(self, now: float) -> None:
        """The time has come that was set."""
        self._armed = math.inf
        try:
            self._run_timers(now)
        finally:  # whatever a defect did to one request, the others need their time
            self._arm_next()

    def _run_timers(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            when, _, request = heapq.heappop(timers)
            if request.due == when:
                request.on_timer(now)
        for calls in self.routing.nodes.values():
            if calls.due <= now and calls.sweep(now):
                self._port.break_off(calls)
        if self._refresh_at <= now:
            self.refresh(_nobody)

    def _arm_next(self) -> None:
        due = [self._refresh_at, *(calls.due for calls in self.routing.nodes.values())]
        if self._timers:
            due.append(self._timers[0][0])
        self._arm(min(due))

    def _arm(self, when: float) -> None:
        if when < self._armed:
            self._armed = when
            self._port.set_timer(when)

    # what requests share: see Shared

    def watch(self, calls: Calls) -> None:
        """See Shared."""
        if calls.due < self._armed:
            self._arm(calls.due)

    def wake_at(self, when: float, request: Attempts) -> None:
        """See Shared."""
        request.due = when
        heapq.heappush(self._timers, (when, next(self._sequence), request))
        self._arm(when)

    def await_state(self, request: Attempts) -> None:
        """See Shared."""
        self.refresh(request.on_fetched)

    def retried(self, error: KVError) -> None:
        """See Shared."""
        self.retries[type(error).__name__] += 1

    # members

    def _adopt(self, state: ClusterState, now: float) -> None:
        """Route by `state` if it is newer: connect to its members, leave those that are members no more."""
        if state.epoch <= self.routing.state.epoch:
            return
        for calls in self.routing.adopt(state):
            self._port.disconnect(calls)
            self.on_lost(calls, "is a member of the cluster no more", now)

    def _open_calls(self, address: str) -> Calls:
        calls = Calls(address, self._bucket, self._port.wake)
        self._port.connect(calls)
        return calls

    def _bucket(self, name: str) -> BucketSettings:
        return self.routing.state.bucket(name)


def _nobody(_now: float) -> None:
    """Nobody waits for it."""

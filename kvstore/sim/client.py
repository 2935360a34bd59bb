"""The client in virtual time: a `ClientCore` whose connections lead to the hosts of a simulated cluster.

What kvstore.client.dispatcher is with asyncio and gRPC. A connection has no delay and loses nothing, and its
frames are bytes as on a real one; it breaks when its host dies or when the client breaks it off.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from functools import partial
from itertools import count

from kvstore.client.core.calls import Calls
from kvstore.client.core.client import ClientCore
from kvstore.client.core.retry import reconnect_pause
from kvstore.client.core.waiter import Answer, Waiter
from kvstore.errors import InvalidRequest, KVError
from kvstore.protocol.client import ClientRequest, Failed, Reply, Success
from kvstore.ring import ClusterState
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.host import Host
from kvstore.sim.requests import Respond
from kvstore.wire.client import call_from_wire
from kvstore.wire.session import decode_calls, decode_replies, encode_replies


class Pending:
    """Waits for the reply to one request, and calls `ended` with it: see Waiter."""

    def __init__(self, ended: Callable[[Answer], None] | None = None) -> None:
        self.answer: Answer | None = None
        self.left = False
        """Whether its caller has left: then it is told nothing any more."""
        self._ended = ended

    def done(self) -> bool:
        """See Waiter."""
        return self.left or self.answer is not None

    def set_result(self, result: Success, /) -> None:
        """See Waiter."""
        self._settle(result)

    def set_exception(self, exception: KVError, /) -> None:
        """See Waiter."""
        self._settle(exception)

    def result(self) -> Success:
        """The reply, when it is there; raises the error in its place."""
        assert self.answer is not None
        if isinstance(self.answer, KVError):
            raise self.answer
        return self.answer

    def _settle(self, answer: Answer) -> None:
        self.answer = answer
        if self._ended is not None:
            self._ended(answer)


class SimulatedClient:
    """One client, which can connect to the hosts that it `reaches`: all, unless told otherwise."""

    def __init__(
        self, name: str, cluster: SimulatedCluster, rng: random.Random, reaches: Collection[str] | None = None
    ) -> None:
        self.name = name
        self.cluster = cluster
        self.rng = rng
        self.reaches = frozenset(cluster.hosts if reaches is None else reaches)
        self._connections: dict[str, Connection] = {}
        self._timer = 0
        self.core = ClientCore(cluster.state, self, rng.uniform, self.now)
        cluster.on_death.append(self._host_died)

    @property
    def now(self) -> float:
        """Virtual time, in seconds."""
        return self.cluster.scheduler.now

    @property
    def state(self) -> ClusterState:
        """The cluster state that requests are routed by."""
        return self.core.routing.state

    def begin(self, request: ClientRequest, waiter: Waiter) -> None:
        """Carry out a request."""
        self.core.begin(request, waiter, self.now)

    def host(self, calls: Calls) -> Host:
        """The host at the other end of some calls."""
        (node,) = [member.node for member in self.cluster.state.members if member.address == calls.address]
        return self.cluster.hosts[node]

    def can_reach(self, host: Host) -> bool:
        """Whether a connection to this host can be made now."""
        return host.name in self.reaches and host.process.listens

    def reach(self, nodes: Collection[str]) -> None:
        """Only these hosts can be reached from now on; connections to others break."""
        self.reaches = frozenset(nodes)
        for connection in list(self._connections.values()):
            connection.reconsider()

    def break_connections(self) -> None:
        """All connections break, and are made anew."""
        for connection in list(self._connections.values()):
            connection.break_off("the connection broke")

    def close(self) -> None:
        """End all requests and all connections."""
        self.core.close(self.now)
        self._timer += 1
        self.cluster.on_death.remove(self._host_died)
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.close()

    def _host_died(self, node: str) -> None:
        for connection in list(self._connections.values()):
            if connection.host.name == node:
                connection.break_off("the connection broke")

    # what the core decides: see Port

    def connect(self, calls: Calls) -> None:
        """See Port."""
        self._connections[calls.address] = Connection(self, calls)

    def disconnect(self, calls: Calls) -> None:
        """See Port."""
        self._connections.pop(calls.address).close()

    def wake(self, calls: Calls) -> None:
        """See Port."""
        self._connections[calls.address].wake()

    def break_off(self, calls: Calls) -> None:
        """See Port."""
        self._connections[calls.address].break_off("the node does not answer")

    def set_timer(self, when: float) -> None:
        """See Port."""
        self._timer += 1
        self.cluster.scheduler.after(max(0.0, when - self.now), partial(self._on_timer, self._timer, when))

    def _on_timer(self, timer: int, when: float) -> None:
        if timer == self._timer:
            self.core.on_timer(max(when, self.now))

    def fetch_state(self, addresses: list[str]) -> None:
        """See Port."""
        self.cluster.scheduler.after(0.0, self._fetch)

    def _fetch(self) -> None:
        states = [
            host.node.state for host in self.cluster.hosts.values() if host.node and self.can_reach(host)
        ]
        self.core.on_fetched(max(states, key=lambda state: state.epoch, default=None), self.now)


class _Frame:
    """How many calls of one frame are not answered yet, and how to cancel them."""

    __slots__ = ("cancel", "unanswered")

    def __init__(self, calls: int) -> None:
        self.unanswered = calls
        self.cancel: Callable[[], None] = lambda: None


class Connection:
    """One client's connection to one host: what kvstore.client.connection is with gRPC."""

    def __init__(self, client: SimulatedClient, calls: Calls) -> None:
        self.host = client.host(calls)
        self._client = client
        self._calls = calls
        self._open = False
        self._life = 0
        """Counts the connections made and broken: what belongs to another one means nothing any more."""
        self._failures = 0
        self._writing = False
        self._numbers = count()
        self._frames: dict[int, _Frame] = {}
        self._later(0.0, self._shake_hands)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        life = self._life

        def run() -> None:
            if self._life == life:
                action()

        self._client.cluster.scheduler.after(seconds, run)

    def _shake_hands(self) -> None:
        if self._client.can_reach(self.host):
            assert self.host.node is not None
            self._open = True
            self._failures = 0
            self._client.core.on_connected(self._calls, self.host.node.state, self._client.now)
        else:
            self.break_off("cannot be reached")

    # how it ends

    def break_off(self, problem: str) -> None:
        """The connection breaks, or could not be made: another is tried after a pause."""
        self.close()
        self._client.core.on_lost(self._calls, problem, self._client.now)
        self._failures += 1
        self._later(reconnect_pause(self._failures, self._client.rng.uniform), self._shake_hands)

    def reconsider(self) -> None:
        """Whom the client reaches has changed."""
        if self._open and self.host.name not in self._client.reaches:
            self.break_off("cannot be reached")
        elif not self._open:
            self._life += 1
            self._later(0.0, self._shake_hands)

    def close(self) -> None:
        """The connection ends: the host cancels what it has not answered."""
        self._life += 1
        self._open = self._writing = False
        frames, self._frames = self._frames, {}
        for frame in frames.values():
            frame.cancel()

    # frames

    def wake(self) -> None:
        """There may be calls to send, and more in the same instant."""
        if self._open and not self._writing:
            self._writing = True
            self._later(0.0, self._gather)

    def _gather(self) -> None:
        if seconds := self._calls.gathering():
            self._later(seconds, self._write)
        else:
            self._write()

    def _write(self) -> None:
        self._writing = False
        while self._open and (frame := self._calls.take_frame(self._client.now)):
            self._send(frame)

    def _send(self, data: bytes) -> None:
        """A frame arrives at the host."""
        _, calls, plain = decode_calls(data)
        frame, name = _Frame(len(calls) + len(plain)), next(self._numbers)
        self._frames[name] = frame
        respond = partial(self._replied, self._life, name)
        requests: list[tuple[ClientRequest, Respond]] = []
        for number, request in plain:
            requests.append((request, partial(respond, number, True)))
        for call in calls:
            try:
                request = call_from_wire(call)
            except InvalidRequest as error:
                self._later(0.0, partial(respond, call.id, False, Failed(error)))
                continue
            requests.append((request, partial(respond, call.id, False)))
        frame.cancel = self._client.cluster.requests(self._client.name, self.host.name, requests)

    def _replied(self, life: int, name: int, number: int, in_columns: bool, reply: Reply | None) -> None:
        """A reply arrives at the client; None: the host is gone."""
        if life != self._life:
            return
        if reply is None:
            self.break_off("the connection broke")
            return
        frame = self._frames[name]
        frame.unanswered -= 1
        if not frame.unanswered:
            del self._frames[name]
        self._calls.answer(decode_replies(encode_replies([(number, reply, in_columns)])), self._client.now)

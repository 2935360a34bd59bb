"""Which node to ask: the ring, and a connection to each of its members."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress

from kvstore.client.connection import Connection
from kvstore.client.errors import ClientClosed
from kvstore.client.routes import route
from kvstore.client.unary import fetch_state, open_channel
from kvstore.errors import KVError, NoNodeAvailable
from kvstore.protocol.messages import ClientRequest, Get
from kvstore.quorum.hedging import Hedging
from kvstore.ring import ClusterState

_REFRESH_SECONDS = 30.0
_OUTAGE_SECONDS = 1.0
_DISCOVERY_SECONDS = 2.0
_LONGEST_DELAY = 1.0


class Router:
    """Knows the cluster state and keeps the connections. `endpoints` serve to find the ring only."""

    def __init__(self, endpoints: Sequence[str], state: ClusterState) -> None:
        self.state = state
        self.hedging = Hedging(_LONGEST_DELAY)
        """How long reads take at each node, by address."""
        self._endpoints = endpoints
        self._connections: dict[str, Connection] = {}
        self._routes: list[tuple[Connection, ...]] = []
        self._changed = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False
        self._adopt(state)
        self._task = asyncio.create_task(self._refresh_now_and_then())

    def pick(self, partition: int, avoid: Collection[Connection] = ()) -> Connection | None:
        """A working connection for a partition: to its first replica, else to the next, else to any node.

        One of `avoid` is taken only if there is no other, and so is one that is slow of late; None when
        nothing is connected.
        """
        route = self._routes[partition]
        slow = self.hedging.slow
        if route[0].ready and not avoid and not slow:
            return route[0]
        ready = [connection for connection in route if connection.ready]
        ready.sort(key=lambda connection: (connection in avoid, connection.address in slow))
        return ready[0] if ready else None

    def to_try(self, partition: int, now: float) -> Connection | None:
        """A working connection to a slow replica that should get a read too, so that its recovery is seen."""
        for connection in self._routes[partition][: len(self.state.ring.replica_lists[partition])]:
            if connection.address in self.hedging.slow and connection.ready:
                return connection if self.hedging.may_try(connection.address, now) else None
        return None

    async def wait(self, deadline: float) -> None:
        """Wait until some node is connected; raises NoNodeAvailable at `deadline` (loop time)."""
        try:
            async with asyncio.timeout_at(deadline):
                while not any(connection.ready for connection in self._connections.values()):
                    self._check_open()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            problems = {connection.address: connection.problem for connection in self._connections.values()}
            raise NoNodeAvailable(problems) from None

    def connection(self, node: str) -> Connection:
        """The connection to a member, whether it works or not."""
        return self._connections[self._address(node)]

    def required(self, request: ClientRequest) -> int:
        """How many replicas a request needs."""
        if isinstance(request, Get):
            return request.r or self.state.bucket(request.bucket).r
        return request.w or self.state.bucket(request.bucket).w

    async def refresh(self) -> None:
        """Fetch the ring anew; concurrent callers share one fetch. Without an answer all stays as it was.

        Raises ClientClosed.
        """
        refreshing = self._refreshing
        if refreshing is None or refreshing.done():
            self._check_open()
            refreshing = self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.wait([refreshing])
        if refreshing.cancelled():  # by `close`, and not who waits here
            self._check_open()
        refreshing.result()

    async def close(self) -> None:
        """Close all connections; whoever waits for one gets ClientClosed."""
        self._closed = True
        self._changed.set()
        tasks = [task for task in (self._task, self._refreshing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.gather(*self._leaving, *(each.close() for each in self._connections.values()))

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed")

    async def _refresh(self) -> None:
        addresses = [connection.address for connection in self._connections.values() if connection.ready]
        with suppress(NoNodeAvailable):  # the connections go on trying, and say what is wrong
            state = await discover(addresses or self._endpoints, _DISCOVERY_SECONDS)
            if state.cluster_id == self.state.cluster_id and state.epoch > self.state.epoch:
                self._adopt(state)

    async def _refresh_now_and_then(self) -> None:
        while True:
            connected = any(connection.ready for connection in self._connections.values())
            await asyncio.sleep(_REFRESH_SECONDS if connected else _OUTAGE_SECONDS)
            await self.refresh()

    def _on_ready(self, address: str, state: ClusterState) -> None:
        if state.cluster_id != self.state.cluster_id:
            raise NoNodeAvailable({address: f"is a node of another cluster, {state.cluster_id}"})
        if state.epoch > self.state.epoch and not self._closed:
            self._adopt(state)
        self._changed.set()

    def _adopt(self, state: ClusterState) -> None:
        """Route by `state`: connect to its members, leave those that are members no more."""
        self.state = state
        previous = self._connections
        self._connections = {}
        for address in (member.address for member in state.members):
            known = previous.pop(address, None)
            self._connections[address] = known or Connection(address, self.required, self._on_ready)
        self._leaving.update(asyncio.create_task(connection.close()) for connection in previous.values())
        self._routes = [
            tuple(map(self.connection, route(state, partition))) for partition in range(state.ring.partitions)
        ]

    def _address(self, node: str) -> str:
        member = self.state.member(node)
        assert member is not None
        return member.address


async def discover(endpoints: Sequence[str], timeout: float) -> ClusterState:
    """The cluster state from whichever endpoint answers first; raises NoNodeAvailable."""
    tasks = [asyncio.create_task(_ask(endpoint, timeout)) for endpoint in endpoints]
    problems: dict[str, str] = {}
    try:
        for finished in asyncio.as_completed(tasks):
            try:
                return await finished
            except NoNodeAvailable as error:
                problems.update(error.errors)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise NoNodeAvailable({endpoint: problems[endpoint] for endpoint in endpoints})


async def _ask(endpoint: str, timeout: float) -> ClusterState:
    async with open_channel(endpoint) as channel:
        try:
            return await fetch_state(channel, endpoint, timeout)
        except NoNodeAvailable:
            raise
        except KVError as error:
            raise NoNodeAvailable({endpoint: str(error)}) from error

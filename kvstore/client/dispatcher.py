"""The asyncio client: a `ClientCore`, with a gRPC connection to each node and the loop's clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from kvstore.client.admin import ask_all
from kvstore.client.connection import Connection
from kvstore.client.core.attempts import closed_error
from kvstore.client.core.calls import Calls
from kvstore.client.core.client import ClientCore
from kvstore.client.core.retry import ATTEMPTS
from kvstore.client.core.scan import Pages
from kvstore.client.core.seen import Seen
from kvstore.client.core.waiter import Answer, Waiter
from kvstore.client.core.window import Window
from kvstore.client.discovery import discover
from kvstore.client.environment import check_same_process, this_process
from kvstore.client.errors import WrongEnvironment
from kvstore.client.jitter import uniform
from kvstore.client.listing import page_at
from kvstore.errors import KVError, NoNodeAvailable
from kvstore.frames.turn_ends import TurnEnds
from kvstore.protocol.client import ClientRequest, Success
from kvstore.protocol.scan import Scan, Scanned
from kvstore.ring import ClusterState

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from kvstore.wire.admin import AdminMethod

A = TypeVar("A")

_DISCOVERY_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Dispatcher:
    """Carries out requests until it is closed: see Carrier. `endpoints` serve to find the ring only."""

    def __init__(self, endpoints: Sequence[str], state: ClusterState, attempts: int = ATTEMPTS) -> None:
        self._endpoints = endpoints
        self._loop = asyncio.get_running_loop()
        self._process = this_process()
        self.connections: dict[str, Connection] = {}
        self._turn_ends = TurnEnds()
        self._timer: asyncio.TimerHandle | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self.core = ClientCore(state, self, uniform, self._loop.time(), attempts)
        self._pages = Pages(self.core.routing, partial(page_at, self.connections), self._loop.time)

    @property
    def state(self) -> ClusterState:
        """The cluster state that requests are routed by."""
        return self.core.routing.state

    @property
    def now(self) -> float:
        """The loop's clock, in seconds."""
        return self._loop.time()

    def seen(self) -> Seen:
        """See Carrier."""
        return Seen()

    def check_open(self) -> None:
        """Raise ClientClosed after `close` or a fork, WrongEnvironment on another event loop."""
        if self._process != this_process() or asyncio.get_running_loop() is not self._loop:
            _check_place(self._process, self._loop)
        if self._closing is not None:
            raise closed_error()

    async def close(self) -> None:
        """Close the connections; calls under way end with ClientClosed, or with an unknown outcome."""
        _check_place(self._process, self._loop)
        self._begin_to_close()
        assert self._closing is not None
        # whoever leaves now, or closes again, must not leave half of them open
        await asyncio.shield(self._closing)

    def abandon(self) -> None:
        """Close it soon, as nobody can use it any more; from any thread, and while garbage is collected."""
        if self._process != this_process() or self._loop.is_closed():
            return  # its connections belong to the process before the fork, or are gone
        with suppress(RuntimeError):  # the loop was closed in the meantime
            self._loop.call_soon_threadsafe(self._begin_to_close)

    def _begin_to_close(self) -> None:
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())

    async def _close(self) -> None:
        self.core.close(self.now)
        if self._timer is not None:
            self._timer.cancel()
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        await asyncio.gather(*self._leaving, *(each.close() for each in self.connections.values()))
        self.connections.clear()  # or gRPC's threads would live as long as this client

    # requests

    def begin(self, request: ClientRequest, waiter: Waiter) -> None:
        """See Carrier."""
        self.check_open()
        with self._turn_ends:  # no task that runs in this pass of the loop could add to its frame
            self.core.begin(request, waiter, self._loop.time())

    def execute(self, request: ClientRequest) -> asyncio.Future[Success]:
        """See Carrier."""
        self.check_open()
        future: asyncio.Future[Success] = self._loop.create_future()
        self.core.begin(request, future, self._loop.time())
        return future

    async def execute_many(self, requests: Sequence[ClientRequest]) -> list[Answer]:
        """The reply to each request, or the error it ended with, in the order of `requests`."""
        self.check_open()
        over: asyncio.Future[None] = self._loop.create_future()
        window = Window(
            requests,
            lambda request, waiter: self.core.begin(request, waiter, self._loop.time()),
            partial(_settle, over),
            over.done,
        )
        with self._turn_ends:
            window.open()
        await over
        return window.answers

    async def refresh(self) -> None:
        """Fetch the cluster state anew, if that is possible."""
        self.check_open()
        over: asyncio.Future[None] = self._loop.create_future()
        self.core.refresh(lambda _now: _settle(over))
        await over
        self.check_open()

    async def scan_page(self, scan: Scan) -> Scanned:
        """See Carrier."""
        self.check_open()
        return await self._pages.page(scan)

    async def ask_nodes(
        self, nodes: Sequence[str], method: AdminMethod[A], request: Message, timeout: float
    ) -> dict[str, A | KVError]:
        """See Carrier."""
        self.check_open()
        at = self.core.routing.at
        connections = {node: self.connections[at(node).address] for node in nodes}
        return await ask_all(connections, method.name, request, method.read, timeout)

    # what the core decides: see Port

    def connect(self, calls: Calls) -> None:
        """See Port."""
        self.connections[calls.address] = Connection(calls, self, self._turn_ends)

    def disconnect(self, calls: Calls) -> None:
        """See Port."""
        task = asyncio.create_task(self.connections.pop(calls.address).close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def wake(self, calls: Calls) -> None:
        """See Port."""
        self.connections[calls.address].wake()

    def break_off(self, calls: Calls) -> None:
        """See Port."""
        self.connections[calls.address].break_off()

    def set_timer(self, when: float) -> None:
        """See Port."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer, when)

    def _on_timer(self, when: float) -> None:
        self._timer = None
        self.core.on_timer(max(when, self._loop.time()))  # the loop may be early by what its clock resolves

    def fetch_state(self, addresses: list[str]) -> None:
        """See Port."""
        self._fetching = asyncio.create_task(self._fetch(addresses or self._endpoints))

    async def _fetch(self, endpoints: Sequence[str]) -> None:
        state = None
        try:
            state = await discover(endpoints, _DISCOVERY_SECONDS)
        except NoNodeAvailable:
            pass  # the connections go on trying, and say what is wrong
        except Exception:  # noqa: BLE001  (a defect: who waits for it would wait for ever)
            _log.exception("defect in fetching the cluster state")
        self.core.on_fetched(state, self.now)

    # what the connections meet: see Owner

    def on_connected(self, calls: Calls, state: ClusterState, now: float) -> None:
        """See Owner."""
        self.core.on_connected(calls, state, now)

    def on_lost(self, calls: Calls, problem: str, now: float) -> None:
        """See Owner."""
        self.core.on_lost(calls, problem, now)


def _settle(over: asyncio.Future[None]) -> None:
    """Wake the caller that waits, unless it has left."""
    if not over.done():
        over.set_result(None)


def _check_place(process: int, loop: asyncio.AbstractEventLoop) -> None:
    """Raise ClientClosed in another process than this, WrongEnvironment on another loop."""
    check_same_process(process)
    if asyncio.get_running_loop() is not loop:
        raise WrongEnvironment(
            "the client was connected on another event loop: use it there, or connect another one here"
        )

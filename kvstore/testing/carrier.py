"""Carries the requests of one client to a simulated cluster: the client's core, awaited in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import Message

from kvstore.client.core.attempts import closed_error
from kvstore.client.core.calls import Calls
from kvstore.client.core.scan import Pages
from kvstore.client.core.seen import Seen
from kvstore.client.core.waiter import Answer, Waiter
from kvstore.client.core.window import Window
from kvstore.errors import KVError, NoNodeAvailable
from kvstore.protocol.client import ClientRequest, Failed, Success
from kvstore.protocol.scan import Scan, Scanned
from kvstore.ring import ClusterState
from kvstore.sim.client import Pending, SimulatedClient
from kvstore.sim.cluster import REAP_AGE
from kvstore.sim.host import Host
from kvstore.testing.virtual_loop import VirtualLoop, Wait
from kvstore.wire.admin import AdminMethod, Operated

A = TypeVar("A")


class SimulatedCarrier:
    """What the public classes need beneath them, over a simulated client: see Carrier."""

    def __init__(self, client: SimulatedClient) -> None:
        self.client = client
        self._cluster = client.cluster
        self._loop = VirtualLoop(client.cluster.scheduler)
        self._pages = Pages(client.core.routing, self._ask_for_page, lambda: self.now)

    @property
    def state(self) -> ClusterState:
        """See Carrier."""
        return self.client.state

    @property
    def now(self) -> float:
        """See Carrier."""
        return self._loop.now

    def seen(self) -> Seen:
        """See Carrier: simulated clusters reap earlier, so less time may be remembered."""
        return Seen(REAP_AGE / 2)

    def check_open(self) -> None:
        """See Carrier."""
        if self.client.core.closed:
            raise closed_error()

    async def close(self) -> None:
        """See Carrier."""
        if not self.client.core.closed:
            self.client.close()

    async def refresh(self) -> None:
        """See Carrier."""
        self.check_open()
        ended: list[float] = []
        self.client.core.refresh(ended.append)
        await Wait(lambda: bool(ended))

    # requests

    def begin(self, request: ClientRequest, waiter: Waiter) -> None:
        """See Carrier."""
        self.check_open()
        self.client.begin(request, waiter)

    async def execute(self, request: ClientRequest) -> Success:
        """See Carrier."""
        pending = Pending()
        self.begin(request, pending)
        await Wait(pending.done)
        return pending.result()

    async def execute_many(self, requests: Sequence[ClientRequest]) -> list[Answer]:
        """See Carrier."""
        self.check_open()
        ended: list[bool] = []
        window = Window(requests, self.client.begin, lambda: ended.append(True), lambda: False)
        window.open()
        await Wait(lambda: bool(ended))
        return window.answers

    async def scan_page(self, scan: Scan) -> Scanned:
        """See Carrier."""
        return await self._pages.page(scan)

    async def _ask_for_page(self, calls: Calls, scan: Scan) -> Scanned:
        self.check_open()
        host = self.client.host(calls)
        if not self._reached(host):
            raise _unreached(host)
        replies: list[Scanned | Failed] = []

        def perform() -> None:
            host.shell.node.on_scan(scan, replies.append, host.machine.instant())

        due = self.now + scan.timeout
        host.process.enter(perform)  # it may die of that, or stand still
        await Wait(lambda: bool(replies) or self.now >= due)
        reply = replies[0] if replies else Failed(_unreached(host))
        if isinstance(reply, Failed):
            raise reply.error
        return reply

    # what nodes say of themselves

    async def ask_nodes(
        self, nodes: Sequence[str], method: AdminMethod[A], request: Message, timeout: float
    ) -> dict[str, A | KVError]:
        """See Carrier."""
        self.check_open()
        answers: dict[str, A | KVError] = {}
        for node in nodes:
            answer = self._ask(self._cluster.hosts[node], method, request)
            answers[node] = answer
        return answers

    def _ask(self, host: Host, method: AdminMethod[A], request: Message) -> A | KVError:
        answers: list[A | KVError] = []

        def perform() -> None:
            operated = Operated(host.shell.node, host.machine.instant(), host.shell.status)
            try:
                answers.append(method.read(method.perform(operated, request).SerializeToString()))
            except KVError as error:
                answers.append(error)

        if self._reached(host):
            host.process.enter(perform)  # it may die of that, or stand still
        return answers[0] if answers else _unreached(host)

    def _reached(self, host: Host) -> bool:
        """Whether it runs and can be reached; it may stand still."""
        return host.up and host.name in self.client.reaches


def _unreached(host: Host) -> NoNodeAvailable:
    return NoNodeAvailable({host.name: "cannot be reached"})

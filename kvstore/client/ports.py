"""What the public classes need beneath them: so they serve a real cluster and a simulated one alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from kvstore.client.core.seen import Seen
from kvstore.client.core.waiter import Answer, Waiter
from kvstore.errors import KVError
from kvstore.protocol.client import ClientRequest, Success
from kvstore.protocol.scan import Scan, Scanned
from kvstore.ring import ClusterState

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from kvstore.wire.admin import AdminMethod

A = TypeVar("A")
T = TypeVar("T")


class Carrier(Protocol):
    """Carries requests to a cluster until it is closed; every call raises ClientClosed after that."""

    @property
    def state(self) -> ClusterState:
        """The cluster state that requests are routed by."""

    @property
    def now(self) -> float:
        """Seconds, of the clock that sessions forget by."""

    def check_open(self) -> None:
        """Raise ClientClosed after `close`."""

    def seen(self) -> Seen:
        """The memory of a new session."""

    def begin(self, request: ClientRequest, waiter: Waiter) -> None:
        """Begin a request; `waiter` gets its reply, or the KVError that came last. Raises ClientClosed."""

    def execute(self, request: ClientRequest) -> Awaitable[Success]:
        """The reply to a request, which is on its way now; to await it raises what KVError came last."""

    async def execute_many(self, requests: Sequence[ClientRequest]) -> list[Answer]:
        """The reply to each request, or the error it ended with, in the order of `requests`."""

    async def scan_page(self, scan: Scan) -> Scanned:
        """A page of the keys of a bucket, made by any node within the timeout of the scan.

        Raises Unavailable when too few primaries answer, NoNodeAvailable, InvalidRequest.
        """

    async def refresh(self) -> None:
        """Fetch the cluster state anew, if that is possible."""

    async def ask_nodes(
        self, nodes: Sequence[str], method: AdminMethod[A], request: Message, timeout: float
    ) -> dict[str, A | KVError]:
        """What each of these members answers to a method of Admin, or why it does not, by node id."""

    async def close(self) -> None:
        """End all connections."""


class Runner(Protocol):
    """Runs coroutines for those who are none."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for its result."""

    def ask(self, begin: Callable[[Waiter], None]) -> Success:
        """Call `begin` where coroutines run, and wait for what its waiter gets; raises what `begin` does."""

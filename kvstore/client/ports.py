"""What the public classes need beneath them: so they serve a real cluster and a simulated one alike."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from kvstore.errors import KVError
from kvstore.protocol.messages import ClientRequest, Found, Stored
from kvstore.quorum.seen import Seen
from kvstore.ring import ClusterState
from kvstore.v1 import admin_pb2

T = TypeVar("T")


class Carrier(Protocol):
    """Carries requests to a cluster until it is closed; every call raises ClientClosed after that."""

    @property
    def state(self) -> ClusterState:
        """The cluster state that requests are routed by."""

    def check_open(self) -> None:
        """Raise ClientClosed after `close`."""

    def seen(self) -> Seen:
        """The memory of a new session."""

    async def execute(self, request: ClientRequest) -> Found | Stored:
        """The reply to a request; raises the KVError of the last attempt."""

    async def execute_many(self, requests: Sequence[ClientRequest]) -> list[Found | Stored | KVError]:
        """The reply to each request, or the error it ended with, in the order of `requests`."""

    async def scan_partition(self, bucket: str, w: int, partition: int, timeout: float) -> list[bytes]:
        """See kvstore.client.scan."""

    async def refresh(self) -> None:
        """Fetch the cluster state anew, if that is possible."""

    async def status(self, timeout: float) -> dict[str, admin_pb2.GetStatusResponse | KVError]:
        """What each member says of itself, or why it says nothing, by node id."""

    async def repair(self, start: bool, timeout: float) -> dict[str, admin_pb2.RepairResponse | KVError]:
        """Make every member repair now, or ask how far that is: what each has left, by node id."""

    async def close(self) -> None:
        """End all connections."""


class Runner(Protocol):
    """Runs coroutines for those who are none."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for its result."""

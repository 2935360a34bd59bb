"""Carrying a request out: choose a node, wait for its reply, try again where that is safe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeVar

from google.protobuf.message import Message

from kvstore.client.connection import Connection
from kvstore.client.errors import ClientClosed
from kvstore.client.retry import may_retry, pause
from kvstore.client.router import Router
from kvstore.client.scan import scan_partition
from kvstore.client.unary import unary
from kvstore.errors import KVError, ReadTimeout, StaleRing
from kvstore.protocol.messages import ClientRequest, Found, Get, Stored
from kvstore.quorum.seen import Seen
from kvstore.ring import ClusterState, partition_of, token
from kvstore.v1 import admin_pb2

Answer = TypeVar("Answer", bound=Message)

BATCH_CALLS = 512
"""Calls that one `get_many` or `put_many` has under way at a time."""


class Dispatcher:
    """Carries out requests until it is closed."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self._closing: asyncio.Task[None] | None = None

    @property
    def state(self) -> ClusterState:
        """The cluster state that requests are routed by."""
        return self.router.state

    async def refresh(self) -> None:
        """Fetch the cluster state anew, if that is possible."""
        self.check_open()
        await self.router.refresh()

    async def scan_partition(self, bucket: str, w: int, partition: int, timeout: float) -> list[bytes]:
        """See kvstore.client.scan."""
        self.check_open()
        return await scan_partition(self.router, bucket, w, partition, timeout)

    async def status(self, timeout: float) -> dict[str, admin_pb2.GetStatusResponse | KVError]:
        """What each member says of itself, or why it says nothing, by node id."""
        return await self._ask_all(
            "GetStatus", admin_pb2.GetStatusRequest(), admin_pb2.GetStatusResponse, timeout
        )

    async def repair(self, start: bool, timeout: float) -> dict[str, admin_pb2.RepairResponse | KVError]:
        """Make every member repair now, or ask how far that is: what each has left, by node id."""
        return await self._ask_all(
            "Repair", admin_pb2.RepairRequest(start=start), admin_pb2.RepairResponse, timeout
        )

    async def _ask_all(
        self, method: str, request: Message, response: type[Answer], timeout: float
    ) -> dict[str, Answer | KVError]:
        self.check_open()
        nodes = [member.node for member in self.router.state.members]
        connections = map(self.router.connection, nodes)  # of now: the members may change meanwhile
        answers = await asyncio.gather(
            *(self._ask(connection, method, request, response, timeout) for connection in connections)
        )
        return dict(zip(nodes, answers, strict=True))

    async def _ask(
        self, connection: Connection, method: str, request: Message, response: type[Answer], timeout: float
    ) -> Answer | KVError:
        path = f"/kvstore.v1.Admin/{method}"
        try:
            return await unary(
                connection.channel, connection.address, path, request, response.FromString, timeout
            )
        except KVError as error:
            return error

    async def close(self) -> None:
        """Close the connections; calls under way end with ClientClosed, or with an unknown outcome."""
        if self._closing is None:
            self._closing = asyncio.create_task(self.router.close())
        # whoever leaves now, or closes again, must not leave half of them open
        await asyncio.shield(self._closing)

    def check_open(self) -> None:
        """Raise ClientClosed after `close`."""
        if self._closing is not None:
            raise ClientClosed("the client is closed")

    def seen(self) -> Seen:
        """See Carrier."""
        return Seen(time.monotonic)

    async def execute(self, request: ClientRequest) -> Found | Stored:
        """The reply to a request; raises the KVError of the last attempt."""
        self.check_open()
        router = self.router
        loop = asyncio.get_running_loop()
        now = loop.time()
        deadline = now + request.timeout
        partition = partition_of(token(request.bucket, request.key), router.state.ring.partitions)
        failed: list[Connection] = []
        read = type(request) is Get
        if read:
            self._try_slow(request, partition, now)
        while True:
            connection = router.pick(partition, failed)
            if connection is None:
                await router.wait(deadline)
                continue
            until = deadline
            if read and not failed:
                until -= request.timeout / 2  # so that another replica can be asked
            began = loop.time()
            try:
                reply = await connection.submit(request, until, router.state.epoch)
            except KVError as error:
                if read and isinstance(error, ReadTimeout):
                    router.hedging.answered(connection.address, loop.time() - began)
                failed.append(connection)
                await self._before_next(request, error, len(failed), deadline)
            else:
                if read:
                    router.hedging.answered(connection.address, loop.time() - began)
                return reply

    def _try_slow(self, request: ClientRequest, partition: int, now: float) -> None:
        """Send a read to a slow replica as well, now and then: nobody waits, but its time is taken."""
        router = self.router
        router.hedging.earn()
        if router.hedging.slow and (connection := router.to_try(partition, now)):
            future = connection.submit(request, now + request.timeout, router.state.epoch)
            future.add_done_callback(partial(self._tried, connection.address, now))

    def _tried(self, address: str, began: float, future: asyncio.Future[Found | Stored]) -> None:
        if not future.cancelled() and isinstance(future.exception(), ReadTimeout | None):
            self.router.hedging.answered(address, asyncio.get_running_loop().time() - began)

    async def _before_next(
        self, request: ClientRequest, error: KVError, attempt: int, deadline: float
    ) -> None:
        """Wait as long as is right before another attempt, or raise `error`."""
        if not may_retry(request, error, attempt):
            raise error
        seconds = pause(attempt, error)
        if asyncio.get_running_loop().time() + seconds >= deadline:
            raise error
        if isinstance(error, StaleRing):
            try:
                async with asyncio.timeout_at(deadline):
                    await self.router.refresh()
            except TimeoutError:
                raise error from None
        await asyncio.sleep(seconds)

    async def execute_many(self, requests: Sequence[ClientRequest]) -> list[Found | Stored | KVError]:
        """The reply to each request, or the error it ended with, in the order of `requests`."""
        self.check_open()
        replies: list[Found | Stored | KVError | None] = [None] * len(requests)
        numbered = iter(enumerate(requests))
        async with asyncio.TaskGroup() as callers:
            for _ in range(min(BATCH_CALLS, len(requests))):
                callers.create_task(self._call_in_turn(numbered, replies))
        return [reply for reply in replies if reply is not None]

    async def _call_in_turn(
        self,
        numbered: Iterator[tuple[int, ClientRequest]],
        replies: list[Found | Stored | KVError | None],
    ) -> None:
        for number, request in numbered:
            try:
                replies[number] = await self.execute(request)
            except KVError as error:
                replies[number] = error

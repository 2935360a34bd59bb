"""The asyncio client: `async with kvstore.aio.connect("host:port") as db`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvstore.client.batch import Items, by_key, pairs, several
from kvstore.client.core.seen import Seen
from kvstore.client.discovery import discover
from kvstore.client.dispatcher import Dispatcher
from kvstore.client.endpoints import parse_endpoints
from kvstore.client.errors import ClientClosed
from kvstore.client.ports import Carrier
from kvstore.client.requests import Requests, requests_for, seconds
from kvstore.client.results import K, Key, Resolver, Result, Stored
from kvstore.errors import KVError
from kvstore.protocol.client import Found, Get, WriteRequest
from kvstore.ring import ClusterState
from kvstore.versions import SignedContext

if TYPE_CHECKING:
    from kvstore.client.status import AntiEntropyStatus, NodeStatus

DEFAULT_TIMEOUT = 5.0
"""Seconds that a call may take, all attempts together."""


def connect(endpoints: str | Sequence[str], *, timeout: float = DEFAULT_TIMEOUT) -> Client:
    """A client of the cluster at `endpoints` (`host:port,host:port`): await it, or `async with` it.

    `timeout` in seconds is the default of every call. Raises ConfigError for endpoints that are
    none, InvalidRequest for a bad timeout; awaiting it raises NoNodeAvailable when none answers.
    """
    return Client(endpoints, timeout=timeout)


def carried_by(connect: Callable[[], Awaitable[Carrier]], timeout: float) -> Client:
    """A client whose requests go another way than by gRPC, as `connect` says."""
    client = Client.__new__(Client)
    client._start(connect, timeout)
    return client


async def _open_dispatcher(endpoints: tuple[str, ...], timeout: float) -> Carrier:
    return Dispatcher(endpoints, await discover(endpoints, timeout))


class Client:
    """One cluster, for coroutines of one event loop: see `connect`, which makes it."""

    def __init__(self, endpoints: str | Sequence[str], *, timeout: float = DEFAULT_TIMEOUT) -> None:
        limit = seconds(timeout)
        self._start(partial(_open_dispatcher, parse_endpoints(endpoints), limit), limit)

    def _start(self, connect: Callable[[], Awaitable[Carrier]], timeout: float) -> None:
        self._connect = connect
        self._timeout = timeout
        self._opening = asyncio.Lock()
        self._opened: Carrier | None = None
        self._closed = False

    def __await__(self) -> Generator[object, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open(self) -> Self:
        async with self._opening:  # or each of two would connect, and one of them never be closed
            if not self._closed and self._opened is None:
                self._opened = await self._connect()
            if self._closed:
                await self.close()
                raise ClientClosed("the client is closed")
        return self

    @property
    def _dispatcher(self) -> Carrier:
        if self._opened is None or self._closed:
            problem = "is closed" if self._closed else "is not connected: await it or use `async with`"
            raise ClientClosed(f"the client {problem}")
        return self._opened

    async def close(self) -> None:
        """Close all connections. May be called again; anything else raises ClientClosed from now on."""
        self._closed = True
        if self._opened is not None:
            await self._opened.close()

    def bucket(
        self,
        name: str,
        *,
        r: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        resolver: Resolver | None = None,
    ) -> Bucket:
        """A bucket; what is given here is the default of its calls. Raises InvalidRequest."""
        limit = self._timeout if timeout is None else timeout
        return Bucket(self._dispatcher, requests_for(name, r, w, quorum, limit, resolver))

    def session(self) -> Session:
        """Buckets that never show less than was read or written through them before: see Session."""
        return Session(self, self._dispatcher.seen())

    async def ring(self) -> ClusterState:
        """The cluster state (members, partitions, bucket settings), fetched anew if that is possible."""
        await self._dispatcher.refresh()
        return self._dispatcher.state

    async def status(self) -> dict[str, NodeStatus | KVError]:
        """What each member says of itself, or why it says nothing, by node id."""
        from kvstore.wire.admin import GET_STATUS  # here, since the engine comes with it

        return await self._dispatcher.ask_members(GET_STATUS, GET_STATUS.request(), self._timeout)

    async def repair(self, start: bool = True) -> dict[str, AntiEntropyStatus | KVError]:
        """Make every member compare what it holds with the others now, or (not `start`) ask how far that is.

        Returns by node id what is left to be proven equal, or why the node does not say.
        """
        from kvstore.wire.admin import REPAIR

        return await self._dispatcher.ask_members(REPAIR, REPAIR.request(start=start), self._timeout)


class Session:
    """One user's way through the database: read your writes, and monotonic reads. Made by `Client.session`.

    A read shows at least what the same session has written to that key, and all that it was shown of it
    before, whatever `r`, `w` and `quorum` are; where that is out of reach it raises StaleRead at its
    timeout. The last 10,000 keys are remembered, each for five minutes after its last use. Reads through
    other buckets or sessions, `scan_keys`, and writes that ended with an error do not count. Nothing needs
    to be closed.
    """

    def __init__(self, client: Client, seen: Seen) -> None:
        self._client = client
        self._seen = seen

    def bucket(
        self,
        name: str,
        *,
        r: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        resolver: Resolver | None = None,
    ) -> Bucket:
        """A bucket of this session, otherwise as `Client.bucket`; raises InvalidRequest."""
        bucket = self._client.bucket(name, r=r, w=w, quorum=quorum, timeout=timeout, resolver=resolver)
        bucket._seen = self._seen
        return bucket


class Bucket:
    """A named set of keys. Made by `Client.bucket`.

    Per call: `r`, `w` are replicas to wait for, `quorum` is "strict" or "sloppy", `timeout` is in
    seconds, `explain` asks how the reply came about. docs/client.md lists the errors.
    """

    def __init__(self, dispatcher: Carrier, requests: Requests) -> None:
        self._dispatcher = dispatcher
        self._requests = requests
        self._seen: Seen | None = None

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self._requests.bucket

    async def get(
        self,
        key: Key,
        *,
        r: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        explain: bool = False,
        resolver: Resolver | None = None,
    ) -> Result:
        """Read a key. A key without a value gives a Result that is false, not an error."""
        request = self._asking(self._requests.get(key, r, quorum, timeout, explain))
        return self._result(request, await self._dispatcher.execute(request), resolver)

    async def put(
        self,
        key: Key,
        value: str | bytes,
        *,
        context: bytes = b"",
        content_type: str = "",
        ttl: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        explain: bool = False,
    ) -> Stored:
        """Write a value over what `context` saw; without a context it becomes a sibling of what is there.

        `ttl` is in seconds. The result's `.siblings` counts the values that the key has now.
        """
        request = self._requests.put(key, value, context, content_type, ttl, w, quorum, timeout, explain)
        return self._stored(request, await self._dispatcher.execute(request))

    async def delete(
        self,
        key: Key,
        *,
        context: bytes = b"",
        r: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        explain: bool = False,
    ) -> Stored:
        """Delete what `context` saw; without a context, what a read of `r` replicas sees now."""
        if self._seen is not None and not context:
            # the node's own read would not know what this session has seen
            context = (await self.get(key, r=r, quorum=quorum, timeout=timeout)).context
        request = self._requests.delete(key, context, r, w, quorum, timeout, explain)
        return self._stored(request, await self._dispatcher.execute(request))

    async def update(
        self,
        key: Key,
        change: Callable[[bytes | None], str | bytes | None],
        *,
        content_type: str = "",
        ttl: int | None = None,
        r: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        resolver: Resolver | None = None,
    ) -> Stored:
        """Read, resolve, write `change(value or None)` over what was read; None deletes.

        `change` is called once. Of concurrent updates each leaves its value: then the result's
        `.siblings` is above 1, and the next reader's resolver combines them. `timeout` is for the
        read and the write each. Raises UnresolvedSiblings if there is no resolver and one is needed.
        """
        got = await self.get(key, r=r, quorum=quorum, timeout=timeout, resolver=resolver)
        value = change(got.value)
        if value is not None:
            return await self.put(
                key,
                value,
                context=got.context,
                content_type=content_type,
                ttl=ttl,
                w=w,
                quorum=quorum,
                timeout=timeout,
            )
        if not got:
            return Stored(SignedContext(got.context), 0)
        return await self.delete(key, context=got.context, w=w, quorum=quorum, timeout=timeout)

    async def get_many(
        self,
        keys: Iterable[K],
        *,
        r: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        resolver: Resolver | None = None,
    ) -> dict[K, Result]:
        """Read several keys at once, each within `timeout`. Raises PartialFailure if any fails."""
        listed = several(keys)
        requests = [self._asking(self._requests.get(key, r, quorum, timeout)) for key in listed]
        replies = await self._dispatcher.execute_many(requests)
        results = (
            reply if isinstance(reply, KVError) else self._result(request, reply, resolver)
            for request, reply in zip(requests, replies, strict=True)
        )
        return by_key(listed, results)

    async def put_many(
        self,
        items: Items[K],
        *,
        contexts: Mapping[K, bytes] | None = None,
        content_type: str = "",
        ttl: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
    ) -> dict[K, Stored]:
        """Write several keys at once, each within `timeout` and on its own: this is no transaction.

        `contexts` are by key as in `items`. Raises PartialFailure if any fails, InvalidRequest
        before anything is sent.
        """
        listed = pairs(items)
        seen = contexts or {}
        requests = [
            self._requests.put(key, value, seen.get(key, b""), content_type, ttl, w, quorum, timeout)
            for key, value in listed
        ]
        replies = await self._dispatcher.execute_many(requests)
        results = (
            reply if isinstance(reply, KVError) else self._stored(request, reply)
            for request, reply in zip(requests, replies, strict=True)
        )
        return by_key([key for key, _ in listed], results)

    async def scan_keys(self, *, timeout: float | None = None) -> AsyncIterator[bytes]:
        """All keys that have a value, each once, in no particular order; `timeout` is for each step.

        Sees every key whose write was acknowledged before the scan began by W primaries. Raises
        Unavailable when too few replicas of some partition answer.
        """
        for partition in range(self.partitions()):
            for key in await self.scan_partition(partition, timeout=timeout):
                yield key

    def partitions(self) -> int:
        """How many partitions `scan_partition` can be asked about."""
        return self._dispatcher.state.ring.partitions

    async def scan_partition(self, partition: int, *, timeout: float | None = None) -> list[bytes]:
        """The keys of one partition, in order: `scan_keys` in steps."""
        limit = self._requests.timeout if timeout is None else seconds(timeout)
        w = self._requests.w or self._dispatcher.state.bucket(self.name).w
        return await self._dispatcher.scan_partition(self.name, w, partition, limit)

    def _asking(self, request: Get) -> Get:
        return self._seen.asking(request, self._dispatcher.now) if self._seen is not None else request

    def _result(self, request: Get, reply: object, resolver: Resolver | None) -> Result:
        assert isinstance(reply, Found)
        if self._seen is not None:
            self._seen.found(request, reply, self._dispatcher.now)
        resolve = resolver or self._requests.resolver
        return Result(request.key, reply.siblings, reply.context, reply.explain, resolve)

    def _stored(self, request: WriteRequest, reply: object) -> Stored:
        assert isinstance(reply, Stored)
        if self._seen is not None:
            self._seen.stored(request, reply, self._dispatcher.now)
        return reply

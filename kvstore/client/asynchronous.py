"""The asyncio client: `async with kvstore.aio.connect("host:port") as db`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, overload
from weakref import finalize

from kvstore.client.core.retry import ATTEMPTS
from kvstore.client.core.seen import Seen
from kvstore.client.discovery import discover
from kvstore.client.dispatcher import Dispatcher
from kvstore.client.endpoints import parse_endpoints
from kvstore.client.errors import ClientClosed
from kvstore.client.guidance import (
    ASYNCHRONOUS,
    AWAITS_NOTHING,
    ITERATES_ASYNC,
    WRITES_BY_INDEX,
    guided,
    guided_connect,
    missing,
    no_index,
    refuse_to_travel,
    wrong_kind_of_with,
)
from kvstore.client.operations import Operations
from kvstore.client.ports import Carrier
from kvstore.client.requests import Requests, requests_for, seconds, whole_number
from kvstore.client.results import Key, Resolver, Result, V
from kvstore.client.serializers import Serializer, SerializerName, serializer_of
from kvstore.errors import KVError
from kvstore.ring import ClusterState

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from kvstore.client.status import AntiEntropyStatus, NodeStatus
    from kvstore.wire.admin import AdminMethod

A = TypeVar("A")

DEFAULT_TIMEOUT = 5.0
"""Seconds that a call may take, all attempts together."""

_BATCH = 64
"""Values that `items` reads at once: concurrency makes it fast, and each may have 16 MiB."""
_NO_LIMIT = 2**63
_MOST_ATTEMPTS = 1000


@guided_connect
def connect(
    endpoints: str | Sequence[str], *, timeout: float = DEFAULT_TIMEOUT, attempts: int = ATTEMPTS
) -> Client:
    """A client of the cluster at `endpoints` (`host:port,host:port`): await it, or `async with` it.

    `timeout` in seconds is the default of every call, `attempts` how often each request is sent at most
    when it is safe to repeat it (1: nothing is repeated). Raises ConfigError for endpoints that are
    none, InvalidRequest for other arguments; awaiting it raises NoNodeAvailable when none answers.
    """
    return Client(endpoints, timeout=timeout, attempts=attempts)


def carried_by(connect: Callable[[], Awaitable[Carrier]], timeout: float) -> Client:
    """A client whose requests go another way than by gRPC, as `connect` says."""
    client = Client.__new__(Client)
    client._start(connect, timeout)
    return client


class _Use:
    """What a client, its buckets and its sessions share: while it lives, there is a way to use the client."""


async def _open_dispatcher(endpoints: tuple[str, ...], timeout: float, attempts: int) -> Carrier:
    return Dispatcher(endpoints, await discover(endpoints, timeout), attempts)


class Buckets(ABC):
    """Gives buckets: a client does, and a session."""

    _timeout: float

    __reduce__ = refuse_to_travel

    @abstractmethod
    def _bucket(self, requests: Requests, serializer: Serializer[V] | None) -> Bucket[V]: ...

    @overload
    def bucket(
        self,
        name: str,
        *,
        serializer: SerializerName,
        r: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        resolver: Resolver[Any] | None = None,
    ) -> Bucket[Any]: ...
    @overload
    def bucket(
        self,
        name: str,
        *,
        serializer: Serializer[V] | None = None,
        r: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        resolver: Resolver[V] | None = None,
    ) -> Bucket[V]: ...
    @guided
    def bucket(
        self,
        name: str,
        *,
        serializer: Serializer[Any] | SerializerName | None = None,
        r: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        resolver: Resolver[Any] | None = None,
    ) -> Bucket[Any]:
        """A bucket; what is given here is the default of its calls. Raises InvalidRequest.

        Values are bytes, or what `serializer` makes of them: "json", "msgpack", or an object with `dumps`
        and `loads`. That is a matter of this program: nothing of it is stored with the bucket.
        """
        limit = self._timeout if timeout is None else timeout
        return self._bucket(requests_for(name, r, w, quorum, limit, resolver), serializer_of(serializer))


class Client(Buckets):
    """One cluster, for coroutines of one event loop: see `connect`, which makes it."""

    @guided_connect
    def __init__(
        self, endpoints: str | Sequence[str], *, timeout: float = DEFAULT_TIMEOUT, attempts: int = ATTEMPTS
    ) -> None:
        limit = seconds(timeout)
        most = whole_number("attempts", attempts, _MOST_ATTEMPTS)
        self._start(partial(_open_dispatcher, parse_endpoints(endpoints), limit, most), limit)

    def _start(self, connect: Callable[[], Awaitable[Carrier]], timeout: float) -> None:
        self._use = _Use()
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

    def _close_when_dropped(self) -> None:
        """Let it be closed when neither it nor a bucket or a session of it is left; it is connected.

        For a loop that goes on for ever: on one that ends then, what closes it would be left in the middle.
        """
        assert isinstance(self._opened, Dispatcher)
        finalize(self._use, self._opened.abandon).atexit = False

    if not TYPE_CHECKING:
        __getattr__ = missing
        __getitem__ = no_index
        __enter__ = __exit__ = wrong_kind_of_with(ASYNCHRONOUS)

    async def close(self) -> None:
        """Close all connections. May be called again; anything else raises ClientClosed from now on."""
        self._closed = True
        if self._opened is not None:
            await self._opened.close()

    def _bucket(self, requests: Requests, serializer: Serializer[V] | None) -> Bucket[V]:
        return Bucket(self._dispatcher, requests, serializer, use=self._use)

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

        return await self._ask_members(GET_STATUS, GET_STATUS.request())

    async def repair(self, start: bool = True) -> dict[str, AntiEntropyStatus | KVError]:
        """Make every member compare what it holds with the others now, or (not `start`) ask how far that is.

        Returns by node id what is left to be proven equal, or why the node does not say.
        """
        from kvstore.wire.admin import REPAIR

        return await self._ask_members(REPAIR, REPAIR.request(start=start))

    async def _ask_members(self, method: AdminMethod[A], request: Message) -> dict[str, A | KVError]:
        members = [member.node for member in self._dispatcher.state.members]
        return await self._dispatcher.ask_nodes(members, method, request, self._timeout)


class Session(Buckets):
    """One user's way through the database: read your writes, and monotonic reads. Made by `Client.session`.

    A read shows at least what the same session has written to that key, and all that it was shown of it
    before, whatever `r`, `w` and `quorum` are; where that is out of reach it raises StaleRead at its
    timeout. The last 10,000 keys are remembered, each for five minutes after its last use. Reads through
    other buckets or sessions, `scan_keys`, and writes that ended with an error do not count. Nothing needs
    to be closed.
    """

    def __init__(self, client: Client, seen: Seen) -> None:
        self._client = client
        self._timeout = client._timeout
        self._seen = seen

    def _bucket(self, requests: Requests, serializer: Serializer[V] | None) -> Bucket[V]:
        return Bucket(self._client._dispatcher, requests, serializer, self._seen, self._client)


class Bucket(Operations[V]):
    """A named set of keys. Made by `Client.bucket`.

    Per call: `r`, `w` are replicas to wait for, `quorum` is "strict" or "sloppy", `timeout` is in
    seconds, `explain` asks how the reply came about. docs/client.md lists the errors.
    """

    def __repr__(self) -> str:
        return f"<kvstore.aio.Bucket {self.name!r}>"

    @guided
    async def exists(
        self, key: Key, *, r: int | None = None, quorum: str | None = None, timeout: float | None = None
    ) -> bool:
        """Whether the key has a value. It is read for that: of large values, read them at once."""
        return bool(await self._get(self._requests.get(key, r, quorum, timeout), None))

    @guided
    async def keys(self, prefix: Key = b"", *, timeout: float | None = None) -> AsyncIterator[bytes]:
        """The keys that begin with `prefix` and have a value, each once, in no particular order.

        Sees every key whose write was acknowledged before the scan began by W primaries. Keys are spread by
        their hash, so a prefix spares nodes no reading: they look at all keys of all buckets, and send only
        those. `timeout` is for each page. Raises Unavailable when too few replicas of some partition answer.
        """
        cursor = b""
        while True:
            page = await self.scan_page(cursor, prefix=prefix, timeout=timeout)
            for each in page.keys:
                yield each.key
            cursor = page.next
            if not cursor:
                return

    async def scan_keys(self, *, timeout: float | None = None) -> AsyncIterator[bytes]:
        """All keys that have a value: `keys` without a prefix."""
        async for key in self.keys(timeout=timeout):
            yield key

    @guided
    async def items(
        self,
        prefix: Key = b"",
        *,
        limit: int | None = None,
        r: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        resolver: Resolver[V] | None = None,
    ) -> AsyncIterator[tuple[bytes, Result[V]]]:
        """The keys that begin with `prefix`, each with what `get` gives for it; `limit` of them at most.

        Reads no more values than it gives, 64 at a time, but lists keys as `keys` does. A key whose value
        goes away meanwhile is left out. `timeout` is for each step. Raises as `keys` and `get_many`.
        """
        left = _NO_LIMIT if limit is None else whole_number("limit", limit, _NO_LIMIT)
        keys = self.keys(prefix, timeout=timeout)
        while left and (batch := await _taken(keys, min(_BATCH, left))):
            found = await self.get_many(batch, r=r, quorum=quorum, timeout=timeout, resolver=resolver)
            for key, got in found.items():
                if got:
                    yield key, got
                    left -= 1

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.keys()

    if not TYPE_CHECKING:
        # type checkers go on saying that there is nothing of the kind

        def __contains__(self, key: Key) -> NoReturn:
            raise TypeError(AWAITS_NOTHING)

        __getitem__ = __delitem__ = __contains__

        def __setitem__(self, key: Key, value: object) -> NoReturn:
            raise TypeError(WRITES_BY_INDEX)

        def __iter__(self) -> NoReturn:
            raise TypeError(ITERATES_ASYNC)

        __getattr__ = missing


async def _taken(keys: AsyncIterator[bytes], most: int) -> list[bytes]:
    """The next keys, fewer than `most` only when there are no more."""
    taken: list[bytes] = []
    while len(taken) < most and (key := await anext(keys, None)) is not None:
        taken.append(key)
    return taken

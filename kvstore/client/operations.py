"""What nodes can be asked about the keys of a bucket, awaited: reads, writes, and scans."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Generic

from kvstore.client.batch import Items, by_key, pairs, several
from kvstore.client.core.seen import Seen
from kvstore.client.core.waiter import Answer
from kvstore.client.ports import Carrier
from kvstore.client.requests import Requests, TimeToLive, seconds
from kvstore.client.results import D, K, Key, Resolver, Result, Stored, V
from kvstore.client.serializers import Serializer, decoded, encoded
from kvstore.errors import KVError
from kvstore.protocol.client import ClientRequest, Found, Get, Success, WriteRequest
from kvstore.versions import SignedContext


class Operations(Generic[V]):
    """The requests of one bucket, and what its clients get for them.

    What the loop must do is in `_ask` and `_ask_all`: the rest, the serializer above all, is done in the
    thread of who calls a synchronous client.
    """

    def __init__(
        self, dispatcher: Carrier, requests: Requests, serializer: Serializer[V] | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._requests = requests
        self._serializer = serializer
        self._seen: Seen | None = None

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self._requests.bucket

    async def get(
        self,
        key: Key,
        default: D | None = None,
        *,
        r: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        explain: bool = False,
        resolver: Resolver[V] | None = None,
    ) -> Result[V, D]:
        """Read a key. A key without a value gives a Result that is false, and whose value is `default`."""
        request = self._requests.get(key, r, quorum, timeout, explain)
        return self._result(request.key, await self._ask(request), resolver, default)

    async def put(
        self,
        key: Key,
        value: V | str,
        *,
        context: bytes = b"",
        content_type: str = "",
        ttl: TimeToLive | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        explain: bool = False,
    ) -> Stored:
        """Write a value over what `context` saw; without a context it becomes a sibling of what is there.

        `ttl` is in seconds, or a timedelta. The result's `.siblings` counts the values that the key has now.
        """
        data = encoded(self._serializer, value)
        return _stored(
            await self._ask(
                self._requests.put(key, data, context, content_type, ttl, w, quorum, timeout, explain)
            )
        )

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
        return _stored(await self._ask(self._requests.delete(key, context, r, w, quorum, timeout, explain)))

    async def update(
        self,
        key: Key,
        change: Callable[[V | None], V | str | None],
        *,
        content_type: str = "",
        ttl: TimeToLive | None = None,
        r: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        resolver: Resolver[V] | None = None,
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
        resolver: Resolver[V] | None = None,
    ) -> dict[K, Result[V]]:
        """Read several keys at once, each within `timeout`. Raises PartialFailure if any fails."""
        listed = several(keys)
        return by_key(listed, await self._read(listed, r, quorum, timeout, resolver))

    async def put_many(
        self,
        items: Items[K, V],
        *,
        contexts: Mapping[K, bytes] | None = None,
        content_type: str = "",
        ttl: TimeToLive | None = None,
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
            self._requests.put(
                key,
                encoded(self._serializer, value),
                seen.get(key, b""),
                content_type,
                ttl,
                w,
                quorum,
                timeout,
            )
            for key, value in listed
        ]
        return by_key([key for key, _ in listed], await self._write(requests))

    async def delete_many(
        self,
        keys: Iterable[K],
        *,
        contexts: Mapping[K, bytes] | None = None,
        r: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
    ) -> dict[K, Stored]:
        """Delete several keys at once, each as `delete` does, on its own: this is no transaction.

        `contexts` are by key as in `keys`. Raises PartialFailure if any fails, InvalidRequest
        before anything is sent.
        """
        listed = several(keys)
        seen = dict(contexts or {})
        unread: dict[K, KVError] = {}
        if self._seen is not None:
            blind = [key for key in listed if not seen.get(key)]
            for key, got in zip(blind, await self._read(blind, r, quorum, timeout), strict=True):
                if isinstance(got, KVError):
                    unread[key] = got
                else:
                    seen[key] = got.context
        asked = [key for key in listed if key not in unread]
        requests = [self._requests.delete(key, seen.get(key, b""), r, w, quorum, timeout) for key in asked]
        outcomes = dict(zip(asked, await self._write(requests), strict=True))
        return by_key(listed, ({**outcomes, **unread}[key] for key in listed))

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
        bucket = self._requests.bucket
        w = self._requests.w or self._dispatcher.state.bucket(bucket).w
        return list(await self._dispatcher.scan_partition(bucket, w, partition, limit))

    async def _read(
        self,
        keys: Sequence[K],
        r: int | None,
        quorum: str | None,
        timeout: float | None,
        resolver: Resolver[V] | None = None,
    ) -> list[Result[V] | KVError]:
        requests = [self._requests.get(key, r, quorum, timeout) for key in keys]
        return [
            reply if isinstance(reply, KVError) else self._result(request.key, reply, resolver)
            for request, reply in zip(requests, await self._ask_all(requests), strict=True)
        ]

    async def _write(self, requests: Sequence[WriteRequest]) -> list[Stored | KVError]:
        replies = await self._ask_all(requests)
        return [reply if isinstance(reply, KVError) else _stored(reply) for reply in replies]

    def _result(
        self, key: bytes, reply: object, resolver: Resolver[V] | None, default: D | None = None
    ) -> Result[V, D]:
        assert isinstance(reply, Found)
        siblings = tuple(decoded(self._serializer, self.name, key, each) for each in reply.siblings)
        resolve = resolver or self._requests.resolver
        return Result(key, siblings, reply.context, reply.explain, resolve, default)

    async def _ask(self, request: ClientRequest) -> Success:
        """The reply to a request; the session knows of it then."""
        asked = self._asking(request)
        reply = await self._dispatcher.execute(asked)
        self._noted(asked, reply)
        return reply

    async def _ask_all(self, requests: Sequence[ClientRequest]) -> list[Answer]:
        asked = [self._asking(request) for request in requests]
        replies = await self._dispatcher.execute_many(asked)
        for request, reply in zip(asked, replies, strict=True):
            self._noted(request, reply)
        return replies

    def _asking(self, request: ClientRequest) -> ClientRequest:
        if self._seen is None or not isinstance(request, Get):
            return request
        return self._seen.asking(request, self._dispatcher.now)

    def _noted(self, request: ClientRequest, reply: Answer) -> None:
        if self._seen is None or isinstance(reply, KVError):
            return
        if isinstance(request, Get):
            assert isinstance(reply, Found)
            self._seen.found(request, reply, self._dispatcher.now)
        elif isinstance(request, WriteRequest):
            self._seen.stored(request, _stored(reply), self._dispatcher.now)


def _stored(reply: object) -> Stored:
    assert isinstance(reply, Stored)
    return reply

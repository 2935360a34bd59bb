"""What nodes can be asked about the keys of a bucket, awaited: reads, writes, and scans."""

from __future__ import annotations

from collections.abc import (
    Awaitable,
    Callable,
    Container,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Any, Generic

from msgspec.structs import replace

from kvstore.client.batch import Items, R, by_key, by_name, pairs, several
from kvstore.client.core.seen import Seen
from kvstore.client.core.waiter import Answer, Waiter
from kvstore.client.guidance import guided, refuse_to_travel
from kvstore.client.memory import Memories, Memory
from kvstore.client.ports import Carrier
from kvstore.client.requests import Requests, TimeToLive, function, key_bytes
from kvstore.client.results import D, K, Key, Resolver, Result, Stored, V
from kvstore.client.serializers import Serializer, decoded, encoded
from kvstore.errors import InvalidRequest, KVError, UnverifiedContext
from kvstore.protocol.client import ClientRequest, Delete, Found, Get, Put, Success, WriteRequest
from kvstore.protocol.scan import Scan, Scanned
from kvstore.versions import NO_CONTEXT, SignedContext, UserKey


class Operations(Generic[V]):
    """The requests of one bucket, and what its clients get for them.

    What the loop must do is in `_ask`, `_ask_all` and `_scan`: the rest, the serializer above all, is done in
    the thread of who calls a synchronous client. What a call remembers is its caller's
    (kvstore.client.memory): that is looked up when it is called, as another task may await it.
    """

    def __init__(
        self,
        dispatcher: Carrier,
        requests: Requests,
        serializer: Serializer[V] | None = None,
        seen: Seen | None = None,
        use: object = None,
    ) -> None:
        self._use = use  # while this lives, its client is not closed for want of users
        self._dispatcher = dispatcher
        self._requests = requests
        self._serializer = serializer
        self._seen = seen
        self._memories = Memories()
        self._ask: Callable[[ClientRequest], Awaitable[Success]]
        """The reply to a request; the session knows of it then."""
        # without a coroutine or a call of its own, for what that costs every request
        self._ask = dispatcher.execute if seen is None else self._ask_in_session

    __reduce__ = refuse_to_travel

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self._requests.bucket

    @guided
    def get(
        self,
        key: Key,
        default: D | None = None,
        *,
        r: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        explain: bool = False,
        resolver: Resolver[V] | None = None,
    ) -> Coroutine[Any, Any, Result[V, D]]:
        """Read a key. A key without a value gives a Result that is false, and whose value is `default`."""
        request = self._requests.get(key, r, quorum, timeout, explain)
        return self._get(request, self._memories.mine(), resolver, default)

    async def _get(
        self,
        request: Get,
        memory: Memory | None,
        resolver: Resolver[V] | None = None,
        default: D | None = None,
    ) -> Result[V, D]:
        reply = await self._ask(request)
        assert isinstance(reply, Found)
        if memory is not None:
            memory.has_read(request.key, reply.context)
        return self._result(request.key, reply, resolver, default)

    @guided
    def put(
        self,
        key: Key,
        value: V | str,
        *,
        context: bytes | None = None,
        blind: bool = False,
        content_type: str = "",
        ttl: TimeToLive | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        explain: bool = False,
    ) -> Coroutine[Any, Any, Stored]:
        """Write a value over what `context` saw; without one, over what this thread or task has last seen.

        That is what it has read or written of the key through this bucket object. What others have written
        meanwhile stays beside it, as a sibling. A `blind` put replaces nothing at all. `ttl` is in seconds,
        or a timedelta. The result's `.siblings` counts the values that the key has now.
        """
        memory, name = self._memories.mine(), key_bytes(key)
        data, seen = encoded(self._serializer, value), _context(memory, name, context, blind)
        request = self._requests.put(name, data, seen, content_type, ttl, w, quorum, timeout, explain)
        return self._put(request, memory, context is None)

    async def _put(self, request: Put, memory: Memory, remembered: bool) -> Stored:
        """A put does not fail for a context that was only `remembered`: the cluster may have been emptied."""
        try:
            stored = _stored(await self._ask(request))
        except (InvalidRequest, UnverifiedContext) as error:
            if not (remembered and _is_refused_for_its_context(request, error)):
                raise
            memory.forget(request.key)
            stored = _stored(await self._ask(replace(request, context=NO_CONTEXT)))
        memory.has_written(request.key, stored.context)
        return stored

    @guided
    def delete(
        self,
        key: Key,
        *,
        context: bytes = b"",
        r: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        explain: bool = False,
    ) -> Coroutine[Any, Any, Stored]:
        """Delete what `context` saw; without a context, what a read of `r` replicas sees now."""
        request = self._requests.delete(key, context, r, w, quorum, timeout, explain)
        # in a session the node's own read would not know what the session has seen
        first = None
        if self._seen is not None and not context:
            first = self._requests.get(key, r, quorum, timeout)
        return self._delete(request, self._memories.mine(), first)

    async def _delete(self, request: Delete, memory: Memory, first: Get | None = None) -> Stored:
        if first is not None:
            request = replace(request, context=(await self._get(first, None)).context)
        stored = _stored(await self._ask(request))
        memory.has_written(request.key, stored.context)
        return stored

    @guided
    def update(
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
    ) -> Coroutine[Any, Any, Stored]:
        """Read, resolve, write `change(value or None)` over what was read; None deletes.

        `change` is called once. Of concurrent updates each leaves its value: then the result's
        `.siblings` is above 1, and the next reader's resolver combines them. `timeout` is for the
        read and the write each. Raises UnresolvedSiblings if there is no resolver and one is needed.
        """
        function("change", change)
        reading = self._requests.get(key, r, quorum, timeout)
        put = partial(
            self._requests.put,
            reading.key,
            content_type=content_type,
            ttl=ttl,
            w=w,
            quorum=quorum,
            timeout=timeout,
        )
        delete = self._requests.delete(reading.key, b"", None, w, quorum, timeout)
        return self._update(self._memories.mine(), reading, change, put, delete, resolver)

    async def _update(
        self,
        memory: Memory,
        reading: Get,
        change: Callable[[V | None], V | str | None],
        put: Callable[..., Put],
        delete: Delete,
        resolver: Resolver[V] | None,
    ) -> Stored:
        got = await self._get(reading, memory, resolver)
        value, seen = change(got.value), SignedContext(got.context)
        if value is not None:
            return await self._put(put(value=encoded(self._serializer, value), context=seen), memory, False)
        if not got:
            return Stored(seen, 0)
        return await self._delete(replace(delete, context=seen), memory)

    @guided
    def get_many(
        self,
        keys: Iterable[K],
        *,
        r: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        resolver: Resolver[V] | None = None,
    ) -> Coroutine[Any, Any, dict[K, Result[V]]]:
        """Read several keys at once, each within `timeout`. Raises PartialFailure if any fails."""
        listed = several(keys)
        requests = [self._requests.get(key, r, quorum, timeout) for key in listed]
        return _keyed(listed, partial(self._read, requests, self._memories.mine(), resolver))

    @guided
    def put_many(
        self,
        items: Items[K, V],
        *,
        contexts: Mapping[K, bytes] | None = None,
        blind: bool = False,
        content_type: str = "",
        ttl: TimeToLive | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, dict[K, Stored]]:
        """Write several keys at once, each as `put` does, on its own: this is no transaction.

        `contexts` are by key as in `items`. Raises PartialFailure if any fails, InvalidRequest
        before anything is sent.
        """
        listed, given, memory = pairs(items), by_name(contexts), self._memories.mine()
        requests: list[Put] = []
        for key, value in listed:
            name, data = key_bytes(key), encoded(self._serializer, value)
            seen = _context(memory, name, given.get(key), blind)
            requests.append(self._requests.put(name, data, seen, content_type, ttl, w, quorum, timeout))
        remembered = {r.key for r, (key, _) in zip(requests, listed, strict=True) if given.get(key) is None}
        return _keyed([key for key, _ in listed], partial(self._write, requests, memory, remembered))

    @guided
    def delete_many(
        self,
        keys: Iterable[K],
        *,
        contexts: Mapping[K, bytes] | None = None,
        r: int | None = None,
        w: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, dict[K, Stored]]:
        """Delete several keys at once, each as `delete` does, on its own: this is no transaction.

        `contexts` are by key as in `keys`. Raises PartialFailure if any fails, InvalidRequest
        before anything is sent.
        """
        listed, given = several(keys), by_name(contexts)
        requests = {
            key: self._requests.delete(key, given.get(key, b""), r, w, quorum, timeout) for key in listed
        }
        first = {}
        if self._seen is not None:
            blind = [key for key in listed if not requests[key].context]
            first = {key: self._requests.get(key, r, quorum, timeout) for key in blind}
        return self._delete_many(listed, requests, first, self._memories.mine())

    async def _delete_many(
        self, listed: Sequence[K], requests: dict[K, Delete], first: Mapping[K, Get], memory: Memory
    ) -> dict[K, Stored]:
        outcomes: dict[K, Stored | KVError] = {}
        for key, got in zip(first, await self._read([*first.values()], None), strict=True):
            if isinstance(got, KVError):
                outcomes[key] = got
            else:
                requests[key] = replace(requests[key], context=got.context)
        asked = [key for key in listed if key not in outcomes]
        stored = await self._write([requests[key] for key in asked], memory)
        outcomes.update(zip(asked, stored, strict=True))
        return by_key(listed, (outcomes[key] for key in listed))

    def scan_page(
        self,
        cursor: bytes = b"",
        *,
        until: bytes = b"",
        prefix: Key = b"",
        limit: int | None = None,
        values: bool = False,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, Scanned]:
        """One page of the keys that begin with `prefix`, with their `values` as they are stored.

        It begins at `cursor`, the `.next` of an earlier page, which is empty after the last one, ends before
        `until`, such a place as well, and has `limit` keys at most (1000, which is also the most), or fewer:
        none, if those that there are in a stretch of the ring have another prefix. Sees what `keys` sees, and
        raises the same.
        """
        return self._scan(self._requests.scan(cursor, until, prefix, limit, values, timeout))

    async def _scan(self, scan: Scan) -> Scanned:
        return await self._dispatcher.scan_page(scan)

    async def _read(
        self, requests: Sequence[Get], memory: Memory | None, resolver: Resolver[V] | None = None
    ) -> list[Result[V] | KVError]:
        found: list[Result[V] | KVError] = []
        for request, reply in zip(requests, await self._ask_all(requests), strict=True):
            if isinstance(reply, KVError):
                found.append(reply)
                continue
            assert isinstance(reply, Found)
            if memory is not None:
                memory.has_read(request.key, reply.context)
            found.append(self._result(request.key, reply, resolver))
        return found

    async def _write(
        self, requests: Sequence[WriteRequest], memory: Memory, remembered: Container[UserKey] = ()
    ) -> list[Stored | KVError]:
        """As `_put` does, a context that was `remembered` for these keys is not what a write may fail for."""
        replies = await self._ask_all(requests)
        refused = [
            place
            for place, (request, reply) in enumerate(zip(requests, replies, strict=True))
            if request.key in remembered and _is_refused_for_its_context(request, reply)
        ]
        blind = [replace(requests[place], context=NO_CONTEXT) for place in refused]
        for place, reply in zip(refused, await self._ask_all(blind) if blind else (), strict=True):
            memory.forget(requests[place].key)
            replies[place] = reply
        written: list[Stored | KVError] = []
        for request, reply in zip(requests, replies, strict=True):
            if isinstance(reply, KVError):
                written.append(reply)
                continue
            stored = _stored(reply)
            memory.has_written(request.key, stored.context)
            written.append(stored)
        return written

    def _result(
        self, key: bytes, reply: Found, resolver: Resolver[V] | None, default: D | None = None
    ) -> Result[V, D]:
        serializer, name = self._serializer, self._requests.bucket
        siblings = tuple([decoded(serializer, name, key, each) for each in reply.siblings])
        resolve = self._requests.resolver if resolver is None else function("resolver", resolver)
        return Result(key, siblings, reply.context, reply.explain, resolve, default)

    async def _ask_in_session(self, request: ClientRequest) -> Success:
        asked = _covering(request, self._seen, self._dispatcher.now)
        reply = await self._dispatcher.execute(asked)
        self._noted(asked, reply)
        return reply

    def _begin(self, request: ClientRequest, waiter: Waiter) -> None:
        """As `_ask`, for who does not await the reply."""
        if self._seen is None:
            self._dispatcher.begin(request, waiter)
        else:
            asked = _covering(request, self._seen, self._dispatcher.now)
            # without this bucket, in whose use the client would stay while the request is remembered
            note = partial(_note, self._seen, asked, self._dispatcher)
            self._dispatcher.begin(asked, _Noting(waiter, note))

    async def _ask_all(self, requests: Sequence[ClientRequest]) -> list[Answer]:
        asked = [_covering(request, self._seen, self._dispatcher.now) for request in requests]
        replies = await self._dispatcher.execute_many(asked)
        for request, reply in zip(asked, replies, strict=True):
            self._noted(request, reply)
        return replies

    def _noted(self, request: ClientRequest, reply: Answer) -> None:
        if self._seen is not None and not isinstance(reply, KVError):
            _note(self._seen, request, self._dispatcher, reply)


class _Noting:
    """Waits for the reply to a request of a session: `note` is told before `waiter` is. See Waiter."""

    __slots__ = ("_note", "_waiter")

    def __init__(self, waiter: Waiter, note: Callable[[Success], None]) -> None:
        self._waiter = waiter
        self._note = note

    def done(self) -> bool:
        return self._waiter.done()

    def set_result(self, result: Success, /) -> None:
        try:
            self._note(result)
        except KVError as error:
            self._waiter.set_exception(error)
        else:
            self._waiter.set_result(result)

    def set_exception(self, exception: KVError, /) -> None:
        self._waiter.set_exception(exception)


def _note(seen: Seen, request: ClientRequest, dispatcher: Carrier, reply: Success) -> None:
    """What a session sees by this reply."""
    match request:
        case Get():
            assert isinstance(reply, Found)
            seen.found(request, reply, dispatcher.now)
        case Put() | Delete():
            seen.stored(request, _stored(reply), dispatcher.now)


def _covering(request: ClientRequest, seen: Seen | None, now: float) -> ClientRequest:
    """The request; a read of a session says what that has `seen`."""
    return request if seen is None or not isinstance(request, Get) else seen.asking(request, now)


def _is_refused_for_its_context(request: WriteRequest, reply: Answer) -> bool:
    of_context = isinstance(reply, UnverifiedContext) or (
        isinstance(reply, InvalidRequest) and reply.field == "context"
    )
    return bool(request.context) and of_context


async def _keyed(keys: Sequence[K], ask: Callable[[], Awaitable[Sequence[R | KVError]]]) -> dict[K, R]:
    return by_key(keys, await ask())


def _context(memory: Memory, key: UserKey, given: bytes | None, blind: bool) -> bytes:
    """What a put is to replace."""
    if given is None:
        return NO_CONTEXT if blind else memory.context(key)
    if blind and given:
        raise InvalidRequest("context", "is what a blind put has none of")
    return given


def _stored(reply: object) -> Stored:
    assert isinstance(reply, Stored)
    return reply

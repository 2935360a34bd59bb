"""The sync client: `with kvstore.connect("host:port") as db`. The same calls as kvstore.aio, without await.

A facade: the work is done by an asyncio client on the process's background loop, so that all
threads share its connections and their calls coalesce. Callbacks run in the calling thread.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

from kvstore.client import asynchronous
from kvstore.client.asynchronous import DEFAULT_TIMEOUT
from kvstore.client.background import shared_background
from kvstore.client.blocking import (
    Facade,
    blocking,
    in_calling_thread,
    iterating,
    standing_before,
)
from kvstore.client.core.retry import ATTEMPTS
from kvstore.client.guidance import SYNCHRONOUS, guided_connect, missing, no_index, wrong_kind_of_with
from kvstore.client.ports import Runner
from kvstore.client.results import Key, Resolver, V
from kvstore.client.serializers import Serializer, SerializerName
from kvstore.client.thread_bucket import ThreadBucket

B_co = TypeVar("B_co", bound=asynchronous.Buckets, covariant=True)

_NONE = object()
"""Stands for no value, where None may be one."""


@guided_connect
def connect(
    endpoints: str | Sequence[str], *, timeout: float = DEFAULT_TIMEOUT, attempts: int = ATTEMPTS
) -> Client:
    """Connect to the cluster at `endpoints` (`host:port,host:port`); any one that answers is enough.

    `timeout` in seconds is the default of every call, `attempts` how often each request is sent at most
    when it is safe to repeat it (1: nothing is repeated). Raises ConfigError for endpoints that are
    none, InvalidRequest for other arguments, NoNodeAvailable when none answers.
    """
    return Client(endpoints, timeout=timeout, attempts=attempts)


def standing_before_client(client: asynchronous.Client, runner: Runner) -> Client:
    """The sync client before one that is connected already, and whose coroutines `runner` runs."""
    made = Client.__new__(Client)
    Facade.__init__(made, client, runner)
    return made


class Bucket(Facade[asynchronous.Bucket[V]], Generic[V]):
    """A named set of keys. Made by `Client.bucket`.

    Per call: `r`, `w` are replicas to wait for, `quorum` is "strict" or "sloppy", `timeout` is in
    seconds, `explain` asks how the reply came about. docs/client.md lists the errors.
    """

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self._inner.name

    def __repr__(self) -> str:
        return f"<kvstore.Bucket {self.name!r}>"

    def __contains__(self, key: Key) -> bool:
        return self.exists(key)

    def __getitem__(self, key: Key) -> V:
        """The value; raises KeyError when there is none, otherwise as `Result.value` and `get`."""
        value = self.get(key, _NONE).value
        if value is _NONE:
            raise KeyError(key)
        return cast(V, value)

    def __setitem__(self, key: Key, value: V | str) -> None:
        """As `put`: over what this thread has last read or written of the key through this object."""
        self.put(key, value)

    def __delitem__(self, key: Key) -> None:
        """As `delete`: that there is no value is no error."""
        self.delete(key)

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    if not TYPE_CHECKING:
        __getattr__ = missing

    get = in_calling_thread(asynchronous.Bucket.get)
    exists = in_calling_thread(asynchronous.Bucket.exists)
    put = in_calling_thread(asynchronous.Bucket.put)
    delete = in_calling_thread(asynchronous.Bucket.delete)
    update = in_calling_thread(asynchronous.Bucket.update)
    get_many = in_calling_thread(asynchronous.Bucket.get_many)
    put_many = in_calling_thread(asynchronous.Bucket.put_many)
    delete_many = in_calling_thread(asynchronous.Bucket.delete_many)
    keys = iterating(asynchronous.Bucket.keys)
    items = iterating(asynchronous.Bucket.items)
    scan_keys = iterating(asynchronous.Bucket.scan_keys)
    scan_page = in_calling_thread(asynchronous.Bucket.scan_page)


class Buckets(Facade[B_co]):
    """Gives buckets: a client does, and a session."""

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
    @wraps(asynchronous.Buckets.bucket)
    def bucket(self, *args: Any, **options: Any) -> Any:  # noqa: D102  (it has the other's)
        return Bucket(ThreadBucket(self._inner.bucket(*args, **options), self._background), self._background)

    bucket.__annotations__["return"] = Bucket


class Session(Buckets[asynchronous.Session]):
    """One user's way through the database: read your writes, and monotonic reads. Made by `Client.session`.

    A read shows at least what the same session has written to that key, and all that it was shown of it
    before, whatever `r`, `w` and `quorum` are; where that is out of reach it raises StaleRead at its
    timeout. The last 10,000 keys are remembered, each for five minutes after its last use. Reads through
    other buckets or sessions, `scan_keys`, and writes that ended with an error do not count. Nothing needs
    to be closed, and threads may share it.
    """


class Client(Buckets[asynchronous.Client]):
    """One cluster; may be shared by threads: see `connect`, which makes it."""

    @guided_connect
    def __init__(
        self, endpoints: str | Sequence[str], *, timeout: float = DEFAULT_TIMEOUT, attempts: int = ATTEMPTS
    ) -> None:
        client = asynchronous.Client(endpoints, timeout=timeout, attempts=attempts)
        background = shared_background()
        background.run(client.__aenter__())
        client._close_when_dropped()
        super().__init__(client, background)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    if not TYPE_CHECKING:
        __getattr__ = missing
        __getitem__ = no_index
        __aenter__ = __aexit__ = wrong_kind_of_with(SYNCHRONOUS)

    def close(self) -> None:
        """Close all connections. May be called again; anything else raises ClientClosed from now on."""
        if not sys.is_finalizing():  # else what is open has ended, or does with the process
            self._background.run(self._inner.close())

    session = standing_before(asynchronous.Client.session, Session)
    ring = blocking(asynchronous.Client.ring)
    status = blocking(asynchronous.Client.status)
    repair = blocking(asynchronous.Client.repair)

"""The sync client: `with kvstore.connect("host:port") as db`. The same calls as kvstore.aio, without await.

A facade: the work is done by an asyncio client on the process's background loop, so that all
threads share its connections and their calls coalesce. Callbacks run in the calling thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvstore.client import asynchronous
from kvstore.client.asynchronous import DEFAULT_TIMEOUT
from kvstore.client.background import shared_background
from kvstore.client.blocking import (
    Facade,
    blocking,
    blocking_on_items,
    in_calling_thread,
    iterating,
    standing_before,
)
from kvstore.client.guidance import WRITES_BY_INDEX, missing
from kvstore.client.ports import Runner
from kvstore.client.results import Key


def connect(endpoints: str | Sequence[str], *, timeout: float = DEFAULT_TIMEOUT) -> Client:
    """Connect to the cluster at `endpoints` (`host:port,host:port`); any one that answers is enough.

    `timeout` in seconds is the default of every call. Raises ConfigError for endpoints that are
    none, InvalidRequest for a bad timeout, NoNodeAvailable when none answers.
    """
    return Client(endpoints, timeout=timeout)


def standing_before_client(client: asynchronous.Client, runner: Runner) -> Client:
    """The sync client before one that is connected already, and whose coroutines `runner` runs."""
    made = Client.__new__(Client)
    Facade.__init__(made, client, runner)
    return made


class Bucket(Facade[asynchronous.Bucket]):
    """A named set of keys. Made by `Client.bucket`.

    Per call: `r`, `w` are replicas to wait for, `quorum` is "strict" or "sloppy", `timeout` is in
    seconds, `explain` asks how the reply came about. docs/client.md lists the errors.
    """

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self._inner.name

    def __contains__(self, key: Key) -> bool:
        return self.exists(key)

    def __getitem__(self, key: Key) -> bytes:
        """The value; raises KeyError when there is none, otherwise as `Result.value` and `get`."""
        value = self.get(key).value
        if value is None:
            raise KeyError(key)
        return value

    def __delitem__(self, key: Key) -> None:
        """As `delete`: that there is no value is no error."""
        self.delete(key)

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    if not TYPE_CHECKING:

        def __setitem__(self, key: Key, value: object) -> None:
            raise TypeError(WRITES_BY_INDEX)

        __getattr__ = missing

    get = blocking(asynchronous.Bucket.get)
    exists = blocking(asynchronous.Bucket.exists)
    put = blocking(asynchronous.Bucket.put)
    delete = blocking(asynchronous.Bucket.delete)
    update = in_calling_thread(asynchronous.Bucket.update)
    get_many = blocking_on_items(asynchronous.Bucket.get_many)
    put_many = blocking_on_items(asynchronous.Bucket.put_many)
    delete_many = blocking_on_items(asynchronous.Bucket.delete_many)
    keys = iterating(asynchronous.Bucket.keys)
    items = iterating(asynchronous.Bucket.items)
    scan_keys = iterating(asynchronous.Bucket.scan_keys)
    scan_partition = blocking(asynchronous.Bucket.scan_partition)

    def partitions(self) -> int:
        """How many partitions `scan_partition` can be asked about."""
        return self._inner.partitions()


class Session(Facade[asynchronous.Session]):
    """One user's way through the database: read your writes, and monotonic reads. Made by `Client.session`.

    A read shows at least what the same session has written to that key, and all that it was shown of it
    before, whatever `r`, `w` and `quorum` are; where that is out of reach it raises StaleRead at its
    timeout. The last 10,000 keys are remembered, each for five minutes after its last use. Reads through
    other buckets or sessions, `scan_keys`, and writes that ended with an error do not count. Nothing needs
    to be closed, and threads may share it.
    """

    bucket = standing_before(asynchronous.Session.bucket, Bucket)


class Client(Facade[asynchronous.Client]):
    """One cluster; may be shared by threads: see `connect`, which makes it."""

    def __init__(self, endpoints: str | Sequence[str], *, timeout: float = DEFAULT_TIMEOUT) -> None:
        client = asynchronous.Client(endpoints, timeout=timeout)
        background = shared_background()
        background.run(client.__aenter__())
        super().__init__(client, background)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    if not TYPE_CHECKING:
        __getattr__ = missing

    close = blocking(asynchronous.Client.close)
    bucket = standing_before(asynchronous.Client.bucket, Bucket)
    session = standing_before(asynchronous.Client.session, Session)
    ring = blocking(asynchronous.Client.ring)
    status = blocking(asynchronous.Client.status)
    repair = blocking(asynchronous.Client.repair)

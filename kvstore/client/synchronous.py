"""The sync client: `with kvstore.connect("host:port") as db`. The same calls as kvstore.aio, without await.

A facade: the work is done by an asyncio client on the process's background loop, so that all
threads share its connections and their calls coalesce. Callbacks run in the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from kvstore.client import asynchronous
from kvstore.client.asynchronous import DEFAULT_TIMEOUT
from kvstore.client.background import shared_background
from kvstore.client.batch import Items
from kvstore.client.ports import Runner
from kvstore.client.results import K, Key, Resolver, Result, Stored
from kvstore.errors import KVError
from kvstore.ring import ClusterState
from kvstore.v1 import admin_pb2


def connect(endpoints: str | Sequence[str], *, timeout: float = DEFAULT_TIMEOUT) -> Client:
    """Connect to the cluster at `endpoints` (`host:port,host:port`); any one that answers is enough.

    `timeout` in seconds is the default of every call. Raises ConfigError for endpoints that are
    none, InvalidRequest for a bad timeout, NoNodeAvailable when none answers.
    """
    client = asynchronous.connect(endpoints, timeout=timeout)
    background = shared_background()
    background.run(client.__aenter__())
    return Client(client, background)


class Client:
    """One cluster; may be shared by threads. Made by `connect`."""

    def __init__(self, client: asynchronous.Client, background: Runner) -> None:
        self._client = client
        self._background = background

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. May be called again; anything else raises ClientClosed from now on."""
        self._background.run(self._client.close())

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
        bucket = self._client.bucket(name, r=r, w=w, quorum=quorum, timeout=timeout, resolver=resolver)
        return Bucket(bucket, self._background)

    def session(self) -> Session:
        """Buckets that never show less than was read or written through them before: see Session."""
        return Session(self._client.session(), self._background)

    def ring(self) -> ClusterState:
        """The cluster state (members, partitions, bucket settings), fetched anew if that is possible."""
        return self._background.run(self._client.ring())

    def status(self) -> dict[str, admin_pb2.GetStatusResponse | KVError]:
        """What each member says of itself, or why it says nothing, by node id."""
        return self._background.run(self._client.status())

    def repair(self, start: bool = True) -> dict[str, admin_pb2.RepairResponse | KVError]:
        """Make every member compare what it holds with the others now, or (not `start`) ask how far that is.

        Returns by node id what is left to be proven equal, or why the node does not say.
        """
        return self._background.run(self._client.repair(start))


class Session:
    """One user's way through the database: read your writes, and monotonic reads. Made by `Client.session`.

    A read shows at least what the same session has written to that key, and all that it was shown of it
    before, whatever `r`, `w` and `quorum` are; where that is out of reach it raises StaleRead at its
    timeout. The last 10,000 keys are remembered, each for five minutes after its last use. Reads through
    other buckets or sessions, `scan_keys`, and writes that ended with an error do not count. Nothing needs
    to be closed, and threads may share it.
    """

    def __init__(self, session: asynchronous.Session, background: Runner) -> None:
        self._session = session
        self._background = background

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
        bucket = self._session.bucket(name, r=r, w=w, quorum=quorum, timeout=timeout, resolver=resolver)
        return Bucket(bucket, self._background)


class Bucket:
    """A named set of keys. Made by `Client.bucket`.

    Per call: `r`, `w` are replicas to wait for, `quorum` is "strict" or "sloppy", `timeout` is in
    seconds, `explain` asks how the reply came about. docs/client.md lists the errors.
    """

    def __init__(self, bucket: asynchronous.Bucket, background: Runner) -> None:
        self._bucket = bucket
        self._run = background.run

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self._bucket.name

    def get(
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
        return self._run(
            self._bucket.get(key, r=r, quorum=quorum, timeout=timeout, explain=explain, resolver=resolver)
        )

    def put(
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
        return self._run(
            self._bucket.put(
                key,
                value,
                context=context,
                content_type=content_type,
                ttl=ttl,
                w=w,
                quorum=quorum,
                timeout=timeout,
                explain=explain,
            )
        )

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
    ) -> Stored:
        """Delete what `context` saw; without a context, what a read of `r` replicas sees now."""
        return self._run(
            self._bucket.delete(
                key, context=context, r=r, w=w, quorum=quorum, timeout=timeout, explain=explain
            )
        )

    def update(
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
        got = self.get(key, r=r, quorum=quorum, timeout=timeout, resolver=resolver)
        value = change(got.value)
        if value is not None:
            return self.put(
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
            return Stored(got.context, 0)
        return self.delete(key, context=got.context, w=w, quorum=quorum, timeout=timeout)

    def get_many(
        self,
        keys: Iterable[K],
        *,
        r: int | None = None,
        quorum: str | None = None,
        timeout: float | None = None,
        resolver: Resolver | None = None,
    ) -> dict[K, Result]:
        """Read several keys at once, each within `timeout`. Raises PartialFailure if any fails."""
        listed = list(keys)
        return self._run(
            self._bucket.get_many(listed, r=r, quorum=quorum, timeout=timeout, resolver=resolver)
        )

    def put_many(
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
        listed = items if isinstance(items, Mapping) else list(items)
        return self._run(
            self._bucket.put_many(
                listed,
                contexts=contexts,
                content_type=content_type,
                ttl=ttl,
                w=w,
                quorum=quorum,
                timeout=timeout,
            )
        )

    def scan_keys(self, *, timeout: float | None = None) -> Iterator[bytes]:
        """All keys that have a value, each once, in no particular order; `timeout` is for each step.

        Sees every key whose write was acknowledged before the scan began by W primaries. Raises
        Unavailable when too few replicas of some partition answer.
        """
        for partition in range(self.partitions()):
            yield from self.scan_partition(partition, timeout=timeout)

    def partitions(self) -> int:
        """How many partitions `scan_partition` can be asked about."""
        return self._bucket.partitions()

    def scan_partition(self, partition: int, *, timeout: float | None = None) -> list[bytes]:
        """The keys of one partition, in order: `scan_keys` in steps."""
        return self._run(self._bucket.scan_partition(partition, timeout=timeout))

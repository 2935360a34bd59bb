"""Users: each does one thing after the other, or several at once, on few keys, so that they meet."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kvstore.client.core.seen import Seen
from kvstore.client.core.waiter import Answer
from kvstore.config import BucketSettings, Limits, QuorumMode
from kvstore.contexts import read_context
from kvstore.errors import Corruption, KVError, Outcome, TooManySiblings, VersionTooLarge
from kvstore.protocol.client import ClientRequest, Delete, Found, Get, Put, Stored
from kvstore.ring import partition_of, token
from kvstore.sim.access import Access
from kvstore.sim.checker import Violation
from kvstore.sim.client import Pending
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.history import SESSION_SECONDS, SESSIONS, History, Read, Result, Write
from kvstore.sim.host import Host
from kvstore.sim.shape import EXPIRING, Shape
from kvstore.versions import NO_CONTEXT, BucketName, SignedContext, UserKey, decode_version

_TIMEOUTS = (2.0, 5.0)
"""Both less and more than what a write waits for a replica before it asks another node."""
_QUIET_READ = 4.2
"""Seconds of a read that must be carried out at its first attempt, which has half of them: two for the node.
So late may frames seem to be for a minute after a clock has drifted (kvstore.node.transit)."""
_PATIENCE = (0.3, 6.0, 6.0, 6.0)
"""Seconds. A user with little patience gives up while the request is still being carried out."""
_MOST_AT_ONCE = 5
_RATE = 20.0
"""So often in a second some client begins something, however many they are."""
_TTLS = (0, 0, 1, 30)

_ELSEWHERE = 0.5
"""So often a client moves before it begins something: it comes to nodes that are no replicas as well."""

Done = Callable[[Answer | None], None]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a client remembers of its last read of a key."""

    context: SignedContext
    values: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class _Quorum:
    """What a request says of its quorum; 0 and None: as the bucket says."""

    r: int = 0
    w: int = 0
    mode: QuorumMode | None = None


class User:
    """Does one thing after the other until told to stop, by a client as applications have it."""

    def __init__(
        self, name: str, cluster: SimulatedCluster, shape: Shape, history: History, rng: random.Random
    ) -> None:
        self._name = name
        self._cluster = cluster
        self._shape = shape
        self._history = history
        self._rng = rng
        self._writes = 0
        self._seen: dict[tuple[BucketName, UserKey], _Seen] = {}
        self._session = Seen(SESSION_SECONDS)
        self._access = Access(name, cluster, rng)
        self._retries_before: Counter[str] = Counter()
        self._stopped = False
        self._turn = 0
        self.idle = True
        self.must_succeed = False
        """Whether nothing is wrong, so that every request must be carried out."""

    @property
    def retries(self) -> Counter[str]:
        """What was sent again, by the class of the error before."""
        return self._access.retries

    def start(self) -> None:
        """Begin after a little while."""
        self._stopped = False
        self._turn += 1
        self._next()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True

    def _next(self) -> None:
        self.idle = True
        self._cluster.scheduler.after(
            self._rng.expovariate(_RATE / self._shape.clients), partial(self._act, self._turn)
        )

    def _act(self, turn: int) -> None:
        if self._stopped or turn != self._turn:
            return
        self.idle = False
        dice = self._rng.random()
        if dice < 0.03:
            self._scan()
            self._next()
        elif dice < 0.13:
            self._batch()
        else:
            self._send([self._operation(self._rng.choice(self._shape.buckets), self._some_key())])

    def _some_key(self) -> UserKey:
        return UserKey(b"k%d" % self._rng.randrange(self._shape.keys))

    def _batch(self) -> None:
        """Several at once, of different keys: what a session promises is about one after the other."""
        places = [(b, key) for b, key in self._shape.places() if b.name != SESSIONS]
        number = self._rng.randrange(2, _MOST_AT_ONCE + 1)
        self._send([self._operation(*place) for place in self._rng.sample(places, min(number, len(places)))])

    def _operation(self, bucket: BucketSettings, key: UserKey) -> tuple[ClientRequest, Done]:
        seen = self._seen.get((BucketName(bucket.name), key))
        quorum = self._some_quorum(bucket)
        dice = self._rng.random()
        if dice < 0.35:
            return self._read(bucket, key, quorum)
        if dice < 0.43 and seen and seen.values:
            return self._delete(bucket, key, seen, quorum)
        if dice < 0.46:
            return self._delete(bucket, key, None, quorum)
        if dice < 0.8 and seen:
            return self._put(bucket, key, seen, quorum)
        return self._put(bucket, key, None, quorum)

    def _some_quorum(self, bucket: BucketSettings) -> _Quorum:
        """Mostly that of the bucket."""
        if self._rng.random() < 0.85:
            return _Quorum()
        numbers = range(bucket.n + 1)
        mode = self._rng.choice((None, *QuorumMode))
        return _Quorum(self._rng.choice(numbers), self._rng.choice(numbers), mode)

    def _timeout(self) -> float:
        return self._rng.choice(_TIMEOUTS)

    def _fresh_value(self) -> bytes:
        self._writes += 1
        # padded, so that memtables fill up
        size = self._rng.choice(self._cluster.value_sizes)
        return f"{self._name}.{self._writes}".encode().ljust(size, b".")

    # reading

    def _read(self, bucket: BucketSettings, key: UserKey, quorum: _Quorum) -> tuple[Get, Done]:
        timeout = _QUIET_READ if self.must_succeed else self._timeout()
        get = Get(BucketName(bucket.name), key, r=quorum.r, quorum=quorum.mode, timeout=timeout)
        if bucket.name == SESSIONS:
            get = self._session.asking(get, self._cluster.scheduler.now)
        return get, partial(self._was_read, get, self._cluster.scheduler.now)

    def _was_read(self, get: Get, began: float, reply: Answer | None) -> None:
        self._count("read", reply)
        bucket, key = get.bucket, get.key
        if isinstance(reply, Found):
            self._session.found(get, reply, self._cluster.scheduler.now)
            values = frozenset(sibling.value for sibling in reply.siblings)
            now, exact = self._cluster.scheduler.now, self._cluster.clocks_are_right
            self._history.reads.append(
                Read(self._name, bucket, key, values, began, now, get.r, get.quorum, exact)
            )
            self._seen[bucket, key] = _Seen(reply.context, values)

    def _scan(self) -> None:
        """One node lists a partition, and must list what it holds there."""
        host = self._cluster.hosts[self._rng.choice(sorted(self._cluster.hosts))]
        bucket = BucketName(self._rng.choice(self._shape.buckets).name)
        partitions = self._cluster.state.ring.partitions
        partition = partition_of(token(bucket, self._some_key()), partitions)
        limit = self._rng.choice((Limits.scan_keys, 1, 2))
        if not host.process.listens:
            self._history.outcomes["scan no answer"] += 1
            return
        keys = [UserKey(b"k%d" % i) for i in range(self._shape.keys)]
        held = [key for key in keys if partition_of(token(bucket, key), partitions) == partition]
        try:
            listed = host.shell.keys(bucket, partition, limit)
            there = sorted(key for key in held if self._is_visible(host, bucket, key))
        except Corruption:
            self._history.outcomes["scan Corruption"] += 1
            return
        self._history.outcomes["scan ok"] += 1
        self._cluster.scheduler.record(f"{self._name} scan {len(listed)}")
        if sorted(key for key in listed if key in keys) != there or len(set(listed)) != len(listed):
            raise Violation(f"{host.name} lists {listed} of {bucket} in {partition}, and holds {there}")

    def _is_visible(self, host: Host, bucket: BucketName, key: UserKey) -> bool:
        version = self._cluster.stored(host.name, bucket, key)
        return bool(version and decode_version(version).visible(host.machine.wall))

    # writing

    def _put(
        self, bucket: BucketSettings, key: UserKey, seen: _Seen | None, quorum: _Quorum
    ) -> tuple[Put, Done]:
        ttl = self._rng.choice(_TTLS) if bucket.name == EXPIRING else 0
        write = self._write(bucket, key, self._fresh_value(), seen, quorum)
        write.ttl = ttl or bucket.ttl
        value, context = write.value or b"", seen.context if seen else NO_CONTEXT
        put = Put(
            write.bucket,
            key,
            value,
            context,
            ttl=ttl,
            w=quorum.w,
            quorum=quorum.mode,
            timeout=self._timeout(),
        )
        return put, partial(self._was_written, write, put)

    def _delete(
        self, bucket: BucketSettings, key: UserKey, seen: _Seen | None, quorum: _Quorum
    ) -> tuple[Delete, Done]:
        write = self._write(bucket, key, None, seen, quorum)
        write.blind, write.r = seen is None, quorum.r
        context = seen.context if seen else NO_CONTEXT
        delete = Delete(write.bucket, key, context, quorum.r, quorum.w, quorum.mode, self._timeout())
        return delete, partial(self._was_written, write, delete)

    def _write(
        self, bucket: BucketSettings, key: UserKey, value: bytes | None, seen: _Seen | None, quorum: _Quorum
    ) -> Write:
        values = seen.values if seen else frozenset[bytes]()
        write = Write(self._name, BucketName(bucket.name), key, value, values, self._cluster.scheduler.now)
        write.w, write.quorum = quorum.w, quorum.mode
        self._history.writes.append(write)
        return write

    def _was_written(self, write: Write, call: Put | Delete, reply: Answer | None) -> None:
        self._count("delete" if write.value is None else "write", reply)
        write.ended, write.exact = self._cluster.scheduler.now, self._cluster.clocks_are_right
        match reply:
            case Stored():
                write.result = Result.OK
                self._session.stored(call, reply, self._cluster.scheduler.now)
                left = len(read_context(reply.context).dots) > 1 if reply.context else False
                if left:  # it says so by naming them again: earlier writes of its own are still there
                    write.seen = frozenset()
                if write.value is not None and reply.context and not left:
                    self._seen[write.bucket, write.key] = _Seen(reply.context, frozenset({write.value}))
            case KVError(outcome=Outcome.NOT_APPLIED):
                write.result = Result.NOT_APPLIED
            case _:
                pass  # nobody knows

    # asking

    def _send(self, operations: list[tuple[ClientRequest, Done]]) -> None:
        """Begin all at once; the last answer, or losing patience, ends the turn."""
        if self._rng.random() < _ELSEWHERE:
            self._access.move()
        self._retries_before = self.retries
        waiting = {i: done for i, (_, done) in enumerate(operations)}
        pending: list[Pending] = []

        def ended(i: int, answer: Answer | None) -> None:
            if done := waiting.pop(i, None):
                done(answer)
                if not waiting:
                    self._next()

        def lose_patience() -> None:
            if waiting and self._access.give_up(pending):
                for i in list(waiting):
                    ended(i, None)

        patience = max(_PATIENCE) if self.must_succeed else self._rng.choice(_PATIENCE)
        self._cluster.scheduler.after(patience, lose_patience)
        for i, (request, _) in enumerate(operations):
            pending.append(Pending(partial(ended, i)))
            self._access.client.begin(request, pending[-1])

    def _count(self, what: str, answer: Answer | None) -> None:
        match answer:
            case None:
                end = "no answer"
            case KVError():
                end = type(answer).__name__
            case _:
                end = "ok"
        self._cluster.scheduler.record(f"{self._name} {what} {end}")
        self._history.outcomes[f"{what} {end}"] += 1
        if self.must_succeed:
            self._judge(what, end, answer)

    def _judge(self, what: str, end: str, answer: Answer | None) -> None:
        """While nothing is wrong each request must be carried out, and at the first attempt."""
        self._history.outcomes["although nothing was wrong: " + ("ok" if end == "ok" else end)] += 1
        if end != "ok" and not isinstance(answer, TooManySiblings | VersionTooLarge):
            raise Violation(f"{self._name}: {what} ended with {end}, although nothing is wrong: {answer}")
        if again := self.retries - self._retries_before:
            kinds = ", ".join(sorted(again))
            raise Violation(f"{self._name}: {what} was sent again after {kinds}, although nothing is wrong")

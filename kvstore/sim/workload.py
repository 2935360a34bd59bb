"""Clients: each has one request under way, on few keys, so that they meet."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

from kvstore.config import BucketSettings, Conflict, QuorumMode
from kvstore.errors import Outcome
from kvstore.quorum.messages import ClientRequest, Delete, Failed, Found, Get, Put, Reply, Stored
from kvstore.quorum.seen import Seen
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.history import SESSION_SECONDS, SESSIONS, History, Read, Result, Write

BUCKETS = (
    BucketSettings("strict"),
    BucketSettings("all", r=3, w=3),
    BucketSettings("one", r=3, w=1),
    BucketSettings("sloppy", quorum=QuorumMode.SLOPPY),
    BucketSettings("lww", conflict=Conflict.LWW),
    BucketSettings(SESSIONS, r=1, w=1, quorum=QuorumMode.SLOPPY),
)
KEYS_PER_BUCKET = 4

_TIMEOUTS = (2.0, 5.0)
"""Both less and more than what a write waits for a replica before it asks another node."""
_PATIENCE = 6.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a client remembers of its last read of a key."""

    context: bytes
    values: frozenset[bytes]


class Client:
    """Does one thing after the other until told to stop."""

    def __init__(self, name: str, cluster: SimulatedCluster, history: History, rng: random.Random) -> None:
        self._name = name
        self._cluster = cluster
        self._history = history
        self._rng = rng
        self._writes = 0
        self._turn = 0
        self._seen: dict[tuple[str, bytes], _Seen] = {}
        self._session = Seen(lambda: cluster.scheduler.now, SESSION_SECONDS)
        self._stopped = False
        self.idle = True

    def start(self) -> None:
        """Begin after a little while."""
        self._next()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True

    def _next(self) -> None:
        self.idle = True
        self._cluster.scheduler.after(self._rng.expovariate(5.0), self._act)

    def _act(self) -> None:
        if self._stopped:
            return
        self.idle = False
        bucket = self._rng.choice(BUCKETS).name
        key = b"k%d" % self._rng.randrange(KEYS_PER_BUCKET)
        seen = self._seen.get((bucket, key))
        dice = self._rng.random()
        if dice < 0.35:
            self._read(bucket, key)
        elif dice < 0.45 and seen and seen.values:
            self._write(bucket, key, None, seen)
        elif dice < 0.8 and seen:
            self._write(bucket, key, self._fresh_value(), seen)
        else:
            self._write(bucket, key, self._fresh_value(), None)

    def _timeout(self) -> float:
        return self._rng.choice(_TIMEOUTS)

    def _fresh_value(self) -> bytes:
        self._writes += 1
        # padded, so that memtables fill up
        size = self._rng.choice(self._cluster.value_sizes)
        return f"{self._name}.{self._writes}".encode().ljust(size, b".")

    def _read(self, bucket: str, key: bytes) -> None:
        began = self._cluster.scheduler.now
        get = Get(bucket, key, timeout=self._timeout())
        if bucket == SESSIONS:
            get = self._session.asking(get)
        self._send(get, partial(self._was_read, get, began))

    def _was_read(self, get: Get, began: float, reply: Reply | None) -> None:
        self._count("read", reply)
        bucket, key = get.bucket, get.key
        if isinstance(reply, Found):
            self._session.found(get, reply)
            values = frozenset(sibling.value for sibling in reply.siblings)
            self._history.reads.append(
                Read(self._name, bucket, key, values, began, self._cluster.scheduler.now)
            )
            self._seen[bucket, key] = _Seen(reply.context, values)

    def _write(self, bucket: str, key: bytes, value: bytes | None, seen: _Seen | None) -> None:
        began = self._cluster.scheduler.now
        write = Write(self._name, bucket, key, value, seen.values if seen else frozenset(), began)
        self._history.writes.append(write)
        context = seen.context if seen else b""
        call: Put | Delete = (
            Delete(bucket, key, context, timeout=self._timeout())
            if value is None
            else Put(bucket, key, value, context, timeout=self._timeout())
        )
        self._send(call, partial(self._was_written, write, call))

    def _was_written(self, write: Write, call: Put | Delete, reply: Reply | None) -> None:
        self._count("delete" if write.value is None else "write", reply)
        write.ended = self._cluster.scheduler.now
        match reply:
            case Stored():
                write.result = Result.OK
                self._session.stored(call, reply)
                if write.value is not None and reply.context:
                    self._seen[write.bucket, write.key] = _Seen(reply.context, frozenset({write.value}))
            case Failed(error) if error.outcome is Outcome.NOT_APPLIED:
                write.result = Result.NOT_APPLIED

    def _send(self, call: ClientRequest, done: partial[None]) -> None:
        """Send to some host; the answer, a broken connection or too long a wait ends the turn."""
        self._turn += 1
        turn = self._turn

        def once(reply: Reply | None) -> None:
            if turn == self._turn:
                self._turn += 1
                done(reply)
                self._next()

        self._cluster.request(self._name, self._rng.choice(sorted(self._cluster.hosts)), call, once)
        self._cluster.scheduler.after(_PATIENCE, partial(once, None))

    def _count(self, what: str, reply: Reply | None) -> None:
        match reply:
            case None:
                end = "no answer"
            case Failed(error):
                end = type(error).__name__
            case _:
                end = "ok"
        self._cluster.scheduler.record(f"{self._name} {what} {end}")
        self._history.outcomes[f"{what} {end}"] += 1

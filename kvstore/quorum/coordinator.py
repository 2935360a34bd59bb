"""The coordinator: admits client requests, chooses their replicas, and routes answers to operations.

The way of a put: `request` -> `_put` (read here, mint a dot, write here) -> WriteOperation (send,
count acks) -> reply. Of a get: `request` -> `_read` -> ReadOperation (digests, repair) -> reply.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Protocol

import msgspec

from kvstore.config import BucketSettings, Conflict, Limits, QuorumMode, QuorumSettings
from kvstore.errors import (
    Corruption,
    InvalidRequest,
    KVError,
    Overloaded,
    StaleRing,
    TooManySiblings,
    Unavailable,
)
from kvstore.hlc import HybridClock, wall_time
from kvstore.lsm import Engine
from kvstore.quorum.actors import Actors
from kvstore.quorum.counters import Counters
from kvstore.quorum.durability import Durability
from kvstore.quorum.forward import ForwardOperation
from kvstore.quorum.hints import HintChange, Hints
from kvstore.quorum.merkle import Trees
from kvstore.quorum.messages import (
    ClientRequest,
    Delete,
    Explain,
    Failed,
    Forward,
    ForwardReply,
    Found,
    Get,
    Put,
    QuorumMessage,
    Reply,
    Stored,
    Value,
)
from kvstore.quorum.operation import Operation, Respond
from kvstore.quorum.placement import Placement, place
from kvstore.quorum.read import Complete, ReadOperation
from kvstore.quorum.replica import Replica
from kvstore.quorum.timers import Timers
from kvstore.quorum.write import WriteOperation
from kvstore.ring import ClusterState, data_key, fallbacks, partition_of, split_data_key, token
from kvstore.versions import (
    EMPTY,
    CausalContext,
    Sibling,
    Version,
    decode_context,
    decode_version,
    encode_context,
    encode_version,
    join,
    write,
)


class Moment(Protocol):
    """The time of an input: `mono` in seconds, `wall` in milliseconds since 1970."""

    @property
    def mono(self) -> float:
        """Seconds, only ever forwards."""

    @property
    def wall(self) -> int:
        """Milliseconds since 1970."""


class Transport(Protocol):
    """Where messages to other nodes go."""

    def send(self, to: str, message: QuorumMessage | Forward | ForwardReply) -> None:
        """Send, best effort."""


class Request(msgspec.Struct, frozen=True):
    """A client's request with all that was derived from it once: key, replicas, quorum, deadline."""

    call: ClientRequest
    bucket: BucketSettings
    token: int
    key: bytes
    partition: int
    n: int
    required: int
    sloppy: bool
    placement: Placement
    deadline: float
    now: Moment


class Coordinator:
    """One node's part in all operations that it coordinates."""

    def __init__(
        self,
        name: str,
        state: ClusterState,
        engine: Engine,
        transport: Transport,
        request_sync: Callable[[], None],
        alive: Callable[[str], bool],
        rng: random.Random,
        settings: QuorumSettings,
        limits: Limits,
    ) -> None:
        self.name = name
        self.state = state
        self.transport = transport
        self.settings = settings
        self.counters = Counters()
        self.replica = Replica(engine, state.bucket, Trees(state))
        self.hints = Hints(engine, self.replica, settings, self.counters)
        self.durability = Durability(engine, request_sync)
        self.now = 0.0
        self._limits = limits
        self._alive = alive
        self._actors = Actors(name, rng)
        self._clock = HybridClock()
        # random, so that an ack for an operation of before a restart means nothing after it
        self._next_number = rng.getrandbits(62)
        self._operations: dict[int, Operation] = {}
        self._timers = Timers()
        self._placements: dict[tuple[int, int], Placement] = {}
        self._unanswered = 0

    # requests

    def request(self, call: ClientRequest, respond: Respond, now: Moment, forwarded: bool = False) -> None:
        """Take a client's request; exactly one reply goes to `respond`, now or later."""
        self._count(call)
        if self._unanswered >= self.settings.in_flight:
            self.counters.errors += 1
            respond(Failed(Overloaded(0.1)))
            return
        self._unanswered += 1
        respond = partial(self._answered, respond)
        try:
            self._start(self._admit(call, now), respond, forwarded)
        except KVError as error:
            respond(Failed(error))

    def _count(self, call: ClientRequest) -> None:
        if isinstance(call, Put):
            self.counters.puts += 1
        elif isinstance(call, Get):
            self.counters.gets += 1
        else:
            self.counters.deletes += 1

    def _answered(self, respond: Respond, reply: Reply) -> None:
        self._unanswered -= 1
        if type(reply) is Failed:
            self.counters.errors += 1
        respond(reply)

    def _admit(self, call: ClientRequest, now: Moment) -> Request:
        """Check a request and derive what is needed of it; raises InvalidRequest, StaleRing."""
        state = self.state
        if not state.knows(call.bucket):
            self._limits.check_bucket(call.bucket)
        self._limits.check_key(call.key)
        if call.epoch and call.epoch != state.epoch:
            raise StaleRing(state.epoch)
        bucket = state.bucket(call.bucket)
        field, wanted, usual = (
            ("w", call.w, bucket.w) if isinstance(call, (Put, Delete)) else ("r", call.r, bucket.r)
        )
        if not 0 <= wanted <= bucket.n:
            raise InvalidRequest(field, f"is {wanted}, must be between 1 and n={bucket.n} of the bucket")
        key_token = token(call.bucket, call.key)
        partition = partition_of(key_token, state.ring.partitions)
        timeout = min(call.timeout or self.settings.default_timeout, self.settings.max_timeout)
        return Request(
            call,
            bucket,
            key_token,
            data_key(key_token, call.bucket, call.key),
            partition,
            bucket.n,
            wanted or usual,
            (call.quorum or bucket.quorum) is QuorumMode.SLOPPY,
            self._place(partition, bucket.n),
            now.mono + timeout,
            now,
        )

    def _start(self, request: Request, respond: Respond, forwarded: bool) -> None:
        placement = request.placement
        if not placement.here:
            live = [node for node in placement.primaries if self._alive(node)]
            if forwarded:
                raise StaleRing(self.state.epoch)
            if live:
                self.counters.forwards += 1
                ForwardOperation(self, respond, request, live).send()
                return
            if not request.sloppy:
                raise Unavailable(request.required, 0)
        usable = len(placement.targets) if request.sloppy else placement.live_primaries
        if usable < request.required:
            raise Unavailable(request.required, usable)
        try:
            self._carry_out(request, respond)
        except Corruption:
            # whoever mints a dot must know what is stored: one of the others does
            others = [n for n in placement.primaries if n != self.name and self._alive(n)]
            if forwarded or not others:
                raise
            self.counters.forwards += 1
            ForwardOperation(self, respond, request, others).send()

    def _carry_out(self, request: Request, respond: Respond) -> None:
        call = request.call
        if isinstance(call, Put):
            self._put(request, call, respond)
        elif isinstance(call, Get):
            self._get(request, respond)
        else:
            self._delete(request, call, respond)

    def _place(self, partition: int, n: int) -> Placement:
        placement = self._placements.get((partition, n))
        if placement is None:
            placement = place(self.state.ring, partition, n, self.name, self._alive)
            self._placements[partition, n] = placement
        return placement

    # writes

    def _put(self, request: Request, put: Put, respond: Respond) -> None:
        self._limits.check_value(put.value)
        self._limits.check_context(put.context)
        seen = decode_context(put.context, request.token)
        ttl = put.ttl or request.bucket.ttl
        expiry = request.now.wall + ttl * 1000 if ttl else 0
        self._write(request, seen, put.value, expiry, put.content_type, respond)

    def _delete(self, request: Request, delete: Delete, respond: Respond) -> None:
        self._limits.check_context(delete.context)
        if delete.context:
            seen = decode_context(delete.context, request.token)
            self._write(request, seen, None, 0, "", respond)
            return

        self._read(request, respond, self._delete_what_was_read, self._local(request))

    def _delete_what_was_read(
        self, request: Request, result: bytes, explain: Explain | None, respond: Respond
    ) -> None:
        if not result:
            respond(Stored(b"", 0, explain))
            return
        try:
            self._write(request, decode_version(result).context, None, 0, "", respond)
        except KVError as error:
            respond(Failed(error))

    def _write(
        self,
        request: Request,
        seen: CausalContext,
        value: bytes | None,
        expiry: int,
        content_type: str,
        respond: Respond,
    ) -> None:
        """Make the new version, append it here with hints for the unreachable, and send it out."""
        stored = self._local(request)
        current = decode_version(stored) if stored else EMPTY
        if request.bucket.conflict is Conflict.LWW:
            seen = join(seen, current.context)
        seen_time = max(s.time for s in current.siblings) if current.siblings else 0
        time = self._clock.tick(request.now.wall, seen_time)
        dot = self._actors.mint(request.partition)
        version = write(current, seen, Sibling(dot, value, time, expiry, content_type))
        siblings = len(version.siblings)
        if siblings > self._limits.siblings and siblings > len(current.siblings):
            raise TooManySiblings(len(current.siblings), self._limits.siblings)
        encoded = encode_version(version)
        lsn = self._append(request, stored, encoded)
        operation = WriteOperation(self, respond, request, encoded, self._stored(request, version))
        operation.send()
        self.durability.after(lsn, operation.on_local_durable)

    def _local(self, request: Request) -> bytes:
        """What this node holds of a key: its replica's version or, as a fallback, its hints."""
        if request.placement.here:
            return self.replica.read(request.key)
        known = b""
        for node in request.placement.primaries:
            known = self.replica.combine(request.key, known, self.hints.read(node, request.key))
        return known

    def _append(self, request: Request, stored: bytes, encoded: bytes) -> int:
        """This node's copy over what is `stored`, and the hints it must keep, in one batch; returns its LSN.

        Raises StorageFull; Overloaded when this node's own copy is a hint and there is no room for it.
        """
        key, placement = request.key, request.placement
        hints: list[HintChange | None] = []
        if placement.stands_in_for:
            hints.append(self.hints.plan(placement.stands_in_for, key, encoded))
        for target in placement.unplaced:
            with suppress(Overloaded, Corruption):  # counted as dropped; W acks come from others
                hints.append(self.hints.plan(target, key, encoded))
        changes = [change for change in hints if change]
        batch = [(change.key, change.version) for change in changes]
        if placement.here:
            lsn = self.replica.replace(key, stored, encoded, batch)
        else:
            lsn = self.replica.write(batch)
        for change in changes:
            self.hints.applied(change)
        return lsn

    def _stored(self, request: Request, version: Version) -> Stored:
        alone = len(version.siblings) == 1
        context = encode_context(version.context, request.token) if alone else b""
        return Stored(context, len(version.visible(request.now.wall)))

    # reads

    def _get(self, request: Request, respond: Respond) -> None:
        try:
            local = self._local(request)
        except Corruption:
            # this node's own copy is no answer, least of all "not found"
            remote = request.placement.remote.values()
            if request.required > sum(1 for hint_for in remote if request.sloppy or not hint_for):
                raise
            ReadOperation(self, respond, request, None, self._found).send()
        else:
            self._read(request, respond, self._found, local)

    def _read(self, request: Request, respond: Respond, complete: Complete, local: bytes) -> None:
        operation = ReadOperation(self, respond, request, local, complete)
        operation.send()
        self.durability.after(self.replica.unsynced(request.key), operation.on_local_durable)

    def _found(self, request: Request, result: bytes, explain: Explain | None, respond: Respond) -> None:
        version = decode_version(result) if result else EMPTY
        values = tuple(
            Value(sibling.value or b"", sibling.content_type, wall_time(sibling.time), sibling.expiry)
            for sibling in version.visible(request.now.wall)
        )
        context = encode_context(version.context, request.token) if result else b""
        respond(Found(values, context, explain))

    # what operations need of their coordinator

    def register(self, operation: Operation) -> int:
        """Give an operation its number and its first wake-up."""
        self._next_number = number = self._next_number + 1
        self._operations[number] = operation
        self._wake_later(operation, number)
        return number

    def _wake_later(self, operation: Operation, number: int) -> None:
        wake_at = self.now + operation.patience
        if wake_at > operation.deadline:
            wake_at = max(self.now, operation.deadline)
        self._timers.add(wake_at, number)

    def forget(self, number: int) -> None:
        """The operation has finished."""
        self._operations.pop(number, None)

    def live_fallbacks(self, partition: int, n: int) -> list[str]:
        """Other live nodes behind the `n` primaries of a partition, in ring order."""
        ring = self.state.ring
        return [f for f in fallbacks(ring, partition, n) if f != self.name and self._alive(f)]

    def store(self, key: bytes, version: bytes, hint_for: str) -> int:
        """Reconcile a version into this node's replica, or keep it as a hint; returns the LSN to wait for.

        Raises StorageFull, Corruption of what is stored, Overloaded when hints are at their limit.
        """
        if not hint_for:
            return self.replica.apply(key, version)
        change = self.hints.plan(hint_for, key, version)
        if change is None:
            return self.durability.last
        lsn = self.replica.write([(change.key, change.version)])
        self.hints.applied(change)
        return lsn

    def hint_discarded(self, key: bytes) -> None:
        """A hint was deleted: if its key is only known here by hints, dots may be forgotten now."""
        key_token, bucket, _ = split_data_key(key)
        partition = partition_of(key_token, self.state.ring.partitions)
        if not self._place(partition, self.state.bucket(bucket).n).here:
            self._actors.renew(partition)

    def renew_actors(self) -> None:
        """Dots that this node has minted may be forgotten here."""
        self._actors.renew_all()

    @property
    def under_way(self) -> int:
        """How many requests of clients have not been answered."""
        return self._unanswered

    def keys_under_way(self) -> set[bytes]:
        """The keys that some operation may yet bring to a replica."""
        return {operation.touches() for operation in self._operations.values()}

    def reap(self, key: bytes) -> None:
        """Delete the version of a key that nobody can see any more: kvstore.quorum.reap has made sure."""
        version = self.replica.read(key)
        # in an lww bucket a later write must not lose to what has been forgotten here
        self._clock.observe(max((sibling.time for sibling in decode_version(version).siblings), default=0))
        self.durability.after(self.replica.replace(key, version, b""), _nothing_waits)
        self.counters.reaped += 1

    # inputs

    def operation(self, number: int) -> Operation | None:
        """The operation under a number, if it is still under way."""
        return self._operations.get(number)

    def on_write_acks(self, node: str, numbers: Iterable[int]) -> None:
        """`node` has what the operations of these numbers have sent it, durably."""
        operations = self._operations
        for number in numbers:
            if operation := operations.get(number):
                operation.on_write_ack(node)

    def on_durable(self, lsn: int) -> None:
        """All writes up to `lsn` are on the disk."""
        self.counters.syncs += 1
        self.replica.on_durable(lsn)
        self.durability.on_durable(lsn)

    def on_membership(self) -> None:
        """Some node's status changed: placements are chosen anew."""
        self._placements.clear()

    def on_gone(self, node: str) -> None:
        """`node` is dead or its connection broke: what was sent to it may be lost."""
        for operation in tuple(self._operations.values()):
            operation.on_gone(node)

    def next_deadline(self) -> float:
        """When `on_timer` next has work, in monotonic seconds."""
        return self._timers.next(self._operations)

    def on_timer(self, now: float) -> None:
        """Wake the operations whose patience or deadline has passed."""
        for number in self._timers.due(now):
            if operation := self._operations.get(number):
                operation.on_time(now)
                if number in self._operations:
                    self._wake_later(operation, number)


def _nothing_waits() -> None:
    """For a write that should be synced soon, although no ack depends on it."""

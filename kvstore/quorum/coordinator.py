"""The coordinator: admits client requests, chooses their replicas, and routes answers to operations.

The way of a put: `request` -> `_put` (read here, mint a dot, write here) -> WriteOperation (send,
count acks) -> reply. Of a get: `request` -> `_read` -> ReadOperation (digests, repair) -> reply.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable
from functools import partial

from kvstore.config import MAX_REPLY_BYTES, Conflict, Limits, QuorumSettings
from kvstore.contexts import decode_seen, encode_seen
from kvstore.errors import (
    Corruption,
    InternalError,
    InvalidRequest,
    KVError,
    Overloaded,
    StaleRing,
    TooManySiblings,
    Unavailable,
    VersionTooLarge,
)
from kvstore.hlc import HybridClock, wall_time
from kvstore.instant import Instant
from kvstore.lsm import Engine
from kvstore.protocol.messages import (
    ClientRequest,
    Delete,
    Explain,
    Failed,
    Found,
    Get,
    Put,
    Reply,
    Stored,
    Transport,
    Value,
)
from kvstore.quorum.actors import Actors
from kvstore.quorum.admission import Admission
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.context_keys import ContextKeys
from kvstore.quorum.counters import Counters
from kvstore.quorum.durability import Durability
from kvstore.quorum.forward import ForwardOperation
from kvstore.quorum.guard import Guard, Report
from kvstore.quorum.hedging import Hedging
from kvstore.quorum.hints import HintChange, Hints
from kvstore.quorum.operation import Operation, Respond
from kvstore.quorum.operations import Operations
from kvstore.quorum.placement import Placement, place
from kvstore.quorum.read import Complete, ReadOperation
from kvstore.quorum.replica import Replica
from kvstore.quorum.request import Request, admit
from kvstore.quorum.write import WriteOperation
from kvstore.ring import (
    ClusterState,
    fallbacks,
    partition_of,
    preference_list,
    split_data_key,
)
from kvstore.versions import (
    EMPTY,
    MAX_EXPIRY,
    CausalContext,
    Dot,
    Sibling,
    Version,
    covers,
    decode_version,
    encode_version,
    join,
    write,
)

_LOAD_UNIT = 16
"""So many requests under way double the pauses of background work."""


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
        report: Report,
    ) -> None:
        self.name = name
        self.state = state
        self.transport = transport
        self.settings = settings
        self.counters = Counters()
        self.guard = Guard(partial(self._defect, report))
        self.replica = Replica(engine, state.bucket, Trees(state), self.counters)
        self.hints = Hints(engine, self.replica, settings, self.counters)
        self.durability = Durability(engine, request_sync, self.guard)
        others = [member.node for member in state.members if member.node != name]
        self.context_keys = ContextKeys(engine, self.replica, others)
        self.hedging = Hedging(settings.read_patience, settings.hedge_share, settings.hedge_burst)
        self.now = 0.0
        self.wall = 0
        self._limits = limits
        self._alive = alive
        self._actors = Actors(name, rng)
        self._clock = HybridClock(int(settings.max_clock_drift * 1000), self._clock_ahead)
        # random, so that an ack for an operation of before a restart means nothing after it
        first_number = rng.getrandbits(62)
        self._placements: dict[tuple[int, int], Placement] = {}
        self.admission = Admission(settings)
        self.operations = Operations(first_number, self.admission, self.guard)
        self._replies = 0

    # requests

    def request(
        self, call: ClientRequest, respond: Respond, now: Instant, client: int = 0, forwarded: bool = False
    ) -> None:
        """Take a client's request; exactly one reply goes to `respond`, now or later.

        `client` is the request's number with whoever runs this node, for `cancel`.
        """
        self._count(call)
        admission = self.admission
        if admission.bytes >= admission.strained_bytes:
            self.counters.hinted_early += self.operations.relieve(now.mono)
        if refusal := admission.take(call.timeout or self.settings.default_timeout, now.mono):
            self.counters.errors += 1
            self.counters.overloaded += 1
            respond(refusal)
            return
        respond = partial(self._answered, respond, now.mono)
        replies = self._replies
        try:
            request = admit(call, self.state, self._limits, self.settings, self._place, now, client)
            self._start(request, respond, forwarded)
        except KVError as error:
            respond(Failed(error))
        except Exception as error:  # noqa: BLE001  (a defect: nobody else's request may suffer from it)
            if self._replies == replies:
                respond(Failed(InternalError(f"the node met a defect: {error!r}")))
            self.guard.report(error)

    def _defect(self, report: Report, error: Exception) -> None:
        self.counters.defects += 1
        report(error)

    def cancel(self, clients: Container[int]) -> None:
        """The clients of these requests have left: nothing more is done for them than must be."""
        for operation in self.operations.all():
            if operation.client in clients:
                self.counters.cancelled += 1
                self.guard.run(operation.on_cancelled)

    def _count(self, call: ClientRequest) -> None:
        if isinstance(call, Put):
            self.counters.puts += 1
        elif isinstance(call, Get):
            self.counters.gets += 1
        else:
            self.counters.deletes += 1

    def _answered(self, respond: Respond, since: float, reply: Reply) -> None:
        admission = self.admission
        self._replies += 1
        admission.unanswered -= 1
        if type(reply) is Failed:
            self.counters.errors += 1
        else:
            admission.worked(self.now - since)
        respond(reply)

    def _start(self, request: Request, respond: Respond, forwarded: bool) -> None:
        placement = request.placement
        if not placement.here:
            live = [node for node in placement.primaries if self._alive(node)]
            if forwarded:
                raise StaleRing(self.state.epoch)
            if live:
                self.counters.forwards += 1
                live.sort(key=lambda node: node in self.hedging.slow)
                ForwardOperation(self, respond, request, live).send()
                return
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
        self._limits.check_content_type(put.content_type)
        seen = self._seen(put.context, request.key)
        ttl = put.ttl or request.bucket.ttl
        # a clock before 1970 must not make it one that never expires
        expiry = min(max(request.now.wall + ttl * 1000, 1), MAX_EXPIRY) if ttl else 0
        self._write(request, seen, put.value, expiry, put.content_type, respond)

    def _delete(self, request: Request, delete: Delete, respond: Respond) -> None:
        if delete.context:
            seen = self._seen(delete.context, request.key)
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

    def _seen(self, context: bytes, key: bytes) -> CausalContext:
        """What a client's context says that it has seen; raises InvalidRequest, UnverifiedContext.

        It is signed, so this cluster has given it out. But a counter that this node has yet to reach was
        given out by nobody, whatever became of the keys: it would cover what is written later.
        """
        seen = self.context_keys.verify(context, key)
        if not all(map(self._actors.can_have_minted, seen)):
            raise InvalidRequest("context", "names writes that were never made")
        return seen

    def can_have_minted(self, dots: Iterable[Dot]) -> bool:
        """False if one of them, which another node believes in, is of this node and yet to be made.

        Then it never will be: this node takes new actors, whose dots nobody claims to have seen.
        """
        for dot in dots:
            if not self._actors.can_have_minted(dot):
                self._actors.renew_all()
                return False
        return True

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
        overwritten = 0
        if request.bucket.conflict is Conflict.LWW:
            unseen = [s for s in current.visible(request.now.wall) if not covers(seen, s.dot)]
            overwritten = len(unseen)
            seen = join(seen, current.context)
        seen_time = max(s.time for s in current.siblings) if current.siblings else 0
        time = self._clock.tick(request.now.wall, seen_time)
        dot = self._actors.mint(request.partition, join(seen, current.context))
        version = write(current, seen, Sibling(dot, value, time, expiry, content_type))
        siblings = len(version.siblings)
        if siblings > self._limits.siblings and siblings > len(current.siblings):
            raise TooManySiblings(len(current.siblings), self._limits.siblings)
        encoded = encode_version(version)
        if len(encoded) > self._limits.version and len(encoded) > len(stored):
            raise VersionTooLarge(len(encoded), self._limits.version)
        lsn = self._append(request, stored, encoded)
        self.counters.lww_overwritten += overwritten
        result = self._stored(request, version, overwritten)
        operation = WriteOperation(self, respond, request, encoded, result)
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
            try:
                hints.append(self.hints.plan(target, key, encoded))
            except (Overloaded, Corruption, VersionTooLarge):  # W acks come from others
                self.hints.lost(target, key, encoded)
        changes = [change for change in hints if change]
        batch = [(change.key, change.version) for change in changes]
        if placement.here:
            lsn = self.replica.replace(key, stored, encoded, batch)
        else:
            lsn = self.replica.write(batch)
        for change in changes:
            self.hints.applied(change)
        return lsn

    def _clock_ahead(self) -> None:
        self.counters.clock_ahead += 1

    def _stored(self, request: Request, version: Version, overwritten: int) -> Stored:
        alone = len(version.siblings) == 1
        context = self.context_keys.sign(version.context, request.key) if alone else b""
        written = b"" if alone else encode_seen(version.context, request.token)
        siblings = len(version.visible(request.now.wall))
        return Stored(context, siblings, overwritten=overwritten, written=written)

    # reads

    def _get(self, request: Request, respond: Respond) -> None:
        try:
            local = self._local(request)
        except Corruption:
            # this node's own copy is no answer, least of all "not found"
            remote = request.placement.remote.values()
            if request.r > sum(1 for hint_for in remote if request.sloppy or not hint_for):
                raise
            self._operation(request, respond, None, self._found).send()
        else:
            self._read(request, respond, self._found, local)

    def _read(self, request: Request, respond: Respond, complete: Complete, local: bytes) -> None:
        operation = self._operation(request, respond, local, complete)
        operation.send()
        self.durability.after(self.replica.unsynced(request.key), operation.on_local_durable)

    def _operation(
        self, request: Request, respond: Respond, local: bytes | None, complete: Complete
    ) -> ReadOperation:
        call = request.call
        seen: CausalContext = ()
        if isinstance(call, Get) and call.seen:
            seen = decode_seen(call.seen, request.token)
        self.hedging.earn()
        return ReadOperation(self, respond, request, local, complete, seen)

    def _found(self, request: Request, result: bytes, explain: Explain | None, respond: Respond) -> None:
        try:
            if len(result) > MAX_REPLY_BYTES:
                raise VersionTooLarge(len(result), MAX_REPLY_BYTES)
            version = decode_version(result) if result else EMPTY
        except (Corruption, VersionTooLarge) as error:  # what all R replicas hold, or have together
            respond(Failed(error))
            return
        values = tuple(
            Value(sibling.value or b"", sibling.content_type, wall_time(sibling.time), sibling.expiry)
            for sibling in version.visible(request.now.wall)
        )
        context = self.context_keys.sign(version.context, request.key) if result else b""
        respond(Found(values, context, explain))

    # what operations need of their coordinator

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
        if self.name not in self.primaries(key):
            self._actors.renew(partition_of(split_data_key(key)[0], self.state.ring.partitions))

    def primaries(self, key: bytes) -> tuple[str, ...]:
        """The replicas of an internal key, most preferred first."""
        key_token, bucket, _ = split_data_key(key)
        ring = self.state.ring
        return preference_list(ring, partition_of(key_token, ring.partitions), self.state.bucket(bucket).n)

    def renew_actors(self) -> None:
        """Dots that this node has minted may be forgotten here."""
        self._actors.renew_all()

    @property
    def load(self) -> float:
        """How much slower background work should go. Requests under way: their rate times their latency."""
        return self.admission.unanswered / _LOAD_UNIT

    def keys_under_way(self) -> set[bytes]:
        """The keys that some operation may yet bring to a replica."""
        return {operation.touches() for operation in self.operations.all()}

    def reap(self, key: bytes) -> None:
        """Delete the version of a key that nobody can see any more: `background.reap` has made sure."""
        version = self.replica.read(key)
        # in an lww bucket a later write must not lose to what has been forgotten here
        times = [sibling.time for sibling in decode_version(version).siblings]
        self._clock.observe(self.wall, max(times, default=0))
        self.durability.soon(self.replica.replace(key, version, b""))
        self.counters.reaped += 1

    # inputs

    def operation(self, number: int) -> Operation | None:
        """The operation under a number, if it is still under way."""
        return self.operations.by_number.get(number)

    def on_write_acks(self, node: str, numbers: Iterable[int]) -> None:
        """`node` has what the operations of these numbers have sent it, durably."""
        operations = self.operations.by_number
        for number in numbers:
            if operation := operations.get(number):
                self.guard.run(operation.on_write_ack, node)

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
        for operation in self.operations.all():
            self.guard.run(operation.on_gone, node)

    def on_unsent(self, node: str, numbers: Iterable[int]) -> None:
        """What these operations had for `node` was not sent: it is too far behind, or not connected."""
        for number in numbers:
            if operation := self.operations.by_number.get(number):
                self.guard.run(operation.on_gone, node)

    def next_deadline(self) -> float:
        """When `on_timer` next has work, in monotonic seconds."""
        return self.operations.next_deadline()

    def on_timer(self, now: float) -> None:
        """Wake the operations whose patience or deadline has passed."""
        self.operations.wake(now)

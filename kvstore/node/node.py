"""One node: the only router. It composes failure detector, ring, coordinator and engine.

Sans-I/O: whoever runs a node (kvstore.server under gRPC, kvstore.sim under virtual time) calls
the `on_...` methods with the time, and carries out what they put into the outbox.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from functools import partial

from kvstore.errors import Corruption, InvalidRequest, KVError, Overloaded, StaleRing, StorageFull
from kvstore.gossip import (
    MAX_INCARNATION,
    FailureDetector,
    Output,
    PersistIncarnation,
    Send,
    Status,
    StatusChanged,
)
from kvstore.gossip.messages import Ack, Nack, Ping, PingRequest, PushPull
from kvstore.instant import Instant
from kvstore.lsm import Engine, Job, JobResult
from kvstore.node.frame_check import FrameCheck
from kvstore.node.outbox import Outbox, PeerMessage
from kvstore.node.scan import scan_keys
from kvstore.node.settings import NodeSettings
from kvstore.node.status import NodeStatus
from kvstore.node.timed import Machine, Timed
from kvstore.protocol.messages import (
    ClientRequest,
    Forward,
    ForwardReply,
    KeyOffer,
    RangeDifference,
    RangeItems,
    ReadReply,
    ReadSame,
    ReapCheck,
    ReapConfirm,
    Refusal,
    RepairWanted,
    ReplicaRead,
    ReplicaWrite,
    Reply,
    TreeHashes,
    TreeRead,
    WriteAck,
    aged,
)
from kvstore.quorum.background.anti_entropy import AntiEntropy
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.reap import Reaper
from kvstore.quorum.background.replay import HintReplay
from kvstore.quorum.coordinator import Coordinator
from kvstore.quorum.forward import Repeats
from kvstore.quorum.replica import Changes
from kvstore.ring import ClusterState
from kvstore.versions import check_version, digest

_INCARNATION = b"n/incarnation"
"""Where the engine keeps this node's SWIM incarnation; `n` is the keyspace of node-local records."""


class Node:
    """A member of the cluster. Its inputs are calls, its outputs go to the outbox."""

    def __init__(
        self,
        name: str,
        state: ClusterState,
        engine: Engine,
        outbox: Outbox,
        rng: random.Random,
        settings: NodeSettings | None = None,
    ) -> None:
        settings = settings or NodeSettings()
        self.name = name
        self.state = state
        self._engine = engine
        self._outbox = outbox
        self._now = Instant(0.0, 0)
        self._timer = float("inf")
        self._detector = FailureDetector(name, self._others(), self._next_incarnation(), settings.gossip, rng)
        self._coordinator = Coordinator(
            name,
            state,
            engine,
            outbox,
            outbox.request_sync,
            self._alive,
            rng,
            settings.quorum,
            settings.limits,
            outbox.defect,
        )
        self._guard = self._coordinator.guard
        self._rng = rng
        self._check = FrameCheck(name, state, settings.limits, self._coordinator.can_have_minted)
        self._forwards = Repeats()
        hints = self._coordinator.hints
        self._replay = HintReplay(self._coordinator, hints, self._alive)
        self._anti_entropy = AntiEntropy(self._coordinator, engine, self._alive, settings.anti_entropy)
        self._reaper = Reaper(
            self._coordinator,
            self._anti_entropy.quarantine.known,
            self._wall,
            self._anti_entropy.exchanging,
            settings.anti_entropy,
        )
        hints.on_dropped = self._anti_entropy.hint_dropped
        machines: tuple[Machine, ...] = (
            Probing(self._detector, self._carry_out),
            self._coordinator,
            self._replay,
            self._anti_entropy,
            self._reaper,
        )
        self._timed = [Timed(machine, self._guard) for machine in machines]

    # life

    def start(self, now: Instant) -> None:
        """Begin to probe the other members and to work."""
        self._at(now)
        self._coordinator.context_keys.start(self._rng)
        self._coordinator.hints.drop_unreadable()
        self._persist_incarnation(self._next_incarnation())
        self._carry_out(self._detector.start(now.mono))
        self._reaper.start(now.mono)
        self._turn()

    def stop(self) -> None:
        """The end: syncs and closes the engine. Nothing may be called after it."""
        self._engine.close()

    def _next_incarnation(self) -> int:
        try:
            stored = self._engine.get(_INCARNATION)
        except Corruption:
            stored = None  # the others remember a later one, and this node then takes one after that
        return min(int.from_bytes(stored, "big") + 1, MAX_INCARNATION) if stored else 1

    def _persist_incarnation(self, incarnation: int) -> None:
        # one that a full disk does not take may be used again after a restart: then it is refuted once more
        with suppress(StorageFull, Overloaded):
            lsn = self._coordinator.replica.write([(_INCARNATION, incarnation.to_bytes(8, "big"))])
            self._coordinator.durability.soon(lsn)

    # clients

    def on_requests(self, requests: Iterable[tuple[int, ClientRequest]], now: Instant) -> None:
        """Clients' requests that have arrived together, each under a number of the shell's choice.

        Exactly one `reply` will follow for each.
        """
        self._at(now)
        coordinator, reply = self._coordinator, self._outbox.reply
        for number, call in requests:
            self._guard.run(coordinator.request, call, partial(reply, number), now, number)
        self._turn()

    def expired(self) -> None:
        """A client's request came too late to be handed in."""
        self._coordinator.counters.expired += 1

    def on_cancelled(self, requests: Container[int], now: Instant) -> None:
        """The clients of these requests have left; replies may follow all the same, and find nobody."""
        self._at(now)
        self._coordinator.cancel(requests)
        self._turn()

    def scan_keys(
        self, bucket: str, partition: int, after: bytes, limit: int, now: Instant
    ) -> tuple[tuple[bytes, ...], bytes]:
        """Keys held by this node: see kvstore.node.scan."""
        return scan_keys(self._engine, self.state.ring, bucket, partition, after, limit, now.wall)

    def status(self) -> NodeStatus:
        """What this node knows of itself and of the others."""
        admission = self._coordinator.admission
        return NodeStatus(
            self.name,
            self.state.cluster_id,
            self.state.epoch,
            self._detector.members(),
            self._coordinator.hints.all_pending(self._now.wall),
            self._coordinator.counters,
            self._engine.statistics(),
            self._anti_entropy.status(),
            admission.unanswered,
            admission.bytes,
            admission.most_bytes,
            self._anti_entropy.quarantine.waiting_for,
        )

    def repair_now(self, now: Instant) -> None:
        """Compare with all peers now, without pauses; `status` tells how far that is."""
        self._at(now)
        self._anti_entropy.repair_now()
        self._turn()

    @property
    def coordinator(self) -> Coordinator:
        """This node's part in all operations, for those that look over its shoulder."""
        return self._coordinator

    @property
    def trees(self) -> Trees:
        """The Merkle trees of what this node's replica holds."""
        return self._coordinator.replica.trees

    # other nodes

    def on_frame(
        self, sender: str, messages: Sequence[PeerMessage], now: Instant, delay: float = 0.0
    ) -> None:
        """Messages from another member that have arrived together, after waiting `delay` seconds somewhere.

        What its asker has given up meanwhile is not carried out. Writes are: most of them have been
        acknowledged by other replicas, and would come once more, as hints.

        Raises InvalidRequest for a frame of which something is wrong: nothing of it was carried out.
        """
        self._at(now)
        try:
            self._check.check(messages)
        except InvalidRequest:
            self._coordinator.counters.frames_refused += 1
            raise
        writes: list[ReplicaWrite] = []
        for message in messages:
            if isinstance(message, ReplicaWrite):
                writes.append(message)
            elif delay and _expired(message, delay):
                self._coordinator.counters.expired += 1
            else:
                self._guard.run(self._on_message, sender, message, now, delay)
        if writes:
            self._guard.run(self._replica_writes, sender, writes)
        self._turn()

    def _on_message(self, sender: str, message: PeerMessage, now: Instant, delay: float) -> None:
        coordinator = self._coordinator
        match message:
            case WriteAck(requests):
                coordinator.on_write_acks(sender, requests)
            case ReplicaRead():
                self._replica_read(sender, message)
            case ReadSame():
                if operation := coordinator.operation(message.request):
                    operation.on_read_same(sender)
            case ReadReply(request, version):
                if operation := coordinator.operation(request):
                    operation.on_read_reply(sender, version)
            case Refusal(request, error):
                if operation := coordinator.operation(request):
                    operation.on_refusal(sender, error)
            case Forward(request, _, call):
                if self._forwards.is_new(sender, request):
                    respond = partial(self._forward_reply, sender, request)
                    coordinator.request(aged(call, delay), respond, now, forwarded=True)
            case ForwardReply(request, reply):
                if operation := coordinator.operation(request):
                    operation.on_forward_reply(sender, reply)
            case TreeHashes() | RangeDifference():
                if operation := coordinator.operation(message.request):
                    operation.on_answer(sender, message)
            case RepairWanted(epoch, partition, n, peer):
                if epoch == self.state.epoch:
                    self._anti_entropy.mark(peer, partition, n)
            case ReapConfirm(request, positions):
                if operation := coordinator.operation(request):
                    operation.on_confirm(sender, positions)
            case KeyOffer(keys):
                if self._coordinator.context_keys.offered(sender, keys):
                    self._hand_out_keys(*self._others())
            case TreeRead() | RangeItems() | ReapCheck():
                self._exchange(sender, message)
            case Ping() | PingRequest() | Ack() | Nack() | PushPull():
                self._carry_out(self._detector.on_message(sender, message, now.mono))

    def _forward_reply(self, sender: str, request: int, reply: Reply) -> None:
        self._outbox.send(sender, ForwardReply(request, reply))

    def _replica_writes(self, sender: str, writes: Sequence[ReplicaWrite]) -> None:
        """Store the versions of one frame in one batch; one ack follows for all, when it is durable."""
        coordinator = self._coordinator
        taken: list[int] = []
        changes: Changes = {}
        last_lsn = 0
        for message in writes:
            try:
                self._check_epoch(message.epoch)
                if message.hint_for:
                    lsn = coordinator.store(message.key, message.version, message.hint_for)
                else:
                    lsn = coordinator.replica.prepare(message.key, message.version, changes)
            except KVError as error:
                self._outbox.send(sender, Refusal(message.request, error))
            else:
                taken.append(message.request)
                last_lsn = max(last_lsn, lsn)
        if changes:
            try:
                last_lsn = coordinator.replica.replace_all(changes)
            except KVError as error:
                for request in taken:
                    self._outbox.send(sender, Refusal(request, error))
                return
        if taken:
            ack = WriteAck(tuple(taken))
            coordinator.durability.after(last_lsn, partial(self._outbox.send, sender, ack))

    def _replica_read(self, sender: str, message: ReplicaRead) -> None:
        coordinator = self._coordinator
        try:
            self._check_epoch(message.epoch)
            if message.hint_for:
                version = coordinator.hints.read(message.hint_for, message.key)
                lsn = coordinator.durability.last
            else:
                version = coordinator.replica.read(message.key)
                lsn = coordinator.replica.unsynced(message.key)
            answer = _answer(message, version)
        except KVError as error:
            self._outbox.send(sender, Refusal(message.request, error))
            return
        # shown only once it cannot be lost: a later read must see it too
        coordinator.durability.after(lsn, partial(self._outbox.send, sender, answer))

    def _exchange(self, sender: str, message: TreeRead | RangeItems | ReapCheck) -> None:
        try:
            self._check_epoch(message.epoch)
            if isinstance(message, TreeRead):
                self._anti_entropy.on_tree_read(sender, message)
            elif isinstance(message, ReapCheck):
                self._outbox.send(sender, self._reaper.on_check(message))
            else:
                self._anti_entropy.on_range_items(sender, message)
        except KVError as error:
            self._outbox.send(sender, Refusal(message.request, error))

    def _check_epoch(self, epoch: int) -> None:
        if epoch != self.state.epoch:
            raise StaleRing(self.state.epoch)

    def on_link_lost(self, peer: str, now: Instant) -> None:
        """The connection to `peer` broke: what was sent may be lost, and the peer may be dead."""
        self._at(now)
        self._coordinator.on_gone(peer)
        self._carry_out(self._detector.on_link_lost(peer, now.mono))
        self._turn()

    def on_link_open(self, peer: str, now: Instant) -> None:
        """A connection to `peer` is open: what it must know to understand the rest goes first."""
        self._at(now)
        self._hand_out_keys(peer)
        self._turn()

    def on_unsent(self, peer: str, requests: Sequence[int], now: Instant) -> None:
        """What these requests of this node had for `peer` was dropped unsent ."""
        self._at(now)
        self._coordinator.on_unsent(peer, requests)
        self._turn()

    @property
    def strained(self) -> bool:
        """Whether requests under way hold so much memory that more should not be begun in haste."""
        return self._coordinator.admission.strained

    # time, disk, workers

    def on_timer(self, now: Instant) -> None:
        """The time last given to `set_timer` has come; calling it at any time does no harm."""
        self._at(now)
        self._timer = float("inf")
        for machine in self._timed:
            machine.on_timer(now.mono)
        self._turn()

    def on_durable(self, lsn: int, now: Instant) -> None:
        """A sync has finished: all writes up to `lsn` are on the disk."""
        self._at(now)
        self._coordinator.on_durable(lsn)
        self._turn()

    def on_job_done(self, result: JobResult, now: Instant) -> None:
        """A worker has flushed or compacted: the engine takes the new tables into use."""
        self._at(now)
        self._engine.job_done(result)
        self._turn()

    def on_job_failed(self, job: Job, now: Instant) -> None:
        """A worker died or could not do its job: it will be offered again."""
        self._at(now)
        self._engine.job_failed(job)
        self._turn()

    # within a turn

    def _at(self, now: Instant) -> None:
        self._now = now
        self._coordinator.now = now.mono
        self._coordinator.wall = now.wall

    def _turn(self) -> None:
        """The end of every input: start what the engine wants done, arm the timer."""
        if self._engine.refuses:
            # no write can ask for a sync now, and only a sync ends this
            self._outbox.request_sync()
        if self._engine.noticed:
            self._anti_entropy.on_damage()
        for job in self._engine.take_jobs():
            self._outbox.start_job(job)
        due = min([machine.next_deadline() for machine in self._timed])
        if due < self._timer:
            self._timer = due
            self._outbox.set_timer(due)

    def _wall(self) -> int:
        return self._now.wall

    def _alive(self, node: str) -> bool:
        return node == self.name or self._detector.status(node) is not Status.DEAD

    def _carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(to, message):
                    if isinstance(message, PushPull):
                        self._hand_out_keys(to)
                    self._outbox.send(to, message)
                case StatusChanged(node, old, new):
                    self._status_changed(node, old, new)
                case PersistIncarnation(incarnation):
                    self._persist_incarnation(incarnation)

    def _others(self) -> list[str]:
        return [member.node for member in self.state.members if member.node != self.name]

    def _hand_out_keys(self, *nodes: str) -> None:
        for node in nodes:
            self._outbox.send(node, KeyOffer(self._coordinator.context_keys.keys))

    def _status_changed(self, node: str, old: Status, new: Status) -> None:
        self._coordinator.on_membership()
        if new is Status.DEAD:
            self._coordinator.on_gone(node)
        elif old is Status.DEAD:
            self._replay.on_alive(node)


def _answer(asked: ReplicaRead, version: bytes) -> ReadSame | ReadReply:
    """What a node that holds `version` says; raises Corruption for one that the asker would refuse."""
    if digest(version) == asked.digest:
        return ReadSame(asked.request)
    if version:
        check_version(version)
    return ReadReply(asked.request, version)


class Probing:
    """The failure detector as one of the machines that are woken: its outputs are carried out."""

    def __init__(self, detector: FailureDetector, carry_out: Callable[[list[Output]], None]) -> None:
        self._detector = detector
        self._carry_out = carry_out

    def next_deadline(self) -> float:
        """See Machine."""
        return self._detector.next_deadline()

    def on_timer(self, now: float) -> None:
        """See Machine."""
        self._carry_out(self._detector.on_timer(now))


def _expired(message: PeerMessage, delay: float) -> bool:
    """Whether the asker's time was over before the message arrived, `delay` seconds after it was sent."""
    if isinstance(message, ReplicaRead):
        return 0 < message.ttl_ms < delay * 1000
    return isinstance(message, Forward) and 0 < message.call.timeout < delay

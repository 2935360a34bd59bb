"""One node: it composes failure detector, ring, coordinator and engine, and hands each input to one of them.

Sans-I/O: whoever runs a node (kvstore.server under gRPC, kvstore.sim under virtual time) calls
the `on_...` methods with the time, and carries out what they put into the outbox.
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from functools import partial

from kvstore.errors import InvalidRequest
from kvstore.gossip import FailureDetector
from kvstore.lsm import Engine, Job, JobResult
from kvstore.membership.stored_record import kept
from kvstore.node import parts, state_store
from kvstore.node.decisions import Change
from kvstore.node.decisions import Respond as RespondToChange
from kvstore.node.frame_check import FrameCheck
from kvstore.node.liveness import Liveness, next_incarnation
from kvstore.node.membership import Membership
from kvstore.node.outbox import Outbox
from kvstore.node.replica_service import ReplicaService
from kvstore.node.router import Router
from kvstore.node.scans import Respond
from kvstore.node.settings import NodeSettings
from kvstore.node.status import NodeStatus, member_statuses
from kvstore.principal import ANYONE, Principal
from kvstore.protocol.client import ClientRequest
from kvstore.protocol.gossip import Status
from kvstore.protocol.instant import Instant
from kvstore.protocol.scan import Scan
from kvstore.protocol.table import PeerMessage
from kvstore.quorum.placement import Placements
from kvstore.ring import ClusterState


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
        self._engine = engine
        self._outbox = outbox
        self._rng = rng
        self._timer = float("inf")
        placements = Placements(name, state_store.newest(engine.get, state), self._alive)
        incarnation = next_incarnation(engine.get)
        self._detector = FailureDetector(name, placements.others, incarnation, settings.gossip, rng)
        self.base = parts.foundation(placements, engine, outbox, rng, settings)
        self.background = parts.background(self.base, engine, settings)
        self._coordinator = parts.coordinator(self.base, settings)
        self._scans = parts.scans(self.base, self.background.flows, engine, settings)
        replica_service = ReplicaService(
            outbox, self.base.local, self.base.durability, placements, self.base.guard
        )
        self._liveness = Liveness(self._detector, engine.get, outbox, self.base, self.background)
        self._membership = Membership(
            partial(kept, engine.get), outbox, self.base, self.background, self._liveness, rng
        )
        self._check = FrameCheck(placements, settings.limits, self.base.mint.can_have_minted)
        self._router = Router(
            outbox,
            self.base,
            self.background,
            self._coordinator,
            replica_service,
            self._liveness,
            self._membership.handlers,
        )

    # start and stop

    def start(self, now: Instant) -> None:
        """Begin to probe the other members and to work."""
        self.base.context_keys.start(self._rng)
        self.base.local.hints.drop_unreadable()
        self._liveness.start(now)
        self.background.start(now)
        self._membership.start(now)
        self._turn(now)

    def drain(self) -> None:
        """Refuse requests as NodeStopping from now on; those under way go on, and so does all else."""
        self._coordinator.stopping = True

    def stop(self) -> None:
        """The end: syncs and closes the engine. Nothing may be called after it."""
        self._engine.close()

    @property
    def state(self) -> ClusterState:
        """The cluster state that this node acts by."""
        return self.base.placements.state

    def on_state(self, state: ClusterState, now: Instant) -> None:
        """A state of the cluster has arrived: a newer one is kept on the disk, and then acted by.

        Raises InvalidRequest for one that cannot follow on the present one.
        """
        self._membership.on_state(state, now)
        self._turn(now)

    def on_change(self, change: Change, respond: RespondToChange, timeout: float, now: Instant) -> None:
        """An operator wants the cluster state changed: see Decisions.propose."""
        self.base.guard.run(self._membership.propose, change, respond, timeout, now)
        self._turn(now)

    # clients

    def on_requests(
        self, requests: Iterable[tuple[int, ClientRequest]], now: Instant, principal: Principal = ANYONE
    ) -> None:
        """Requests of one principal that have arrived together, each under a number of the shell's choice.

        Exactly one `reply` will follow for each.
        """
        begin, run, reply = self._coordinator.begin, self.base.guard.run, self._outbox.reply
        for number, call in requests:
            run(begin, principal, call, partial(reply, number), now, number)
        self._turn(now)

    def on_cancelled(self, numbers: Container[int], now: Instant) -> None:
        """The clients of the requests with these numbers have left; replies may follow, and find nobody."""
        self._coordinator.cancel(numbers, now)
        self._turn(now)

    def on_scan(self, scan: Scan, respond: Respond, now: Instant) -> None:
        """A client wants a page of a scan; exactly one reply goes to `respond`, now or later."""
        self.base.guard.run(self._scans.begin, scan, respond, now)
        self._turn(now)

    def status(self, now: Instant) -> NodeStatus:
        """What this node knows of itself and of the others."""
        admission = self.base.admission
        return NodeStatus(
            self.name,
            self.state.cluster_id,
            self.state.epoch,
            member_statuses(self._detector.members(), self.state),
            self.base.local.hints.all_pending(now.wall),
            replace(self.base.counters),
            self._engine.statistics(),
            self.background.proofs.status(now),
            admission.unanswered,
            admission.bytes,
            admission.most_bytes,
            self.background.quarantine.waiting_for,
            self.background.transfers.status,
        )

    def repair_now(self, now: Instant) -> None:
        """Compare with all peers now, without pauses; `status` tells how far that is."""
        self.background.anti_entropy.repair_now(now)
        self._turn(now)

    # other nodes

    def on_frame(
        self, sender: str, messages: Sequence[PeerMessage], now: Instant, delay: float = 0.0
    ) -> None:
        """Messages from another member that have arrived together, after waiting `delay` seconds somewhere.

        What its asker has given up meanwhile is not carried out. Writes are: most of them have been
        acknowledged by other replicas, and would come once more, as hints.

        Raises InvalidRequest for a frame of which something is wrong: nothing of it was carried out.
        """
        self.check_frame(messages)
        self.on_checked(sender, messages, now, delay)

    def check_frame(self, messages: Sequence[PeerMessage]) -> None:
        """Raise InvalidRequest for a frame of which something is wrong; its sender should hear of it."""
        try:
            self._check.check(messages)
        except InvalidRequest:
            self.base.counters.frames_refused += 1
            raise

    def on_checked(self, sender: str, messages: Sequence[PeerMessage], now: Instant, delay: float) -> None:
        """A part of a frame that was checked as a whole: all of it would take too long. See `on_frame`."""
        self._router.route(sender, messages, now, delay)
        self._turn(now)

    def on_link_lost(self, peer: str, now: Instant) -> None:
        """The connection to `peer` broke: what was sent may be lost, and the peer may be dead."""
        self.base.rpc.on_gone(peer, now)
        self._liveness.on_link_lost(peer, now)
        self._turn(now)

    def on_link_open(self, peer: str, now: Instant) -> None:
        """A connection to `peer` is open: what it must know to understand the rest goes first."""
        self._liveness.hand_out_keys([peer])
        self._liveness.tell_epoch(peer)
        self._turn(now)

    def on_unsent(self, peer: str, numbers: Sequence[int], now: Instant) -> None:
        """The questions of this node to `peer` with these numbers were dropped unsent."""
        self.base.rpc.on_unsent(peer, numbers, now)
        self._turn(now)

    @property
    def strained(self) -> bool:
        """Whether requests under way hold so much memory that more should not be begun in haste."""
        return self.base.admission.strained

    # time, disk, workers

    def on_timer(self, now: Instant) -> None:
        """The time last given to `set_timer` has come; calling it at any time does no harm."""
        self._timer = float("inf")
        self.base.deadlines.on_time(now)
        self._turn(now)

    def on_durable(self, lsn: int, now: Instant) -> None:
        """A sync has finished: all writes up to `lsn` are on the disk."""
        self.base.on_durable(lsn, now)
        self._turn(now)

    def on_job_done(self, result: JobResult, now: Instant) -> None:
        """A worker has flushed or compacted: the engine takes the new tables into use."""
        self._engine.job_done(result)
        self._turn(now)

    def on_job_failed(self, job: Job, now: Instant) -> None:
        """A worker died or could not do its job: it will be offered again."""
        self._engine.job_failed(job)
        self._turn(now)

    # within a turn

    def _turn(self, now: Instant) -> None:
        """The end of every input: carry out its writes, start what the engine wants done, arm the timer."""
        self._coordinator.end_turn(now)
        if self._engine.refuses:
            # no write can ask for a sync now, and only a sync ends this
            self._outbox.request_sync()
        if self._engine.quarantine.noticed:
            self.background.anti_entropy.on_damage(now)
        for job in self._engine.take_jobs():
            self._outbox.start_job(job)
        due = self.base.deadlines.next()
        if due < self._timer:
            self._timer = due
            self._outbox.set_timer(due)

    def _alive(self, node: str) -> bool:
        if node == self.name:
            return True
        return self._detector.knows(node) and self._detector.status(node) is not Status.DEAD

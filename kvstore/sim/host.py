"""One machine: a node, its disk and its clock, all of which can fail."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from kvstore.errors import InvalidRequest, StorageError, StorageFailed
from kvstore.instant import Instant
from kvstore.lsm import Fate, Job, JobResult, MemoryFileSystem, Options, SimulatedCrash
from kvstore.node.node import Node
from kvstore.node.outbox import PeerMessage
from kvstore.node.settings import NodeSettings
from kvstore.protocol.messages import ClientRequest, Reply
from kvstore.quorum.coordinator import Coordinator
from kvstore.ring import ClusterState
from kvstore.sim.invariants import Invariants
from kvstore.sim.links import Links
from kvstore.sim.network import Connection, Network, Parcel
from kvstore.sim.scheduler import EPOCH_MS, Clock, Scheduler
from kvstore.sim.storage import SYNC_SECONDS, Disk, Storage
from kvstore.sim.watched_engine import WatchedEngine
from kvstore.wire.peer import decode_timed_frame

Respond = Callable[[Reply | None], None]
"""Takes the reply; None when the connection broke before there was one."""

# small, so that short runs flush and compact
OPTIONS = Options(memtable_bytes=8 * 1024, block_bytes=512, cache_bytes=64 * 1024)

_RESET_SECONDS = 0.01
_COUNTED = (
    "cancelled",
    "read_repairs",
    "hints_stored",
    "hints_delivered",
    "hints_overflowed",
    "hints_expired",
    "forwards",
    "repairs",
    "reaped",
    "hedges",
    "hedges_won",
    "hedges_refused",
    "read_trials",
    "wide_reads",
    "quarantines",
    "refetched",
)
"""What a run counts of each node's `Counters`."""


class Host:
    """The shell around one node: what kvstore.server is under gRPC."""

    def __init__(
        self,
        name: str,
        state: ClusterState,
        scheduler: Scheduler,
        network: Network,
        seed: str,
        on_crash: Callable[[str], None],
        settings: NodeSettings,
        invariants: Invariants,
        options: Options = OPTIONS,
    ) -> None:
        self._options = options
        self.name = name
        self._invariants = invariants
        self._state = state
        self._scheduler = scheduler
        self._network = network
        self._disk_rng = random.Random(f"{seed}/disk/{name}")
        self._node_rng = random.Random(f"{seed}/node/{name}")
        self._on_crash = on_crash
        self._settings = settings
        self.disk = MemoryFileSystem()
        self.counts: Counter[str] = Counter()
        self.most_queued_bytes = 0
        """The most that has waited on one stream to a peer, in lives that are over."""
        self.clock = Clock(scheduler)
        self.clock_error_ms = 0
        self.how_disk_works = Disk()
        self.deaf_to: frozenset[str] = frozenset()
        """Peers from whose streams nothing is read now."""
        self.node: Node | None = None
        self.ended_by: StorageError | None = None
        """What the last life has ended itself for, or refused to start for."""
        self.watch: Callable[[], None] | None = None
        """Called after every input, for transcripts."""
        self._life = 0
        self._paused_until = 0.0
        self._held: list[Callable[[], None]] = []
        self._engine: WatchedEngine | None = None
        self._storage: Storage | None = None
        self._links: Links | None = None
        self._links_rng = random.Random(f"{seed}/links/{name}")
        self._unread: list[Parcel] = []
        self._waiting: dict[int, tuple[ClientRequest, float, Respond]] = {}
        self._timer = 0
        self._due = float("inf")
        self._last_request = 0

    # life and death

    @property
    def up(self) -> bool:
        """Whether the machine runs."""
        return self.node is not None

    @property
    def engine(self) -> WatchedEngine:
        """The engine of the running node."""
        assert self._engine is not None
        return self._engine

    @property
    def links(self) -> Links:
        """The streams of the running node to its peers."""
        assert self._links is not None
        return self._links

    @property
    def coordinator(self) -> Coordinator | None:
        """The coordinator of the running node; None while it is down."""
        return self.node.coordinator if self.node else None

    @property
    def listens(self) -> bool:
        """Whether the machine runs, and does not stand still."""
        return self.node is not None and self._paused_until <= self._scheduler.now

    @property
    def wall(self) -> int:
        """What its clock says, in milliseconds since 1970."""
        return self._instant().wall

    @property
    def unanswered(self) -> int:
        """How many requests of clients have been taken, and not answered."""
        return len(self._waiting)

    @property
    def jobs(self) -> int:
        """How many flushes and compactions are under way."""
        return self._storage.jobs if self._storage else 0

    def start(self) -> None:
        """Start the node on what its disk holds; it may crash while doing so, or refuse to start."""
        self._life += 1
        self.ended_by = None
        self._paused_until = 0.0
        try:
            self._engine = engine = WatchedEngine(self.disk, "data", self._options)
            engine.watch(self.name, self._invariants)
            self._storage = Storage(
                self.disk,
                engine,
                self,
                self._later,
                self._disk_rng,
                self.how_disk_works,
                lambda: self._scheduler.now,
            )
            peers = [member.node for member in self._state.members if member.node != self.name]
            self._links = Links(self.name, peers, self._network, self, self._later, self._links_rng)
            self.node = Node(self.name, self._state, engine, self, self._node_rng, self._settings)
            self._network.attach(self.name, self._receive, lambda: self.listens)
            self._links.open()
            self.node.start(self._instant())
        except SimulatedCrash:
            self.crash(self._some_fate())
        except StorageError as error:
            self._end(error)

    def crash(self, fate: Fate) -> None:
        """Stop at once; unsynced data meets its fate. Clients and peers see their connections break."""
        self._scheduler.note(f"{self.name} crashed, {fate.value}")
        self.counts["crashes"] += 1
        self._gather()
        self._life += 1
        self.node = self._engine = self._storage = self._links = None
        self._unread.clear()
        self._due = float("inf")
        self._network.detach(self.name)
        self.disk = self.disk.crash(self._disk_rng, fate)
        self.counts += self.disk.fates
        waiting, self._waiting = self._waiting, {}
        for _, _, respond in waiting.values():
            self._scheduler.after(_RESET_SECONDS, partial(respond, None))
        self._release()
        self._on_crash(self.name)

    def _some_fate(self) -> Fate:
        """Of what was not synced when the disk itself ended this life."""
        return self._disk_rng.choice((Fate.RANDOM, Fate.PAGES))

    def _end(self, error: StorageError) -> None:
        """The process ends itself, as kvstore.server does: after a failed sync only recovery can decide.

        What was not synced may be on the disk or not: the kernel may have dropped what it could not write.
        """
        self._scheduler.note(f"{self.name} ends: {type(error).__name__}")
        self.counts[f"ends after {type(error).__name__}"] += 1
        self.ended_by = error
        self.crash(self._some_fate())

    def _gather(self) -> None:
        """What this life has done, before it is forgotten."""
        if self._storage is not None:
            self.counts += self._storage.counts
        if self._links is not None:
            self.counts += self._links.counts()
            self.most_queued_bytes = max(self.most_queued_bytes, self._links.most_queued_bytes())
        if self._engine is not None and self.node is not None:
            statistics = self._engine.statistics()
            self.counts["flushes"] += statistics.flushes
            self.counts["compactions"] += statistics.compactions
            counters = self.node.status().counters
            for name in _COUNTED:
                self.counts[name.replace("_", " ")] += getattr(counters, name)

    def finish(self) -> None:
        """The end of the run: count what the last life has done."""
        self._gather()

    def wipe(self) -> None:
        """Replace the disk of a machine that is down by an empty one."""
        assert not self.up
        self._scheduler.note(f"{self.name} gets an empty disk")
        self.disk = MemoryFileSystem()

    def pause(self, seconds: float) -> None:
        """Stand still: what arrives is handled afterwards."""
        self._scheduler.note(f"{self.name} stands still for {seconds:.1f} s")
        self._paused_until = max(self._paused_until, self._scheduler.now + seconds)
        self._scheduler.after(seconds, self._wake)

    def resume(self) -> None:
        """End a pause at once."""
        self._paused_until = self._scheduler.now
        self._wake()

    def _wake(self) -> None:
        if self._paused_until <= self._scheduler.now:
            self._release()

    def _release(self) -> None:
        """Let all happen that had to wait."""
        held, self._held = self._held, []
        for run in held:
            self._scheduler.after(0.0, run)

    def slow_down(self, sync_seconds: float = SYNC_SECONDS) -> None:
        """Let syncs take so long from now on, and jobs accordingly; without an argument: as usual."""
        self.how_disk_works.sync_seconds = sync_seconds

    def drift(self, rate: float = 1.0) -> None:
        """Let the monotonic clock run so quick from now on, and with it all timers."""
        self.clock.run_at(rate)
        if self.node is not None and self._due < float("inf"):
            self.set_timer(self._due)

    def read_again(self) -> None:
        """Read from all streams, also what has waited on them."""
        self.deaf_to = frozenset()
        unread, self._unread = self._unread, []
        for parcel in unread:
            self._receive(parcel)

    # inputs

    def requests(self, requests: Sequence[tuple[ClientRequest, Respond]]) -> None:
        """Requests of a client that arrive together; a machine that is down refuses the connection."""

        def refuse() -> None:
            for _, respond in requests:
                respond(None)

        self._enter(partial(self._requests, requests), if_dead=refuse)

    def _requests(self, requests: Sequence[tuple[ClientRequest, Respond]]) -> None:
        numbered = []
        for call, respond in requests:
            self._last_request += 1
            self._waiting[self._last_request] = call, self._scheduler.now, respond
            numbered.append((self._last_request, call))
        self._living().on_requests(numbered, self._instant())

    def cancel(self, requests: Sequence[tuple[ClientRequest, Respond]]) -> None:
        """The client of these requests has left."""
        self._enter(partial(self._cancel, [respond for _, respond in requests]))

    def _cancel(self, left: Sequence[Respond]) -> None:
        numbers = {number for number, (_, _, respond) in self._waiting.items() if respond in left}
        self._living().on_cancelled(numbers, self._instant())

    def keys(self, bucket: str, partition: int, limit: int = 0) -> list[bytes]:
        """All keys of a bucket that the node holds in one partition, in pages of up to `limit`."""
        keys: list[bytes] = []
        after = b""
        while True:
            page, after = self._living().scan_keys(bucket, partition, after, limit, self._instant())
            keys.extend(page)
            if not after:
                return keys

    def break_links(self, peer: str) -> None:
        """The connections to a peer break."""
        self._enter(lambda: self.links.break_off(peer))

    def repair_now(self) -> None:
        """An operator asks for anti-entropy."""
        self._enter(lambda: self._living().repair_now(self._instant()))

    def _receive(self, parcel: Parcel) -> None:
        if parcel.connection.sender in self.deaf_to:
            self._unread.append(parcel)
        else:
            self._enter(partial(self._frame, parcel))

    def _frame(self, parcel: Parcel) -> None:
        connection = parcel.connection
        parcel.read()
        sent_ms, messages = decode_timed_frame(parcel.frame)
        delay = connection.transit.delay(sent_ms / 1000, self.clock.now())
        self._invariants.received(self.name, connection.sender, messages)
        try:
            self._living().on_frame(connection.sender, messages, self._instant(), delay)
        except InvalidRequest:
            self._refuse(connection)

    def _refuse(self, connection: Connection) -> None:
        """The connection that a wrong frame came on is broken off, as kvstore.server does."""
        self.counts["frames refused"] += 1
        self._scheduler.note(f"{self.name} refuses a frame of {connection.sender}")
        self._network.end(connection)

    def _living(self) -> Node:
        assert self.node is not None
        return self.node

    def _enter(self, action: Callable[[], None], if_dead: Callable[[], None] | None = None) -> None:
        """Do `action` now or after a pause, unless the machine dies before; it may crash in it."""
        life = self._life

        def run() -> None:
            if self._life != life or self.node is None:
                if if_dead is not None:
                    if_dead()
            elif self._paused_until > self._scheduler.now:
                self._held.append(run)
            else:
                self._do(action)

        run()

    def _do(self, action: Callable[[], None]) -> None:
        try:
            action()
        except SimulatedCrash:
            self.crash(self._some_fate())
        except StorageFailed as error:
            self._end(error)
        self._invariants.turned(self.name)
        if self.watch is not None:
            self.watch()

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        life = self._life

        def run() -> None:
            if self._life == life:
                self._enter(action)

        self._scheduler.after(delay, run)

    def _instant(self) -> Instant:
        wall = EPOCH_MS + int(self._scheduler.now * 1000) + self.clock_error_ms
        return Instant(self.clock.now(), wall)

    def clock_ms(self) -> int:
        """See Owner."""
        return int(self.clock.now() * 1000)

    # the outbox

    def send(self, to: str, message: PeerMessage) -> None:
        """See Outbox."""
        self._invariants.sent(self.name, to, message)
        self.links.send(to, message)

    def reply(self, request: int, reply: Reply) -> None:
        """See Outbox."""
        call, since, respond = self._waiting.pop(request)
        self._invariants.replied(self.name, call, since, reply)
        respond(reply)

    def set_timer(self, when: float) -> None:
        """See Outbox."""
        self._timer += 1
        number = self._timer
        self._due = when

        def fire() -> None:
            if number == self._timer:
                self._due = float("inf")
                self._living().on_timer(self._instant())

        self._later(self.clock.until(when), fire)

    def request_sync(self) -> None:
        """See Outbox."""
        self._disk_work().request_sync()

    def defect(self, error: Exception) -> None:
        """See Outbox. The run has failed: a defect is as bad as a broken promise."""
        raise error

    def start_job(self, job: Job) -> None:
        """See Outbox."""
        self._disk_work().start_job(job)

    def _disk_work(self) -> Storage:
        assert self._storage is not None
        return self._storage

    # what the disk has done

    def on_durable(self, lsn: int) -> None:
        """See Worked."""
        self._living().on_durable(lsn, self._instant())

    def on_job_done(self, result: JobResult) -> None:
        """See Worked."""
        self._living().on_job_done(result, self._instant())

    def on_job_failed(self, job: Job) -> None:
        """See Worked."""
        self._living().on_job_failed(job, self._instant())

    # what the links have met

    def on_link_open(self, peer: str) -> None:
        """See Owner."""
        self._living().on_link_open(peer, self._instant())

    def on_link_lost(self, peer: str) -> None:
        """See Owner."""
        self._living().on_link_lost(peer, self._instant())

    def on_unsent(self, peer: str, requests: Sequence[int]) -> None:
        """See Owner."""
        self.counts["requests told that nothing was sent"] += len(requests)
        self._living().on_unsent(peer, requests, self._instant())

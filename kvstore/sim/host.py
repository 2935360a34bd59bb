"""One machine: a node, its disk and its clock, all of which can fail."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

from kvstore.lsm import (
    Engine,
    Fate,
    Job,
    MemoryFileSystem,
    Options,
    SimulatedCrash,
    Sync,
    run_job,
)
from kvstore.node.node import Node
from kvstore.node.outbox import Instant, PeerMessage
from kvstore.node.settings import NodeSettings
from kvstore.quorum.messages import ClientRequest, Reply
from kvstore.ring import ClusterState
from kvstore.sim.network import Network
from kvstore.sim.scheduler import EPOCH_MS, Scheduler
from kvstore.wire.peer import decode_frame, encode_frame

Respond = Callable[[Reply | None], None]
"""Takes the reply; None when the connection broke before there was one."""

# small, so that short runs flush and compact
OPTIONS = Options(memtable_bytes=8 * 1024, block_bytes=512, cache_bytes=64 * 1024)

_JOB_SECONDS = 0.05
_RESET_SECONDS = 0.01


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
    ) -> None:
        self.name = name
        self._state = state
        self._scheduler = scheduler
        self._network = network
        self._disk_rng = random.Random(f"{seed}/disk/{name}")
        self._node_rng = random.Random(f"{seed}/node/{name}")
        self._on_crash = on_crash
        self._settings = settings
        self.disk = MemoryFileSystem()
        self.counts: Counter[str] = Counter()
        self.clock_error_ms = 0
        self.sync_seconds = 0.0005
        self.node: Node | None = None
        self._life = 0
        self._paused_until = 0.0
        self._engine: Engine | None = None
        self._out: dict[str, list[PeerMessage]] = {}
        self._waiting: dict[int, Respond] = {}
        self._timer = 0
        self._last_request = 0
        self._sync_running = self._sync_wanted = False

    # life and death

    @property
    def up(self) -> bool:
        """Whether the machine runs."""
        return self.node is not None

    @property
    def engine(self) -> Engine:
        """The engine of the running node."""
        assert self._engine is not None
        return self._engine

    def start(self) -> None:
        """Start the node on what its disk holds; it may crash while doing so."""
        self._life += 1
        self._sync_running = self._sync_wanted = False
        self._out.clear()
        self._paused_until = 0.0
        try:
            self._engine = Engine.open(self.disk, "data", OPTIONS)
            self.node = Node(self.name, self._state, self._engine, self, self._node_rng, self._settings)
            self._network.attach(self.name, self._receive)
            self.node.start(self._instant())
        except SimulatedCrash:
            self.crash(Fate.RANDOM)

    def crash(self, fate: Fate) -> None:
        """Stop at once; unsynced data meets its fate. Clients and peers see their connections break."""
        self._scheduler.record(f"{self.name} crashed, {fate.value}")
        self.counts["crashes"] += 1
        self._gather(self._engine)
        self._life += 1
        self.node = self._engine = None
        self._network.detach(self.name)
        self.disk = self.disk.crash(self._disk_rng, fate)
        waiting, self._waiting = self._waiting, {}
        for respond in waiting.values():
            self._scheduler.after(_RESET_SECONDS, partial(respond, None))
        self._on_crash(self.name)

    def _gather(self, engine: Engine | None) -> None:
        """What this life has done, before it is forgotten."""
        if engine is not None and self.node is not None:
            statistics = engine.statistics()
            self.counts["flushes"] += statistics.flushes
            self.counts["compactions"] += statistics.compactions
            counters = self.node.status().counters
            for name in ("read_repairs", "hints_stored", "hints_delivered", "forwards", "repairs", "reaped"):
                self.counts[name.replace("_", " ")] += getattr(counters, name)

    def finish(self) -> None:
        """The end of the run: count what the last life has done."""
        self._gather(self._engine)

    def pause(self, seconds: float) -> None:
        """Stand still: what arrives is handled afterwards."""
        self._paused_until = max(self._paused_until, self._scheduler.now + seconds)

    # inputs

    def request(self, call: ClientRequest, respond: Respond) -> None:
        """A client's request; a machine that is down refuses the connection."""
        self._enter(partial(self._request, call, respond), if_dead=partial(respond, None))

    def _request(self, call: ClientRequest, respond: Respond) -> None:
        assert self.node is not None
        self._last_request += 1
        self._waiting[self._last_request] = respond
        self.node.on_requests([(self._last_request, call)], self._instant())

    def link_lost(self, peer: str) -> None:
        """The connection to a peer broke."""
        self._enter(lambda: self._living().on_link_lost(peer, self._instant()))

    def repair_now(self) -> None:
        """An operator asks for anti-entropy."""
        self._enter(lambda: self._living().repair_now(self._instant()))

    def _receive(self, sender: str, frame: bytes) -> None:
        self._enter(lambda: self._living().on_frame(sender, decode_frame(frame), self._instant()))

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
                self._scheduler.after(self._paused_until - self._scheduler.now, run)
            else:
                try:
                    action()
                except SimulatedCrash:
                    self.crash(Fate.RANDOM)

        run()

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        life = self._life

        def run() -> None:
            if self._life == life:
                self._enter(action)

        self._scheduler.after(delay, run)

    def _instant(self) -> Instant:
        wall = EPOCH_MS + int(self._scheduler.now * 1000) + self.clock_error_ms
        return Instant(self._scheduler.now, wall)

    # the outbox

    def send(self, to: str, message: PeerMessage) -> None:
        """See Outbox: all messages of one turn leave as one frame."""
        if not self._out:
            self._later(0.0, self._flush)
        self._out.setdefault(to, []).append(message)

    def _flush(self) -> None:
        out, self._out = self._out, {}
        for to, messages in out.items():
            self._network.send(self.name, to, encode_frame(messages))

    def reply(self, request: int, reply: Reply) -> None:
        """See Outbox."""
        self._waiting.pop(request)(reply)

    def set_timer(self, when: float) -> None:
        """See Outbox."""
        self._timer += 1
        number = self._timer

        def fire() -> None:
            if number == self._timer:
                self._living().on_timer(self._instant())

        self._later(max(0.0, when - self._scheduler.now), fire)

    def request_sync(self) -> None:
        """See Outbox."""
        if not self._sync_wanted:
            self._sync_wanted = True
            if not self._sync_running:
                self._later(0.0, self._sync)

    def _sync(self) -> None:
        if self._sync_running:
            return
        self._sync_wanted = False
        sync = self.engine.begin_sync()
        if sync is None:
            self._durable(self.engine.durable_lsn)
            return
        self._sync_running = True
        self._later(self._disk_rng.uniform(0.5, 1.5) * self.sync_seconds, partial(self._synced, sync))

    def _synced(self, sync: Sync) -> None:
        sync.run()
        self._sync_running = False
        self.counts["syncs"] += 1
        self._durable(self.engine.finish_sync(sync))

    def _durable(self, lsn: int) -> None:
        self._living().on_durable(lsn, self._instant())
        if self._sync_wanted:
            self._later(0.0, self._sync)

    def start_job(self, job: Job) -> None:
        """See Outbox."""
        self._later(_JOB_SECONDS, partial(self._run_job, job))

    def _run_job(self, job: Job) -> None:
        self._living().on_job_done(run_job(self.disk, job), self._instant())

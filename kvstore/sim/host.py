"""One host of a simulated cluster: a machine, and the process of a node on it, which may both fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from kvstore.errors import StorageError, StorageFailed
from kvstore.lsm import Fate, MemoryFileSystem, SimulatedCrash
from kvstore.node.node import Node
from kvstore.sim.inbox import Inbox
from kvstore.sim.invariants import Invariants
from kvstore.sim.machine import Machine
from kvstore.sim.network import Network, SentFrame
from kvstore.sim.process import Process
from kvstore.sim.requests import Requests
from kvstore.sim.scheduler import Action, Scheduler
from kvstore.sim.shell import Shell, Startup
from kvstore.sim.watched_engine import WatchedEngine


class Host:
    """Starts and crashes its node: each life has a `Shell` of its own, the other parts outlive it."""

    def __init__(
        self,
        name: str,
        startup: Startup,
        scheduler: Scheduler,
        network: Network,
        seed: str,
        on_crash: Callable[[str], None],
        invariants: Invariants,
    ) -> None:
        self.name = name
        self._startup = startup
        self._scheduler = scheduler
        self._network = network
        self._on_crash = on_crash
        self._invariants = invariants
        self.machine = Machine(name, scheduler, seed)
        self.process = Process(name, scheduler, self._turn)
        self.requests = Requests(self.machine, self.process, invariants.replies, lambda: self.shell.node)
        self.inbox = Inbox(self.process, self._read)
        self._shell: Shell | None = None
        self.counts: Counter[str] = Counter()
        self.most_queued_bytes = 0
        """The most that has waited on one stream to a peer, in lives that are over."""
        self.ended_by: StorageError | None = None
        """What the last life has ended itself for, or refused to start for."""
        self.kept_down_until = 0.0
        """The operator starts it no sooner."""
        self.watch: Callable[[], None] | None = None
        """Called after every input, for transcripts."""

    @property
    def up(self) -> bool:
        """Whether its node runs."""
        return self._shell is not None

    @property
    def shell(self) -> Shell:
        """What is around the running node."""
        assert self._shell is not None
        return self._shell

    @property
    def node(self) -> Node | None:
        """The running node; None while the host is down."""
        return self._shell.node if self._shell else None

    @property
    def engine(self) -> WatchedEngine:
        """The engine of the running node."""
        return self.shell.engine

    # life and death

    def start(self) -> None:
        """Start the node on what its disk holds; it may crash while doing so, or refuse to start."""
        self.ended_by = None
        later = self.process.begin()
        try:
            self._shell = Shell(
                self._startup,
                self.machine,
                later,
                self._network,
                self.requests,
                self._invariants,
                self.counts,
            )
            self._network.attach(self.name, self.inbox.receive, lambda: self.process.listens)
            self._shell.start()
        except SimulatedCrash:
            self.crash(self.machine.some_fate())
        except StorageError as error:
            self._end(error)

    def crash(self, fate: Fate) -> None:
        """Stop at once; unsynced data meets its fate. Clients and peers see their connections break."""
        self._scheduler.note(f"{self.name} crashed, {fate.value}")
        self.counts["crashes"] += 1
        self.finish()
        self._shell = None
        self.process.end()
        self.inbox.clear()
        self._network.detach(self.name)
        self.counts += self.machine.lose_unsynced(fate)
        self.requests.break_off()
        self._on_crash(self.name)

    def _end(self, error: StorageError) -> None:
        """The process ends itself, as kvstore.server does: after a failed sync only recovery can decide.

        What was not synced may be on the disk or not: the kernel may have dropped what it could not write.
        """
        self._scheduler.note(f"{self.name} ends: {type(error).__name__}")
        self.counts[f"ends after {type(error).__name__}"] += 1
        self.ended_by = error
        self.crash(self.machine.some_fate())

    def finish(self) -> None:
        """The end of this life, or of the run: count what it has done."""
        if self._shell is not None:
            self.counts += self._shell.done()
            self.most_queued_bytes = max(self.most_queued_bytes, self._shell.links.most_queued_bytes())

    def wipe(self) -> None:
        """Replace the disk by an empty one, while the host is down."""
        assert not self.up
        self.ended_by = None
        self._scheduler.note(f"{self.name} gets an empty disk")
        self.machine.disk = MemoryFileSystem()

    # inputs

    def drift(self, rate: float = 1.0) -> None:
        """Let the monotonic clock run so quick from now on, and with it all timers."""
        self.machine.clock.run_at(rate)
        if self._shell is not None:
            self._shell.clock_changed()

    def break_links(self, peer: str) -> None:
        """The connections to a peer break."""
        self.process.enter(lambda: self.shell.links.break_off(peer))

    def repair_now(self) -> None:
        """An operator asks for anti-entropy."""
        self.process.enter(lambda: self.shell.node.repair_now(self.machine.instant()))

    def _read(self, sent_frame: SentFrame) -> None:
        self.shell.read(sent_frame)

    def _turn(self, action: Action) -> None:
        try:
            action()
        except SimulatedCrash:
            self.crash(self.machine.some_fate())
        except StorageFailed as error:
            self._end(error)
        self._invariants.balances.turned(self.name)
        if self.watch is not None:
            self.watch()

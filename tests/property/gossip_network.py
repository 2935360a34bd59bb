"""A little network of failure detectors under virtual time, driven by one seeded random stream."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from functools import partial
from itertools import count

from kvstore.gossip import FailureDetector, GossipSettings, Output, PersistIncarnation, Send, StatusChanged
from kvstore.protocol.gossip import GossipMessage, Status

SETTINGS = GossipSettings()
ALIVE, SUSPECT, DEAD = Status.ALIVE, Status.SUSPECT, Status.DEAD


class Host:
    """A machine: its disk (the incarnation), its process (the detector) and that one's input queue."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.incarnation = 0
        self.detector: FailureDetector | None = None
        self.stalled = False
        self.queue: list[tuple[str, GossipMessage]] = []
        self.members: list[str] = []
        """The cluster as its disk remembers it, itself included."""


class Network:
    """`nodes` hosts; messages take `delay` seconds (a range) and are lost with probability `loss`."""

    def __init__(self, nodes: int, seed: int) -> None:
        self.rng = random.Random(f"network {seed}")
        self.seed = seed
        self.now = 100.0
        self.delay = (0.0005, 0.005)
        self.loss = 0.0
        self.cut: list[tuple[str, str]] = []
        """Directions in which nothing passes."""
        self.hosts = {name: Host(name) for name in (f"n{i}" for i in range(1, nodes + 1))}
        self.members = list(self.hosts)
        """The cluster as it is."""
        for host in self.hosts.values():
            host.members = self.members
        self.trace: list[tuple[float, str, Output]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    # what happens

    def start(self, name: str) -> None:
        """Start a stopped process; its first incarnation is one more than its disk remembers."""
        host = self.hosts[name]
        host.incarnation += 1
        self.trace.append((self.now, name, PersistIncarnation(host.incarnation)))
        host.queue.clear()
        host.stalled = False
        peers = [peer for peer in host.members if peer != name]
        rng = random.Random(f"{name} {self.seed} {self.now}")
        host.detector = FailureDetector(name, peers, host.incarnation, SETTINGS, rng)
        self._carry_out(host, host.detector.start(self.now))

    def start_all(self) -> None:
        for name in self.hosts:
            self.start(name)

    def change(self, members: list[str], within: float) -> None:
        """From now on these are the members; each of them learns it `within` so many seconds."""
        self.members = members
        for name in members:
            self.hosts.setdefault(name, Host(name))
            self._at(self.now + self.rng.uniform(0.0, within), partial(self._learn, self.hosts[name]))

    def _learn(self, host: Host) -> None:
        if host.members != self.members and host.name in self.members:
            host.members = self.members
            if host.detector:
                peers = [peer for peer in self.members if peer != host.name]
                self._carry_out(host, host.detector.on_members(peers, self.now))

    def crash(self, name: str, links: bool = False) -> None:
        """Kill a process; with `links` the others notice at once that its connections broke."""
        self.hosts[name].detector = None
        if links:
            for host in self.hosts.values():
                if host.detector and not host.stalled:
                    self._carry_out(host, host.detector.on_link_lost(name, self.now))

    def stall(self, name: str) -> None:
        """The process stands still; what arrives waits in its queue."""
        self.hosts[name].stalled = True

    def resume(self, name: str, timer_first: bool) -> None:
        """The process goes on, with its timer or with its queue first."""
        host = self.hosts[name]
        host.stalled = False
        queue, host.queue = host.queue, []
        if timer_first:
            self._on_timer(host)
        for sender, message in queue:
            self._receive(host, sender, message)
        self._on_timer(host)

    def split(self, *sides: list[str]) -> None:
        """Let nothing pass between nodes of different sides."""
        side = {name: i for i, names in enumerate(sides) for name in names}
        self.cut = [(a, b) for a in self.hosts for b in self.hosts if side[a] != side[b]]

    def heal(self) -> None:
        """End splits, loss and long delays; resume those that are stalled."""
        self.cut, self.loss, self.delay = [], 0.0, (0.0005, 0.005)
        for host in self.hosts.values():
            if host.stalled:
                self.resume(host.name, timer_first=True)

    # what is seen

    def running(self) -> list[str]:
        """The members that run."""
        return [name for name in self.members if self.hosts[name].detector]

    def detector(self, name: str) -> FailureDetector:
        detector = self.hosts[name].detector
        assert detector is not None
        return detector

    def statuses(self, of: str) -> list[Status]:
        """What the others that run hold `of` a node."""
        others = [self.detector(name) for name in self.running() if name != of]
        return [detector.status(of) for detector in others if detector.knows(of)]

    def settled(self) -> bool:
        """Whether everyone that runs holds the running for ALIVE and the others for DEAD."""
        running = self.running()
        return all(
            status is (ALIVE if name in running else DEAD)
            for name in self.members
            for status in self.statuses(name)
        )

    def changes(self, since: float = 0.0) -> list[tuple[float, str, StatusChanged]]:
        """Changes of status: when, at which node, what."""
        return [(t, at, o) for t, at, o in self.trace if isinstance(o, StatusChanged) and t >= since]

    # time

    def run(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def run_until(self, done: Callable[[], bool], limit: float) -> float:
        """Run until `done()`; returns the seconds it took, or infinity when `limit` passed."""
        start = self.now
        while not done():
            if not self._events or self._events[0][0] > start + limit:
                self.now = start + limit
                return float("inf")
            self.now, _, event = heapq.heappop(self._events)
            event()
        return self.now - start

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _carry_out(self, host: Host, outputs: list[Output]) -> None:
        assert host.detector is not None
        for output in outputs:
            self.record(host, output)
            if isinstance(output, Send):
                self._send(host.name, output)
            elif isinstance(output, PersistIncarnation):
                assert output.incarnation > host.incarnation
                host.incarnation = output.incarnation
        detector, due = host.detector, host.detector.next_deadline()

        def fire() -> None:
            # a timer of an earlier life, or one that was set anew since
            if host.detector is detector and not host.stalled and detector.next_deadline() <= self.now:
                self._on_timer(host)

        self._at(max(due, self.now), fire)

    def record(self, host: Host, output: Output) -> None:
        """Keep what a host did."""
        self.trace.append((self.now, host.name, output))

    def _on_timer(self, host: Host) -> None:
        if host.detector:
            self._carry_out(host, host.detector.on_timer(self.now))

    def _send(self, sender: str, send: Send) -> None:
        if self.rng.random() < self.loss:
            return

        def arrive() -> None:
            host = self.hosts[send.to]
            if host.detector is None or (sender, send.to) in self.cut:
                return
            if host.stalled:
                host.queue.append((sender, send.message))
            else:
                self._receive(host, sender, send.message)

        self._at(self.now + self.rng.uniform(*self.delay), arrive)

    def _receive(self, host: Host, sender: str, message: GossipMessage) -> None:
        if host.detector:
            self._carry_out(host, host.detector.on_message(sender, message, self.now))

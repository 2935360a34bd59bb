"""What every fault works on: the cluster, a stream of random numbers, and time until the faults are over."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kvstore.lsm import Fate
from kvstore.sim.cluster import USUAL, SimulatedCluster
from kvstore.sim.damage import Damage
from kvstore.sim.host import Host

Action = Callable[[], None]


class Scene:
    """A cluster that faults happen to."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.damage = Damage(cluster)
        self.counts: Counter[str] = Counter()
        self._over = False

    def later(self, delay: float, action: Action) -> None:
        """Do something after so many seconds, unless the faults are over then."""

        def unless_over() -> None:
            if not self._over:
                action()

        self.cluster.scheduler.after(delay, unless_over)

    def last(self, least: float, most: float, end: Action) -> None:
        """Let a fault last a random time between these, in seconds; `end` ends it."""
        self.later(self.rng.uniform(least, most), end)

    def end(self) -> None:
        """End every fault, and start every host."""
        self._over = True
        self.cluster.heal()
        self.usual_versions()
        for client in sorted(self.cluster.clients):
            self.cluster.read_again(client)
        for host in self.cluster.hosts.values():
            host.machine.disk.crash_at = None
            host.machine.disk.full = host.machine.disk.broken = False
            host.machine.slow_down()
            host.machine.how_disk_works.mend()
            host.drift()
            host.inbox.read_again()
            host.process.resume()
            for stream in host.shell.links.all() if host.up else ():
                stream.remember()
        for host in self.cluster.hosts.values():
            self.damage.start(host)

    def some_host(self) -> Host:
        """One of all, up or not."""
        return self.cluster.hosts[self.rng.choice(sorted(self.cluster.hosts))]

    def shuffled(self) -> list[str]:
        """All node ids in a random order."""
        nodes = sorted(self.cluster.hosts)
        self.rng.shuffle(nodes)
        return nodes

    def crash(self, node: str) -> None:
        """End a node's process; what becomes of its unsynced bytes is drawn."""
        fate = self.rng.choice(list(Fate))
        if self.cluster.hosts[node].up:
            self.counts[f"unsynced data at a crash: {fate.value}"] += 1
        self.cluster.crash(node, fate)

    def restart_within(self, least: float, most: float, node: str) -> None:
        """Start a node's process again after a random time, in seconds."""
        self.last(least, most, partial(self.cluster.restart, node))

    def usual_versions(self) -> None:
        """Clients write values of usual sizes."""
        self.cluster.value_sizes = USUAL


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault, by the name that a report has."""

    name: str
    strike: Callable[[Scene], None]
    hosts: int = 1
    """In clusters of fewer hosts it would do nothing."""


@dataclass(frozen=True, slots=True)
class DiskDamage:
    """A kind of damage to the disk of a host, done only while `fair` says that no promise breaks by it."""

    name: str
    strike: Callable[[Scene, Host], None]
    fair: Callable[[Damage, Host], bool] = Damage.may_lose
    hosts: int = 1

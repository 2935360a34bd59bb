"""Faults, one after the other and at times several at once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

from kvstore.lsm import Fate
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.network import Weather

_HOUR_MS = 3_600_000


class Nemesis:
    """Injects faults until told to stop; `counts` has them by kind."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._stopped = False
        self.counts: Counter[str] = Counter()
        self._faults = (
            self._crash,
            self._crash_in_the_disk,
            self._crash_all,
            self._crash_most,
            self._split,
            self._isolate_one_way,
            self._pause,
            self._bad_weather,
            self._slow_disk,
            self._move_clock,
        )

    def start(self) -> None:
        """Begin."""
        self._later(self._rng.uniform(0.2, 1.5), self._strike)

    def stop(self) -> None:
        """End every fault, start every host, and do no more harm."""
        self._stopped = True
        self._cluster.heal()
        for host in self._cluster.hosts.values():
            host.disk.crash_at = None
            host.sync_seconds = 0.0005
        self._cluster.start()

    def _strike(self) -> None:
        fault = self._rng.choice(self._faults)
        self.counts[fault.__name__.strip("_").replace("_", " ")] += 1
        self._cluster.scheduler.record(fault.__name__)
        fault()
        self._later(self._rng.uniform(0.3, 2.5), self._strike)

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        def unless_stopped() -> None:
            if not self._stopped:
                action()

        self._cluster.scheduler.after(delay, unless_stopped)

    def _some_node(self) -> str:
        return self._rng.choice(sorted(self._cluster.hosts))

    def _fate(self) -> Fate:
        return self._rng.choice(list(Fate))

    def _crash(self) -> None:
        node = self._some_node()
        self._cluster.crash(node, self._fate())
        self._later(self._rng.uniform(0.1, 6.0), partial(self._cluster.restart, node))

    def _crash_in_the_disk(self) -> None:
        """At one of its next changing calls to the disk, whichever that is; it may tear a write."""
        node = self._some_node()
        disk = self._cluster.hosts[node].disk
        disk.crash_at = disk.mutations + self._rng.randrange(1, 40)
        disk.torn = self._rng.random()
        self._later(self._rng.uniform(1.0, 6.0), partial(self._restart_if_it_crashed, node))

    def _restart_if_it_crashed(self, node: str) -> None:
        self._cluster.hosts[node].disk.crash_at = None
        self._cluster.restart(node)

    def _crash_all(self) -> None:
        for node in sorted(self._cluster.hosts):
            self._cluster.crash(node, self._fate())
            self._later(self._rng.uniform(0.1, 2.0), partial(self._cluster.restart, node))

    def _crash_most(self) -> None:
        """All but two, for long enough that the two know it: what sloppy quorums are for."""
        nodes = sorted(self._cluster.hosts)
        self._rng.shuffle(nodes)
        for node in nodes[2:]:
            self._cluster.crash(node, self._fate())
            self._later(self._rng.uniform(4.0, 12.0), partial(self._cluster.restart, node))

    def _split(self) -> None:
        nodes = sorted(self._cluster.hosts)
        self._rng.shuffle(nodes)
        self._cluster.split(nodes[: self._rng.randrange(1, len(nodes))])
        self._later(self._rng.uniform(0.5, 10.0), self._cluster.heal)

    def _isolate_one_way(self) -> None:
        self._cluster.split([self._some_node()], one_way=True)
        self._later(self._rng.uniform(0.5, 6.0), self._cluster.heal)

    def _pause(self) -> None:
        self._cluster.hosts[self._some_node()].pause(self._rng.uniform(0.2, 5.0))

    def _bad_weather(self) -> None:
        self._cluster.network.weather = Weather(
            loss=self._rng.uniform(0.0, 0.3),
            repeat=self._rng.uniform(0.0, 0.3),
            most_delay=self._rng.choice((0.01, 0.1, 1.0)),
        )
        self._later(self._rng.uniform(0.5, 5.0), self._cluster.heal)

    def _slow_disk(self) -> None:
        host = self._cluster.hosts[self._some_node()]
        host.sync_seconds = self._rng.choice((0.02, 0.2, 1.0))
        self._later(self._rng.uniform(0.5, 4.0), partial(setattr, host, "sync_seconds", 0.0005))

    def _move_clock(self) -> None:
        host = self._cluster.hosts[self._some_node()]
        host.clock_error_ms = self._rng.randrange(-_HOUR_MS, _HOUR_MS)

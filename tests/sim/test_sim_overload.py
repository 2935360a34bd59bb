"""Clogged links, slow disks, more load than they bear: no node holds more than its bound, nothing is lost."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from kvstore.config import KIB, AntiEntropySettings, QuorumSettings
from kvstore.errors import Outcome
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Failed, Reply, Stored
from kvstore.sim.cluster import SimulatedCluster
from tests.plain import Put

BOUND = 64 * KIB
VALUE = b"v" * 2000
SETTINGS = NodeSettings(
    quorum=QuorumSettings(in_flight_bytes=BOUND),
    anti_entropy=AntiEntropySettings(interval=2.0, settle=0.5),
)


class Load:
    """Puts of fresh keys at a fixed pace, each to the next node."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self.acknowledged: list[bytes] = []
        self.refused: list[bytes] = []
        self.replies: Counter[str] = Counter()
        self._next = 0

    def run(self, seconds: float, pace: float) -> None:
        end = self.cluster.scheduler.now + seconds
        nodes = sorted(self.cluster.hosts)
        while self.cluster.scheduler.now < end:
            self._next += 1
            key = b"key-%d" % self._next
            node = nodes[self._next % len(nodes)]
            self.cluster.submit("load", node, Put("b", key, VALUE, timeout=2.0), partial(self._note, key))
            self.cluster.run(pace)

    def _note(self, key: bytes, reply: Reply | None) -> None:
        if isinstance(reply, Stored):
            self.acknowledged.append(key)
        elif isinstance(reply, Failed):
            self.replies[type(reply.error).__name__] += 1
            if reply.error.outcome is Outcome.NOT_APPLIED:
                self.refused.append(key)


@pytest.mark.parametrize("seed", range(2))
def test_clogged_links_and_slow_disks_fill_no_more_memory_than_they_may(seed: int) -> None:
    cluster = SimulatedCluster(f"overload {seed}", 3, settings=SETTINGS)
    cluster.start()
    cluster.run(1.0)
    load = Load(cluster)
    for sender in ("n1", "n2"):
        cluster.network.clog(sender, "n3")
    load.run(1.5, pace=0.005)
    cluster.hosts["n2"].machine.slow_down(0.3)
    load.run(1.5, pace=0.002)
    cluster.network.unclog()
    cluster.hosts["n2"].machine.slow_down()
    load.run(1.0, pace=0.01)
    counters = Counter[str]()
    for host in cluster.hosts.values():
        assert host.node is not None
        status = host.shell.status()
        assert status.most_in_flight_bytes <= BOUND + 2 * len(VALUE), "at any time"
        counters["early"] += status.counters.hinted_early
        counters["overloaded"] += status.counters.overloaded
    assert min(counters["early"], counters["overloaded"], len(load.acknowledged)) > 20, counters
    cluster.run(60.0)
    assert cluster.settled()
    assert cluster.roots_equal()
    for node, host in cluster.hosts.items():
        assert host.node is not None
        assert (host.shell.status().in_flight, host.shell.status().in_flight_bytes) == (0, 0)
        assert all(cluster.stored(node, "b", key) for key in load.acknowledged)
        assert not any(cluster.stored(node, "b", key) for key in load.refused)

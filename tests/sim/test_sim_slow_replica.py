"""A read-mostly load while one replica is fifty times slower: hedging keeps readers from feeling it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

import pytest

from kvstore.config import AntiEntropySettings, QuorumSettings
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Found, Reply, Stored
from kvstore.quorum.hedging import BURST, SHARE, Hedging
from kvstore.sim.cluster import SimulatedCluster
from kvstore.testing import Cluster
from kvstore.versions import SignedContext
from tests.plain import Get, Put

KEYS = 400
CALLERS = 16
READS = 1500
SLOWER = 50.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Latencies of all reads in seconds, sorted; reads, extra reads and hedges over all coordinators."""

    latencies: list[float]
    reads: int
    extra: int
    won: int

    @property
    def p99(self) -> float:
        return self.latencies[len(self.latencies) * 99 // 100]


class Load:
    """Callers with one request each under way, 19 reads to a write, at a replica that is not slow."""

    def __init__(self, quorum: QuorumSettings | None = None) -> None:
        settings = NodeSettings(
            quorum=quorum or QuorumSettings(), anti_entropy=AntiEntropySettings(interval=float("inf"))
        )
        self.cluster = SimulatedCluster(3, settings=settings)
        self.cluster.start()
        self.cluster.run(1.0)
        self._slow: str | None = None
        self._rng = random.Random("load")
        self._contexts: dict[bytes, bytes] = {}
        self._latencies: list[float] = []
        for _ in range(CALLERS):
            self._next()

    def run(self, slow: str | None = None, reads: int = READS) -> Outcome:
        """Go on for so many reads, while the frames from and to one node take fifty times as long."""
        self._slow = slow
        self.cluster.network.slow = {slow: SLOWER} if slow else {}
        self._latencies.clear()
        before = self.counts()
        scheduler = self.cluster.scheduler
        assert scheduler.run_until(scheduler.now + 600, lambda: len(self._latencies) >= reads)
        gets, hedges, trials, won = (after - b for after, b in zip(self.counts(), before, strict=True))
        return Outcome(sorted(self._latencies), gets, hedges + trials, won)

    def slow(self) -> set[str]:
        """Whom anyone thinks slow."""
        nodes = [host.node for host in self.cluster.hosts.values() if host.node]
        return {name for node in nodes for name in node._coordinator._forwards._hedging.slow}

    def counts(self) -> list[int]:
        counters = [host.shell.status().counters for host in self.cluster.hosts.values() if host.node]
        names = ("gets", "hedges", "read_trials", "hedges_won")
        return [sum(getattr(each, name) for each in counters) for name in names]

    def _next(self) -> None:
        key = b"k%d" % self._rng.randrange(KEYS)
        node = next(n for n in self.cluster.replicas("b", key) if n != self._slow)
        if self._rng.random() < 0.05:
            put = Put("b", key, b"v", SignedContext(self._contexts.get(key, b"")))
            self.cluster.submit("c", node, put, partial(self._written, key))
        else:
            self.cluster.submit("c", node, Get("b", key), partial(self._read, self.cluster.scheduler.now))

    def _written(self, key: bytes, reply: Reply | None) -> None:
        assert isinstance(reply, Stored), reply
        self._contexts[key] = reply.context
        self._next()

    def _read(self, began: float, reply: Reply | None) -> None:
        assert isinstance(reply, Found), reply
        self._latencies.append(self.cluster.scheduler.now - began)
        self._next()


def test_with_one_replica_fifty_times_slower_p99_stays_within_three_times_and_hedges_in_budget() -> None:
    load = Load()
    load.run()
    healthy = load.run()
    slow = load.run("n3")
    assert slow.won > 0, "hedges have answered before the slow replica"
    assert load.slow() == {"n3"}
    assert slow.p99 <= 3 * healthy.p99, (slow.p99, healthy.p99)
    for outcome in (healthy, slow):
        assert outcome.extra <= SHARE * outcome.reads + 3 * BURST, (
            "each of three coordinators may have saved up"
        )
    recovered = load.cluster.scheduler.now + 1.0
    while load.slow():
        load.run(reads=100)
        assert load.cluster.scheduler.now < recovered, "a replica that is quick again is asked again"


def test_without_hedging_the_same_load_feels_the_slow_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hedging, "_find_slow", lambda self: None)
    load = Load(QuorumSettings(hedge_share=0.0, hedge_burst=0.0))
    healthy = load.run(reads=500)
    slow = load.run("n3", reads=500)
    assert slow.extra == 0
    assert slow.p99 > 20 * healthy.p99


def test_a_client_asks_a_slow_coordinator_last_and_comes_back_when_it_recovers() -> None:
    cluster = Cluster()
    with cluster.connect() as db:
        bucket = db.bucket("b")
        key = next(f"k{i}" for i in range(100) if cluster.replicas("b", f"k{i}")[0] == "n3")
        others = [f"k{i}" for i in range(40)]
        bucket.put_many(dict.fromkeys([key, *others], "v"))
        bucket.get_many(others * 3)

        def coordinator() -> str:
            explain = bucket.get(key, explain=True).explain
            assert explain is not None
            return explain.coordinator

        for _ in range(10):
            bucket.get_many(others)
        assert coordinator() == "n3"
        cluster.slow_down("n3", SLOWER)
        for _ in range(10):
            bucket.get_many(others)
        assert coordinator() != "n3"
        began = cluster.now
        bucket.get(key)
        assert cluster.now - began < 0.02
        cluster.slow_down("n3", 1)
        recovered = cluster.now + 3.0
        while coordinator() != "n3":
            bucket.get_many(others)
            assert cluster.now < recovered, "a coordinator that is quick again is asked again"

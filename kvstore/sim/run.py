"""One run: a safety phase with faults, then a healing phase in which everything must converge."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from kvstore.config import AntiEntropySettings, QuorumSettings
from kvstore.node.settings import NodeSettings
from kvstore.quorum.messages import Found, Get
from kvstore.sim.checker import Checker, Place, Violation
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.history import History
from kvstore.sim.nemesis import Nemesis
from kvstore.sim.scheduler import EPOCH_MS
from kvstore.sim.workload import BUCKETS, KEYS_PER_BUCKET, Client
from kvstore.versions import decode_version

_CLIENTS = 6
_SAFETY_SECONDS = 25.0
_HEALING_SECONDS = 120.0


def _settings(rng: random.Random) -> NodeSettings:
    """In some runs anti-entropy works all the time, or instead of hints; in others only when asked.

    So neither hides what the other has to do.
    """
    interval, hints = rng.choice(((1.0, 1000), (10.0, 1000), (float("inf"), 1000), (1.0, 0)))
    return NodeSettings(
        quorum=QuorumSettings(hint_count=hints),
        anti_entropy=AntiEntropySettings(interval, settle=0.5, reap_interval=1.0, reap_age=5.0),
    )


@dataclass(frozen=True, slots=True)
class Report:
    """What a run has exercised; all counts by name. `trace` is the hash of everything that happened."""

    seed: int
    nodes: int
    trace: str
    events: int
    operations: Counter[str]
    faults: Counter[str]
    internals: Counter[str]
    checked: int


class Run:
    """A cluster, its clients and its faults, all from one seed."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.seed = seed
        self.nodes = nodes
        self.history = History()
        self.cluster = SimulatedCluster(seed, nodes, BUCKETS, _settings(random.Random(f"{seed}/settings")))
        workload = random.Random(f"{seed}/workload")
        self.clients = [
            Client(f"c{i}", self.cluster, self.history, random.Random(workload.getrandbits(64)))
            for i in range(_CLIENTS)
        ]
        self.nemesis = Nemesis(self.cluster, random.Random(f"{seed}/faults"))

    def execute(self) -> Report:
        """Both phases and all checks; raises Violation."""
        self.cluster.start()
        self.cluster.run(1.0)
        for client in self.clients:
            client.start()
        self.nemesis.start()
        self.cluster.run(_SAFETY_SECONDS)
        self._heal()
        buckets = {bucket.name: bucket for bucket in BUCKETS}
        self._read_half()
        self._converge()
        checked = Checker(self.history, buckets).check(self._what_is_left())
        return self._report(checked)

    def _heal(self) -> None:
        self.nemesis.stop()
        for client in self.clients:
            client.stop()
        scheduler = self.cluster.scheduler
        if not scheduler.run_until(scheduler.now + _HEALING_SECONDS, self._calm):
            hints = {n: h.node.status().hints for n, h in self.cluster.hosts.items() if h.node}
            raise Violation(f"not calm {_HEALING_SECONDS:g} s after the last fault; hints: {hints}")

    def _calm(self) -> bool:
        return all(client.idle for client in self.clients) and self.cluster.settled()

    def _read_half(self) -> None:
        """Every other key with r=n, after which its replicas must hold the same bytes: blocking repair."""
        for bucket in BUCKETS:
            for i in range(0, KEYS_PER_BUCKET, 2):
                key = b"k%d" % i
                replicas = self.cluster.replicas(bucket.name, key)
                reply = self.cluster.call(replicas[0], Get(bucket.name, key, r=bucket.n))
                if not isinstance(reply, Found):
                    raise Violation(f"{bucket.name}/{key!r} cannot be read in a healthy cluster: {reply}")
                versions = {self.cluster.stored(node, bucket.name, key) for node in replicas}
                # nothing is what a tombstone becomes when it is reaped, on one replica after the other
                if len(versions) > 1 and any(v and decode_version(v).visible(EPOCH_MS) for v in versions):
                    raise Violation(f"replicas of {bucket.name}/{key!r} differ after a read of all of them")

    def _converge(self) -> None:
        """Nobody reads the other half: anti-entropy alone must make replicas and trees equal.

        What was deleted must leave the disks, as all nodes are up and no hints are left.
        """
        cluster = self.cluster
        for host in cluster.hosts.values():
            host.repair_now()
        deadline = cluster.scheduler.now + _HEALING_SECONDS
        while not (equal := cluster.roots_equal()) or self._tombstones():
            if cluster.scheduler.now >= deadline:
                what = "tombstones are left" if equal else "Merkle roots differ"
                raise Violation(f"{what} {_HEALING_SECONDS:g} s after hints were delivered")
            cluster.run(0.5)
        if not cluster.trees_match_disks():
            raise Violation("a Merkle tree is not that of its disk")

    def _tombstones(self) -> bool:
        """Whether some key has nothing but tombstones."""
        return any(version and not decode_version(version).visible(EPOCH_MS) for version in self._stored())

    def _stored(self) -> Iterator[bytes | None]:
        for bucket in BUCKETS:
            for i in range(KEYS_PER_BUCKET):
                key = b"k%d" % i
                for node in self.cluster.replicas(bucket.name, key):
                    yield self.cluster.stored(node, bucket.name, key)

    def _what_is_left(self) -> dict[Place, frozenset[bytes]]:
        """The values of every key, of which all replicas must hold the same bytes."""
        final: dict[Place, frozenset[bytes]] = {}
        for bucket in BUCKETS:
            for i in range(KEYS_PER_BUCKET):
                key = b"k%d" % i
                replicas = self.cluster.replicas(bucket.name, key)
                stored = {self.cluster.stored(node, bucket.name, key) for node in replicas}
                if len(stored) > 1:
                    raise Violation(
                        f"replicas of {bucket.name}/{key!r} differ although their trees are equal"
                    )
                version = stored.pop()
                siblings = decode_version(version).visible(EPOCH_MS) if version else ()
                final[bucket.name, key] = frozenset(sibling.value or b"" for sibling in siblings)
        return final

    def _report(self, checked: int) -> Report:
        internals = Counter({f"frames {k}": v for k, v in self.cluster.network.counts.items()})
        for host in self.cluster.hosts.values():
            host.finish()
            internals += host.counts
        operations, faults = self.history.outcomes, self.nemesis.counts
        if not checked or not faults or not any(what.endswith(" ok") for what in operations):
            raise Violation("this run exercised nothing")
        scheduler = self.cluster.scheduler
        return Report(
            self.seed,
            self.nodes,
            scheduler.trace,
            scheduler.events,
            operations,
            faults,
            internals,
            checked,
        )


def run_seed(seed: int, nodes: int) -> Report:
    """Run one seed; raises Violation."""
    return Run(seed, nodes).execute()


def try_seed(seed: int, nodes: int) -> Report | str:
    """Run one seed; what was violated, if anything was."""
    try:
        return run_seed(seed, nodes)
    except Violation as violation:
        return str(violation)

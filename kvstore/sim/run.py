"""One run: a safety phase with faults, then a healing phase in which everything must converge."""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from kvstore.quorum.messages import Found, Get, Put, Stored
from kvstore.sim.checker import Checker, Place, Violation
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.disks import check_disks
from kvstore.sim.history import History, Result, Write
from kvstore.sim.nemesis import Faults, Nemesis
from kvstore.sim.transcript import Transcript
from kvstore.sim.workload import BUCKETS, KEYS_PER_BUCKET, Client

SAFETY_SECONDS = 25.0
_CLIENTS = 6
_HEALING_SECONDS = 120.0
_LOOK_AGAIN = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides a run: the same plan takes the same course. `seconds` is the length of the faults."""

    seed: int
    nodes: int
    seconds: float = SAFETY_SECONDS
    faults: Faults = field(default_factory=Faults)

    @property
    def command(self) -> str:
        """What replays exactly this run."""
        return f"make sim SEED={self.seed} NODES={self.nodes} TIME={self.seconds:g}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a run has exercised; all counts by name. `trace` is the hash of everything that happened."""

    plan: Plan
    trace: str
    events: int
    seconds: float
    operations: Counter[str]
    faults: Counter[str]
    internals: Counter[str]
    checked: int


class Run:
    """A cluster, its clients and its faults, all from one seed, but each from a random stream of its own."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.history = History()
        self.cluster = SimulatedCluster(plan.seed, plan.nodes, BUCKETS)
        self.clients = [
            Client(f"c{i}", self.cluster, self.history, random.Random(f"{plan.seed}/workload/{i}"))
            for i in range(_CLIENTS)
        ]
        self.nemesis = Nemesis(self.cluster, random.Random(f"{plan.seed}/schedule"), plan.faults)

    def execute(self) -> Report:
        """Both phases and all checks; raises Violation."""
        self.cluster.start()
        self.cluster.run(1.0)
        for client in self.clients:
            client.start()
        self.nemesis.start()
        self.cluster.run(self.plan.seconds)
        self.nemesis.stop()
        for client in self.clients:
            client.stop()
        self._supervise()
        self._heal()
        checked = self._check()
        self._wipe(self.nemesis.victim())
        self._heal()
        checked += self._check()
        self._write_everywhere()
        return self._report(checked)

    def _check(self) -> int:
        """All that was promised, as far as the history goes; returns how many facts were checked."""
        buckets = {bucket.name: bucket for bucket in BUCKETS}
        checked = Checker(self.history, buckets).check(self._read_everything())
        return checked + check_disks(self.cluster, self.history)

    def _wipe(self, node: str) -> None:
        """Now that all replicas are equal, one may lose its disk: writes through it must lose nothing."""
        self.cluster.crash(node)
        self.cluster.hosts[node].wipe()
        self.cluster.restart(node)
        for bucket in BUCKETS:
            for i in range(KEYS_PER_BUCKET):
                self._write_blind(node, bucket.name, b"k%d" % i)

    def _write_blind(self, node: str, bucket: str, key: bytes) -> None:
        value = f"blind.{bucket}.".encode() + key
        began = self.cluster.scheduler.now
        reply = self.cluster.call(node, Put(bucket, key, value))
        result = Result.OK if isinstance(reply, Stored) else Result.UNKNOWN
        ended = self.cluster.scheduler.now
        self.history.writes.append(Write("wiped", bucket, key, value, frozenset(), began, ended, result))

    def _supervise(self) -> None:
        """A node that ended itself, even now because of a fault that is over, is started again."""
        self.cluster.start()
        self.cluster.scheduler.after(1.0, self._supervise)

    def _heal(self) -> None:
        end = self.cluster.scheduler.now + _HEALING_SECONDS
        while not self._calm():
            if self.cluster.scheduler.now >= end:
                hints = {n: h.node.status().hints for n, h in self.cluster.hosts.items() if h.node}
                raise Violation(f"not calm {_HEALING_SECONDS:g} s after the last fault; hints: {hints}")
            self.cluster.run(_LOOK_AGAIN)

    def _calm(self) -> bool:
        return all(client.idle for client in self.clients) and self.cluster.settled()

    def _read_everything(self) -> dict[Place, frozenset[bytes]]:
        """Every key with r=n, after which its replicas must hold the same bytes."""
        final: dict[Place, frozenset[bytes]] = {}
        for bucket in BUCKETS:
            for i in range(KEYS_PER_BUCKET):
                key = b"k%d" % i
                replicas = self.cluster.replicas(bucket.name, key)
                reply = self.cluster.call(replicas[0], Get(bucket.name, key, r=bucket.n))
                if not isinstance(reply, Found):
                    raise Violation(f"{bucket.name}/{key!r} cannot be read in a healthy cluster: {reply}")
                if len({self.cluster.stored(node, bucket.name, key) for node in replicas}) > 1:
                    raise Violation(f"replicas of {bucket.name}/{key!r} differ after a read of all of them")
                final[bucket.name, key] = frozenset(sibling.value for sibling in reply.siblings)
        return final

    def _write_everywhere(self) -> None:
        """Every node takes a write again, and so do all replicas of its key."""
        for node in self.cluster.hosts:
            reply = self.cluster.call(node, Put("strict", f"after/{node}".encode(), b"well", w=3))
            if not isinstance(reply, Stored):
                raise Violation(f"{node} refuses a write in a healthy cluster: {reply}")

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
            self.plan,
            scheduler.trace,
            scheduler.events,
            scheduler.now,
            operations,
            faults,
            internals,
            checked,
        )


def run_seed(seed: int, nodes: int, seconds: float = SAFETY_SECONDS) -> Report:
    """Run one seed; raises Violation."""
    return Run(Plan(seed, nodes, seconds)).execute()


def transcribe(plan: Plan, write: Callable[[str], None]) -> None:
    """Run a plan and write down what happens."""
    run = Run(plan)
    Transcript(run.cluster, write)
    run.execute()


def try_plan(plan: Plan) -> Report | str:
    """Run a plan; what went wrong, if anything did."""
    try:
        return Run(plan).execute()
    except Violation as violation:
        return str(violation)
    except Exception:  # noqa: BLE001  (a defect of the node: as bad as a broken promise)
        return traceback.format_exc()

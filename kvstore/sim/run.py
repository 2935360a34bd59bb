"""One run: a safety phase with faults, then a healing phase in which everything must converge."""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kvstore.protocol.client import Found, Get, Put, Stored
from kvstore.sim.checker import Checker, Place, Violation
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.disks import check_disks
from kvstore.sim.history import History
from kvstore.sim.nemesis import Faults, Nemesis
from kvstore.sim.network import SMALL, SMALL_MESSAGE
from kvstore.sim.scheduler import EPOCH_MS, Clock
from kvstore.sim.shape import STRICT, shape_of
from kvstore.sim.transcript import Transcript
from kvstore.sim.trials import Trials
from kvstore.sim.workload import User
from kvstore.versions import BucketName, EncodedVersion, UserKey, decode_version

SAFETY_SECONDS = 25.0
_QUIET_SECONDS = 1.5
_HEALING_SECONDS = 120.0
_LEAST_R = 2
"""A disk may be emptied: what R=1 of it says is no promise."""
_LOOK_AGAIN = 0.1
_LONGEST_UPTIME = 1e7
_REST_SECONDS = 30.0
"""Longer than an operation may live, which is as long as a client waits or a hint travels."""


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
        self.shape = shape = shape_of(plan.seed, plan.nodes)
        self.cluster = SimulatedCluster(plan.seed, plan.nodes, shape.buckets, shape.settings, shape.options)
        self.cluster.network.limits = SMALL
        uptimes = random.Random(f"{plan.seed}/uptimes")
        for host in self.cluster.hosts.values():
            host.machine.clock = Clock(self.cluster.scheduler, uptimes.uniform(0.0, _LONGEST_UPTIME))
        self.cluster.invariants.writes.values_name_writes = True
        self.users = [
            User(f"c{i}", self.cluster, shape, self.history, random.Random(f"{plan.seed}/workload/{i}"))
            for i in range(shape.clients)
        ]
        self._anti_entropy_always = shape.settings.anti_entropy.interval < float("inf")
        rngs = random.Random(f"{plan.seed}/trials"), random.Random(f"{plan.seed}/later trials")
        self.trials = Trials(self.cluster, shape, self.history, *rngs)
        self.nemesis = Nemesis(self.cluster, random.Random(f"{plan.seed}/schedule"), plan.faults)

    def execute(self) -> Report:
        """Both phases and all checks; raises Violation."""
        self.cluster.start()
        self.cluster.run(1.0)
        self._all_is_well()
        self.nemesis.start()
        self.cluster.run(self.plan.seconds)
        self.nemesis.stop()
        for user in self.users:
            user.stop()
        self._supervise()
        self._heal()
        self._make_whole()
        self._all_is_well()
        for user in self.users:
            user.stop()
        self._heal()
        self._read_half()
        self._converge()
        checked = self._check()
        self._try()
        checked += self._check()
        self._write_everywhere()
        return self._report(checked)

    def _all_is_well(self) -> None:
        """While there is no fault every request must be carried out; the clients go on afterwards."""
        for user in self.users:
            user.must_succeed = True
            user.start()
        self.cluster.run(_QUIET_SECONDS)
        for user in self.users:
            user.must_succeed = False

    def _try(self) -> None:
        """The trials, each in a cluster whose replicas are equal."""
        if self.plan.nodes > 1:
            if not self._anti_entropy_always:
                self.trials.hints()
            self.trials.split()
            self._heal()
            if self.trials.with_crowd:
                self.trials.crowd()
                self._heal()
        if self.shape.copied:
            self.trials.damage()
            self._heal()
            self._make_whole()
            self._converge(finally_=False)
            self.trials.wipe()
            self._heal()
        if self.shape.copied and self.trials.with_refetch:
            self._converge(finally_=False)
            self.trials.refetch()
            self._heal()
        self._converge()

    def _check(self) -> int:
        """All that was promised, as far as the history goes; returns how many facts were checked."""
        if too_large := self.cluster.network.counts["too large"]:
            raise Violation(f"{too_large} frames were larger than a peer takes: their links broke")
        buckets = {bucket.name: bucket for bucket in self.shape.buckets}
        self.history.mints = self.cluster.invariants.writes.mints_by_place()
        checked = Checker(self.history, buckets, _LEAST_R).check(self._what_is_left())
        return checked + check_disks(self.cluster, self.history)

    def _supervise(self) -> None:
        """A node that ended itself, even now because of a fault that is over, is started again."""
        for node in [node for node in self.cluster.hosts if node not in self.trials.away]:
            self.cluster.restart(node)
        self.cluster.scheduler.after(1.0, self._supervise)

    def _heal(self) -> None:
        end = self.cluster.scheduler.now + _HEALING_SECONDS
        while not self._calm():
            if self.cluster.scheduler.now >= end:
                hints = {n: h.shell.status().hints for n, h in self.cluster.hosts.items() if h.node}
                raise Violation(f"not calm {_HEALING_SECONDS:g} s after the last fault; hints: {hints}")
            self.cluster.run(_LOOK_AGAIN)
        self._come_to_rest()

    def _come_to_rest(self) -> None:
        """Operations outlive their replies for a while; then nothing may be counted as under way any more."""
        end = self.cluster.scheduler.now + _REST_SECONDS
        while busy := self.cluster.invariants.balances.busy():
            if self.cluster.scheduler.now >= end:
                raise Violation(f"counted {_REST_SECONDS:g} s after the last request: {', '.join(busy)}")
            self.cluster.run(_LOOK_AGAIN)

    def _make_whole(self) -> None:
        """All disks are read: what is damaged must come back from the others, and leave the disk."""
        end = self.cluster.scheduler.now + _HEALING_SECONDS
        hosts = self.cluster.hosts.values()
        while sum(host.engine.tables.scrub() for host in hosts):
            if self.cluster.scheduler.now >= end:
                fences = {
                    host.name: host.engine.quarantine.fences
                    for host in hosts
                    if host.engine.quarantine.fences
                }
                raise Violation(f"damaged {_HEALING_SECONDS:g} s after the last fault: {fences}")
            self.cluster.run(0.5)

    def _calm(self) -> bool:
        """No request, hint or job is under way, all see each other, no disk is full as nodes know."""
        idle = all(user.idle for user in self.users)
        hosts = self.cluster.hosts.values()
        return (
            idle
            and self.cluster.settled()
            and not any(host.shell.storage.jobs or host.engine.refuses for host in hosts)
        )

    def _read_half(self) -> None:
        """Every other key with r=n, after which its replicas must hold the same bytes: blocking repair."""
        for bucket, key in list(self.shape.places())[::2]:
            replicas = self.cluster.replicas(bucket.name, key)
            reply = self.cluster.call(replicas[0], Get(BucketName(bucket.name), key, r=bucket.n))
            if not isinstance(reply, Found):
                raise Violation(f"{bucket.name}/{key!r} cannot be read in a healthy cluster: {reply}")
            versions = {self.cluster.stored(node, bucket.name, key) for node in replicas}
            # nothing is what a tombstone becomes when it is reaped, on one replica after the other
            visible = not bucket.ttl and any(v and decode_version(v).visible(EPOCH_MS) for v in versions)
            if len(versions) > 1 and visible:
                raise Violation(f"replicas of {bucket.name}/{key!r} differ after a read of all of them")

    def _converge(self, finally_: bool = True) -> None:
        """Nobody reads the other half: anti-entropy alone must make replicas and trees equal.

        What was deleted must leave the disks, as all nodes are up and no hints are left; that, and that the
        trees are those of the disks, is looked at `finally_`.
        """
        cluster = self.cluster
        for host in cluster.hosts.values():
            host.repair_now()
        deadline = cluster.scheduler.now + _HEALING_SECONDS
        while not (equal := cluster.roots_equal()) or (finally_ and self._tombstones()):
            if cluster.scheduler.now >= deadline:
                what = "tombstones are left" if equal else "Merkle roots differ"
                raise Violation(f"{what} {_HEALING_SECONDS:g} s after hints were delivered")
            cluster.run(0.5)
        if finally_ and not cluster.trees_match_disks():
            raise Violation("a Merkle tree is not that of its disk")

    def _tombstones(self) -> bool:
        """Whether some key has nothing but tombstones, or, if all clocks are right, what has expired."""
        right = self.cluster.clocks_are_right
        now = EPOCH_MS + int(self.cluster.scheduler.now * 1000) if right else 0
        return any(version and not decode_version(version).visible(now) for version in self._stored())

    def _stored(self) -> Iterator[EncodedVersion | None]:
        for bucket, key in self.shape.places():
            for node in self.cluster.replicas(bucket.name, key):
                yield self.cluster.stored(node, bucket.name, key)

    def _what_is_left(self) -> dict[Place, frozenset[bytes]]:
        """The values of every key, of which all replicas must hold the same bytes."""
        final: dict[Place, frozenset[bytes]] = {}
        for bucket, key in self.shape.places():
            replicas = self.cluster.replicas(bucket.name, key)
            stored = {self.cluster.stored(node, bucket.name, key) for node in replicas}
            if len(stored) > 1:
                raise Violation(f"replicas of {bucket.name}/{key!r} differ although their trees are equal")
            version = stored.pop()
            siblings = decode_version(version).visible(EPOCH_MS) if version else ()
            final[BucketName(bucket.name), key] = frozenset(sibling.value or b"" for sibling in siblings)
        return final

    def _write_everywhere(self) -> None:
        """Every node takes a write again, and so do all replicas of its key."""
        n = self.shape.replicas
        for node in self.cluster.hosts:
            reply = self.cluster.call(node, Put(STRICT, UserKey(f"after/{node}".encode()), b"well", w=n))
            if not isinstance(reply, Stored):
                raise Violation(f"{node} refuses a write in a healthy cluster: {reply}")

    def _report(self, checked: int) -> Report:
        internals = Counter({f"frames {k}": v for k, v in self.cluster.network.counts.items()})
        internals += self.cluster.counts
        for user in self.users:
            internals += Counter({f"client sends again after {kind}": n for kind, n in user.retries.items()})
        for host in self.cluster.hosts.values():
            host.finish()
            internals += host.counts
            if host.most_queued_bytes > SMALL.queue.queue + SMALL_MESSAGE:
                raise Violation(f"{host.most_queued_bytes} bytes have waited for a peer of {host.name}")
        internals += Counter({f"checked: {what}": n for what, n in self.cluster.invariants.counts.items()})
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

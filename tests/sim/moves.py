"""Whole moves of partitions in the simulator, under load: states come from a script, all else is real.

A tracker knows all that members say of themselves, and what may be decided next is (kvstore.membership);
nodes hear of it at random times. Hosts crash and the network splits meanwhile.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

from kvstore.config import AntiEntropySettings, BucketSettings
from kvstore.membership import transitions
from kvstore.membership.tracker import Tracker
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Found, Get
from kvstore.ring import ClusterState
from kvstore.sim.checker import Checker, Place, Violation
from kvstore.sim.cluster import LIMITS, REAP_AGE, SimulatedCluster
from kvstore.sim.history import History
from kvstore.sim.host import Host
from kvstore.sim.network import Conditions
from kvstore.sim.shape import Shape
from kvstore.sim.shell import OPTIONS
from kvstore.sim.workload import User
from kvstore.versions import BucketName

_BUCKETS = (
    BucketSettings("strict", n=3, r=2, w=2),
    BucketSettings("all", n=3, r=3, w=1),
    BucketSettings("two", n=2, r=2, w=1),
)
_SETTINGS = NodeSettings(
    anti_entropy=AntiEntropySettings(interval=1.0, settle=0.2, reap_interval=3.0, reap_age=REAP_AGE),
    limits=LIMITS,
)
SECONDS = 8.0
"""Of load and faults in a run."""
_TICK = 0.1
_HEARS = 0.35
"""So likely a node hears of the newest state in a tick."""
_FAULTS = ("crash", "split", "split", "lost frames", "nothing")
_LOSSY = Conditions(loss=0.1, repeat=0.1, least_delay=0.001, most_delay=0.3)
_HEALING_SECONDS = 60.0
_LEAST_R = 1


class Churn:
    """Decides one state after the other: moves begin, advance when they may, or are cancelled."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random, partitions: list[int]) -> None:
        self._cluster = cluster
        self._rng = rng
        self._partitions = partitions
        self._tracker = Tracker(cluster.state)
        self.counts: Counter[str] = Counter()
        self.goes_on = True
        """Whether further moves begin."""

    def start(self) -> None:
        self._cluster.scheduler.after(_TICK, self._tick)

    def _tick(self) -> None:
        for host in self._cluster.hosts.values():
            if host.node is not None and host.process.listens:
                self._hear(host)
        if state := self._next():
            self._decide(state)
            self._tracker.on_state(state)
        self._cluster.scheduler.after(_TICK, self._tick)

    def _decide(self, state: ClusterState) -> None:
        cluster = self._cluster
        cluster.scheduler.note(f"epoch {state.epoch} is decided")
        cluster.state = state
        cluster.invariants.keyspace.on_state(state)

    def _hear(self, host: Host) -> None:
        """What a node says of itself; and it may hear of the newest state."""
        node, state = host.node, self._cluster.state
        assert node is not None
        if node.state.epoch < state.epoch:
            if self._rng.random() < _HEARS:
                host.process.enter(partial(_tell, host, state))
            return
        self._tracker.on_epoch(host.name, node.state.epoch)
        for partition in node.background.transfers.proven:
            self._tracker.on_proven(host.name, partition, state.epoch)

    def _next(self) -> ClusterState | None:
        state, rng = self._cluster.state, self._rng
        if not state.moves:
            return self._begin(state) if self.goes_on and rng.random() < 0.2 else None
        if found := self._tracker.next():
            self.counts["advanced"] += 1
            if not found.moves:
                self.counts["moves"] += 1
            return found
        read_old = all(move.read == move.old and not move.emptied for move in state.moves)
        if read_old and rng.random() < 0.005:
            self.counts["cancelled"] += 1
            return transitions.cancel(state)
        return None

    def _begin(self, state: ClusterState) -> ClusterState | None:
        """One or two replicas of the keys in use go elsewhere."""
        lists = {}
        for partition in self._rng.sample(self._partitions, min(2, len(self._partitions))):
            old = state.ring.replica_lists[partition]
            others = [node for node in self._cluster.hosts if node not in old]
            new = list(old)
            for node in self._rng.sample(others, self._rng.choice((1, len(others)))):
                place = self._rng.randrange(len(new))
                if new[place] in old:
                    new[place] = node
            if tuple(new) != old:
                lists[partition] = tuple(new)
        return transitions.begin(state, lists) if lists else None


def _tell(host: Host, state: ClusterState) -> None:
    node = host.node
    if node is not None and node.state.epoch < state.epoch:
        node.on_state(state, host.machine.instant())


class MovesRun:
    """One seed: five nodes or four, three users, three keys in each bucket."""

    def __init__(self, seed: int, seconds: float = SECONDS) -> None:
        self._rng = random.Random(f"{seed}/moves")
        self._seconds = seconds
        nodes = self._rng.choice((4, 5))
        self._shape = Shape(nodes, 3, _BUCKETS, 4, 1, OPTIONS, _SETTINGS)
        self.cluster = cluster = SimulatedCluster(f"{seed}/moves", nodes, _BUCKETS, _SETTINGS)
        cluster.invariants.writes.values_name_writes = True
        self._history = History()
        self._users = [
            User(f"c{i}", cluster, self._shape, self._history, random.Random(f"{seed}/moves/{i}"))
            for i in range(self._shape.clients)
        ]
        ring = cluster.state.ring
        partitions = sorted({ring.partition(b.name, key) for b, key in self._shape.places()})
        self.churn = Churn(cluster, random.Random(f"{seed}/churn"), partitions)
        self.faults: Counter[str] = Counter()

    @property
    def outcomes(self) -> Counter[str]:
        """How operations of users have ended."""
        return self._history.outcomes

    def execute(self) -> int:
        """Load, moves and faults, then healing; returns how many facts were checked. Raises Violation."""
        cluster = self.cluster
        cluster.start()
        cluster.run(1.0)
        for user in self._users:
            user.start()
        self.churn.start()
        end = cluster.scheduler.now + self._seconds
        while cluster.scheduler.now < end:
            self._strike()
        self._heal()
        return self._check()

    def _strike(self) -> None:
        cluster, rng = self.cluster, self._rng
        kind = rng.choice(_FAULTS)
        self.faults[kind] += 1
        node = rng.choice(sorted(cluster.hosts))
        if kind == "crash":
            cluster.crash(node, cluster.hosts[node].machine.some_fate())
        elif kind == "split":
            others = [other for other in sorted(cluster.hosts) if other != node]
            cluster.split({node, *rng.sample(others, rng.choice((0, 1)))}, one_way=rng.random() < 0.3)
        elif kind == "lost frames":
            cluster.network.conditions = _LOSSY
        cluster.run(rng.uniform(0.3, 2.0))
        cluster.heal()
        for host in cluster.hosts.values():
            cluster.restart(host.name)
        cluster.run(rng.uniform(0.2, 1.5))

    def _heal(self) -> None:
        cluster = self.cluster
        self.churn.goes_on = False
        for user in self._users:
            user.stop()
        end = cluster.scheduler.now + _HEALING_SECONDS
        while not self._calm():
            if cluster.scheduler.now >= end:
                raise Violation(
                    f"not calm {_HEALING_SECONDS:g} s after the last fault: {cluster.state.moves}"
                )
            for host in cluster.hosts.values():
                cluster.restart(host.name)
            cluster.run(0.5)

    def _calm(self) -> bool:
        cluster = self.cluster
        return (
            not cluster.state.moves
            and all(user.idle for user in self._users)
            and cluster.settled()
            and all(h.node and h.node.state.epoch == cluster.state.epoch for h in cluster.hosts.values())
        )

    def _check(self) -> int:
        """The history, and what a read quorum says of each key in the end: what is left of it."""
        final: dict[Place, frozenset[bytes]] = {}
        for bucket, key in self._shape.places():
            name = BucketName(bucket.name)
            node = self.cluster.replicas(bucket.name, key)[0]
            reply = self.cluster.call(node, Get(name, key))
            if not isinstance(reply, Found):
                raise Violation(f"{bucket.name}/{key!r} cannot be read in a healthy cluster: {reply}")
            final[name, key] = frozenset(sibling.value for sibling in reply.siblings)
        self._history.mints = self.cluster.invariants.writes.mints_by_place()
        return Checker(self._history, {b.name: b for b in _BUCKETS}, _LEAST_R).check(final)

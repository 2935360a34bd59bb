"""Trials of one node in a cluster that is otherwise healthy: what must hold however little else happens.

The faults before (kvstore.sim.nemesis) hide much from each other: a version that one lost, another copy
or a later write replaces. Here all replicas are equal at the beginning, one thing goes wrong, and nobody
but the mechanism that is on trial can make up for it.
"""

from __future__ import annotations

import random
from functools import partial

from kvstore.protocol.client import Found, Get, Put, Reply, Stored
from kvstore.sim.checker import Violation
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.damage import Damage
from kvstore.sim.history import History, Read, Result, Write
from kvstore.sim.network import Weather
from kvstore.sim.shape import EXPIRING, STRICT, Shape

_FLIPS = 8
_LOSS = 0.5
_WAIT = 60.0
_LATE = 10.0
_SOON = 0.01
_SPLIT = 5.0


class Trials:
    """What is written for them goes into the history like everything else."""

    def __init__(self, cluster: SimulatedCluster, shape: Shape, history: History, rng: random.Random) -> None:
        self._cluster = cluster
        self._places = [(bucket.name, key) for bucket, key in shape.places()]
        self._ttls = {bucket.name: bucket.ttl for bucket in shape.buckets}
        self._history = history
        self._rng = rng
        self.away = ""
        """The node that nobody may start now."""

    def _some_node(self) -> str:
        return self._rng.choice(sorted(self._cluster.hosts))

    def wipe(self) -> None:
        """A node loses its disk, and takes writes when it has not got anything back.

        Nobody reads afterwards: anti-entropy alone must bring everything back.
        """
        node = self._some_node()
        self._cluster.crash(node)
        self._cluster.hosts[node].wipe()
        self._cluster.restart(node)
        while not self._cluster.connected():
            self._cluster.run(_SOON)
        self._write_blind("wiped", node)

    def damage(self) -> None:
        """What a node has written lately is in tables, bits of which flip; then it takes writes again.

        It does not stop in between, so its actors are those of the first writes.
        """
        node = self._some_node()
        host = self._cluster.hosts[node]
        self._write_blind("damaged", node)
        self._cluster.run(1.0)
        while host.shell.storage.jobs:
            self._cluster.run(1.0)
        host.engine.flush()
        host.engine.maintenance.compact()
        damage = Damage(self._cluster)
        tables = [name for name in host.machine.disk.list("data") if name.endswith(".sst")]
        for _ in range(_FLIPS):
            damage.flip(host, f"data/{self._rng.choice(tables)}", self._rng.random(), self._rng.randrange(8))
        self._write_blind("damaged again", node)

    def hints(self) -> None:
        """A node is away while others write, and comes back while the network loses every other frame.

        Hints alone must bring it everything, unless some were dropped, which is told; raises Violation. For
        clusters without anti-entropy.
        """
        cluster = self._cluster
        node = self.away = self._some_node()
        dropped = self._dropped_hints(node)
        cluster.crash(node)
        self._write_blind("away", *sorted(cluster.hosts.keys() - {node}))
        cluster.run(_LATE)  # until no write waits for the node any more, but has a hint
        cluster.network.weather = Weather(loss=_LOSS)
        self.away = ""
        cluster.restart(node)
        end = cluster.scheduler.now + _WAIT
        while not cluster.settled() and cluster.scheduler.now < end:
            cluster.run(1.0)
        cluster.network.weather = Weather()
        while not cluster.settled():
            if cluster.scheduler.now >= 2 * _WAIT + end:
                raise Violation(f"hints for {node} are left, although it is back")
            cluster.run(1.0)
        if self._dropped_hints(node) != dropped:
            return
        for bucket, key in self._places:
            if bucket == EXPIRING:  # the replicas forget one after the other
                continue
            replicas = cluster.replicas(bucket, key)
            stored = {cluster.stored(each, bucket, key) for each in replicas}
            if node in replicas and len(stored) > 1:
                raise Violation(f"hints did not bring {node} what was written to {bucket}/{key!r} meanwhile")

    def _dropped_hints(self, away: str) -> int:
        """How many hints the nodes but one have dropped."""
        nodes = [host.node for name, host in self._cluster.hosts.items() if name != away]
        return sum(node.base.counters.hints_dropped for node in nodes if node)

    def split(self) -> None:
        """Some nodes are cut off and take strict writes: what they acknowledge the other side must see."""
        cluster = self._cluster
        nodes = sorted(cluster.hosts)
        self._rng.shuffle(nodes)
        side, others = nodes[: len(nodes) // 2], nodes[len(nodes) // 2 :]
        keys = [key for bucket, key in self._places if bucket == STRICT]
        cluster.split(side)
        for key in keys:  # all at once: before the nodes know of the split, and for long enough to
            value = f"split.{side[0]}.".encode() + key
            write = Write("split", STRICT, key, value, frozenset(), cluster.scheduler.now)
            self._history.writes.append(write)
            put = Put(STRICT, key, value, timeout=_SPLIT)
            cluster.request("split", side[0], put, partial(self._ended, write))
        cluster.run(_SPLIT)
        for key in keys:
            began = cluster.scheduler.now
            reply = cluster.call(others[0], Get(STRICT, key))
            if isinstance(reply, Found):
                values = frozenset(sibling.value for sibling in reply.siblings)
                read = Read("other side", STRICT, key, values, began, cluster.scheduler.now)
                self._history.reads.append(read)
        cluster.heal()

    def _ended(self, write: Write, reply: Reply | None) -> None:
        if isinstance(reply, Stored):
            write.ended, write.result = self._cluster.scheduler.now, Result.OK

    def _write_blind(self, why: str, *nodes: str) -> None:
        """A write to every key by somebody who has read nothing, through these nodes in turn."""
        cluster = self._cluster
        for i, (bucket, key) in enumerate(self._places):
            value = f"{why}.{bucket}.".encode() + key
            began = cluster.scheduler.now
            reply = cluster.call(nodes[i % len(nodes)], Put(bucket, key, value))
            result = Result.OK if isinstance(reply, Stored) else Result.UNKNOWN
            write = Write(why, bucket, key, value, frozenset(), began, cluster.scheduler.now, result)
            write.ttl = self._ttls[bucket]
            self._history.writes.append(write)

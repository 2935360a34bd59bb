"""Trials of one node in a cluster that is otherwise healthy: what must hold however little else happens.

The faults before (kvstore.sim.nemesis) hide much from each other: a version that one lost, another copy
or a later write replaces. Here all replicas are equal at the beginning, one thing goes wrong, and nobody
but the mechanism that is on trial can make up for it.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

from kvstore.protocol.client import Found, Get, Put, Reply, Stored
from kvstore.sim.checker import Violation
from kvstore.sim.cluster import LIMITS, SimulatedCluster
from kvstore.sim.damage import Damage
from kvstore.sim.history import History, Read, Result, Write
from kvstore.sim.host import Host
from kvstore.sim.network import SMALL_MESSAGE, Conditions
from kvstore.sim.shape import EXPIRING, ONE, STRICT, Shape
from kvstore.versions import BucketName, UserKey

_FLIPS = 8
_LOSS = 0.5
_WAIT = 60.0
_LATE = 10.0
_SOON = 0.01
_SPLIT = 5.0
_MEANWHILE = 2.0
_STALE = 6.0
_SHARE = 0.25
"""Of the seeds: those that have a trial which takes long."""
_CROWD_SECONDS = 1.0
_CROWD = 12
"""More large values than a queue to a peer has room for."""


class Trials:
    """What is written for them goes into the history like everything else."""

    def __init__(
        self,
        cluster: SimulatedCluster,
        shape: Shape,
        history: History,
        rng: random.Random,
        later_rng: random.Random,
    ) -> None:
        self._cluster = cluster
        self._places = [(BucketName(bucket.name), key) for bucket, key in shape.places()]
        self._ttls = {bucket.name: bucket.ttl for bucket in shape.buckets}
        self._history = history
        self._rng = rng
        self._later_rng = later_rng
        """Of the trials that were added later, so that the course of the others stays."""
        self.with_crowd, self.with_refetch = (later_rng.random() < _SHARE for _ in range(2))
        self.away: frozenset[str] = frozenset()
        """The nodes that nobody may start now."""

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
        self._into_tables(host)
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
        node = self._some_node()
        self.away = frozenset((node,))
        dropped = self._dropped_hints(node)
        cluster.crash(node)
        self._write_blind("away", *sorted(cluster.hosts.keys() - {node}))
        cluster.run(_LATE)  # until no write waits for the node any more, but has a hint
        cluster.network.conditions = Conditions(loss=_LOSS)
        self.away = frozenset()
        cluster.restart(node)
        self._write_while_hints_go_home(node)
        end = cluster.scheduler.now + _WAIT
        while not cluster.settled() and cluster.scheduler.now < end:
            cluster.run(1.0)
        cluster.network.conditions = Conditions()
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

    def _write_while_hints_go_home(self, node: str) -> None:
        """What the network loses of it is added to hints, of which some are under way and some answered."""
        cluster = self._cluster
        others = sorted(cluster.hosts.keys() - {node})
        while not cluster.connected():
            cluster.run(_SOON)
        for i, (bucket, key) in enumerate(self._places):
            value = f"meanwhile.{bucket}.".encode() + key
            write = self._begun("meanwhile", bucket, key, value)
            write.w = 1
            put = Put(bucket, key, value, w=1, timeout=_MEANWHILE)
            cluster.submit("meanwhile", others[i % len(others)], put, partial(self._ended, write))
        cluster.run(_MEANWHILE + 1.0)

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
            write = self._begun("split", STRICT, key, value)
            put = Put(STRICT, key, value, timeout=_SPLIT)
            cluster.submit("split", side[0], put, partial(self._ended, write))
        cluster.run(_SPLIT)
        for key in keys:
            began = cluster.scheduler.now
            reply = cluster.call(others[0], Get(STRICT, key))
            if isinstance(reply, Found):
                values = frozenset(sibling.value for sibling in reply.siblings)
                read = Read("other side", STRICT, key, values, began, cluster.scheduler.now)
                self._history.reads.append(read)
        cluster.heal()

    def crowd(self) -> None:
        """A node reads nothing of what a peer sends it, until more waits there than one frame may have."""
        cluster = self._cluster
        network = cluster.network
        network.limits = replace(network.limits, message=SMALL_MESSAGE)
        nodes = sorted(cluster.hosts)
        self._later_rng.shuffle(nodes)
        sender, deaf = nodes[:2]
        host = cluster.hosts[deaf]
        host.inbox.deaf_to = frozenset((sender,))
        keys = (UserKey(b"crowd/%d" % i) for i in range(_CROWD * len(nodes)))
        both = [key for key in keys if {sender, deaf} <= set(cluster.replicas(STRICT, key))]
        for key in both[:_CROWD]:
            value = key.ljust(LIMITS.value, b".")
            self._begun("crowd", STRICT, key, value)
            cluster.submit("crowd", sender, Put(STRICT, key, value, w=1), _ignore_reply)
        cluster.run(_CROWD_SECONDS)
        host.inbox.read_again()
        cluster.run(_CROWD_SECONDS)

    def refetch(self) -> None:
        """All that a node has in its tables is damaged, and comes back from others, of whom one is stale.

        That one has missed a write, and answers some seconds before the others. What they all have missed
        is lost with the disk: then the node, which has not stopped, writes to the same key again.
        """
        cluster = self._cluster
        bucket, key = self._later_rng.choice([place for place in self._places if place[0] == ONE])
        node, stale, *others = self._later_rng.sample(
            primaries := cluster.replicas(bucket, key), len(primaries)
        )
        self.away = frozenset(cluster.hosts.keys() - {node})
        cluster.crash(stale)
        if others:
            self._put(others[0], bucket, key, b"missed", w=2)
            cluster.run(1.0)
        for each in sorted(self.away):
            cluster.crash(each)
        self._put(node, bucket, key, b"alone", w=1)
        cluster.run(_LATE)  # until there are hints, which are damaged as well
        host = cluster.hosts[node]
        self._damage_throughout(host)
        cluster.split([node, stale])
        for each in sorted(self.away):
            cluster.restart(each)
        self.away = frozenset()
        cluster.run(_STALE)
        cluster.heal()
        end = cluster.scheduler.now + _WAIT
        while not cluster.settled() or host.engine.quarantine.fences:
            if cluster.scheduler.now >= end:
                raise Violation(f"{node} has not got back what was damaged: {host.engine.quarantine.fences}")
            cluster.run(1.0)
        self._put(node, bucket, key, b"once more", w=1)

    def _damage_throughout(self, host: Host) -> None:
        self._into_tables(host)
        damage = Damage(self._cluster)
        for name in host.machine.disk.list("data"):
            if name.endswith(".sst"):
                damage.flip_throughout(host, f"data/{name}")
        host.engine.tables.scrub()

    def _put(self, node: str, bucket: BucketName, key: UserKey, value: bytes, w: int) -> None:
        """What one disk alone has is promised to nobody, so its outcome counts as unknown."""
        write = self._begun("refetch", bucket, key, value)
        write.w = w
        reply = self._cluster.call(node, Put(bucket, key, value, w=w))
        if w > 1:
            self._ended(write, reply)

    def _begun(self, who: str, bucket: BucketName, key: UserKey, value: bytes) -> Write:
        write = Write(who, bucket, key, value, frozenset(), self._cluster.scheduler.now)
        write.ttl = self._ttls[bucket]
        self._history.writes.append(write)
        return write

    def _into_tables(self, host: Host) -> None:
        while host.shell.storage.jobs:
            self._cluster.run(1.0)
        host.engine.flush()
        host.engine.maintenance.compact()

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


def _ignore_reply(reply: Reply | None) -> None:
    """For writes that nothing is promised of."""

"""A simulated cluster under the control of a test."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from itertools import count

from kvstore.client.asynchronous import DEFAULT_TIMEOUT, carried_by
from kvstore.client.ports import Carrier
from kvstore.client.requests import key_bytes
from kvstore.client.results import Key
from kvstore.client.synchronous import Client, standing_before_client
from kvstore.config import BucketSettings, parse_bucket
from kvstore.lsm import Fate
from kvstore.sim.client import SimulatedClient
from kvstore.sim.cluster import SimulatedCluster
from kvstore.testing.carrier import SimulatedCarrier
from kvstore.testing.virtual_loop import VirtualLoop

_SETTLING_SECONDS = 120.0


class NotSettled(AssertionError):
    """The cluster did not come to rest; the message says what is in the way."""


class Cluster:
    """Nodes `n1`, `n2`, ... in one process, without ports, threads or real time.

    Everything is decided by `seed`: the same test takes the same course, always. `buckets` are
    settings as `kvnode --bucket` takes them (`"carts:quorum=sloppy"`), or BucketSettings. Not thread-safe.
    """

    def __init__(
        self, nodes: int = 3, *, seed: int | str = 1, buckets: Sequence[str | BucketSettings] = ()
    ) -> None:
        settings = [parse_bucket(b, min(3, nodes)) if isinstance(b, str) else b for b in buckets]
        self._cluster = SimulatedCluster(seed, nodes, settings)
        self._rng = random.Random(f"{seed}/clients")
        self._names = count(1)
        self._cluster.start()
        self.advance(1.0)

    # looking at it

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of all nodes."""
        return tuple(self._cluster.hosts)

    @property
    def now(self) -> float:
        """Virtual seconds since the cluster was made."""
        return self._cluster.scheduler.now

    def running(self, node: str) -> bool:
        """Whether a node runs: it was not killed, and did not end itself."""
        return self._cluster.hosts[node].up

    def replicas(self, bucket: str, key: Key) -> tuple[str, ...]:
        """The nodes that hold a key, in order of preference."""
        return self._cluster.replicas(bucket, key_bytes(key))

    # clients

    def connect(self, *nodes: str, timeout: float = DEFAULT_TIMEOUT) -> Client:
        """A client, the same as that of `kvstore.connect`. It reaches `nodes` only; none given: all.

        Where a client stands in a split is decided here: it goes on reaching these nodes.
        """
        self._check(nodes)
        name = f"client {next(self._names)}"
        simulated = SimulatedClient(
            name, self._cluster, random.Random(self._rng.getrandbits(64)), nodes or self.nodes
        )
        carrier = SimulatedCarrier(simulated)
        client = carried_by(partial(_connected, carrier), timeout)
        loop = VirtualLoop(self._cluster.scheduler)
        loop.run(client.__aenter__())
        self.advance(0.0)  # its connections are made
        return standing_before_client(client, loop)

    # time

    def advance(self, seconds: float) -> None:
        """Let virtual time pass. About ten seconds, and nodes know who is dead or cut off."""
        self._cluster.run(seconds)

    def settle(self, timeout: float = _SETTLING_SECONDS) -> None:
        """Let time pass until all nodes see each other alive and no hint is left; raises NotSettled."""
        scheduler = self._cluster.scheduler
        if not scheduler.run_until(scheduler.now + timeout, self._cluster.settled):
            raise NotSettled(f"after {timeout:g} s: " + "; ".join(self._unsettled()))

    def _unsettled(self) -> list[str]:
        found: list[str] = []
        for name, host in self._cluster.hosts.items():
            if host.node is None:
                found.append(f"{name} is down")
                continue
            status = host.shell.status()
            found += [f"{name} finds {m.node} {m.status.name.lower()}" for m in status.members if not m.alive]
            found += [f"{name} keeps {hints.count} hints for {hints.target}" for hints in status.hints]
        return found or ["replicas still differ"]

    # faults

    def split(self, *nodes: str, one_way: bool = False) -> None:
        """Cut these nodes off from all others; one way: they are heard, but hear nothing.

        For the first seconds nobody knows: requests time out. `advance` until they do.
        """
        self._check(nodes)
        self._cluster.split(nodes, one_way)

    def heal(self) -> None:
        """End every split."""
        self._cluster.heal()

    def kill(self, *nodes: str, power_loss: bool = False) -> None:
        """End nodes without warning; a power loss takes with it what was not synced to the disk."""
        self._check(nodes)
        for node in nodes:
            self._cluster.crash(node, Fate.NONE if power_loss else Fate.ALL)

    def restart(self, *nodes: str) -> None:
        """Start nodes again on what is on their disks; those that run are left alone."""
        self._check(nodes)
        for node in nodes:
            self._cluster.restart(node)

    def pause(self, node: str, seconds: float) -> None:
        """Let a node stand still for so long, as a stopped process or a long garbage collection does."""
        self._check([node])
        self._cluster.hosts[node].process.pause(seconds)

    def slow_down(self, node: str, times: float) -> None:
        """Let all that a node sends to others and is sent by them take so many times as long; 1: as usual."""
        self._check([node])
        self._cluster.network.slow[node] = times

    def jump_clock(self, node: str, seconds: float) -> None:
        """Let the wall clock of a node be wrong by so many seconds more than it is."""
        self._check([node])
        self._cluster.hosts[node].machine.clock_error_ms += int(seconds * 1000)

    def fill_disk(self, node: str, full: bool = True) -> None:
        """Leave a node without disk space; with `full=False` it has space again."""
        self._check([node])
        self._cluster.hosts[node].machine.disk.full = full

    def _check(self, nodes: Sequence[str]) -> None:
        for node in nodes:
            if node not in self._cluster.hosts:
                raise ValueError(f"there is no node {node!r}: there are {', '.join(self.nodes)}")


async def _connected(carrier: Carrier) -> Carrier:
    return carrier

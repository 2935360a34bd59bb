"""`make bench-hosts`: three hosts with one node each, and three with two each, N=3 W=2 R=2.

On a machine whose cores are all in use a second node of a host adds no throughput. What counts is the CPU
that an operation costs: a host with a core for each node does as many as its cores can pay for.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import click

import kvstore.aio
from bench.load import Measured, Operation, run_load
from bench.usage import Usage, look
from kvstore.client.asynchronous import Client
from kvstore.errors import KVError
from kvstore.local.cluster import LocalCluster
from kvstore.ring import ClusterState

_HOSTS = 3
_KEYS = 10_000
_VALUE = b"v" * 256
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Load:
    """An operation, and how many callers of it there are."""

    what: str
    callers: int


@dataclass(slots=True)
class Cluster:
    """Nodes of all hosts, a client of them, and what was measured so far."""

    nodes: LocalCluster
    client: Client
    results: dict[Load, list[tuple[Measured, Usage]]] = field(default_factory=dict)
    _fresh: itertools.count[int] = field(default_factory=itertools.count)

    async def fill(self) -> None:
        """The keys that gets will read."""
        for first in range(0, _KEYS, _BATCH):
            keys = (f"key-{i}" for i in range(first, first + _BATCH))
            await self.client.bucket("bench").put_many(dict.fromkeys(keys, _VALUE))

    async def measure(self, load: Load, seconds: float) -> None:
        """One round of a load, after a quarter of it for the warming up."""
        operation = self._operation(load.what)
        await run_load(operation, load.callers, seconds / 4)
        before = await self._look()
        measured = await run_load(operation, load.callers, seconds)
        self.results.setdefault(load, []).append((measured, (await self._look()).since(before)))

    async def _look(self) -> Usage:
        answers = (await self.client.status()).values()
        return look(self.nodes, [answer for answer in answers if not isinstance(answer, KVError)])

    def _operation(self, what: str) -> Operation:
        bucket = self.client.bucket("bench", timeout=30)

        async def put(_number: int) -> None:
            await bucket.put(b"fresh-%d" % next(self._fresh), _VALUE)

        async def get(number: int) -> None:
            await bucket.get(b"key-%d" % (number * 7919 % _KEYS))

        return put if what == "put" else get


def start(directory: Path, per_host: int) -> LocalCluster:
    """Start so many nodes on each host: all are on this machine, and told that they are not."""
    cluster = LocalCluster.create(directory, _HOSTS * per_host, first_port=None)
    members = enumerate(cluster.layout.addresses.items())
    text = ",".join(f"{node}={address}//host-{i % _HOSTS}" for i, (node, address) in members)
    cluster.start(flags=["--initial-cluster", text])
    return cluster


def check_hosts(state: ClusterState) -> None:
    """Each partition has a replica on each host."""
    hosts = {member.node: member.host for member in state.members}
    assert all(len({hosts[node] for node in nodes}) == _HOSTS for nodes in state.ring.replica_lists)


def _node_cost(rounds: list[tuple[Measured, Usage]]) -> list[float]:
    """By round, microseconds of all nodes' CPU for an operation."""
    return [usage.node_cpu / measured.operations * 1e6 for measured, usage in rounds]


def _line(name: str, rounds: list[tuple[Measured, Usage]], of_one: list[float]) -> str:
    """`of_one` is what an operation cost in the same rounds with one node a host."""
    throughputs = [measured.throughput for measured, _ in rounds]
    nodes = _node_cost(rounds)
    ratios = [each / one for each, one in zip(nodes, of_one, strict=True)]
    clients = [usage.client_cpu / measured.operations * 1e6 for measured, usage in rounds]
    frames = [usage.messages / usage.frames for _, usage in rounds]
    return (
        f"{name}: "
        f"{statistics.median(throughputs):,.0f} ops/s ({min(throughputs):,.0f}-{max(throughputs):,.0f}), "
        f"CPU of nodes {statistics.median(nodes):.0f} us ({min(nodes):.0f}-{max(nodes):.0f}), "
        f"{statistics.median(ratios):.2f} times one node a host ({min(ratios):.2f}-{max(ratios):.2f}), "
        f"of the client {statistics.median(clients):.0f} us, {statistics.median(frames):.1f} messages a frame"
    )


async def _run(clusters: dict[int, LocalCluster], callers: int, seconds: float, rounds: int) -> None:
    async with (
        kvstore.aio.connect(clusters[1].endpoints) as one,
        kvstore.aio.connect(clusters[2].endpoints) as two,
    ):
        measured = {1: Cluster(clusters[1], one), 2: Cluster(clusters[2], two)}
        for cluster in measured.values():
            check_hosts(await cluster.client.ring())
            await cluster.fill()
        plan = [(1, callers), (2, callers), (2, 2 * callers)]
        for _, (per_host, count), what in itertools.product(range(rounds), plan, ("put", "get")):
            await measured[per_host].measure(Load(what, count), seconds)
    for per_host, cluster in measured.items():
        for load, results in cluster.results.items():
            name = f"{load.what}, {_HOSTS * per_host} nodes on {_HOSTS} hosts, {load.callers} callers"
            print(_line(name, results, _node_cost(measured[1].results[Load(load.what, callers)])))


@click.command()
@click.option("--callers", default=256, help="Of three nodes; six have as many, and twice as many.")
@click.option("--seconds", default=3.0, help="Of one load in one round.")
@click.option("--rounds", default=5)
def main(callers: int, seconds: float, rounds: int) -> None:
    """Measure both clusters in turn."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        clusters: dict[int, LocalCluster] = {}
        try:
            for per_host in (1, 2):
                clusters[per_host] = start(Path(directory) / str(per_host), per_host)
            asyncio.run(_run(clusters, callers, seconds, rounds))
        finally:
            for cluster in clusters.values():
                cluster.stop()


if __name__ == "__main__":
    main()

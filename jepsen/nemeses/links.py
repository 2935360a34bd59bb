"""Faults of connections: slow, reset, opened twice."""

from __future__ import annotations

import asyncio
import random

from jepsen.cluster import Cluster
from jepsen.drivers.network import Pair, Slow
from jepsen.nemeses.base import Recurring, Value, some

_RATES = (4_000, 200_000)
_DELAYS = (0.005, 0.3)
_RESET_SECONDS = (0.5, 3.0)


def ways_of(nodes: list[str], cluster: Cluster) -> set[Pair]:
    """All ways to and from these nodes."""
    hosts = (*cluster.nodes, *cluster.clients)
    pairs = {(node, host) for node in nodes for host in hosts if host != node}
    return pairs | {pair[::-1] for pair in pairs}


class SlowLink:
    """All ways to and from one node are slow; late as well, where the network can do that."""

    name = "slow-link"
    longest = 60.0

    def reason_to_skip(self, cluster: Cluster) -> str:
        """See Nemesis."""
        return ""

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        delay = round(rng.uniform(*_DELAYS), 3) if cluster.network.delays else 0.0
        return {"nodes": some(rng, cluster.nodes, 1, 1), "rate": rng.randint(*_RATES), "delay": delay}

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        slow = Slow(value["rate"], value["delay"])
        await cluster.slow(self.name, dict.fromkeys(ways_of(value["nodes"], cluster), slow))

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        await cluster.slow(self.name, {})


class Reset(Recurring):
    """The connections of some nodes are broken again and again."""

    name = "reset"
    longest = 30.0

    def reason_to_skip(self, cluster: Cluster) -> str:
        """See Nemesis."""
        return ""

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        return {"nodes": some(rng, cluster.nodes, 1, len(cluster.nodes)), "seed": rng.randrange(1 << 30)}

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        await super().stop(cluster, value)
        await cluster.network.reset(())

    async def go_on(self, cluster: Cluster, value: Value) -> None:
        """See Recurring."""
        rng = random.Random(value["seed"])
        while True:
            await cluster.network.reset(ways_of(value["nodes"], cluster))
            await asyncio.sleep(rng.uniform(*_RESET_SECONDS))


class Duplicate:
    """Every connection is opened twice: connections are broken now and then, so that there are some."""

    name = "duplicate-connections"
    longest = 30.0

    def __init__(self) -> None:
        self._reset = Reset()

    def reason_to_skip(self, cluster: Cluster) -> str:
        """See Nemesis."""
        return "" if cluster.network.duplicates else "only a proxy can open a connection twice"

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        return self._reset.plan(rng, cluster)

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        await cluster.network.duplicate(ways_of(list(cluster.nodes), cluster))
        await self._reset.start(cluster, value)

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        await self._reset.stop(cluster, value)
        await cluster.network.duplicate(())

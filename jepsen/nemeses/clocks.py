"""Faults of wall clocks: of one process each, by libfaketime."""

from __future__ import annotations

import asyncio
import random

from jepsen.cluster import Cluster
from jepsen.drivers.clock import library
from jepsen.nemeses.base import Recurring, Value, some

_HOUR = 3600.0
_STEP_SECONDS = 0.5


class _Clocks:
    longest = 60.0

    def reason_to_skip(self, cluster: Cluster) -> str:
        """See Nemesis."""
        if library() is None:
            return "libfaketime is not installed"
        return "" if cluster.layout.clocks else "the nodes were started without libfaketime"

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis: the clocks jump back."""
        for node in cluster.nodes:
            cluster.clocks[node].set(0.0)


class Jump(_Clocks):
    """The clocks of some nodes jump, up to an hour either way."""

    name = "clock-jump"

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        nodes = some(rng, cluster.nodes, 1, len(cluster.nodes))
        return {node: round(rng.choice((-1, 1)) * _HOUR ** rng.uniform(0, 1), 3) for node in nodes}

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        for node, offset in value.items():
            cluster.clocks[node].set(offset)


class Drift(Recurring, _Clocks):
    """The clocks of some nodes go too fast or too slowly: the value is seconds gained in a second."""

    name = "clock-drift"

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        nodes = some(rng, cluster.nodes, 1, len(cluster.nodes))
        return {node: round(rng.choice((-0.9, 1.0, 10.0, 60.0)) * rng.random(), 3) for node in nodes}

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        await Recurring.stop(self, cluster, value)
        await _Clocks.stop(self, cluster, value)

    async def go_on(self, cluster: Cluster, value: Value) -> None:
        """See Recurring."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            passed = loop.time() - began
            for node, rate in value.items():
                cluster.clocks[node].set(max(-_HOUR, min(_HOUR, rate * passed)))
            await asyncio.sleep(_STEP_SECONDS)

"""Faults of processes: killed and started again, stopped and continued."""

from __future__ import annotations

import random
from collections.abc import Callable

from jepsen.cluster import Cluster
from jepsen.nemeses.base import Value, some

Choose = Callable[[random.Random, tuple[str, ...]], list[str]]


class Kill:
    """SIGKILL; the nodes are started again in the end."""

    longest = 60.0

    def __init__(self, name: str, choose: Choose) -> None:
        self.name = name
        self._choose = choose

    def reason_to_skip(self, cluster: Cluster) -> str:
        """See Nemesis."""
        return ""

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        return {"nodes": self._choose(rng, cluster.nodes)}

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        await cluster.kill(value["nodes"])

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        cluster.start(value["nodes"])


class Pause:
    """SIGSTOP, up to a minute, then SIGCONT."""

    name = "pause"
    longest = 60.0

    def reason_to_skip(self, cluster: Cluster) -> str:
        """See Nemesis."""
        return ""

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        return {"nodes": some(rng, cluster.nodes, 1, len(cluster.nodes))}

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        for node in value["nodes"]:
            cluster.pause(node)

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        for node in value["nodes"]:
            cluster.resume(node)


def processes() -> list[Kill | Pause]:
    """All of them."""
    return [
        Kill("kill-one", lambda rng, nodes: some(rng, nodes, 1, 1)),
        Kill("kill-many", lambda rng, nodes: some(rng, nodes, min(2, len(nodes)), max(2, len(nodes) - 1))),
        Kill("kill-all", lambda rng, nodes: list(nodes)),
        Pause(),
    ]

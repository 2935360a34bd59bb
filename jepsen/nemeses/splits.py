"""Network splits: who can reach whom no more.

The value is the list of sides, each a list of hosts that reach each other; a host may stand on several. Each
client host is put beside some node, and reaches what that node reaches: so there are clients on both sides.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence

from jepsen.cluster import Cluster
from jepsen.drivers.network import Pair
from jepsen.nemeses.base import Recurring, Value

Sides = list[list[str]]
Divide = Callable[[random.Random, list[str]], Sides]

_FLAP_SECONDS = (0.2, 2.0)


def cut_between(sides: Iterable[Sequence[str]]) -> set[Pair]:
    """The ways between hosts that are on no common side."""
    hosts = {host for side in sides for host in side}
    together = {(a, b) for side in sides for a in side for b in side}
    return {(a, b) for a in hosts for b in hosts if a != b and (a, b) not in together}


def with_clients(rng: random.Random, sides: Sides, clients: Sequence[str]) -> Sides:
    """Put each client host beside a node, on the sides in turn, so that there are clients on all."""
    first = rng.randrange(len(sides))
    homes = {client: rng.choice(sides[(first + turn) % len(sides)]) for turn, client in enumerate(clients)}
    return [side + [client for client, home in homes.items() if home in side] for side in sides]


class Split:
    """A split that lasts, by a function that divides the nodes (in random order) into sides and says how."""

    longest = 60.0

    def __init__(self, name: str, divide: Divide, least_nodes: int = 2) -> None:
        self.name = name
        if type(self) is Split:
            self.__doc__ = divide.__doc__
        self._divide = divide
        self._least_nodes = least_nodes

    def reason_to_skip(self, cluster: Cluster) -> str:
        """See Nemesis."""
        if len(cluster.nodes) >= self._least_nodes:
            return ""
        return f"it takes {self._least_nodes} nodes"

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        nodes = list(cluster.nodes)
        rng.shuffle(nodes)
        return with_clients(rng, self._divide(rng, nodes), cluster.clients)

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        await cluster.cut(self.name, cut_between(value))

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        await cluster.cut(self.name, ())


class OneWay(Split):
    """What the first side sends does not reach the second; the other way is open."""

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        speakers, listeners = value
        await cluster.cut(self.name, {(a, b) for a in speakers for b in listeners if a != b})


class Ring(Split):
    """A ring of majorities: each node reaches its nearest, together a majority, and no two see the same.

    The value has a side for each node: the node, then whom it reaches, then the clients beside it.
    """

    def __init__(self) -> None:
        super().__init__("majorities-ring", _ring, 5)

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        hosts = {*cluster.nodes, *cluster.clients}
        reached: set[Pair] = set()
        for node, *others in value:
            seen = {node, *others}
            reached |= {(node, other) for other in seen} | {(other, node) for other in seen}
            for client in seen & set(cluster.clients):
                reached |= {(client, other) for other in seen} | {(other, client) for other in seen}
        await cluster.cut(self.name, {(a, b) for a in hosts for b in hosts if a != b} - reached)

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        nodes = list(cluster.nodes)
        rng.shuffle(nodes)
        sides = _ring(rng, nodes)
        for client in cluster.clients:
            rng.choice(sides).append(client)
        return sides


class Flapping(Recurring, Split):
    """A split that comes and goes, some times a second."""

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        await Recurring.stop(self, cluster, value)
        await Split.stop(self, cluster, value)

    async def go_on(self, cluster: Cluster, value: Value) -> None:
        """See Recurring."""
        rng = random.Random(str(value))
        pairs = cut_between(value)
        while True:
            await cluster.cut(self.name, pairs)
            await asyncio.sleep(rng.uniform(*_FLAP_SECONDS))
            await cluster.cut(self.name, ())
            await asyncio.sleep(rng.uniform(*_FLAP_SECONDS))


def _halves(_rng: random.Random, nodes: list[str]) -> Sides:
    """Two halves that do not reach each other."""
    return [nodes[: len(nodes) // 2], nodes[len(nodes) // 2 :]]


def _one(_rng: random.Random, nodes: list[str]) -> Sides:
    """One node is alone."""
    return [nodes[:1], nodes[1:]]


def _bridge(_rng: random.Random, nodes: list[str]) -> Sides:
    """Two halves, and one node that reaches both."""
    half = (len(nodes) - 1) // 2
    bridge, left, right = nodes[0], nodes[1 : 1 + half], nodes[1 + half :]
    return [[*left, bridge], [*right, bridge]]


def _ring(_rng: random.Random, nodes: list[str]) -> Sides:
    size, reach = len(nodes), len(nodes) // 4 + 1
    around = range(-(reach // 2 + reach % 2), reach // 2 + reach % 2 + 1)
    return [[nodes[i], *(nodes[(i + step) % size] for step in around if step)] for i in range(size)]


def _one_way(rng: random.Random, nodes: list[str]) -> Sides:
    sides = _one(rng, nodes)
    return sides if rng.random() < 0.5 else sides[::-1]


def splits() -> list[Split]:
    """All of them."""
    return [
        Split("split-halves", _halves),
        Split("isolate-one", _one),
        Split("bridge", _bridge, 3),
        Ring(),
        OneWay("one-way", _one_way),
        Flapping("flapping-link", _one),
    ]

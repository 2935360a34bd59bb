"""How one user comes to the cluster: by a client that moves, is closed, and loses its connections."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from kvstore.sim.client import Pending, SimulatedClient
from kvstore.sim.cluster import SimulatedCluster


class Access:
    """The user's present client."""

    def __init__(self, name: str, cluster: SimulatedCluster, rng: random.Random) -> None:
        self._name = name
        self._cluster = cluster
        self._rng = rng
        self._retries: Counter[str] = Counter()
        self.client = SimulatedClient(name, cluster, rng)

    @property
    def retries(self) -> Counter[str]:
        """What this client and those before it have sent again, by the class of the error before."""
        return self._retries + self.client.core.retries

    def move(self) -> None:
        """To where other nodes can be reached: few, of which none may be a replica, or all."""
        nodes = sorted(self._cluster.hosts)
        few = self._rng.choice((1, 1, min(2, len(nodes)), len(nodes)))
        self.client.reach(self._rng.sample(nodes, few))

    def give_up(self, pending: Sequence[Pending]) -> bool:
        """Leave, end as a program does, or lose all connections; whether nothing is waited for any more."""
        how = self._rng.choice(("leaves", "ends", "is cut off"))
        self._cluster.counts[f"a client {how}"] += 1
        if how == "is cut off":
            self.client.break_connections()
            return False
        for each in pending:
            each.left = True
        if how == "ends":
            self.client.close()
            self._retries += self.client.core.retries
            self.client = SimulatedClient(self._name, self._cluster, self._rng)
        return True

"""Which node to ask: the cluster state, whether its members can be reached, and which of them are slow."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kvstore.client.core.calls import Calls
from kvstore.quorum.hedging import Hedging
from kvstore.ring import ClusterState, partition_of, token
from kvstore.versions import BucketName, UserKey

_LONGEST_DELAY = 1.0


class Routing:
    """The members of `state` by address, each with its calls; `open_calls` makes those of a new member."""

    def __init__(self, state: ClusterState, open_calls: Callable[[str], Calls]) -> None:
        self.state = state
        self.nodes: dict[str, Calls] = {}
        self.hedging = Hedging(_LONGEST_DELAY)
        """How long reads take at each node, by address."""
        self._open_calls = open_calls
        self._routes: list[tuple[Calls, ...]] = []
        self._partitions = 0
        self.adopt(state)

    def adopt(self, state: ClusterState) -> list[Calls]:
        """Route by `state` from now on; the calls to nodes that are members no more."""
        self.state = state
        previous = self.nodes
        self.nodes = {}
        for member in state.members:
            known = previous.pop(member.address, None)
            self.nodes[member.address] = known or self._open_calls(member.address)
        self._partitions = state.ring.partitions
        self._routes = [tuple(map(self.at, route(state, each))) for each in range(self._partitions)]
        return list(previous.values())

    def partition(self, bucket: BucketName, key: UserKey) -> int:
        """The partition of a key."""
        return partition_of(token(bucket, key), self._partitions)

    def pick(self, partition: int, avoid: Collection[Calls] = ()) -> Calls | None:
        """A node that can be reached for a partition: its first replica, else the next, else any node.

        One of `avoid` is taken only if there is no other, and so is one that is slow of late; None when
        nothing is connected.
        """
        route = self._routes[partition]
        slow = self.hedging.slow
        if route[0].ready and not avoid and not slow:
            return route[0]
        ready = [calls for calls in route if calls.ready]
        ready.sort(key=lambda calls: (calls in avoid, calls.address in slow))
        return ready[0] if ready else None

    def to_try(self, partition: int, now: float) -> Calls | None:
        """A slow replica that can be reached and should get a read too, so that its recovery is seen."""
        slow = self.hedging.slow
        for calls in self._routes[partition][: len(self.state.ring.replica_lists[partition])]:
            if calls.address in slow and calls.ready:
                return calls if self.hedging.may_try(calls.address, now) else None
        return None

    def at(self, node: str) -> Calls:
        """The calls to a member, whether it can be reached or not."""
        member = self.state.member(node)
        assert member is not None
        return self.nodes[member.address]

    @property
    def reached(self) -> list[str]:
        """The addresses of the nodes that can be reached."""
        return [calls.address for calls in self.nodes.values() if calls.ready]

    @property
    def problems(self) -> dict[str, str]:
        """Why each node cannot be reached, or could not be when it was lost last."""
        return {calls.address: calls.problem for calls in self.nodes.values()}


def route(state: ClusterState, partition: int) -> tuple[str, ...]:
    """Replicas in order of preference, then the others, each partition beginning at another one."""
    replicas = state.ring.replica_lists[partition]
    others = [member.node for member in state.members if member.node not in replicas]
    turn = partition % len(others) if others else 0
    return (*replicas, *others[turn:], *others[:turn])

"""The replica lists of a cluster that changes: by weight, kept apart, and with few moves. Pure.

Every node that is given the same ring and the same members finds the same lists.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import mmh3

from kvstore.errors import ConfigError
from kvstore.protocol.member import Member
from kvstore.protocol.ring import Ring
from kvstore.ring.apart import check_hosts, place_key
from kvstore.ring.first_places import order_lists
from kvstore.ring.shares import shares

_FREE = -1
"""Stands in a list where a replica has yet to be chosen."""
_NOBODY: Mapping[str, str] = MappingProxyType({})


def rebalance(
    ring: Ring, members: Sequence[Member], replaced: Mapping[str, str] = _NOBODY
) -> dict[int, tuple[str, ...]]:
    """The replica lists that change, by partition, when `members` are those that may hold replicas.

    A node that leaves is not among them. With `replaced`, the new node by the old one, each new node takes
    the lists of the old one exactly, and else only those change whose replicas would be together. Without,
    each node gets its share by weight. No list gets another length, and none has a node twice; its hosts and
    zones are distinct while there are enough. Raises ConfigError for fewer members than a list has replicas.
    """
    check_hosts(members)
    depth = len(ring.replica_lists[0])
    if len(members) < depth:
        raise ConfigError(f"{len(members)} members cannot hold {depth} replicas of each partition")
    names = {member.node for member in members}
    for old, new in sorted(replaced.items()):
        if old in names or new not in names:
            wrong = f"{old} stays a member" if old in names else f"{new} is no member"
            raise ConfigError(f"node {new} cannot replace node {old}: {wrong}")
    lists = [tuple(replaced.get(node, node) for node in nodes) for nodes in ring.replica_lists]
    plan = _Plan(sorted(members, key=lambda member: member.node), lists)
    plan.fill(balance=not replaced)
    changed = {
        partition: nodes
        for partition, nodes in enumerate(plan.lists())
        if set(nodes) != set(lists[partition])
    }
    found = order_lists(members, lists, changed)
    handed = {p: nodes for p, nodes in enumerate(lists) if nodes != ring.replica_lists[p]}
    return {**handed, **found}


class _Plan:
    """Lists under change, by the positions of nodes in `members`, and what is to be moved to whom."""

    def __init__(self, members: Sequence[Member], lists: Sequence[tuple[str, ...]]) -> None:
        self._names = [member.node for member in members]
        self._hosts = [member.host_key for member in members]
        self._places = [place_key(member) for member in members]
        depth = len(lists[0])
        self._host_need = min(depth, len(set(self._hosts)))
        self._place_need = min(depth, len(set(self._places)))
        held = Counter(node for nodes in lists for node in nodes)
        wanted = shares(members, len(lists), depth, held)
        self._excess = [held[name] - wanted[name] for name in self._names]
        position = {name: i for i, name in enumerate(self._names)}
        self._lists = [[position.get(node, _FREE) for node in nodes] for nodes in lists]
        self._before = [frozenset(nodes) for nodes in self._lists]
        self._held: list[set[int]] = [set() for _ in members]
        for partition in range(len(lists)):
            self._part(partition)
            for node in self._lists[partition]:
                if node != _FREE:
                    self._held[node].add(partition)

    def lists(self) -> Iterator[tuple[str, ...]]:
        """The lists, as they are now, by names."""
        return (tuple(self._names[node] for node in nodes) for nodes in self._lists)

    def fill(self, balance: bool) -> None:
        """Choose a node wherever one is missing, then bring loads to their shares if `balance`."""
        for partition in self._spread(range(len(self._lists)), ""):
            while _FREE in self._lists[partition]:
                self._choose(partition)
        if balance:
            for node in sorted(range(len(self._names)), key=lambda n: -self._excess[n]):
                while self._excess[node] > 0 and self._relieve(node):
                    pass

    def _part(self, partition: int) -> None:
        """Give up those replicas that are not apart, of nodes that have too much before others."""
        nodes = self._lists[partition]
        for node in sorted((n for n in nodes if n != _FREE), key=lambda n: (-self._excess[n], n)):
            if not self._fits(nodes, nodes.index(node), node):
                nodes[nodes.index(node)] = _FREE
                self._excess[node] -= 1

    def _fits(self, nodes: list[int], rank: int, node: int) -> bool:
        """Whether `node` at this rank leaves the list one that can be completed, and is kept apart."""
        rest = [other for i, other in enumerate(nodes) if i != rank and other != _FREE]
        if node in rest:
            return False
        free = len(nodes) - len(rest) - 1
        hosts = {self._hosts[other] for other in rest}
        hosts.add(self._hosts[node])
        if len(hosts) + free < self._host_need:
            return False
        places = {self._places[other] for other in rest}
        places.add(self._places[node])
        return len(places) + free >= self._place_need

    def _choose(self, partition: int) -> None:
        """Fill a free rank: by one that has too little, else by one that can pass another replica on."""
        nodes = self._lists[partition]
        rank = nodes.index(_FREE)
        fit = [n for n in range(len(self._names)) if self._fits(nodes, rank, n)]
        best = min(fit, key=lambda n: (self._excess[n], n))
        self._put(partition, rank, best)

    def _put(self, partition: int, rank: int, node: int) -> None:
        before = self._lists[partition][rank]
        if before != _FREE:
            self._held[before].remove(partition)
            self._excess[before] -= 1
        self._lists[partition][rank] = node
        self._held[node].add(partition)
        self._excess[node] += 1

    def _relieve(self, source: int) -> bool:
        """Shift a replica of `source` to one that has too little, at best without moving one more."""
        return self._shift(source) or self._pass_on(source, free=True) or self._pass_on(source, free=False)

    def _pass_on(self, source: int, free: bool) -> bool:
        """Shift a replica along as few others as possible; with `free` only those that move anyway.

        Each step of the path takes another partition, so that all of them fit together.
        """
        steps: dict[int, tuple[int, int]] = {source: (_FREE, _FREE)}
        waiting = deque([source])
        while waiting:
            node = waiting.popleft()
            used = {partition for _, partition in self._path(steps, node)}
            for partition in self._giving(node, self._held[node] - used, free):
                nodes = self._lists[partition]
                rank = nodes.index(node)
                for other in range(len(self._names)):
                    if other not in steps and self._fits(nodes, rank, other):
                        steps[other] = (node, partition)
                        if self._excess[other] < 0:
                            self._follow(steps, other)
                            return True
                        waiting.append(other)
                if len(steps) == len(self._names):
                    break
        return False

    def _shift(self, source: int) -> bool:
        """Give replicas of `source` directly to those that have too little; whether there was one."""
        moved = False
        for partition in self._giving(source, self._held[source], free=False):
            nodes = self._lists[partition]
            rank = nodes.index(source)
            poor = (n for n, excess in enumerate(self._excess) if excess < 0)
            fit = [n for n in poor if self._fits(nodes, rank, n)]
            if fit:
                self._put(partition, rank, min(fit, key=lambda n: (self._excess[n], n)))
                moved = True
                if self._excess[source] <= 0:
                    break
        return moved

    def _path(self, steps: dict[int, tuple[int, int]], node: int) -> Iterator[tuple[int, int]]:
        while steps[node][0] != _FREE:
            yield node, steps[node][1]
            node = steps[node][0]

    def _follow(self, steps: dict[int, tuple[int, int]], last: int) -> None:
        for node, partition in list(self._path(steps, last)):
            self._put(partition, self._lists[partition].index(steps[node][0]), node)

    def _giving(self, node: int, partitions: set[int], free: bool) -> list[int]:
        """What a node can give away: first what it was given by this change, which costs no move."""
        spread = self._spread(partitions, self._names[node])
        given = [p for p in spread if node not in self._before[p]]
        return given if free else given + [p for p in spread if node in self._before[p]]

    def _spread(self, partitions: Sequence[int] | set[int], name: str) -> list[int]:
        """In an order of each node's own: what it gives away is then not all of the same neighbours."""
        return sorted(partitions, key=lambda p: mmh3.hash64(f"{name}/{p}".encode(), signed=False)[0])

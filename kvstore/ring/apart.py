"""Keeping the copies of a key apart: never two replicas on one host, zones distinct while there are enough.

A host that fails takes all its nodes along. So what counts as a place for a replica is a host, not a node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvstore.errors import ConfigError
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.member import Member


def check_hosts(members: Iterable[Member]) -> None:
    """Raise ConfigError for a host in two zones: distinct zones would not mean distinct hosts then."""
    zones: dict[str, str] = {}
    for member in members:
        if member.host and zones.setdefault(member.host, member.zone) != member.zone:
            raise ConfigError(
                f"host {member.host!r} is in two zones, {zones[member.host]!r} and {member.zone!r}"
            )


def most_replicas(members: Iterable[Member]) -> int:
    """How many replicas a key can have: one on each host."""
    return len({member.host_key for member in members})


def place_key(member: Member) -> tuple[str, ...]:
    """Equal for nodes of one zone; without zones, for nodes on one host."""
    return (member.zone,) if member.zone else member.host_key


def next_replicas(members: Iterable[Member], chosen: Sequence[Member]) -> list[Member]:
    """The members that may hold the next replica of a partition, after those chosen.

    They are on other hosts, and in other zones if any are left; empty when every host has a replica.
    """
    hosts = {member.host_key for member in chosen}
    zones = {member.zone for member in chosen if member.zone}
    free = [member for member in members if member.host_key not in hosts]
    return [member for member in free if member.zone not in zones] or free


def first_apart(state: ClusterState, nodes: Iterable[str], others: Iterable[str]) -> str:
    """The first of some nodes that is on no host of the others, else the first of all; empty: no nodes."""
    hosts = {_host_key(state, node) for node in others}
    first = ""
    for node in nodes:
        if _host_key(state, node) not in hosts:
            return node
        first = first or node
    return first


def _host_key(state: ClusterState, node: str) -> tuple[str, str]:
    member = state.member(node)
    return member.host_key if member else ("", node)

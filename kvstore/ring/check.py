"""What can be a cluster state: looked at wherever one arrives, from a disk, a node or a client's node."""

from __future__ import annotations

from collections.abc import Iterable

from kvstore.errors import ConfigError
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.member import Member
from kvstore.protocol.move import Move
from kvstore.protocol.since import FIRST_EPOCH, Since

MAX_EPOCH = 2**48 - 1
"""Far below the end of its type: the next one can always be written."""
MAX_MEMBERS = 65_536
MAX_PARTITIONS = 65_536


def check_state(state: ClusterState) -> None:
    """Raise ConfigError unless this can be the state of a cluster at some epoch."""
    if not FIRST_EPOCH <= state.epoch <= MAX_EPOCH:
        raise ConfigError(f"epoch {state.epoch} is not between {FIRST_EPOCH} and {MAX_EPOCH}")
    check_lists(state.members, state.ring.replica_lists, state.replicas)
    names = {member.node for member in state.members}
    _in_order((move.partition for move in state.moves), "moves")
    for move in state.moves:
        _check_move(move, state, names)
    _check_since(state.since, state.epoch, state.ring.partitions)
    _in_order((bucket.name for bucket in state.buckets), "buckets")
    for bucket in state.buckets:
        if bucket.n > state.replicas:
            raise ConfigError(f"bucket {bucket.name}: n={bucket.n}, but keys have {state.replicas} replicas")


def check_lists(members: tuple[Member, ...], lists: tuple[tuple[str, ...], ...], replicas: int) -> None:
    """Raise ConfigError unless these can be the replica lists of a ring of these members."""
    if not 1 <= len(lists) <= MAX_PARTITIONS or len(lists) & (len(lists) - 1):
        raise ConfigError(f"{len(lists)} partitions are no ring")
    names = {member.node for member in members}
    if len(names) != len(members) or len(names) > MAX_MEMBERS:
        raise ConfigError("a member is named twice, or there are too many")
    for nodes in lists:
        _check_list(nodes, names, replicas)


def _check_list(nodes: tuple[str, ...], names: set[str], replicas: int) -> None:
    if len(nodes) != replicas or not nodes:
        raise ConfigError(f"a replica list has {len(nodes)} nodes, not {replicas}: {nodes}")
    if len(set(nodes)) != len(nodes) or not names.issuperset(nodes):
        raise ConfigError(f"a replica list names a node twice, or one that is no member: {nodes}")


def _check_move(move: Move, state: ClusterState, names: set[str]) -> None:
    if not 0 <= move.partition < state.ring.partitions:
        raise ConfigError(f"partition {move.partition} moves, which there is not")
    for nodes in (move.old, move.new):
        _check_list(nodes, names, state.replicas)
    if state.ring.replica_lists[move.partition] != move.read:
        raise ConfigError(f"partition {move.partition} is not read by the list that its move says")
    if len(set(move.emptied)) != len(move.emptied) or not set(move.old).issuperset(move.emptied):
        raise ConfigError(f"of partition {move.partition} replicas are emptied that are none: {move.emptied}")
    if move.old == move.new and not move.emptied:
        raise ConfigError(f"partition {move.partition} moves to where it is")


def _check_since(since: Since, epoch: int, partitions: int) -> None:
    if since.partitions and len(since.partitions) != partitions:
        raise ConfigError(f"{len(since.partitions)} epochs are given for {partitions} partitions")
    if since.partitions and set(since.partitions) == {FIRST_EPOCH}:
        raise ConfigError("what has not changed since the first epoch is left out")
    _in_order((name for name, _ in since.buckets), "buckets")
    for changed in (*since.partitions, *(changed for _, changed in since.buckets)):
        if not FIRST_EPOCH <= changed <= epoch:
            raise ConfigError(f"something has changed at epoch {changed}, which epoch {epoch} does not know")


def _in_order(keys: Iterable[int] | Iterable[str], what: str) -> None:
    """Each once, and in order: equal states have equal bytes."""
    found = list(keys)
    if found != sorted(set(found)):  # type: ignore[type-var]
        raise ConfigError(f"{what} are not in order, or one is there twice")

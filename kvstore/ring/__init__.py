"""The consistent-hash ring: who holds what, how it is built, kept, and what a change of it touches. Pure.

What nodes and clients tell each other stands with the messages: the ring itself, members and cluster state
as records (`kvstore.protocol.ring`, `.member`, `.cluster_state`), tokens and internal keys as formats
(`kvstore.protocol.internal_key`). All of it can be had from here.
"""

from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.internal_key import (
    DATA_KEYSPACE,
    check_data_key,
    data_key,
    internal_key,
    partition_bounds,
    partition_of,
    place_of,
    split_data_key,
    token,
    token_at,
    token_of,
)
from kvstore.protocol.member import Member
from kvstore.protocol.move import Move, Step
from kvstore.protocol.ring import Ring
from kvstore.protocol.since import Since
from kvstore.ring.apart import first_apart
from kvstore.ring.check import check_state
from kvstore.ring.initial_members import parse_members
from kvstore.ring.initial_state import initial_state
from kvstore.ring.preference import fallbacks, preference_list
from kvstore.ring.rebalance import rebalance
from kvstore.ring.replica_sets import (
    ReplicaSets,
    coming_replicas,
    old_replicas,
    read_quorum,
    replica_sets,
    replicas,
)
from kvstore.ring.since import since_after
from kvstore.ring.stored_state import decode_state, encode_state

__all__ = [
    "DATA_KEYSPACE",
    "ClusterState",
    "Member",
    "Move",
    "ReplicaSets",
    "Ring",
    "Since",
    "Step",
    "check_data_key",
    "check_state",
    "coming_replicas",
    "data_key",
    "decode_state",
    "encode_state",
    "fallbacks",
    "first_apart",
    "initial_state",
    "internal_key",
    "old_replicas",
    "parse_members",
    "partition_bounds",
    "partition_of",
    "place_of",
    "preference_list",
    "read_quorum",
    "rebalance",
    "replica_sets",
    "replicas",
    "since_after",
    "split_data_key",
    "token",
    "token_at",
    "token_of",
]

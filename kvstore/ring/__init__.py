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
from kvstore.protocol.ring import Ring
from kvstore.ring.apart import first_apart
from kvstore.ring.initial_members import parse_members
from kvstore.ring.initial_state import initial_state
from kvstore.ring.preference import fallbacks, preference_list
from kvstore.ring.since import Since, since_after, since_now
from kvstore.ring.stored_state import decode_state, encode_state

__all__ = [
    "DATA_KEYSPACE",
    "ClusterState",
    "Member",
    "Ring",
    "Since",
    "check_data_key",
    "data_key",
    "decode_state",
    "encode_state",
    "fallbacks",
    "first_apart",
    "initial_state",
    "internal_key",
    "parse_members",
    "partition_bounds",
    "partition_of",
    "place_of",
    "preference_list",
    "since_after",
    "since_now",
    "split_data_key",
    "token",
    "token_at",
    "token_of",
]

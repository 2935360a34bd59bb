"""The consistent-hash ring: tokens, partitions, who holds what. Pure."""

from kvstore.ring.cluster_state import ClusterState
from kvstore.ring.initial_state import initial_state
from kvstore.ring.member import Member, parse_members
from kvstore.ring.preference import fallbacks, preference_list
from kvstore.ring.ring import Ring
from kvstore.ring.since import Since, since_after, since_now
from kvstore.ring.stored_state import decode_state, encode_state
from kvstore.ring.token import (
    DATA_KEYSPACE,
    check_data_key,
    data_key,
    partition_bounds,
    partition_of,
    place_of,
    split_data_key,
    token,
    token_at,
)

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
    "initial_state",
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
]

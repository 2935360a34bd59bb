"""The newest cluster state that a node knows, on its own disk: it is there before it is acted on."""

from __future__ import annotations

from contextlib import suppress

from kvstore.errors import Corruption
from kvstore.lsm.reading import Get
from kvstore.ring import ClusterState, decode_state, encode_state

CLUSTER_STATE = b"n/cluster-state"
"""Where the engine keeps it; `n` is the keyspace of node-local records."""


def newest(get: Get, given: ClusterState) -> ClusterState:
    """What a node starts with: the state that it is `given`, or the one on its disk if that is newer.

    One that cannot be read counts as none: the others have it.
    """
    with suppress(Corruption):
        stored = get(CLUSTER_STATE)
        if stored is not None:
            state = decode_state(stored)
            if state.cluster_id == given.cluster_id and state.epoch > given.epoch:
                return state
    return given


def entry(state: ClusterState) -> tuple[bytes, bytes]:
    """What is to be written to keep it."""
    return CLUSTER_STATE, encode_state(state)

"""Tokens, internal keys and the first ring are formats: data written under them must be found for ever.

The file was written once, by the first version. A difference is a break, not a reason to write it anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvstore.config import BucketSettings, Conflict, QuorumMode
from kvstore.ring import (
    ClusterState,
    Member,
    Move,
    Ring,
    Since,
    Step,
    decode_state,
    encode_state,
    initial_state,
    split_data_key,
)
from tests.plain import data_key, token

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "ring.json").read_text())


@pytest.mark.parametrize("entry", GOLDEN["tokens"], ids=lambda entry: f"{entry['bucket']}-{entry['token']}")
def test_tokens_and_internal_keys(entry: dict[str, str]) -> None:
    key = bytes.fromhex(entry["key"])
    key_token = token(entry["bucket"], key)
    assert f"{key_token:016x}" == entry["token"]
    internal = data_key(key_token, entry["bucket"], key)
    assert internal.hex()[:200] == entry["internal_key"]
    assert split_data_key(internal) == (key_token, entry["bucket"], key)


@pytest.mark.parametrize("name", GOLDEN["placement"])
def test_placement(name: str) -> None:
    count, zones = int(name.split(maxsplit=1)[0]), "zones" in name
    members = [
        Member(f"n{i}", f"127.0.0.1:{7000 + i}", f"z{i % 3}" if zones else "") for i in range(1, count + 1)
    ]
    state = initial_state("", members, 64)
    assert state.cluster_id == GOLDEN["placement"][name]["cluster_id"]
    assert [" ".join(nodes) for nodes in state.ring.replica_lists] == GOLDEN["placement"][name]["lists"]


MEMBERS = (Member("n1", "host:7001", "z1"), Member("n2", "host:7002", "z2", "h2", 2))
CARTS = BucketSettings("carts", 2, 1, 2, QuorumMode.SLOPPY, Conflict.LWW, 60)


def test_a_cluster_state_on_a_disk_of_a_version_that_knew_no_moves() -> None:
    """With an epoch, zones, weights, a bucket, and a partition that has changed since."""
    state = decode_state(bytes.fromhex(GOLDEN["stored state"]))
    ring = Ring((("n2", "n1"),) * 2)
    assert state == ClusterState("golden", 2, MEMBERS, ring, (CARTS,), 2, (), Since((1, 2)))


def test_a_cluster_state_on_a_disk() -> None:
    """A partition that moves, one that is filled again, one that has changed, as has the n of a bucket."""
    data = bytes.fromhex(GOLDEN["stored state 2"])
    one, other = ("n2", "n1"), ("n1", "n2")
    moves = (
        Move(0, one, other, Step.WRITE_BOTH_READ_NEW),
        Move(2, other, other, Step.WRITE_BOTH_READ_OLD, ("n2",)),
    )
    since = Since((7, 1, 8, 5), (("carts", 3),))
    ring = Ring((other, one, other, one))
    state = ClusterState("golden", 8, MEMBERS, ring, (CARTS,), 2, moves, since)
    assert encode_state(state) == data
    assert decode_state(data) == state

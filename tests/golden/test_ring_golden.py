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
    Ring,
    Since,
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


def test_a_cluster_state_on_a_disk() -> None:
    """With an epoch, zones, weights, a bucket, and a partition that has changed since."""
    data = bytes.fromhex(GOLDEN["stored state"])
    state, since = decode_state(data)
    members = (Member("n1", "host:7001", "z1"), Member("n2", "host:7002", "z2", "h2", 2))
    carts = BucketSettings("carts", 2, 1, 2, QuorumMode.SLOPPY, Conflict.LWW, 60)
    assert state == ClusterState("golden", 2, members, Ring((("n2", "n1"),) * 2), (carts,), 2)
    assert since == Since(2, (1, 2), {})
    assert encode_state(state, since) == data

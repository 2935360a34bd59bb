"""What a fence hides is split into parts: each key is asked for where others hold it, and nowhere else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import BucketSettings
from kvstore.lsm import Fence
from kvstore.quorum.background.quarantine import _NOT_DATA
from kvstore.quorum.hints import hint_key
from kvstore.ring import partition_bounds, partition_of, preference_list
from tests.plain import data_key, token
from tests.unit.quorum_cluster import Cluster

CLUSTER = Cluster(5, [BucketSettings("two", n=2, r=1, w=1)])
NODE = CLUSTER.hosts["n1"].node
PARTITIONS = CLUSTER.state.ring.partitions
DATA = [data_key(token(b, b"k%d" % i), b, b"k%d" % i) for b in ("two", "three") for i in range(60)]
KEYS = sorted([*DATA, *(hint_key("n2", key) for key in DATA[:5]), b"n/incarnation"])


def test_these_keys_are_in_the_first_the_last_and_many_other_partitions() -> None:
    used = {partition_of(int.from_bytes(key[1:9], "big"), PARTITIONS) for key in DATA}
    assert len(used) == PARTITIONS


@given(st.sampled_from(KEYS), st.sampled_from(KEYS))
def test_each_key_behind_a_fence_is_in_the_parts_of_those_who_hold_it(a: bytes, b: bytes) -> None:
    first, last = sorted((a, b))
    parts = list(NODE.background.quarantine._split(Fence(1, 0, first, last)))
    for key in KEYS:
        holding = [part for part in parts if part.first <= key < part.end]
        if not first <= key <= last:
            assert holding == []
        elif key in DATA:
            partition = partition_of(int.from_bytes(key[1:9], "big"), PARTITIONS)
            assert [(part.partition, part.n) for part in holding] == [(partition, 2), (partition, 3)]
        else:
            (part,) = holding
            assert (part.partition, part.mine, part.waiting, part.complete) == (_NOT_DATA, False, set(), True)
    for part in parts:
        assert part.first < part.end
        if part.partition == _NOT_DATA:
            continue
        start, end = partition_bounds(part.partition, PARTITIONS)
        assert start <= part.first < part.end <= end
        primaries = set(preference_list(CLUSTER.state.ring, part.partition, part.n))
        assert part.mine == ("n1" in primaries)
        assert part.waiting == part.peers == (primaries - {"n1"} if part.mine else set())
        assert part.complete == (not part.mine)

"""What holds of every first ring, and of tokens and partitions."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import BucketSettings
from kvstore.errors import ConfigError
from kvstore.ring import (
    Member,
    fallbacks,
    initial_state,
    parse_members,
    partition_bounds,
    partition_of,
    preference_list,
    split_data_key,
)
from kvstore.ring.builder import initial_ring
from tests.plain import data_key, token

BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
KEYS = st.binary(min_size=1, max_size=64)
PARTITIONS = st.integers(0, 10).map(lambda power: 2**power)


def members(count: int, zones: int = 0) -> list[Member]:
    return [Member(f"n{i}", f"host:{i + 1}", f"z{i % zones}" if zones else "") for i in range(count)]


@given(BUCKETS, KEYS, PARTITIONS)
def test_a_key_lies_within_the_bounds_of_its_partition_and_of_no_other(
    bucket: str, key: bytes, partitions: int
) -> None:
    key_token = token(bucket, key)
    internal = data_key(key_token, bucket, key)
    assert split_data_key(internal) == (key_token, bucket, key)
    within = [
        p
        for p in {0, partitions - 1, partition_of(key_token, partitions)}
        if partition_bounds(p, partitions)[0] <= internal < partition_bounds(p, partitions)[1]
    ]
    assert within == [partition_of(key_token, partitions)]


@given(PARTITIONS)
def test_the_bounds_of_partitions_join_without_a_gap(partitions: int) -> None:
    bounds = [partition_bounds(p, partitions) for p in range(partitions)]
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    assert (bounds[0][0][:1], bounds[-1][1]) == (b"d", b"e")


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 4), st.randoms())
def test_replicas_are_distinct_and_the_members_order_does_not_matter(
    count: int, replicas: int, zones: int, shuffler: object
) -> None:
    listed = members(count, zones)
    ring = initial_ring(listed, 64, replicas)
    for nodes in ring.replica_lists:
        assert len(nodes) == len(set(nodes)) == min(replicas, count)
    shuffler.shuffle(listed)  # type: ignore[attr-defined]
    assert initial_ring(listed, 64, replicas) == ring


@pytest.mark.parametrize("count", [3, 4, 5, 7, 9])
def test_load_first_places_and_pairs_are_balanced(count: int) -> None:
    lists = initial_ring(members(count), 256, 3).replica_lists
    held = Counter(node for nodes in lists for node in nodes)
    assert max(held.values()) - min(held.values()) <= 1
    first = Counter(nodes[0] for nodes in lists)
    assert max(first.values()) - min(first.values()) <= 2
    pairs = Counter(frozenset(pair) for nodes in lists for pair in combinations(nodes, 2))
    assert len(pairs) == count * (count - 1) // 2
    assert max(pairs.values()) <= min(pairs.values()) * 1.25, "a dead node's work must go to all others"


@pytest.mark.parametrize("zones", [0, 2, 3, 4])
@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8, 9, 16])
def test_nodes_are_first_equally_often_even_when_zones_are_unequal(count: int, zones: int) -> None:
    first = Counter(nodes[0] for nodes in initial_ring(members(count, zones), 256, 3).replica_lists)
    assert len(first) == count
    assert max(first.values()) - min(first.values()) <= 1


def test_replicas_are_in_distinct_zones_while_there_are_enough() -> None:
    listed = members(7, 3)
    zone = {member.node: member.zone for member in listed}
    for nodes in initial_ring(listed, 256, 3).replica_lists:
        assert len({zone[node] for node in nodes}) == 3
    for nodes in initial_ring(members(6, 2), 256, 3).replica_lists:
        assert len({zone[node] for node in nodes} - {"z2"}) >= 1


def test_weight_attracts_partitions() -> None:
    listed = [Member("big", "host:1", weight=2), *(Member(f"n{i}", f"host:{i + 2}") for i in range(4))]
    held = Counter(node for nodes in initial_ring(listed, 256, 3).replica_lists for node in nodes)
    assert 1.8 < held["big"] / held["n0"] < 2.2


@given(st.integers(1, 8), st.integers(1, 3), st.integers(0, 63))
def test_primaries_and_fallbacks_are_all_nodes_each_once(count: int, n: int, partition: int) -> None:
    ring = initial_ring(members(count), 64, 3)
    found = [*preference_list(ring, partition, n), *fallbacks(ring, partition, n)]
    assert len(found) == len(set(found)) == count


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not of the form"),
        ("n1", "not of the form"),
        ("n1=host", "host:port"),
        ("n1=host:99999", "host:port"),
        ("N1=host:1", "node id"),
        ("n1=host:1,n1=host:2", "given twice"),
        ("n1=host:1,n2=host:1", "given twice"),
        ("n1=host:1,n2=Host:01", "address 'host:1' is given twice"),
        ("n1=[::1]:1,n2=[0:0::1]:1", "given twice"),
        ("n1=::1:1", "host:port"),
        ("n1=a b:1", "host:port"),
    ],
)
def test_a_wrong_member_list_is_said_clearly(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_members(text)


def test_a_member_list_is_read() -> None:
    assert parse_members("n2=b:2/east, n1=a:1") == (Member("n1", "a:1"), Member("n2", "b:2", "east"))


@pytest.mark.parametrize("partitions", [0, 3, 100, 131072])
def test_partitions_must_be_a_power_of_two(partitions: int) -> None:
    with pytest.raises(ConfigError, match="power of two"):
        initial_state("", members(3), partitions)


def test_buckets_must_fit_the_ring() -> None:
    with pytest.raises(ConfigError, match="n=3"):
        initial_state("", members(2), buckets=[BucketSettings("b")])
    with pytest.raises(ConfigError, match="twice"):
        initial_state("", members(3), buckets=[BucketSettings("b"), BucketSettings("b")])
    state = initial_state("", members(2))
    assert (state.bucket("any").n, state.bucket("any").w) == (2, 2)

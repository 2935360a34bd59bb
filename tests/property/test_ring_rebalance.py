"""What holds of the lists of a cluster that changes, whatever its members were and become."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import ConfigError
from kvstore.ring import Member, Ring, rebalance
from kvstore.ring.builder import initial_ring

ZONES = 4


def members_of(count: int, zones: int = 0) -> list[Member]:
    return [Member(f"n{i:03}", f"h:{i + 1}", f"z{i % zones}" if zones else "") for i in range(count)]


def changed(ring: Ring, lists: dict[int, tuple[str, ...]]) -> Ring:
    return Ring(tuple(lists.get(p, nodes) for p, nodes in enumerate(ring.replica_lists)))


def held(ring: Ring) -> Counter[str]:
    return Counter(node for nodes in ring.replica_lists for node in nodes)


def moved(old: Ring, new: Ring) -> int:
    pairs = zip(old.replica_lists, new.replica_lists, strict=True)
    return sum(len(set(after) - set(before)) for before, after in pairs)


@st.composite
def some_members(draw: st.DrawFn, least: int) -> list[Member]:
    """Some of the same thirty nodes, with any weights, on hosts whose zone is given by their number."""
    chosen = draw(st.sets(st.integers(0, 29), min_size=least, max_size=20))
    found = []
    for i in sorted(chosen):
        host = draw(st.integers(-1, 9))
        zone = host % ZONES if host >= 0 else draw(st.integers(0, ZONES - 1))
        weight = draw(st.integers(1, 4))
        found.append(
            Member(f"n{i}", f"h:{i + 1}", f"z{zone}" if zone else "", f"m{host}" if host >= 0 else "", weight)
        )
    return found


def check_apart(ring: Ring, members: list[Member], depth: int) -> None:
    host = {m.node: f"host {m.host}" if m.host else f"node {m.node}" for m in members}
    place = {m.node: f"zone {m.zone}" if m.zone else host[m.node] for m in members}
    for nodes in ring.replica_lists:
        assert len(nodes) == len(set(nodes)) == depth
        assert len({host[node] for node in nodes}) == min(depth, len(set(host.values())))
        assert len({place[node] for node in nodes}) == min(depth, len(set(place.values())))


@given(st.integers(1, 5), st.data())
def test_replicas_are_apart_after_any_sequence_of_changes(depth: int, data: st.DataObject) -> None:
    ring = initial_ring([Member(f"n{i}", f"h:{i + 1}") for i in range(depth)], 32, depth)
    for _ in range(data.draw(st.integers(1, 4))):
        members = data.draw(some_members(depth))
        new = rebalance(ring, members)
        assert new == rebalance(ring, members[::-1])
        assert all(nodes != ring.replica_lists[p] for p, nodes in new.items())
        assert all(set(nodes) != set(ring.replica_lists[p]) for p, nodes in new.items())
        ring = changed(ring, new)
        check_apart(ring, members, depth)


@given(some_members(3))
def test_what_is_balanced_stays_as_it_is(members: list[Member]) -> None:
    ring = initial_ring([Member(f"n{i}", f"h:{i + 1}") for i in range(3)], 32, 3)
    ring = changed(ring, rebalance(ring, members))
    again = changed(ring, rebalance(ring, members))
    assert rebalance(again, members) == {}


@pytest.mark.parametrize("zones", [0, 3])
@pytest.mark.parametrize("count", [3, 4, 5, 8, 20, 63, 160])
def test_a_join_and_a_leave_move_little_more_than_they_must(count: int, zones: int) -> None:
    before = initial_ring(members_of(count, zones), 512 if zones else 256, 3)
    now = members_of(count + 1, zones)
    after = changed(before, rebalance(before, now))
    joined = now[-1].node
    assert moved(before, after) <= 1.15 * held(after)[joined]
    mean = before.partitions * 3 / len(now)
    if not zones and mean >= 30:
        assert max(abs(held(after)[m.node] - mean) for m in now) <= mean / 20
    left = now[count // 2].node
    rest = [member for member in now if member.node != left]
    if len({m.zone for m in rest}) < zones:
        return
    least = held(after)[left]
    last = changed(after, rebalance(after, rest))
    assert moved(after, last) <= max(1.15 * least, least + 0.5)
    assert left not in held(last)


def test_one_zone_of_three_has_one_replica_of_each_partition() -> None:
    members = members_of(9, 3)
    ring = initial_ring(members, 256, 3)
    for change in (members_of(10, 3), members_of(12, 3), members[1:], members):
        ring = changed(ring, rebalance(ring, change))
        zones = {member.node: member.zone for member in change}
        assert all({zones[node] for node in nodes} == {"z0", "z1", "z2"} for nodes in ring.replica_lists)


@pytest.mark.parametrize("weight", [1, 2, 3])
def test_a_node_gets_its_share_by_weight_and_first_places_with_it(weight: int) -> None:
    members = members_of(9)
    ring = initial_ring(members, 256, 3)
    members[4] = replace(members[4], weight=weight)
    after = changed(ring, rebalance(ring, members))
    wanted = 256 * 3 * weight / (8 + weight)
    assert abs(held(after)["n004"] - wanted) < 1
    assert abs(moved(ring, after) - (wanted - held(ring)["n004"])) <= 2
    first = Counter(nodes[0] for nodes in after.replica_lists)
    assert all(abs(first[m.node] - 256 * m.weight / (8 + weight)) <= 2 for m in members)


def test_a_node_that_is_replaced_hands_over_its_exact_lists() -> None:
    members = members_of(7)
    ring = initial_ring(members, 64, 3)
    new = Member("new", "h:99", weight=5)
    lists = rebalance(ring, [m for m in members if m.node != "n002"] + [new], {"n002": "new"})
    assert lists == {
        p: tuple("new" if node == "n002" else node for node in nodes)
        for p, nodes in enumerate(ring.replica_lists)
        if "n002" in nodes
    }


def test_a_replacement_on_the_host_of_another_is_kept_apart_from_it() -> None:
    members = members_of(6, 1)
    members[0] = replace(members[0], host="m")
    ring = initial_ring(members, 64, 3)
    now = [m for m in members if m.node != "n002"] + [Member("new", "h:99", "z0", "m")]
    after = changed(ring, rebalance(ring, now, {"n002": "new"}))
    check_apart(after, now, 3)


def test_what_cannot_be_is_refused() -> None:
    ring = initial_ring(members_of(4), 16, 3)
    with pytest.raises(ConfigError, match="2 members cannot hold 3 replicas"):
        rebalance(ring, members_of(2))
    with pytest.raises(ConfigError, match="n009"):
        rebalance(ring, members_of(4), {"n007": "n009"})
    with pytest.raises(ConfigError, match="n000"):
        rebalance(ring, members_of(4), {"n000": "n001"})

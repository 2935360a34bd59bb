"""What holds of the first ring of members that share hosts, and of who stands in for dead nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import BucketSettings
from kvstore.errors import ConfigError
from kvstore.quorum.placement import place
from kvstore.ring import Member, initial_state, parse_members
from kvstore.ring.builder import initial_ring

PARTITIONS = 32
MOST_NODES = 60


@st.composite
def member_lists(draw: st.DrawFn, zones: int = 5, weights: int = 4) -> list[Member]:
    """1 to 60 nodes, some on shared hosts and some without, in up to so many zones or none."""
    hosts = draw(st.lists(st.integers(0, zones), min_size=1, max_size=MOST_NODES))
    found = []
    for i in range(draw(st.integers(1, MOST_NODES))):
        host = draw(st.integers(-1, len(hosts) - 1))
        zone = hosts[host] if host >= 0 else draw(st.integers(0, zones))
        found.append(
            Member(
                f"n{i}",
                f"h:{i + 1}",
                f"z{zone}" if zone else "",
                f"m{host}" if host >= 0 else "",
                draw(st.integers(1, weights)),
            )
        )
    return found


REPLICAS = st.integers(1, 5)


def hosts_of(members: Iterable[Member]) -> set[str]:
    """Written out, not as the product has it."""
    return {f"host {m.host}" if m.host else f"node {m.node}" for m in members}


def zones_of(members: Iterable[Member]) -> set[str]:
    return {f"zone {m.zone}" if m.zone else next(iter(hosts_of([m]))) for m in members}


def shares(
    members: list[Member], depth: int, place_of: Callable[[Iterable[Member]], set[str]]
) -> dict[str, Fraction]:
    """Each node's replicas if weights were kept exactly, no place having more than one of a partition.

    A place whose weight would have it hold more holds one of each; what is left goes to the others.
    """
    weights: Counter[str] = Counter()
    for member in members:
        weights[next(iter(place_of([member])))] += member.weight
    full: set[str] = set()
    while True:
        left = PARTITIONS * (depth - len(full))
        open_weight = sum(weight for name, weight in weights.items() if name not in full)
        over = {
            name for name, w in weights.items() if name not in full and left * w > PARTITIONS * open_weight
        }
        if not over:
            break
        full |= over
    found = {}
    for member in members:
        name = next(iter(place_of([member])))
        of_place = Fraction(PARTITIONS, weights[name]) if name in full else Fraction(left, open_weight)
        found[member.node] = of_place * member.weight
    return found


def within_bounds(counted: Counter[str], wanted: dict[str, Fraction], members: list[Member]) -> None:
    for member in members:
        off = abs(counted[member.node] - wanted[member.node])
        assert off <= 2 * member.weight, (member, counted[member.node], float(wanted[member.node]))


@given(member_lists(), REPLICAS)
def test_never_two_replicas_on_one_host_and_zones_apart_while_there_are_enough(
    members: list[Member], replicas: int
) -> None:
    named = {member.node: member for member in members}
    depth = min(replicas, len(hosts_of(members)))
    for nodes in initial_ring(members, PARTITIONS, replicas).replica_lists:
        holders = [named[node] for node in nodes]
        assert len(nodes) == len(hosts_of(holders)) == depth
        assert len(zones_of(holders)) == min(depth, len(zones_of(members)))


@given(member_lists(zones=0), REPLICAS)
def test_replicas_and_first_places_are_balanced_to_weight_as_far_as_hosts_allow(
    members: list[Member], replicas: int
) -> None:
    lists = initial_ring(members, PARTITIONS, replicas).replica_lists
    held = Counter(node for nodes in lists for node in nodes)
    within_bounds(held, shares(members, len(lists[0]), hosts_of), members)
    weight = sum(member.weight for member in members)
    first = {member.node: Fraction(PARTITIONS * member.weight, weight) for member in members}
    within_bounds(Counter(nodes[0] for nodes in lists), first, members)


@given(member_lists(), REPLICAS)
def test_with_zones_enough_they_decide_how_much_a_node_holds(members: list[Member], replicas: int) -> None:
    lists = initial_ring(members, PARTITIONS, min(replicas, len(zones_of(members)))).replica_lists
    held = Counter(node for nodes in lists for node in nodes)
    within_bounds(held, shares(members, len(lists[0]), zones_of), members)


@given(member_lists(), REPLICAS, st.randoms())
def test_neither_the_order_of_members_nor_names_of_hosts_matter(
    members: list[Member], replicas: int, shuffler: object
) -> None:
    ring = initial_ring(members, PARTITIONS, replicas)
    others = [Member(m.node, m.address, m.zone, m.host and f"x{m.host}", m.weight) for m in members]
    shuffler.shuffle(others)  # type: ignore[attr-defined]
    assert initial_ring(others, PARTITIONS, replicas) == ring


@given(member_lists(), REPLICAS)
def test_hosts_with_one_node_each_change_nothing(members: list[Member], replicas: int) -> None:
    with_hosts = [Member(m.node, m.address, m.zone, f"m{i}", m.weight) for i, m in enumerate(members)]
    without = [Member(m.node, m.address, m.zone, "", m.weight) for m in members]
    plain = initial_ring(without, PARTITIONS, replicas)
    assert initial_ring(with_hosts, PARTITIONS, replicas) == plain


@given(member_lists(), REPLICAS, st.integers(0, PARTITIONS - 1), st.randoms(use_true_random=False))
def test_fallbacks_are_on_hosts_of_their_own_while_there_are_any(
    members: list[Member], replicas: int, partition: int, chance: object
) -> None:
    state = initial_state("", members, PARTITIONS, replicas)
    alive = {m.node for m in members if chance.random() < 0.6}  # type: ignore[attr-defined]
    primaries = state.ring.replica_lists[partition][:replicas]
    live = [node for node in primaries if node in alive]
    # whoever knows of a live primary passes the request on to it
    coordinator = chance.choice(live or sorted({m.node for m in members} - {*primaries} or primaries))  # type: ignore[attr-defined]
    alive.add(coordinator)
    found = place(state, partition, replicas, coordinator, alive.__contains__)
    named = {m.node: m for m in members}
    asked = [target.node for target in found.targets]
    assert len(asked) == len({*asked}) == min(len(primaries), len(alive))
    assert [target.node for target in found.targets if not target.hint_for] == [
        node for node in primaries if node in alive
    ]
    hosts = hosts_of(named[node] for node in asked)
    assert len(hosts) == min(len(asked), len(hosts_of(named[node] for node in alive)))


def test_a_fallback_takes_turns_with_no_host_that_is_in_use() -> None:
    """Two nodes on each of three hosts: the other node on a dead primary's host is the one that is left."""
    text = ",".join(f"n{i}=h:{i}//m{i % 3}" for i in range(1, 7))
    state = initial_state("", parse_members(text), PARTITIONS)
    named = [m.node for m in state.members]
    for partition, primaries in enumerate(state.ring.replica_lists):
        dead = primaries[2]
        other = f"n{(int(dead[1]) + 2) % 6 + 1}"
        found = place(state, partition, 3, primaries[0], ({*named} - {dead}).__contains__)
        assert [(t.node, t.hint_for) for t in found.targets if t.hint_for] == [(other, dead)]


def test_a_coordinator_that_is_no_primary_is_a_fallback_before_all_others() -> None:
    state = initial_state("", parse_members("n1=h:1//a,n2=h:2//b,n3=h:3//a,n4=h:4//c"), PARTITIONS, 2)
    partition = state.ring.replica_lists.index(("n1", "n2"))
    found = place(state, partition, 2, "n3", lambda node: node != "n2")
    assert [(t.node, t.hint_for) for t in found.targets] == [("n1", ""), ("n3", "n2")]
    assert found.stands_in_for == "n2"


def test_a_member_list_with_hosts_is_read() -> None:
    assert parse_members("n1=a:1/east/m1,n2=b:2//m2,n3=c:3/east/,n4=d:4/") == (
        Member("n1", "a:1", "east", "m1"),
        Member("n2", "b:2", "", "m2"),
        Member("n3", "c:3", "east"),
        Member("n4", "d:4"),
    )
    assert [m.labels for m in parse_members("n1=a:1/z/m,n2=b:2//m2,n3=c:3/z,n4=d:4")] == [
        "z/m",
        "/m2",
        "z",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "n1=a:1/z/m/x",
            r"initial member 'n1=a:1/z/m/x' is not of the form node=host:port\[/zone\[/host\]\]",
        ),
        ("n1=a:1/z/m 1", "host 'm 1' of node n1 is not of the form"),
        ("n1=a:1//-", "host '-' of node n1 is not of the form"),
        ("n1=a:1//" + "m" * 65, "of node n1 is not of the form"),
        ("n1=a:1/z\n/m", r"zone 'z\\n' of node n1 is not of the form"),
        ("n1=a:1/east/m,n2=a:2/west/m", "host 'm' is in two zones, 'east' and 'west'"),
        ("n1=a:1/east/m,n2=a:2//m", "host 'm' is in two zones, 'east' and ''"),
    ],
)
def test_wrong_labels_are_said_clearly(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        initial_state("", parse_members(text))
    assert "\n" not in str(caught.value)
    initial_state("", parse_members("n1=a:1/Z-1.a_b/" + "m" * 64))


def test_hosts_count_not_nodes_where_a_bucket_wants_more_replicas_than_there_can_be() -> None:
    members = parse_members("n1=h:1//a,n2=h:2//a,n3=h:3//b,n4=h:4//b")
    state = initial_state("", members, PARTITIONS)
    assert (state.replicas, state.bucket("any").n, len(state.ring.replica_lists[0])) == (2, 2, 2)
    with pytest.raises(ConfigError, match="bucket b: n=3, but keys have 2 replicas, one on each host"):
        initial_state("", members, PARTITIONS, buckets=[BucketSettings("b")])
    with pytest.raises(ConfigError, match=r"n=3, but keys have 2 replicas$"):
        initial_state("", members, PARTITIONS, 2, [BucketSettings("b")])


def test_the_clusters_id_is_made_of_hosts_too() -> None:
    ids = [
        initial_state("", parse_members(text)).cluster_id
        for text in ("n1=h:1,n2=h:2", "n1=h:1//m,n2=h:2", "n1=h:1//m,n2=h:2//m", "n1=x:1//m,n2=h:2//m")
    ]
    assert len({*ids[:3]}) == 3
    assert ids[2] == ids[3]

"""The table of members: merging claims is commutative, associative and idempotent."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from kvstore.gossip.membership import Membership
from kvstore.protocol.gossip import Status, Update

NODES = ["a", "b", "c"]
updates = st.builds(Update, st.sampled_from(NODES), st.sampled_from(Status), st.integers(0, 4))


def table(claims: list[Update]) -> Membership:
    membership = Membership("a", ["b", "c"], 1, 0.0)
    for claim in claims:
        membership.accept(claim, 1.0)
    return membership


def merged(one: Membership, other: Membership) -> Membership:
    return table([*one.updates(), *other.updates()])


@given(st.lists(updates, max_size=4))
def test_the_order_of_claims_does_not_matter(claims: list[Update]) -> None:
    assert len({table(list(order)).updates() for order in permutations(claims)}) == 1


@given(st.lists(updates), st.lists(updates), st.lists(updates))
def test_tables_merge_like_a_join(a: list[Update], b: list[Update], c: list[Update]) -> None:
    x, y, z = table(a), table(b), table(c)
    assert merged(x, y).updates() == merged(y, x).updates()
    assert merged(merged(x, y), z).updates() == merged(x, merged(y, z)).updates()
    assert merged(x, x).updates() == x.updates()


@given(st.lists(updates), updates)
def test_a_claim_that_says_nothing_new_changes_nothing(claims: list[Update], claim: Update) -> None:
    membership = table([*claims, claim])
    before = membership.members()
    assert not membership.accept(claim, 2.0)
    assert membership.members() == before


@given(st.lists(updates, min_size=1))
def test_the_highest_incarnation_wins_then_the_worst_status(claims: list[Update]) -> None:
    membership = table(claims)
    for node, first in (("a", 1), ("b", 0), ("c", 0)):
        told = [(c.incarnation, c.status.value) for c in claims if c.node == node]
        row = membership[node]
        assert (row.incarnation, row.status.value) == max([*told, (first, Status.ALIVE.value)])

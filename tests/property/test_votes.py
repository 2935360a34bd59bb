"""Counting votes, against a search through everything that may still happen."""

from __future__ import annotations

from itertools import combinations

from hypothesis import example, given
from hypothesis import strategies as st

from kvstore.quorum.votes import Outcome, Quorum, count

NODES = "abcdef"
nodes = st.frozensets(st.sampled_from(NODES))
quorums = st.lists(st.builds(Quorum, nodes, st.integers(0, 4)), max_size=3)


def won(of: list[Quorum], yes: frozenset[str]) -> bool:
    return all(sum(node in yes for node in members) >= needed for members, needed in of)


def may_be_won(of: list[Quorum], yes: frozenset[str], no: frozenset[str]) -> bool:
    """Whether some of those that have not been given up may agree, so that all quorums are won."""
    others = [node for node in NODES if node not in yes and node not in no]
    return any(
        won(of, yes.union(more)) for size in range(len(others) + 1) for more in combinations(others, size)
    )


@given(quorums, nodes, nodes)
@example([Quorum(frozenset("abc"), 2), Quorum(frozenset("d"), 1)], frozenset("ab"), frozenset())
@example([Quorum(frozenset("abc"), 2)], frozenset("ab"), frozenset("ab"))
def test_a_vote_is_won_when_all_quorums_are_and_lost_when_nothing_that_may_happen_wins_them(
    of: list[Quorum], yes: frozenset[str], no: frozenset[str]
) -> None:
    if won(of, yes):
        expected = Outcome.WON
    elif may_be_won(of, yes, no):
        expected = Outcome.PENDING
    else:
        expected = Outcome.LOST
    assert count(of, yes, no) is expected


@given(quorums, nodes)
def test_where_nobody_is_given_up_a_vote_is_lost_only_if_the_members_are_too_few(
    of: list[Quorum], yes: frozenset[str]
) -> None:
    impossible = any(len(members) < needed for members, needed in of)
    assert (count(of, yes) is Outcome.LOST) == impossible


@given(quorums, nodes, nodes, st.sampled_from(NODES))
def test_an_agreement_never_makes_a_vote_worse_and_a_loss_never_better(
    of: list[Quorum], yes: frozenset[str], no: frozenset[str], node: str
) -> None:
    order = [Outcome.LOST, Outcome.PENDING, Outcome.WON]
    before = order.index(count(of, yes, no))
    assert order.index(count(of, yes | {node}, no)) >= before
    assert order.index(count(of, yes, no | {node})) <= before


@given(st.lists(st.builds(Quorum, nodes, st.integers(0, 4)), min_size=2, max_size=2), nodes, nodes)
def test_of_joint_quorums_both_must_be_won_and_one_that_is_lost_loses_the_vote(
    joint: list[Quorum], yes: frozenset[str], no: frozenset[str]
) -> None:
    each = {count([one], yes, no) for one in joint}
    expected = next(o for o in (Outcome.LOST, Outcome.PENDING, Outcome.WON) if o in each)
    assert count(joint, yes, no) is expected


@given(nodes, st.integers(0, 4), nodes, nodes, st.sampled_from(NODES))
def test_a_fallback_that_joins_a_sloppy_quorum_can_save_it_and_counts_once(
    members: frozenset[str], needed: int, yes: frozenset[str], no: frozenset[str], fallback: str
) -> None:
    before = Quorum(members, needed)
    after = Quorum(members | {fallback}, needed)
    if fallback in members:
        assert count([after], yes, no) is count([before], yes, no)
    else:
        agrees = after._replace(needed=needed - 1) if needed else after
        assert count([after], yes | {fallback}, no) is count([agrees], yes - {fallback}, no | {fallback})
        assert count([after], yes - {fallback}, no | {fallback}) is count([before], yes - {fallback}, no)

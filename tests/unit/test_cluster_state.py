"""What can be a cluster state, and what may follow on one: each rule, broken alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec.structs import replace as altered

from kvstore.config import BucketSettings, Conflict
from kvstore.errors import ConfigError, InvalidRequest
from kvstore.membership import transitions
from kvstore.membership.follow import check_follows, check_next
from kvstore.ring import (
    ClusterState,
    Member,
    Ring,
    Since,
    Step,
    check_state,
    coming_replicas,
    initial_state,
    replica_sets,
    since_after,
)

MEMBERS = [Member(f"n{i}", f"host:{7000 + i}") for i in range(1, 6)]
BUCKETS = [BucketSettings("carts"), BucketSettings("pairs", n=2, r=1, w=2)]
FIRST = initial_state("test", MEMBERS[:4], 4, 3, BUCKETS)
LISTS = FIRST.ring.replica_lists
OTHER = tuple(next(m.node for m in MEMBERS[:4] if m.node not in nodes) for nodes in LISTS)
"""By partition the member that is no replica."""
NEW = {p: (*LISTS[p][:2], OTHER[p]) for p in (1, 2)}
MOVING = transitions.begin(FIRST, NEW)
FLIPPED = transitions.advance(MOVING, [1])
MOVED = transitions.advance(FLIPPED, [1])


def with_move(state: ClusterState, **changes: object) -> ClusterState:
    return replace(state, moves=(altered(state.moves[0], **changes), *state.moves[1:]))


def test_a_change_goes_step_by_step_and_each_partition_by_itself() -> None:
    steps = [(s.epoch, [(m.partition, m.step) for m in s.moves]) for s in (MOVING, FLIPPED, MOVED)]
    assert steps == [
        (2, [(1, Step.WRITE_BOTH_READ_OLD), (2, Step.WRITE_BOTH_READ_OLD)]),
        (3, [(1, Step.WRITE_BOTH_READ_NEW), (2, Step.WRITE_BOTH_READ_OLD)]),
        (4, [(2, Step.WRITE_BOTH_READ_OLD)]),
    ]
    assert [s.ring.replica_lists[1] for s in (MOVING, FLIPPED, MOVED)] == [LISTS[1], NEW[1], NEW[1]]
    assert [s.since.partitions for s in (FIRST, MOVING, FLIPPED, MOVED)] == [
        (),
        (1, 2, 2, 1),
        (1, 3, 2, 1),
        (1, 4, 2, 1),
    ]


def test_a_request_is_current_as_long_as_its_partition_has_the_same_replicas() -> None:
    current = [[MOVED.is_current(p, "carts", epoch) for epoch in range(6)] for p in range(4)]
    assert current == [
        [False, True, True, True, True, False],
        [False, False, False, False, True, False],
        [False, False, True, True, True, False],
        [False, True, True, True, True, False],
    ]


def test_replicas_that_change_and_change_back_are_not_what_they_were() -> None:
    """A node that missed both epochs must not take requests of the one between for its own."""
    back = transitions.cancel(MOVING)
    assert back.ring == FIRST.ring
    assert not back.moves
    assert not back.is_current(1, "carts", MOVING.epoch)
    assert not back.is_current(1, "carts", FIRST.epoch)
    assert back.is_current(0, "carts", FIRST.epoch)


def test_who_is_read_and_who_is_written_to() -> None:
    old, new = LISTS[1], NEW[1]
    assert replica_sets(FIRST, 1, 3) == (old, (old,))
    assert replica_sets(MOVING, 1, 3) == (old, (old, new))
    assert replica_sets(FLIPPED, 1, 3) == (new, (old, new))
    assert replica_sets(MOVED, 1, 3) == (new, (new,))
    assert replica_sets(MOVING, 0, 3) == replica_sets(FIRST, 0, 3)
    assert coming_replicas(MOVING.moves[0], 3) == (OTHER[1],)
    assert coming_replicas(MOVING.moves[0], 2) == ()


def test_an_emptied_replica_counts_for_nothing_but_as_a_new_one() -> None:
    nodes = LISTS[0]
    state = transitions.begin(FIRST, {}, emptied={0: nodes[:1]})
    assert replica_sets(state, 0, 3) == (nodes[1:], (nodes[1:], nodes))
    assert replica_sets(state, 0, 1) == ((), (nodes[:1],)), "there was no other: nobody can be read"
    assert coming_replicas(state.moves[0], 3) == nodes[:1]
    with pytest.raises(InvalidRequest, match="cancelled"):
        transitions.cancel(state)
    filled = transitions.advance(transitions.advance(state, [0]), [0])
    assert replica_sets(filled, 0, 3) == (nodes, (nodes,))


def test_of_bucket_with_fewer_replicas_another_one_may_be_coming() -> None:
    a, b, c = LISTS[1]
    state = transitions.begin(FIRST, {1: (c, a, OTHER[1])})
    (move,) = state.moves
    assert coming_replicas(move, 3) == (OTHER[1],)
    assert coming_replicas(move, 2) == (c,)
    assert replica_sets(state, 1, 2) == ((a, b), ((a, b), (c, a)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: transitions.begin(FIRST, {4: LISTS[0]}), "0 to 3"),
        (lambda: transitions.begin(FIRST, {1: LISTS[1]}), "moves to where it is"),
        (lambda: transitions.begin(FIRST, {1: LISTS[1][:2]}), "2 nodes, not 3"),
        (lambda: transitions.begin(FIRST, {1: (*LISTS[1][:2], "n5")}), "no member"),
        (lambda: transitions.begin(FIRST, {}, FIRST.members[1:]), "no member"),
        (lambda: transitions.begin(FIRST, {}, emptied={1: (OTHER[1],)}), "none"),
        (lambda: transitions.begin(MOVING, {0: (*LISTS[0][:2], OTHER[0])}), "under way"),
        (lambda: transitions.begin(MOVING, {1: LISTS[1]}), "twice"),
        (lambda: transitions.advance(FIRST, [1]), "only what moves"),
        (lambda: transitions.advance(MOVING, []), "only what moves"),
        (lambda: transitions.cancel(FIRST), "cancelled"),
    ],
)
def test_a_change_that_cannot_be(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        make()


def test_members_come_and_go() -> None:
    more = transitions.begin(FIRST, {}, MEMBERS)
    assert [m.node for m in more.members] == ["n1", "n2", "n3", "n4", "n5"]
    assert more.since == FIRST.since
    assert transitions.begin(more, {}, FIRST.members).members == FIRST.members


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (replace(MOVING, epoch=0), "epoch"),
        (replace(MOVING, epoch=2**48), "epoch"),
        (replace(MOVING, replicas=2), "not 2"),
        (replace(MOVING, replicas=0), "not 0"),
        (replace(MOVING, ring=Ring(LISTS[:3])), "no ring"),
        (replace(MOVING, ring=Ring(())), "no ring"),
        (replace(MOVING, ring=Ring((("n1", "n1", "n2"), *LISTS[1:]))), "twice"),
        (replace(MOVING, members=MOVING.members[:3]), "no member"),
        (replace(MOVING, members=(*MOVING.members, MOVING.members[0])), "twice"),
        (replace(MOVING, moves=MOVING.moves[::-1]), "moves"),
        (replace(MOVING, moves=MOVING.moves[:1] * 2), "moves"),
        (with_move(MOVING, partition=-1), "which there is not"),
        (replace(MOVING, moves=(altered(MOVING.moves[0], partition=4),)), "which there is not"),
        (with_move(MOVING, step=Step.WRITE_BOTH_READ_NEW), "not read by"),
        (with_move(MOVING, old=NEW[1]), "not read by"),
        (with_move(MOVING, new=(*LISTS[1][:2], "n5")), "no member"),
        (with_move(MOVING, new=LISTS[1][:2]), "2 nodes"),
        (with_move(MOVING, new=LISTS[1]), "where it is"),
        (with_move(MOVING, emptied=(OTHER[1],)), "emptied"),
        (with_move(MOVING, emptied=LISTS[1][:1] * 2), "emptied"),
        (replace(MOVING, since=Since((1, 1, 2))), "for 4 partitions"),
        (replace(MOVING, since=Since((1, 1, 1, 1))), "left out"),
        (replace(MOVING, since=Since((1, 3, 2, 1))), "at epoch 3"),
        (replace(MOVING, since=Since((1, 0, 2, 1))), "at epoch 0"),
        (replace(MOVING, since=Since((), (("b", 3),))), "at epoch 3"),
        (replace(MOVING, since=Since((), (("b", 1), ("a", 1)))), "order"),
        (replace(MOVING, buckets=MOVING.buckets[::-1]), "order"),
        (replace(MOVING, buckets=(BucketSettings("carts", n=4),)), "n=4"),
    ],
)
def test_what_can_be_no_cluster_state(state: ClusterState, reason: str) -> None:
    check_state(MOVING)
    with pytest.raises(ConfigError, match=reason):
        check_state(state)
    with pytest.raises(InvalidRequest, match=reason):
        check_follows(FIRST, state)


def next_of(state: ClusterState, **changes: object) -> ClusterState:
    """As if the rules did not hold: the next epoch, with what is said of replica sets set right."""
    found = replace(state, epoch=state.epoch + 1, **changes)  # type: ignore[arg-type]
    return replace(found, since=since_after(state, found))


TURNED = (*LISTS[:1], LISTS[1][::-1], *LISTS[2:])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (FIRST, next_of(FIRST, cluster_id="another"), "cluster"),
        (FIRST, replace(MOVING, ring=Ring(LISTS * 2), moves=(), since=Since()), "8 partitions"),
        (FIRST, next_of(FIRST, ring=Ring(tuple(x[:2] for x in LISTS)), replicas=2, buckets=()), "2 replicas"),
        (FIRST, next_of(FIRST, ring=Ring(TURNED)), "one step"),
        (FIRST, replace(MOVING, since=Since((1, 2, 1, 1))), "which replicas have changed"),
        (FIRST, replace(FLIPPED, epoch=2, since=Since((1, 2, 2, 1))), "one step"),
        (FIRST, replace(MOVING, buckets=()), "pairs"),
        (FIRST, next_of(FIRST, buckets=()), "pairs"),
        (FIRST, next_of(FIRST, buckets=(*BUCKETS, BucketSettings("x", conflict=Conflict.LWW))), "bucket x"),
        (MOVING, next_of(MOVING, buckets=(replace(BUCKETS[0], w=3), BUCKETS[1])), "while partitions move"),
        (MOVING, next_of(MOVING, moves=(), ring=MOVED.ring), "one step"),
        (MOVING, next_of(MOVING, moves=(altered(MOVING.moves[0], new=LISTS[1][::-1]),)), "one step"),
        (FLIPPED, next_of(FLIPPED, moves=MOVING.moves, ring=MOVING.ring), "one step"),
        (FLIPPED, next_of(FLIPPED, moves=FLIPPED.moves[1:], ring=MOVING.ring), "one step"),
        (FIRST, FIRST, "epoch 1 does not follow"),
        (MOVING, FIRST, "epoch 1 does not follow"),
    ],
)
def test_what_may_not_follow(old: ClusterState, new: ClusterState, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        check_follows(old, new)


def test_who_has_missed_epochs_takes_up_what_others_have_decided() -> None:
    check_follows(FIRST, FLIPPED)
    check_follows(FIRST, MOVED)
    with pytest.raises(InvalidRequest, match="epoch 3 is not the next"):
        check_next(FIRST, FLIPPED)


def test_settings_of_buckets_that_concern_no_replica_set_change_when_nothing_moves() -> None:
    check_follows(FIRST, next_of(FIRST, buckets=(replace(BUCKETS[0], w=3, r=1, ttl=5), BUCKETS[1])))

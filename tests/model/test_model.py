"""The protocol of membership, explored completely for small bounds; and each planted defect is found.

KVSTORE_MODEL=1 (`make model`) explores the larger bounds as well.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec.structs import replace as altered

from kvstore.membership import acceptor, tracker, transitions
from kvstore.membership.acceptor import Record, Reply
from kvstore.membership.attempt import Attempt
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.paxos import Accept, Question
from kvstore.quorum.actors import Actors
from kvstore.quorum.ownership import Ownership
from kvstore.quorum.votes import Quorum
from kvstore.ring import Since, replica_sets
from kvstore.versions import EMPTY, Sibling, Version, join, reconcile, write
from tests.model import steps
from tests.model.decision import Decision, after_a_removal, race
from tests.model.explorer import Explored
from tests.model.steps import BACK, MEMBERS, NODES, ONE, TWO, Steps

Patch = pytest.MonkeyPatch
large = pytest.mark.skipif("KVSTORE_MODEL" not in os.environ, reason="make model")


def shown(what: str, found: Explored, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{what}: {found.states} states, {found.steps} steps")
    assert not found.wrong, "\n".join((found.wrong, *found.way))


SMALL: dict[str, Callable[[], Decision | Steps]] = {
    "two operators decide at once, one crash": race,
    "the epoch after a member was removed": after_a_removal,
    "a key of a partition that moves": Steps,
    "a key of one that does not": lambda: Steps(tracked=1),
}
LARGE: dict[str, Callable[[], Decision | Steps]] = {
    "the epoch after a member was removed, one crash": lambda: after_a_removal(crashes=1),
    "a key of a partition that moves to either of two lists": lambda: Steps(changes=(TWO,)),
    "likewise to one, and may be cancelled": lambda: Steps(cancels=True),
    "two operators, two ballots of each": lambda: race(tries=2),
    "a key of a partition that moves away and back": lambda: Steps(changes=(ONE, BACK), crashes=0),
}


@pytest.mark.parametrize("what", SMALL)
def test_every_interleaving(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown(what, SMALL[what]().explore(), capsys)


@large
@pytest.mark.parametrize("what", LARGE)
def test_every_interleaving_of_larger_bounds(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown(what, LARGE[what]().explore(), capsys)


# planted in the steps


def flip_before_proof(patch: Patch) -> None:
    patch.setattr(tracker.Tracker, "_is_proven", lambda *_: True)


def step_over_too_early(patch: Patch) -> None:
    patch.setattr(tracker.Tracker, "is_over_before", lambda *_: True)


def only_one_has_taken_it_up(patch: Patch) -> None:
    patch.setattr(tracker, "strict_quorums", lambda _: {(3, 3)})


def middle_step_left_out(patch: Patch) -> None:
    def both(state: ClusterState, partitions: list[int]) -> ClusterState:
        found, epoch = advance(advance(state, partitions), partitions), state.epoch + 1
        return replace(found, epoch=epoch, since=Since((epoch, *found.since.partitions[1:])))

    advance = transitions.advance
    patch.setattr(tracker, "advance", both)
    patch.setattr(steps, "check_follows", lambda *_: None)  # which would refuse it


def epoch_not_checked(patch: Patch) -> None:
    patch.setattr(Ownership, "check_epoch_of", lambda *_: None)


def new_replicas_not_waited_for(patch: Patch) -> None:
    sets = replica_sets
    patch.setattr(steps, "replica_sets", lambda *args: sets(*args)._replace(written=sets(*args).written[:1]))


def proof_by_replicas_that_are_behind(patch: Patch) -> None:
    patch.setattr(Steps, "proves_by_any", True)


def asked_by_a_later_epoch(patch: Patch) -> None:
    patch.setattr(Steps, "asks_later", True)


@pytest.mark.parametrize(
    "plant",
    [
        proof_by_replicas_that_are_behind,
        asked_by_a_later_epoch,
        flip_before_proof,
        step_over_too_early,
        only_one_has_taken_it_up,
        middle_step_left_out,
        epoch_not_checked,
        new_replicas_not_waited_for,
    ],
)
def test_a_defect_of_the_steps_is_found(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    found = Steps().explore()
    assert "misses the write" in found.wrong
    assert found.way


# planted in the decision


def test_a_ballot_that_is_not_durable_is_found() -> None:
    decision = race()
    decision.forgets = True
    assert "two states are decided" in decision.explore().wrong


def test_a_removed_member_that_counts_is_found(monkeypatch: Patch) -> None:
    """It is asked, it answers, and its vote is one of those that are needed."""
    monkeypatch.setattr(ClusterState, "member", lambda *_: MEMBERS[0])
    everybody = Quorum(frozenset(NODES), 2)
    monkeypatch.setattr(Attempt, "_majority", property(lambda _: (everybody,)))
    decision = after_a_removal()
    decision.asks_removed = True
    assert "two states are decided" in decision.explore().wrong


def test_a_proposer_that_does_not_finish_what_it_finds_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Attempt, "decision", property(lambda self: self.value))
    assert "two states are decided" in race().explore().wrong


def test_an_acceptor_that_breaks_its_promise_is_found(monkeypatch: Patch) -> None:
    accept = acceptor._accept

    def eager(state: ClusterState, record: Record, current: Record, question: Accept) -> Reply:
        return accept(state, record, altered(current, promised=question.ballot), question)

    monkeypatch.setattr(acceptor, "_accept", eager)
    assert "two states are decided" in race().explore().wrong


def test_an_acceptor_that_answers_for_an_epoch_it_has_left_is_found(monkeypatch: Patch) -> None:
    """It has thrown its record of that instance away, and answers as if it had said nothing."""
    answered = acceptor.answer

    def answer(me: str, state: ClusterState, record: Record, question: Question) -> Reply:
        if question.epoch <= state.epoch:
            before = next(s for s in decision._states.things if s.epoch == question.epoch - 1)
            return answered(me, before, Record(), question)
        return answered(me, state, record, question)

    monkeypatch.setattr(acceptor, "answer", answer)
    decision = after_a_removal()
    assert "two states are decided" in decision.explore().wrong


# actors: what a replica has minted in its first life, before its partition went away and came back


def _lost(renewed: bool) -> bool:
    """Whether a write that others hold is lost when a node that gains the partition writes blindly."""
    actors = Actors("d", random.Random(1))

    def minted(known: Version, value: bytes) -> Version:
        return write(known, (), Sibling(actors.mint(0, known.context), value, 1, 0, ""))

    first = minted(EMPTY, b"first")  # at d, and at a and b, who keep it; d gives the partition away
    if renewed:
        actors.renew(0)
    second = minted(EMPTY, b"second")  # d has it back, and is not filled yet
    both = reconcile(first, second)
    assert join(first.context, second.context) == both.context
    return {sibling.value for sibling in both.siblings} != {b"first", b"second"}


def test_an_actor_that_is_not_renewed_loses_a_write_and_a_new_one_does_not() -> None:
    """Minting reads no message and waits for nobody, so this order is the only one: nothing to explore."""
    assert _lost(renewed=False)
    assert not _lost(renewed=True)

"""Deciding on an epoch in time, and what a tracker makes of what it hears."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kvstore.config import BucketSettings
from kvstore.errors import InvalidRequest
from kvstore.membership import transitions
from kvstore.membership.acceptor import NOTHING, Record, after_loss, answer
from kvstore.membership.proposer import Decided, GaveUp, Output, Persist, Proposer, Send
from kvstore.membership.tracker import Tracker, strict_quorums
from kvstore.protocol.paxos import Accept, Accepted, Ballot, OtherEpoch, Outbid, Prepare, Promise
from kvstore.ring import ClusterState, Member, initial_state

MEMBERS = [Member(f"n{i}", f"host:{7000 + i}") for i in range(1, 5)]
FIRST = initial_state("test", MEMBERS, 4, 3)
LISTS = FIRST.ring.replica_lists
OTHER = [next(m.node for m in MEMBERS if m.node not in nodes) for nodes in LISTS]
CHANGES = [transitions.begin(FIRST, {p: (*LISTS[p][:2], OTHER[p])}) for p in range(4)]


class Members:
    """Proposers joined by a list of messages, each of which is lost with a probability."""

    def __init__(self, seed: int, loss: float) -> None:
        self.rng = random.Random(seed)
        self.loss = loss
        self.disks = {m.node: NOTHING for m in MEMBERS}
        self.proposers = {m.node: self.start(m.node) for m in MEMBERS}
        self.ends: dict[str, Decided | GaveUp] = {}
        self.sent: list[tuple[str, str, object]] = []
        self.now = 0.0

    def start(self, node: str) -> Proposer:
        return Proposer(node, FIRST, self.disks[node], self.rng)

    def carry_out(self, node: str, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Persist(record):
                    self.disks[node] = record
                case Send(to, message):
                    self.sent.append((node, to, message))
                case Decided() | GaveUp():
                    assert node not in self.ends
                    self.ends[node] = output

    def propose(self, node: str, value: ClusterState, deadline: float = 60.0) -> None:
        self.carry_out(node, self.proposers[node].propose(value, deadline, self.now))

    def run(self) -> None:
        """Deliver in any order until nothing is under way and nobody waits for anything."""
        while True:
            while self.sent:
                sender, to, message = self.sent.pop(self.rng.randrange(len(self.sent)))
                if self.rng.random() < self.loss:
                    continue
                receiver = self.proposers[to]
                if isinstance(message, Prepare | Accept):
                    self.carry_out(to, receiver.on_question(sender, message))
                else:
                    assert isinstance(message, Promise | Accepted | Outbid | OtherEpoch)
                    self.carry_out(to, receiver.on_answer(sender, message, self.now))
            due = min(proposer.due for proposer in self.proposers.values())
            if due == float("inf"):
                return
            self.now = due
            for node, proposer in self.proposers.items():
                if proposer.due <= self.now:
                    self.carry_out(node, proposer.on_timer(self.now))


@pytest.mark.parametrize("seed", range(40))
def test_all_who_duel_hear_of_the_same_winner(seed: int) -> None:
    members = Members(seed, loss=0.2)
    for node, value in zip(("n1", "n2", "n3"), CHANGES, strict=False):
        members.propose(node, value)
    members.run()
    ends = list(members.ends.values())
    states = {end.state for end in ends if isinstance(end, Decided)}
    assert (len(ends), len(states)) == (3, 1), "and nobody gives up in a minute"
    assert sum(isinstance(end, Decided) and end.mine for end in ends) <= 1


def test_what_a_proposer_left_half_done_is_finished_by_the_next() -> None:
    members = Members(1, loss=0.0)
    members.propose("n1", CHANGES[0])
    while not any(isinstance(message, Accept) for _, _, message in members.sent):
        sender, to, message = members.sent.pop(0)
        receiver = members.proposers[to]
        if isinstance(message, Prepare):
            members.carry_out(to, receiver.on_question(sender, message))
        else:
            assert isinstance(message, Promise)
            members.carry_out(to, receiver.on_answer(sender, message, 0.0))
    members.sent.clear()  # nobody has accepted but n1 itself, which stops and starts again
    members.proposers["n1"] = members.start("n1")
    members.loss = 0.0
    members.propose("n1", CHANGES[1])
    members.run()
    assert members.ends == {"n1": Decided(CHANGES[0], mine=False)}


def test_without_a_majority_it_gives_up_at_the_deadline() -> None:
    members = Members(1, loss=1.0)
    members.propose("n1", CHANGES[0], deadline=5.0)
    members.run()
    assert (members.ends, members.now) == ({"n1": GaveUp()}, 5.0)


def test_a_record_is_on_the_disk_before_anything_is_said() -> None:
    proposer = Proposer("n1", FIRST, NOTHING, random.Random(1))
    assert [type(o) for o in proposer.propose(CHANGES[0], 9.0, 0.0)] == [Persist, Send, Send, Send]
    assert [type(o) for o in proposer.on_question("n2", Prepare(2, Ballot(5, "n2")))] == [Persist, Send]
    assert [type(o) for o in proposer.on_question("n2", Prepare(2, Ballot(5, "n2")))] == [Send]


def test_a_member_that_lost_its_record_votes_in_no_epoch_that_it_may_have_voted_in() -> None:
    record = after_loss(FIRST)
    assert isinstance(answer("n1", FIRST, record, Prepare(2, Ballot(9, "n2"))).answer, Outbid)
    now = CHANGES[0]
    reply = answer("n1", now, record, Prepare(3, Ballot(1, "n2")))
    assert reply.answer == Promise(3, Ballot(1, "n2"), None)
    proposer = Proposer("n1", FIRST, record, random.Random(1))
    assert proposer.propose(CHANGES[0], 5.0, 0.0) == []
    assert proposer.on_timer(proposer.due) == [GaveUp()]


def test_who_answers_for_which_epoch() -> None:
    prepare = Prepare(2, Ballot(1, "n2"))
    assert isinstance(answer("n1", FIRST, NOTHING, prepare).answer, Promise)
    assert answer("n9", FIRST, NOTHING, prepare).answer == OtherEpoch(2, 1), "it is no member"
    assert answer("n1", CHANGES[0], NOTHING, prepare).answer == OtherEpoch(2, 2), "that is decided"
    ahead = Prepare(3, Ballot(1, "n2"))
    assert answer("n1", FIRST, NOTHING, ahead).answer == OtherEpoch(3, 1)
    assert answer("n1", FIRST, Record(5), prepare).answer == OtherEpoch(2, 1), "its state is an old one"


def test_what_cannot_be_the_next_state_is_not_accepted() -> None:
    wrong = replace(CHANGES[0], cluster_id="another")
    with pytest.raises(InvalidRequest, match="cluster"):
        answer("n1", FIRST, NOTHING, Accept(2, Ballot(1, "n2"), wrong))


# the tracker


def test_a_step_is_over_when_no_quorum_is_left_of_those_who_have_not_gone_on() -> None:
    state = CHANGES[1]
    (move,) = state.moves
    tracker = Tracker(state)
    tracker.on_proven(OTHER[1], 1, state.epoch)
    for node, epoch in ((move.old[0], 2), (OTHER[1], 2), (move.old[1], 1), ("n9", 2)):
        tracker.on_epoch(node, epoch)
        assert tracker.next() is None
    tracker.on_epoch(move.old[2], 2)
    flipped = tracker.next()
    assert flipped == transitions.advance(state, [1])
    tracker.on_state(flipped)
    assert tracker.next() is None
    for node in move.new[1:]:
        tracker.on_epoch(node, 3)
    assert tracker.next() is None, "reads of the step before are by the old list"
    tracker.on_epoch(move.old[2], 3)
    assert tracker.next() == transitions.advance(flipped, [1])


def test_a_proof_of_an_earlier_move_says_nothing() -> None:
    state = CHANGES[1]
    tracker = Tracker(state)
    tracker.on_proven(OTHER[1], 1, state.epoch)
    again = transitions.begin(transitions.cancel(state), {1: state.moves[0].new})
    tracker.on_state(again)
    for node in LISTS[1]:
        tracker.on_epoch(node, again.epoch)
    assert tracker.next() is None
    tracker.on_proven(OTHER[1], 1, again.epoch)
    assert tracker.next() is not None


def test_the_least_quorums_of_all_buckets_count() -> None:
    buckets = (
        BucketSettings("all", r=1, w=3),
        BucketSettings("loose", n=3, r=1, w=1),
        BucketSettings("two", 2, 2, 1),
    )
    assert strict_quorums(replace(FIRST, buckets=buckets)) == {(3, 2), (3, 1), (2, 1)}

"""Nodes decide on the next cluster state: by messages, with their disks, and whoever misses it."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from kvstore.config import BucketSettings
from kvstore.errors import ChangeLost, ChangeUnknown, InvalidRequest, KVError, Overloaded, StorageFull
from kvstore.lsm import Durability, Options
from kvstore.membership.acceptor import MAX_LEAP
from kvstore.membership.stored_record import PAXOS_RECORD
from kvstore.membership.transitions import with_bucket
from kvstore.node.state_store import CLUSTER_STATE
from kvstore.protocol.paxos import (
    MAX_ROUND,
    Accept,
    Accepted,
    Ballot,
    OtherEpoch,
    Outbid,
    PaxosMessage,
    Prepare,
    Promise,
)
from kvstore.protocol.spread import NewState, StateWanted
from kvstore.protocol.table import PeerMessage
from kvstore.quorum.replica import Replica
from kvstore.ring import ClusterState
from tests.unit.quorum_cluster import Cluster

Outcomes = list[ClusterState | KVError]


def named(state: ClusterState, name: str) -> BucketSettings:
    """What differs from a bucket that nobody has configured."""
    return replace(state.bucket(name), r=1, ttl=60)


def configured(state: ClusterState, name: str) -> ClusterState:
    return with_bucket(state, named(state, name))


def ask(cluster: Cluster, node: str, name: str, timeout: float = 5.0) -> Outcomes:
    """An operator wants a bucket configured, through a node."""
    outcomes: Outcomes = []
    change = partial(configured, name=name)
    cluster.hosts[node].node.on_change(change, outcomes.append, timeout, cluster.instant)
    return outcomes


def settle(cluster: Cluster, seconds: float = 0.0) -> None:
    cluster.run()
    cluster.move(seconds)
    cluster.run()


def states(cluster: Cluster) -> list[ClusterState]:
    return [host.node.state for host in cluster.hosts.values()]


def says(cluster: Cluster, sender: str, message: PaxosMessage) -> list[PeerMessage]:
    """What n1 answers to a message of another member."""
    cluster.hosts["n1"].node.on_frame(sender, [message], cluster.instant)
    answers: list[PeerMessage] = []

    def keep(frm: str, to: str, answer: PeerMessage) -> bool:
        if (frm, to) == ("n1", sender):
            answers.append(answer)
        return False

    passes, cluster.passes = cluster.passes, keep
    cluster.run()
    cluster.passes = passes
    return answers


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_a_change_is_decided_on_and_taken_up_by_all(nodes: int) -> None:
    cluster = Cluster(nodes) if nodes >= 3 else one_or_two(nodes)
    outcomes = ask(cluster, "n1", "carts")
    settle(cluster, 3.0)
    (state,) = outcomes
    assert isinstance(state, ClusterState)
    assert (state.epoch, state.bucket("carts").ttl) == (2, 60)
    assert states(cluster) == [state] * nodes


def one_or_two(nodes: int) -> Cluster:
    cluster = Cluster()
    cluster.restart(*(f"n{i}" for i in range(1, nodes + 1)))
    return cluster


def test_one_of_two_operators_wins_and_the_other_is_told() -> None:
    cluster = Cluster(5)
    outcomes = [ask(cluster, node, node) for node in ("n1", "n4")]
    settle(cluster, 10.0)
    won = [found for (found,) in outcomes if isinstance(found, ClusterState)]
    lost = [found for (found,) in outcomes if isinstance(found, ChangeLost)]
    assert len(won) == len(lost) == 1
    assert lost[0].epoch == 2
    assert states(cluster) == won * 5


def test_a_node_makes_one_change_at_a_time() -> None:
    cluster = Cluster()
    first, second = ask(cluster, "n1", "a"), ask(cluster, "n1", "b")
    assert isinstance(second[0], Overloaded)
    settle(cluster, 3.0)
    assert isinstance(first[0], ClusterState)
    third = ask(cluster, "n1", "b")
    settle(cluster, 3.0)
    assert isinstance(third[0], ClusterState)
    assert {bucket.name for bucket in third[0].buckets} == {"a", "b"}


def test_what_cannot_be_the_next_state_is_refused_before_anybody_is_asked() -> None:
    cluster = Cluster()
    outcomes: Outcomes = []
    other_n = partial(with_bucket, settings=BucketSettings("b", n=2, r=1, w=2))
    cluster.hosts["n1"].node.on_change(other_n, outcomes.append, 5.0, cluster.instant)
    assert isinstance(outcomes[0], InvalidRequest)
    assert not cluster.hosts["n1"].sent


def test_who_was_away_learns_the_state_when_it_is_back() -> None:
    cluster = Cluster()
    cluster.kill("n3")
    ask(cluster, "n1", "carts")
    settle(cluster, 3.0)
    assert [state.epoch for state in states(cluster)] == [2, 2, 1]
    cluster.revive("n3")
    assert len({state.epoch for state in states(cluster)}) == 1


def test_without_a_majority_nothing_is_known_and_a_later_proposer_finishes_it() -> None:
    cluster = Cluster()
    cluster.passes = lambda _frm, _to, message: not isinstance(message, Accepted)
    first = ask(cluster, "n1", "first")
    settle(cluster, 6.0)
    assert isinstance(first[0], ChangeUnknown)
    assert {state.epoch for state in states(cluster)} == {1}
    cluster.passes = lambda *_: True
    second = ask(cluster, "n2", "second")
    settle(cluster, 10.0)
    assert isinstance(second[0], ChangeLost)
    assert all([bucket.name for bucket in state.buckets] == ["first"] for state in states(cluster))


@pytest.mark.parametrize("durability", [Durability.SYNC, Durability.INTERVAL])
def test_nothing_is_said_before_it_is_on_the_disk(durability: Durability) -> None:
    """Also where acknowledgements of writes do not wait for the disk: two states for one epoch end it all."""
    cluster = Cluster(options=Options(durability=durability))
    cluster.stuck.add("n1")
    assert not says(cluster, "n2", Prepare(2, Ballot(1, "n2")))
    cluster.stuck.clear()
    cluster.run()
    cluster.stuck.add("n1")
    ask(cluster, "n1", "b")
    assert not [m for _, m in cluster.hosts["n1"].sent if isinstance(m, Prepare)]


def test_a_promise_is_kept_over_a_restart() -> None:
    cluster = Cluster()
    assert says(cluster, "n2", Prepare(2, Ballot(5, "n2"))) == [Promise(2, Ballot(5, "n2"), None)]
    cluster.start_again()
    assert says(cluster, "n3", Prepare(2, Ballot(4, "n3"))) == [Outbid(2, Ballot(4, "n3"), Ballot(5, "n2"))]
    value = configured(cluster.state, "b")
    assert says(cluster, "n2", Accept(2, Ballot(5, "n2"), value)) == [Accepted(2, Ballot(5, "n2"))]
    cluster.start_again()
    (promise,) = says(cluster, "n3", Prepare(2, Ballot(6, "n3")))
    assert isinstance(promise, Promise)
    assert promise.vote is not None
    assert (promise.vote.ballot, promise.vote.value) == (Ballot(5, "n2"), value)


def test_a_full_disk_says_nothing_and_tells_its_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()

    def full(*_: object) -> int:
        raise StorageFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(Replica, "write", full)
        assert not says(cluster, "n2", Prepare(2, Ballot(5, "n2")))
        assert isinstance(ask(cluster, "n1", "b")[0], StorageFull)
    # the promise that was not kept is none
    assert says(cluster, "n3", Prepare(2, Ballot(4, "n3"))) == [Promise(2, Ballot(4, "n3"), None)]


def test_a_record_that_cannot_be_read_promises_nothing_to_anybody() -> None:
    cluster = Cluster()
    cluster.start_again(lambda: cluster.put_on_disk("n1", PAXOS_RECORD, b"\1garbage"))
    assert says(cluster, "n2", Prepare(2, Ballot(5, "n2"))) == [OtherEpoch(2, 1)]
    outcomes = ask(cluster, "n2", "b")
    settle(cluster, 5.0)
    assert isinstance(outcomes[0], ClusterState)
    assert len({state.epoch for state in states(cluster)}) == 1


def test_one_wrong_ballot_does_not_use_up_all_rounds() -> None:
    cluster = Cluster()
    for wrong in (MAX_ROUND, MAX_LEAP + 1):
        found = says(cluster, "n2", Prepare(2, Ballot(wrong, "n2")))
        assert found == [Outbid(2, Ballot(wrong, "n2"), Ballot(0, ""))]
    for times in (1, 2, 3):
        says(cluster, "n2", Prepare(2, Ballot(times * MAX_LEAP, "n2")))
    outcomes = ask(cluster, "n3", "b", 30.0)
    settle(cluster, 30.0)
    assert isinstance(outcomes[0], ClusterState)
    cluster.dead.add("n2")  # a majority is n1, which is far beyond, and n3 alone
    for times in (1, 2, 3):
        says(cluster, "n2", Prepare(3, Ballot(times * MAX_LEAP, "n2")))
    outcomes = ask(cluster, "n3", "c", 60.0)
    settle(cluster, 60.0)
    assert isinstance(outcomes[0], ClusterState)


def test_what_a_peer_cannot_say_is_counted_and_changes_nothing() -> None:
    cluster = Cluster()
    other = replace(configured(cluster.state, "b"), cluster_id="another")
    assert not says(cluster, "n2", Prepare(2, Ballot(1, "n3")))
    assert not says(cluster, "n2", Accept(2, Ballot(1, "n2"), other))
    cluster.hosts["n1"].node.on_frame("n2", [NewState(other)], cluster.instant)
    settle(cluster)
    assert cluster.hosts["n1"].status().counters.frames_refused == 3
    assert cluster.hosts["n1"].node.state == cluster.state


def test_a_document_is_sent_once_to_who_asks_for_it_all_the_time() -> None:
    cluster = Cluster()
    ask(cluster, "n1", "carts")
    settle(cluster, 3.0)
    documents = 0

    def count(_frm: str, _to: str, message: PeerMessage) -> bool:
        nonlocal documents
        documents += isinstance(message, NewState)
        return True

    cluster.passes = count
    n1 = cluster.hosts["n1"].node
    for sent in (1, 2):
        n1.on_frame("n2", [StateWanted(1)] * 100, cluster.instant)
        cluster.run()
        assert documents == sent
        cluster.now += 1.0


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_there_is_one_state_for_each_epoch_and_all_come_to_the_last(seed: int) -> None:
    """Several operators at once, lost messages, disks that stand still, nodes that stop and start."""
    rng = random.Random(seed)
    cluster = Cluster(rng.choice((3, 4, 5)))
    restarts = rng.sample(range(60), 2)
    seen: dict[int, ClusterState] = {}
    outcomes: Outcomes = []
    for turn in range(60):
        names = list(cluster.hosts)
        cluster.passes = lambda *_: rng.random() > 0.2
        cluster.stuck = {name for name in names if rng.random() < 0.2}
        cluster.dead = set(rng.sample(names, rng.choice((0, 0, 0, 1, 2))))
        for node in rng.sample(cluster.live(), min(rng.choice((0, 1, 2)), len(cluster.live()))):
            change = partial(configured, name=f"b{turn}-{node}")
            cluster.hosts[node].node.on_change(change, outcomes.append, rng.uniform(0.5, 3), cluster.instant)
        settle(cluster, rng.uniform(0, 2))
        if turn in restarts:
            cluster.start_again()
        for state in states(cluster):
            assert seen.setdefault(state.epoch, state) == state
    for found in outcomes:
        if isinstance(found, ClusterState):
            assert seen.setdefault(found.epoch, found) == found
    cluster.passes = lambda *_: True
    cluster.stuck, cluster.dead = set(), set()
    settle(cluster, 60.0)
    last = ask(cluster, "n1", "last")
    settle(cluster, 30.0)
    if isinstance(last[0], ChangeLost):  # something that had been accepted was finished first
        last = ask(cluster, "n1", "last")
        settle(cluster, 30.0)
    assert states(cluster) == last * len(cluster.hosts)
    assert max(seen) > 2


def test_a_change_that_cannot_be_taken_up_in_time_is_not_known_to_its_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk takes the record of the acceptor, and no more: nobody else would tell when it has space."""
    cluster = Cluster()
    write = Replica.write

    def full(self: Replica, entries: Any) -> int:
        if any(key == CLUSTER_STATE for key, _ in entries):
            raise StorageFull("full")
        return write(self, entries)

    monkeypatch.setattr(Replica, "write", full)
    outcomes = ask(cluster, "n1", "carts", 2.0)
    settle(cluster, 1.0)
    assert outcomes == []
    settle(cluster, 2.0)
    assert isinstance(outcomes[0], ChangeUnknown)
    monkeypatch.undo()
    settle(cluster, 5.0)
    assert {state.epoch for state in states(cluster)} == {2}
    assert len(outcomes) == 1

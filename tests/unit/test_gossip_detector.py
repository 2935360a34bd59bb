"""One failure detector, message by message: who is pinged, what is believed, what is persisted first."""

from __future__ import annotations

import random

import pytest

from kvstore.gossip import FailureDetector, GossipSettings, Output, PersistIncarnation, Send, StatusChanged
from kvstore.protocol.gossip import Ack, GossipMessage, Nack, Ping, PingRequest, PushPull, Status, Update

ALIVE, SUSPECT, DEAD = Status.ALIVE, Status.SUSPECT, Status.DEAD


@pytest.fixture
def detector() -> FailureDetector:
    """Node a of a, b, c, d in its third life, started at 100 s; its own timers come later."""
    detector = FailureDetector("a", ["d", "c", "b"], 3, GossipSettings(), random.Random(1))
    assert detector.next_deadline() == float("inf")
    detector.start(100.0)
    return detector


def sent(outputs: list[Output], to: str) -> list[GossipMessage]:
    return [output.message for output in outputs if isinstance(output, Send) and output.to == to]


def pings(outputs: list[Output], to: str) -> list[Ping]:
    return [message for message in sent(outputs, to) if isinstance(message, Ping)]


def run(detector: FailureDetector, until: float) -> list[Output]:
    """Let its timers fire in time."""
    outputs = []
    while (due := detector.next_deadline()) <= until:
        outputs += detector.on_timer(due)
    return outputs


def test_it_starts_by_telling_everyone_and_asking_for_their_tables() -> None:
    detector = FailureDetector("a", ["c", "b"], 3, GossipSettings(), random.Random(1))
    table = (Update("a", ALIVE, 3), Update("b", ALIVE, 0), Update("c", ALIVE, 0))
    assert detector.start(100.0) == [Send(peer, PushPull(table, reply=True)) for peer in ("b", "c")]
    assert [(m.node, m.status, m.incarnation, m.since) for m in detector.members()] == [
        ("a", ALIVE, 3, 100.0),
        ("b", ALIVE, 0, 100.0),
        ("c", ALIVE, 0, 100.0),
    ]
    assert detector.next_deadline() <= 100.5


def large() -> FailureDetector:
    """Node a of 1,000, with members from b0 on."""
    return FailureDetector("a", [f"b{i}" for i in range(999)], 3, GossipSettings(), random.Random(1))


def tables(outputs: list[Output]) -> list[PushPull]:
    return [o.message for o in outputs if isinstance(o, Send) and isinstance(o.message, PushPull)]


def test_in_a_large_cluster_it_greets_all_and_exchanges_rows_with_few() -> None:
    detector = large()
    greetings = tables(detector.start(100.0))
    assert len(greetings) == 999
    assert all(Update("a", ALIVE, 3) in greeting.updates for greeting in greetings)
    assert 10 < sum(greeting.reply for greeting in greetings) < 60
    assert all(len(greeting.updates) <= (18 if greeting.reply else 2) for greeting in greetings)
    new = [f"c{i}" for i in range(999)]
    assert 10 < sum(greeting.reply for greeting in tables(detector.on_members(new, 101.0))) < 60


def test_of_a_large_table_the_doubtful_rows_are_told_first() -> None:
    detector = large()
    detector.start(100.0)
    doubtful = tuple(Update(f"b{i}", SUSPECT, 1) for i in range(5))
    detector.on_message("b9", PushPull(doubtful, reply=False), 100.0)
    (answer,) = tables(detector.on_message("b9", PushPull((), reply=True), 100.0))
    assert answer.updates[:2] == (Update("a", ALIVE, 3), Update("b9", ALIVE, 0))
    assert set(doubtful) < set(answer.updates)
    assert len({update.node for update in answer.updates}) == len(answer.updates) == 18


def test_a_ping_is_answered_by_its_target_only(detector: FailureDetector) -> None:
    (ack,) = sent(detector.on_message("b", Ping(9, "a", ()), 100.0), "b")
    assert isinstance(ack, Ack)
    assert (ack.sequence, ack.updates[0]) == (9, Update("a", ALIVE, 3))
    assert detector.on_message("b", Ping(9, "c", ()), 100.0) == []


def test_a_table_is_answered_with_the_own_one_when_that_is_wanted(detector: FailureDetector) -> None:
    (answer,) = sent(detector.on_message("b", PushPull((Update("b", ALIVE, 2),), reply=True), 100.0), "b")
    assert isinstance(answer, PushPull)
    assert not answer.reply
    assert {u.node: u.incarnation for u in answer.updates} == {"a": 3, "b": 2, "c": 0, "d": 0}
    assert detector.on_message("b", PushPull(answer.updates, reply=False), 100.0) == []


def test_strangers_and_what_is_said_of_them_are_ignored(detector: FailureDetector) -> None:
    before = detector.members()
    assert detector.on_message("x", Ping(9, "a", (Update("b", ALIVE, 9),)), 100.0) == []
    assert detector.on_link_lost("x", 100.0) == []
    detector.on_message("b", Ack(0, (Update("x", DEAD, 9),)), 100.0)
    assert detector.on_message("b", PingRequest(1, "x", ()), 100.0) == []
    assert detector.members() == before
    with pytest.raises(KeyError):
        detector.status("x")


def test_a_lost_link_is_no_verdict_but_a_reason_to_probe(detector: FailureDetector) -> None:
    outputs = detector.on_link_lost("b", 100.0)
    assert [type(output) for output in outputs] == [Send]
    (ping,) = pings(outputs, "b")
    assert detector.on_link_lost("b", 100.0) == [], "a probe is under way"
    detector.on_message("b", Ack(ping.sequence, (Update("b", ALIVE, 1),)), 100.01)
    assert StatusChanged("b", ALIVE, SUSPECT) not in run(detector, 100.6)


def test_a_silent_node_is_probed_through_others_then_suspected(detector: FailureDetector) -> None:
    (ping,) = pings(detector.on_link_lost("b", 100.0), "b")
    outputs = run(detector, 100.25)
    about = (Update("a", ALIVE, 3), Update("b", ALIVE, 0))
    for helper in ("c", "d"):
        assert PingRequest(ping.sequence, "b", about) in sent(outputs, helper)
    outputs = run(detector, 100.5)
    assert StatusChanged("b", ALIVE, SUSPECT) in outputs
    (again,) = pings(outputs, "b")
    assert Update("b", SUSPECT, 0) in again.updates, "it reads the accusation and can refute"


def test_a_change_of_mind_has_a_reason(detector: FailureDetector) -> None:
    def reasons(outputs: list[Output]) -> list[str]:
        return [output.reason for output in outputs if isinstance(output, StatusChanged)]

    heard = detector.on_message("c", PushPull((Update("b", DEAD, 4),), reply=False), 100.0)
    assert reasons(heard) == ["c says that it is dead"]
    assert reasons(detector.on_message("b", Ack(0, (Update("b", ALIVE, 5),)), 100.01)) == [
        "it says so itself"
    ]
    detector.on_link_lost("c", 100.0)
    run(detector, 100.25)
    assert "it answers neither this node's probe nor those of others" in reasons(run(detector, 100.5))
    assert "it was suspected, and has not said that it is alive" in reasons(run(detector, 150.0))


def test_an_answer_through_a_helper_counts(detector: FailureDetector) -> None:
    (ping,) = pings(detector.on_link_lost("b", 100.0), "b")
    run(detector, 100.25)
    detector.on_message("c", Ack(ping.sequence, ()), 100.3)
    assert not any(isinstance(o, StatusChanged) and o.node == "b" for o in run(detector, 100.5))


def test_an_answer_of_somebody_else_does_not(detector: FailureDetector) -> None:
    (ping,) = pings(detector.on_link_lost("b", 100.0), "b")
    detector.on_message("c", Ack(ping.sequence, ()), 100.01)  # was not asked yet
    run(detector, 100.5)
    assert detector.status("b") is SUSPECT


def test_an_answer_to_an_earlier_ping_does_not(detector: FailureDetector) -> None:
    (earlier,) = pings(detector.on_link_lost("b", 100.0), "b")
    run(detector, 100.5)
    assert detector.status("b") is SUSPECT
    assert detector.on_message("b", Ack(earlier.sequence, ()), 100.51) == [], "the second probe goes on"


def test_a_suspect_that_answered_an_older_question_is_asked_again(detector: FailureDetector) -> None:
    (ping,) = pings(detector.on_link_lost("b", 100.0), "b")
    detector.on_message("c", Ack(0, (Update("b", SUSPECT, 1),)), 100.01)
    outputs = detector.on_message("b", Ack(ping.sequence, (Update("b", ALIVE, 1),)), 100.02)
    (again,) = pings(outputs, "b")
    assert Update("b", SUSPECT, 1) in again.updates


def test_a_helper_pings_and_tells_how_it_went(detector: FailureDetector) -> None:
    outputs = detector.on_message("c", PingRequest(5, "b", (Update("b", SUSPECT, 1),)), 100.0)
    ping = pings(outputs, "b")[-1]
    assert Update("b", SUSPECT, 1) in ping.updates
    outputs = detector.on_message("b", Ack(ping.sequence, (Update("b", ALIVE, 2),)), 100.01)
    (relayed,) = sent(outputs, "c")
    assert isinstance(relayed, Ack)
    assert relayed.sequence == 5
    assert Update("b", ALIVE, 2) in relayed.updates, "the refutation comes along"


def test_a_helper_says_in_time_that_it_got_no_answer(detector: FailureDetector) -> None:
    detector.on_message("c", PingRequest(5, "b", ()), 100.0)
    assert [m.sequence for m in sent(run(detector, 100.2), "c") if isinstance(m, Nack)] == [5]
    assert not any(isinstance(m, Nack) for m in sent(run(detector, 101.0), "c"))


@pytest.mark.parametrize("claim", [Update("a", SUSPECT, 3), Update("a", DEAD, 5), Update("a", ALIVE, 5)])
def test_it_refutes_with_a_higher_incarnation_persisted_first(
    detector: FailureDetector, claim: Update
) -> None:
    outputs = detector.on_message("b", Ping(1, "a", (claim,)), 100.0)
    assert outputs[0] == PersistIncarnation(claim.incarnation + 1)
    (ack,) = sent(outputs, "b")
    assert ack.updates[0] == Update("a", ALIVE, claim.incarnation + 1)
    assert detector.status("a") is ALIVE


@pytest.mark.parametrize("claim", [Update("a", DEAD, 2), Update("a", ALIVE, 3)])
def test_a_claim_about_an_earlier_life_needs_no_refutation(detector: FailureDetector, claim: Update) -> None:
    assert detector.on_message("b", Ack(0, (claim,)), 100.0) == []


def test_hearsay_makes_it_look_for_itself(detector: FailureDetector) -> None:
    outputs = detector.on_message("c", PushPull((Update("b", DEAD, 4),), reply=False), 100.0)
    assert outputs[0] == StatusChanged("b", ALIVE, SUSPECT)
    (ping,) = pings(outputs, "b")
    assert Update("b", SUSPECT, 4) in ping.updates
    outputs = detector.on_message("b", Ack(ping.sequence, (Update("b", ALIVE, 5),)), 100.01)
    assert outputs[0] == StatusChanged("b", SUSPECT, ALIVE)


def test_hearsay_of_a_death_is_believed_when_its_own_probe_fails(detector: FailureDetector) -> None:
    detector.on_message("c", Ack(0, (Update("b", DEAD, 4),)), 100.0)
    assert StatusChanged("b", SUSPECT, DEAD) in run(detector, 100.5)


def test_bad_news_is_not_passed_on_by_those_who_only_heard_it(detector: FailureDetector) -> None:
    detector.on_message("c", Ack(0, (Update("b", SUSPECT, 4),)), 100.0)
    (ack,) = sent(detector.on_message("d", Ping(1, "a", ()), 100.01), "d")
    assert [u for u in ack.updates if u.node == "b"] == []
    run(detector, 100.5)
    (ack,) = sent(detector.on_message("d", Ping(2, "a", ()), 100.51), "d")
    assert [u for u in ack.updates if u.node == "b"] == [Update("b", SUSPECT, 4)]


def test_good_news_is_passed_on(detector: FailureDetector) -> None:
    detector.on_message("c", Ack(0, (Update("b", ALIVE, 4),)), 100.0)
    (ack,) = sent(detector.on_message("d", Ping(1, "a", ()), 100.01), "d")
    assert Update("b", ALIVE, 4) in ack.updates


def test_gossip_is_not_wasted_on_a_suspect(detector: FailureDetector) -> None:
    outputs = detector.on_message("c", Ack(0, (Update("d", ALIVE, 1), Update("b", SUSPECT, 1))), 100.0)
    (ping,) = pings(outputs, "b")
    assert ping.updates == (Update("a", ALIVE, 3), Update("b", SUSPECT, 1))


def kill(detector: FailureDetector) -> float:
    """Let b die; c and d answer through their own probes. Returns when it was declared dead."""
    outputs = detector.on_link_lost("b", 100.0)
    while detector.status("b") is not DEAD:
        now = detector.next_deadline()
        outputs = detector.on_timer(now)
        for peer in ("c", "d"):
            for ping in pings(outputs, peer):
                detector.on_message(peer, Ack(ping.sequence, (Update(peer, ALIVE, 1),)), now + 0.001)
    return now


def test_a_dead_member_is_pinged_for_ever_and_welcomed_back(detector: FailureDetector) -> None:
    died = kill(detector)
    outputs = run(detector, died + 100.0)
    assert 99 <= len(pings(outputs, "b")) <= 101
    assert all(Update("b", DEAD, 0) in ping.updates for ping in pings(outputs, "b"))
    now = died + 100.1
    outputs = detector.on_message("b", Ack(0, (Update("b", ALIVE, 1),)), now)
    assert outputs[0] == StatusChanged("b", DEAD, ALIVE)
    assert any(isinstance(message, PushPull) and message.reply for message in sent(outputs, "b"))
    assert next(m.since for m in detector.members() if m.node == "b") == now


def test_a_death_is_announced_by_those_who_saw_it(detector: FailureDetector) -> None:
    died = kill(detector)
    (ack,) = sent(detector.on_message("d", Ping(1, "a", ()), died), "d")
    assert Update("b", DEAD, 0) in ack.updates


def test_a_message_alone_is_no_proof_that_its_sender_can_be_reached(detector: FailureDetector) -> None:
    kill(detector)
    detector.on_message("b", Ping(1, "a", (Update("b", ALIVE, 0),)), 110.0)
    assert detector.status("b") is DEAD


def test_confirmations_shorten_the_suspicion(detector: FailureDetector) -> None:
    alone = FailureDetector("a", ["d", "c", "b"], 3, GossipSettings(), random.Random(1))
    alone.start(100.0)
    detector.on_link_lost("b", 100.0)
    alone.on_link_lost("b", 100.0)
    run(detector, 100.5)
    for peer in ("c", "d"):
        detector.on_message(peer, Ack(0, (Update("b", SUSPECT, 0),)), 100.6)
    assert StatusChanged("b", SUSPECT, DEAD) in run(detector, 102.0)
    assert StatusChanged("b", SUSPECT, DEAD) not in run(alone, 106.4)
    assert StatusChanged("b", SUSPECT, DEAD) in run(alone, 106.5)


def test_a_late_confirmation_takes_effect_at_once(detector: FailureDetector) -> None:
    detector.on_link_lost("b", 100.0)
    run(detector, 103.0)
    for peer in ("c", "d"):
        detector.on_message(peer, Ack(0, (Update("b", SUSPECT, 0),)), 103.0)
    assert detector.next_deadline() == 103.0
    assert StatusChanged("b", SUSPECT, DEAD) in detector.on_timer(103.01)


def test_a_repeated_table_confirms_nothing(detector: FailureDetector) -> None:
    detector.on_link_lost("b", 100.0)
    run(detector, 100.5)
    for peer in ("c", "d"):
        detector.on_message(peer, PushPull((Update("b", SUSPECT, 0),), reply=False), 100.6)
        detector.on_message(peer, PingRequest(0, "b", (Update("b", SUSPECT, 0),)), 100.6)
    assert StatusChanged("b", SUSPECT, DEAD) not in run(detector, 103.0)


def test_after_a_stall_the_others_get_their_time_back(detector: FailureDetector) -> None:
    detector.on_link_lost("b", 100.0)
    run(detector, 102.0)
    assert detector.status("b") is SUSPECT
    outputs = detector.on_timer(130.0)
    assert not any(isinstance(output, StatusChanged) for output in outputs)
    detector.on_message("b", Ack(0, (Update("b", ALIVE, 1),)), 130.2)
    assert detector.status("b") is ALIVE


def test_after_a_stall_it_trusts_itself_less(detector: FailureDetector) -> None:
    assert any(isinstance(output, Send) for output in detector.on_timer(120.0)), "it probes someone"
    early, late = run(detector, 121.2), run(detector, 121.3)
    requests = [
        [o for o in part if isinstance(o, Send) and isinstance(o.message, PingRequest)]
        for part in (early, late)
    ]
    assert not requests[0], "a probe may take five times as long"
    assert requests[1]


def test_on_timer_may_be_called_at_any_time(detector: FailureDetector) -> None:
    due = detector.next_deadline()
    assert detector.on_timer(due - 0.001) == []
    assert detector.on_timer(due) != []
    assert detector.on_timer(due) == []
    assert detector.next_deadline() > due

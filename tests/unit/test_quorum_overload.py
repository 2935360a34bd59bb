"""Overload: what is refused and when, what frees memory, what is dropped because its client gave up."""

from __future__ import annotations

from collections import deque

import pytest

from kvstore.config import MIB, QuorumSettings
from kvstore.errors import Outcome, Overloaded, ReadTimeout, WriteTimeout
from kvstore.node.settings import NodeSettings
from kvstore.node.transit import NOTICED, Transit
from kvstore.protocol.client import Failed, Found, Stored, aged
from kvstore.protocol.gossip import Ack, Ping
from kvstore.protocol.peer import (
    Forward,
    ForwardReply,
    ReadReply,
    ReadSame,
    Refusal,
    ReplicaRead,
    ReplicaWrite,
    WriteAck,
)
from kvstore.protocol.table import PeerMessage
from kvstore.quorum.admission import Admission
from kvstore.quorum.counters.requests import RequestCounters
from tests.plain import Get, Put
from tests.unit.quorum_cluster import Cluster

SETTINGS = QuorumSettings(in_flight=1000, in_flight_bytes=MIB)


def refused(admission: Admission, timeout: float, now: float) -> Overloaded:
    reply = admission.take(timeout, now)
    assert reply is not None
    assert isinstance(reply.error, Overloaded)
    return reply.error


def loaded(unanswered: int, rate: int, latency: float) -> Admission:
    """One that has seen so many answers a second, each after so long, until 1.0; so many wait."""
    admission = Admission(SETTINGS, RequestCounters())
    for _ in range(unanswered):
        admission.take(60.0, 0.0)  # from the 65th on it measures
    answer(admission, rate, latency)
    return admission


def answer(admission: Admission, count: int, latency: float) -> None:
    """So many others were answered after so long, too."""
    for _ in range(count):
        admission.worked(latency)


def test_requests_are_bounded_in_number_and_in_bytes() -> None:
    admission = loaded(SETTINGS.in_flight, 500, 0.1)
    error = refused(admission, 60.0, 1.0)
    assert error.retry_after == pytest.approx(SETTINGS.in_flight / 500)
    assert error.outcome is Outcome.NOT_APPLIED
    few = Admission(SETTINGS, RequestCounters())
    few.bytes = MIB - 1
    assert few.take(5.0, 0.0) is None
    few.bytes = MIB
    refused(few, 5.0, 0.0)


def test_a_request_is_refused_when_those_before_it_leave_it_no_time() -> None:
    admission = loaded(200, 100, 0.9)
    assert refused(admission, 1.0, 1.0).retry_after == pytest.approx(2.0), "200 at 100 a second"
    assert admission.take(5.0, 1.0) is None  # that one has the time


def test_waiting_for_a_slow_peer_is_no_overload() -> None:
    admission = loaded(200, 100, 0.01)
    assert admission.take(1.0, 1.0) is None


def test_a_lone_request_is_taken_whatever_was_measured() -> None:
    admission = loaded(63, 1, 5.0)
    assert admission.take(0.001, 1.0) is None


def test_a_disk_with_slow_syncs_is_measured_over_a_whole_one() -> None:
    admission = loaded(200, 0, 0.0)
    assert admission.take(0.5, 1.0) is None  # nothing was answered: too early to tell
    answer(admission, 400, 1.0)
    assert refused(admission, 0.5, 2.0).retry_after == pytest.approx(1.005)


def test_what_was_measured_long_ago_is_forgotten() -> None:
    admission = loaded(200, 1, 5.0)
    refused(admission, 1.0, 1.0)
    assert admission.take(1.0, 60.0) is None


def test_retry_after_stays_within_bounds() -> None:
    assert refused(loaded(1000, 100_000, 0.9), 60.0, 1.0).retry_after == pytest.approx(0.05)
    assert refused(loaded(1000, 1, 5.0), 60.0, 1.0).retry_after == pytest.approx(5.0)


def small() -> Cluster:
    return Cluster(settings=NodeSettings(quorum=QuorumSettings(in_flight_bytes=MIB)))


def test_what_operations_hold_comes_back_to_nothing() -> None:
    cluster = Cluster(5)
    cluster.stored_reply("n1", Put("b", b"k", b"v" * 1000))
    cluster.stuck.add("n3")
    for node in cluster.hosts:
        cluster.call(node, Get("b", b"k"))
        cluster.call(node, Put("b", b"other", b"v" * 1000, timeout=1.0))
    cluster.stuck.clear()
    cluster.move(30.0)
    for host in cluster.hosts.values():
        assert (host.status().in_flight, host.status().in_flight_bytes) == (0, 0)


def test_a_slow_replica_does_not_fill_memory() -> None:
    """Its share of acknowledged writes becomes hints before it can; later it gets them."""
    cluster = small()
    host = cluster.hosts["n1"]
    most = 0
    slow = [True]
    cluster.passes = lambda sender, to, message: not (slow[0] and to == "n3")
    for number in range(200):
        cluster.stored_reply("n1", Put("b", b"k%d" % number, b"v" * 20_000))
        most = max(most, host.status().in_flight_bytes)
        cluster.move(0.01)
    assert MIB / 2 < most < MIB + 21_000
    assert host.status().counters.overloaded == 0
    assert host.status().counters.hinted_early > 50
    slow[0] = False
    cluster.move(30.0)
    assert cluster.hints("n1") == {}
    assert all(cluster.stored("n3", "b", b"k%d" % number) for number in range(200))


def test_writes_that_nobody_acknowledges_are_bounded_and_the_rest_is_refused_untouched() -> None:
    cluster = small()
    cluster.passes = lambda sender, to, message: sender == to
    numbers = [cluster.start("n1", Put("b", b"k%d" % number, b"v" * 20_000)) for number in range(100)]
    replies = cluster.hosts["n1"].replies
    refused = [n for n in numbers if n in replies]
    assert 40 <= len(refused) <= 50
    for number in refused:
        reply = replies[number]
        assert isinstance(reply, Failed)
        assert isinstance(reply.error, Overloaded)
        assert reply.error.outcome is Outcome.NOT_APPLIED
        assert cluster.stored("n1", "b", b"k%d" % numbers.index(number)) is None
    assert cluster.hosts["n1"].status().counters.overloaded == len(refused)
    cluster.passes = lambda sender, to, message: True
    cluster.move(10.0)
    cluster.stored_reply("n1", Put("b", b"again", b"v" * 20_000))


def test_a_read_whose_client_has_left_is_over_at_once() -> None:
    cluster = Cluster()
    cluster.stored_reply("n1", Put("b", b"k", b"v"))
    cluster.passes = lambda sender, to, message: not isinstance(message, ReplicaRead)
    number = cluster.start("n1", Get("b", b"k"))
    host = cluster.hosts["n1"]
    cluster.run()
    assert host.status().in_flight == 1
    host.node.on_cancelled({number + 1}, cluster.instant)
    assert host.status().in_flight == 1, "another's"
    host.node.on_cancelled({number}, cluster.instant)
    status = host.status()
    assert (status.in_flight, status.in_flight_bytes, status.counters.cancelled) == (0, 0, 1)


def test_a_write_whose_client_has_left_still_reaches_all_replicas() -> None:
    cluster = Cluster()
    number = cluster.start("n1", Put("b", b"k", b"v"))
    host = cluster.hosts["n1"]
    host.node.on_cancelled({number}, cluster.instant)
    assert isinstance(host.replies[number], Failed)
    assert host.status().in_flight == 1, "the replicas have it before them"
    cluster.run()
    assert host.status().in_flight == 0
    assert len({cluster.stored(node, "b", b"k") for node in cluster.hosts}) == 1
    assert host.status().in_flight_bytes == 0


def test_a_read_that_arrives_too_late_is_not_carried_out() -> None:
    cluster = Cluster()
    cluster.stored_reply("n1", Put("b", b"k", b"v"))
    cluster.start("n1", Get("b", b"k", timeout=1.0))
    host = cluster.hosts["n2"]
    (question,) = [m for _, m in cluster.hosts["n1"].sent if isinstance(m, ReplicaRead)]
    assert 1000 <= question.ttl_ms <= 1001
    for delay, answers, expired in ((0.9, 1, 0), (1.2, 0, 1)):
        host.sent.clear()
        host.node.on_frame("n1", [question], cluster.instant, delay)
        assert len([m for _, m in host.sent if isinstance(m, ReadSame | ReadReply)]) == answers
        assert host.status().counters.expired == expired


def test_who_wakes_up_after_a_deadline_asks_nobody_else() -> None:
    """Found by the simulator: a node that was paused learns of a broken connection before its timer runs."""
    cluster = Cluster()
    number = cluster.start("n1", Get("b", b"k", timeout=1.0))
    host = cluster.hosts["n1"]
    ((asked, question),) = [(to, m) for to, m in host.sent if isinstance(m, ReplicaRead)]
    host.sent.clear()
    cluster.now += 10.0
    host.node.on_unsent(asked, [question.number], cluster.instant)
    assert not [m for _, m in host.sent if isinstance(m, ReplicaRead)]
    cluster.move(0.1)
    reply = host.replies[number]
    assert isinstance(reply, Failed)
    assert isinstance(reply.error, ReadTimeout)


def test_a_forwarded_request_has_only_the_time_that_is_left() -> None:
    cluster = Cluster(5)
    key = next(b"k%d" % i for i in range(100) if "n1" not in cluster.replicas("b", b"k%d" % i))
    cluster.start("n1", Get("b", key, timeout=1.0))
    ((to, forward),) = [(to, m) for to, m in cluster.hosts["n1"].sent if isinstance(m, Forward)]
    assert forward.request.timeout == pytest.approx(1.0)
    cluster.hosts["n1"].sent.clear()
    replica = cluster.hosts[to]
    replica.node.on_frame("n1", [forward], cluster.instant, 1.5)
    assert replica.status().counters.expired == 1
    assert replica.status().in_flight == 0
    # of an attempt that waited 0.8 s the other coordinator is given 0.2 s
    cluster.passes = lambda sender, to, message: isinstance(message, Forward | ForwardReply)
    replica.node.on_frame("n1", [Forward(forward.number + 1, 1, forward.request)], cluster.instant, 0.8)
    cluster.move(0.19)
    assert replica.status().in_flight == 1
    cluster.move(0.02)
    assert replica.status().in_flight == 0


def test_a_second_attempt_of_a_forward_has_what_the_first_has_left() -> None:
    cluster = Cluster(5)
    key = next(b"k%d" % i for i in range(100) if "n1" not in cluster.replicas("b", b"k%d" % i))
    times: list[float] = []

    def passes(_sender: str, _to: str, message: PeerMessage) -> bool:
        if isinstance(message, Forward):
            times.append(message.request.timeout)
        return not isinstance(message, Forward)

    cluster.passes = passes
    cluster.start("n1", Get("b", key, timeout=5.0))
    cluster.move(2.1)
    assert times == pytest.approx([5.0, 3.0], abs=0.1)


def test_a_client_with_little_time_costs_no_hints() -> None:
    """Under overload all writes are late: three times the work would be the end of it."""
    cluster = Cluster()
    cluster.stuck.update(("n2", "n3"))
    number = cluster.start("n1", Put("b", b"k", b"v", timeout=0.2))
    cluster.run()
    cluster.move(1.0)
    reply = cluster.hosts["n1"].replies[number]
    assert isinstance(reply, Failed)
    assert isinstance(reply.error, WriteTimeout)
    assert cluster.hosts["n1"].status().in_flight == 1
    cluster.stuck.clear()
    cluster.run()
    assert cluster.hosts["n1"].status().in_flight == 0
    assert (cluster.hints("n1"), cluster.hosts["n1"].status().counters.hints_stored) == ({}, 0)
    cluster.stuck.update(("n2", "n3"))
    cluster.start("n1", Put("b", b"other", b"v", timeout=0.2))
    cluster.run()
    cluster.move(3.0)
    assert cluster.hints("n1") == {"n2": 1, "n3": 1}, "after the patience they are needed"


def test_a_replica_that_is_overloaded_is_asked_again_while_the_client_has_time() -> None:
    cluster = Cluster()
    cluster.kill("n3")
    host = cluster.hosts["n1"]
    number = cluster.start("n1", Put("b", b"k", b"v", timeout=10.0))
    refused = 0
    while refused < 3:
        (question,) = [m for to, m in host.sent if to == "n2" and isinstance(m, ReplicaWrite)]
        host.sent.clear()
        refused += 1
        refusal = Refusal(question.number, Overloaded(0.5, "flushes and compactions are behind"))
        host.node.on_frame("n2", [refusal], cluster.instant)
        cluster.run()
        assert number not in host.replies, "there is time"
        cluster.passes = lambda sender, to, message: not isinstance(message, ReplicaWrite)
        cluster.now += 0.51
        host.node.on_timer(cluster.instant)
    cluster.passes = lambda sender, to, message: True
    cluster.run()
    assert isinstance(host.replies[number], Stored)
    assert cluster.stored("n2", "b", b"k")


def test_a_replica_that_stays_overloaded_ends_a_write_in_time() -> None:
    cluster = Cluster()
    cluster.kill("n3")
    host = cluster.hosts["n1"]
    number = cluster.start("n1", Put("b", b"k", b"v", timeout=1.0))
    (question,) = [m for to, m in host.sent if to == "n2" and isinstance(m, ReplicaWrite)]
    host.sent.clear()
    refusal = Refusal(question.number, Overloaded(1.5, "flushes and compactions are behind"))
    host.node.on_frame("n2", [refusal], cluster.instant)
    cluster.run()
    reply = host.replies[number]
    assert isinstance(reply, Failed), "there is no time for that"
    assert isinstance(reply.error, WriteTimeout)


def test_what_was_dropped_unsent_is_not_waited_for() -> None:
    cluster = Cluster()
    number = cluster.start("n1", Put("b", b"k", b"v"))
    host = cluster.hosts["n1"]
    writes = [(to, m) for to, m in host.sent]
    host.sent.clear()
    for to, message in writes:
        host.node.on_unsent(to, [message.number, 12345], cluster.instant)  # type: ignore[union-attr]
    cluster.run()
    reply = host.replies[number]
    assert isinstance(reply, Failed)
    assert isinstance(reply.error, WriteTimeout)
    assert cluster.hints("n1") == {"n2": 1, "n3": 1}


def test_a_read_asks_all_replicas_again_whose_links_broke_together() -> None:
    """Found by the simulator: the one that was lost last was forgotten, and R of N=3 then out of reach."""
    cluster = Cluster()
    cluster.call("n1", Put("b", b"k", b"v", w=3))
    number = cluster.start("n1", Get("b", b"k", r=3))
    host = cluster.hosts["n1"]
    asked = 0
    for _ in range(3):  # and asking again at once, while there is no connection, asks nobody
        unsent = [(to, m) for to, m in host.sent if isinstance(m, ReplicaRead)]
        host.sent.clear()
        asked += len(unsent)
        for to, message in unsent:
            host.node.on_unsent(to, [message.number], cluster.instant)
    assert asked == 2
    cluster.move(1.0)
    assert isinstance(host.replies[number], Found)


def test_transit_tells_what_a_frame_has_waited_beyond_the_shortest_way() -> None:
    transit = Transit()
    assert transit.delay(1000.0, 5.0) == 0.0
    assert transit.delay(1001.0, 6.5) == pytest.approx(0.5)
    assert transit.delay(1002.0, 7.0 + NOTICED / 2) == 0.0
    assert transit.delay(1003.0, 7.9) == 0.0, "a shorter way: the others were longer than thought"
    assert transit.delay(1004.0, 9.0) == pytest.approx(0.1)
    assert transit.delay(0, 100.0) == 0.0, "a sender that does not say"


@pytest.mark.parametrize("wrong", [2.0**53, (2**64 - 1) / 1000, 1000.0 + 3600.0])
@pytest.mark.parametrize("first", [True, False])
def test_transit_does_not_believe_a_frame_from_the_future(wrong: float, first: bool) -> None:
    """All others would seem to have waited for ages: their questions were dropped for a minute or two."""
    transit = Transit()
    if first and wrong > 1e9:
        transit.delay(wrong, 4.0)
    assert transit.delay(1000.0, 5.0) == 0.0
    assert transit.delay(wrong, 5.5) == 0.0
    assert transit.delay(1001.0, 6.0) == 0.0
    assert transit.delay(1002.0, 7.5) == pytest.approx(0.5)


def test_a_request_has_what_its_way_has_left_of_its_time_and_little_is_not_counted() -> None:
    call = Get("b", b"k", timeout=10.0)
    assert aged(call, 0.5) is call
    assert aged(call, 0.6).timeout == pytest.approx(9.4)
    default = Get("b", b"k")
    assert aged(default, 3.0) is default, "who asks for no time gets the node's"


def test_transit_follows_clocks_that_drift() -> None:
    """100 parts in a million, for a day: never noticed, though they are nine seconds in all."""
    for drift in (1 + 1e-4, 1 - 1e-4):
        transit = Transit()
        assert all(transit.delay(1000.0 + s * drift, float(s)) == 0.0 for s in range(0, 86_400, 7))


def test_goodput_does_not_collapse_when_four_times_as_much_is_offered() -> None:
    """Peers confirm 20 writes in a tick of 10 ms; 80 arrive, with a quarter of a second to live."""
    cluster = Cluster()
    host = cluster.hosts["n1"]
    capacity, offered, ticks, timeout = 20, 80, 200, 0.25
    waiting: deque[ReplicaWrite] = deque()
    begun: dict[int, float] = {}
    done = late = most = 0
    for tick in range(ticks):
        for number in range(offered):
            key = b"k%d" % (tick * offered + number)
            begun[cluster.start("n1", Put("b", key, b"v", timeout=timeout))] = cluster.now
        waiting += [m for to, m in host.sent if to == "n2" and isinstance(m, ReplicaWrite)]
        for to, message in host.sent:
            if isinstance(message, Ping):
                host.node.on_frame(to, [Ack(message.sequence, ())], cluster.instant)
        host.sent.clear()
        for _ in range(min(capacity, len(waiting))):
            ack = WriteAck((waiting.popleft().number,))
            host.node.on_frame("n2", [ack], cluster.instant)
        host.node.on_durable(host.engine.sync(), cluster.instant)
        for number, reply in host.replies.items():
            if isinstance(reply, Stored) and cluster.now - begun[number] <= timeout:
                done += 1
            elif not isinstance(reply, Failed) or not isinstance(reply.error, Overloaded):
                late += 1
        host.replies.clear()
        most = max(most, host.status().in_flight)
        cluster.now += 0.01
        if host.timer <= cluster.now:
            host.timer = float("inf")
            host.node.on_timer(cluster.instant)
    assert done >= 0.8 * capacity * ticks, f"{done} in time, {late} late"
    assert most <= 1300, "of the quarter of a second in which nothing was known, and hardly more"

"""The small machines of gossip: suspicion time, the gossip queue, awareness, rotation, settings."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import ConfigError
from kvstore.gossip import GossipSettings
from kvstore.gossip.awareness import Awareness
from kvstore.gossip.dead_members import DeadMembers
from kvstore.gossip.dissemination import Dissemination
from kvstore.gossip.probe import Probe, Rotation
from kvstore.gossip.suspicion import Suspicion, remaining_time
from kvstore.protocol.gossip import Status, Update


@pytest.mark.parametrize(
    ("confirmations", "expected", "elapsed", "remaining"),
    [
        # the table of memberlist's TestSuspicion_remainingSuspicionTime: k=3, 2 s to 30 s
        (0, 3, 0.0, 30.0),
        (1, 3, 2.0, 14.0),
        (2, 3, 3.0, 4.810),
        (3, 3, 4.0, -2.0),
        (4, 3, 5.0, -3.0),
        (5, 3, 10.0, -8.0),
        (0, 0, 0.5, 1.5),
    ],
)
def test_remaining_time_is_that_of_memberlist(
    confirmations: int, expected: int, elapsed: float, remaining: float
) -> None:
    assert remaining_time(confirmations, expected, elapsed, 2.0, 30.0) == pytest.approx(remaining, abs=1e-3)


def test_a_suspect_is_dead_only_after_this_node_s_own_probe() -> None:
    suspicion = Suspicion(10.0, 2, 1.5, 6.0)
    suspicion.called_dead = True
    assert suspicion.deadline == float("inf")
    suspicion.called_dead, suspicion.probe_failed = False, True
    assert suspicion.deadline == 16.0
    for _ in range(3):
        suspicion.confirm("b")  # however often it says so
    one = suspicion.deadline
    assert 11.5 < one < 16.0
    suspicion.confirm("c")
    assert suspicion.deadline == 11.5
    suspicion.delay(20.0)
    assert suspicion.deadline == 31.5


def update(node: str, incarnation: int = 1) -> Update:
    return Update(node, Status.ALIVE, incarnation)


def test_an_update_is_sent_a_limited_number_of_times() -> None:
    for nodes, limit in ((3, 4), (9, 4), (10, 8), (99, 8), (100, 12)):
        queue = Dissemination(factor=4, max_bytes=1000)
        queue.add(update("a"))
        sent = 0
        while queue.take(nodes):
            sent += 1
        assert sent == limit


def test_a_newer_update_replaces_the_older_and_starts_again() -> None:
    queue = Dissemination(4, 1000)
    queue.add(update("a"))
    queue.take(3)
    queue.add(update("a", 2))
    assert [queue.take(3) for _ in range(5)] == [[update("a", 2)]] * 4 + [[]]
    queue.add(update("a", 3))
    queue.discard("a")
    assert queue.take(3) == []


@given(st.lists(st.text("abc", min_size=1, max_size=64), unique=True, max_size=30), st.integers(100, 400))
def test_messages_are_bounded_and_everything_gets_its_turn(nodes: list[str], max_bytes: int) -> None:
    queue = Dissemination(4, max_bytes)
    for node in nodes:
        queue.add(update(node))
    sent: list[str] = []
    while taken := queue.take(3):
        assert sum(len(u.node) + 36 for u in taken) <= max_bytes
        sent += [u.node for u in taken]
        # the least sent first: nobody is sent again and again while others wait
        counts = [sent.count(node) for node in nodes]
        assert max(counts) - min(counts) <= 1
    assert {node: sent.count(node) for node in nodes} == dict.fromkeys(nodes, 4)


def test_awareness_stays_within_its_bounds() -> None:
    awareness = Awareness(4)
    awareness.better()
    assert awareness.multiplier == 1
    awareness.worse(100)
    assert awareness.multiplier == 5
    awareness.better()
    assert awareness.multiplier == 4


@given(st.integers(1, 9), st.integers(0, 99))
def test_each_round_takes_everyone_once(count: int, seed: int) -> None:
    nodes = [f"n{i}" for i in range(count)]
    rotation = Rotation(nodes, random.Random(seed))
    for _ in range(3):
        assert sorted(str(rotation.next(lambda _: True)) for _ in nodes) == nodes
    assert rotation.next(lambda _: False) is None
    assert rotation.next(lambda node: node == "n0") == "n0"


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 99))
def test_a_new_member_has_its_turn_in_the_round_that_is_under_way(count: int, passed: int, seed: int) -> None:
    nodes = [f"n{i}" for i in range(count)]
    rotation = Rotation(nodes, random.Random(seed))
    for _ in range(passed % count):
        rotation.next(lambda _: True)
    rotation.on_members([*nodes, "x"], ["x"])
    left = count - passed % count if passed % count else count + 1
    assert "x" in [rotation.next(lambda _: True) for _ in range(left + 1)]


def test_each_of_few_dead_members_is_pinged_once_an_interval_and_of_many_eight() -> None:
    for count, expected in ((1, 10), (3, 30), (8, 80), (9, 80), (500, 80)):
        dead = DeadMembers(interval=1.0)
        assert dead.deadline == float("inf")
        for i in range(count):
            dead.add(f"n{i}", 0.0)
        pinged = []
        while dead.deadline <= 10.0:
            pinged.append(dead.take_due(dead.deadline))
        assert abs(len(pinged) - expected) <= 1
        assert len(set(pinged)) == min(count, len(pinged)), "in turn"


def test_who_is_not_dead_any_more_is_not_pinged() -> None:
    dead = DeadMembers(interval=1.0)
    for node in ("a", "b"):
        dead.add(node, 0.0)
    dead.discard("a")
    assert dead.take_due(0.9) == "b"
    assert dead.take_due(1.0) is None
    dead.discard("b")
    assert dead.deadline == float("inf")
    assert dead.take_due(100.0) is None


def test_silent_helpers_are_this_nodes_own_fault_and_nacks_are_not() -> None:
    probe = Probe("x", 7, 1.0, 2.0)
    assert (probe.deadline, probe.blame()) == (1.0, 1)
    assert not probe.answers("a", 7)
    probe.ask(["a", "b", "c"])
    assert (probe.deadline, probe.blame()) == (2.0, 3)
    assert probe.answers("a", 7)
    assert not probe.answers("a", 8)
    for helper in ("a", "a", "b"):
        probe.on_nack(helper)
    assert probe.blame() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe_timeout": 0.0},
        {"probe_interval": 0.25},
        {"suspicion_min": -1.0},
        {"suspicion_max_factor": 0.5},
        {"dead_interval": 0.0},
        {"push_pull_interval": 0.0},
        {"indirect_probes": -1},
        {"confirmations": -1},
        {"awareness_max": -1},
        {"retransmit_factor": 0},
        {"update_bytes": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"gossip: {next(iter(wrong)).replace('_', '-')}="):
        GossipSettings(**wrong)  # type: ignore[arg-type]

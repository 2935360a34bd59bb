"""Members come and go while failure detectors run: all views become the truth, and who left stays away."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from kvstore.gossip import FailureDetector, Send, StatusChanged
from kvstore.protocol.gossip import Ack, GossipMessage, Ping, PingRequest, PushPull, Status, Update
from tests.property.gossip_network import ALIVE, DEAD, SETTINGS, Network

BOUND = 30.0
SPREAD = 3.0
"""Seconds within which all members take up a new list."""

changes = st.sampled_from(["add", "add", "remove", "crash", "restart", "stall", "loss", "heal"])
scripts = st.lists(st.tuples(changes, st.integers(0, 9), st.floats(0.0, 6.0)), min_size=1, max_size=12)
clusters = st.builds(Network, st.integers(3, 6), st.integers(0, 2**32))


def inject(cluster: Network, change: str, which: int) -> None:
    name = cluster.members[which % len(cluster.members)]
    match change:
        case "add":
            new = f"n{len(cluster.hosts) + 1}"
            cluster.change([*cluster.members, new], SPREAD)
            cluster.hosts[new].members = cluster.members
            cluster.start(new)
        case "remove" if len(cluster.members) > 2:
            cluster.change([member for member in cluster.members if member != name], SPREAD)
        case "crash":
            cluster.crash(name, links=which % 2 == 0)
        case "restart":
            cluster.start(name)  # with the list that its disk remembers
            cluster.change(cluster.members, SPREAD)
        case "stall" if cluster.hosts[name].detector:
            cluster.stall(name)
        case "loss":
            cluster.loss = 0.03 * which
        case "heal":
            cluster.heal()
        case _:  # the last two stay, and a host that is down does not stall
            assert change in ("remove", "stall")


def views(cluster: Network) -> set[tuple[str, ...]]:
    return {tuple(row.node for row in cluster.detector(name).members()) for name in cluster.running()}


@given(clusters, scripts)
def test_all_views_become_the_truth(cluster: Network, script: list[tuple[str, int, float]]) -> None:
    cluster.start_all()
    for change, which, seconds in script:
        inject(cluster, change, which)
        cluster.run(seconds)
    cluster.heal()
    cluster.run(SPREAD)
    assert views(cluster) <= {tuple(sorted(cluster.members))}
    assert cluster.run_until(cluster.settled, BOUND) < BOUND, "not everyone is right"
    cluster.run(3.0)
    healed = cluster.now
    cluster.run(20.0)
    assert [change for change in cluster.changes(healed) if change[1] in cluster.members] == []
    assert views(cluster) <= {tuple(sorted(cluster.members))}


@given(clusters, st.floats(0.0, 5.0))
def test_nobody_answers_a_removed_member_that_goes_on(cluster: Network, when: float) -> None:
    cluster.start_all()
    cluster.run(when)
    cluster.change(cluster.members[1:], SPREAD)
    cluster.run(SPREAD)
    before, start = len(cluster.trace), cluster.now
    cluster.run(60.0)
    later = cluster.trace[before:]
    pings = [o for _, at, o in later if at == "n1" and isinstance(o, Send) and isinstance(o.message, Ping)]
    assert len(pings) > 60, "it has tried"
    sent = [o for _, at, o in later if at != "n1" and isinstance(o, Send)]
    assert [o for o in sent if o.to == "n1"] == []
    assert [o for o in sent if any(update.node == "n1" for update in o.message.updates)] == []
    assert [change for change in cluster.changes(start) if change[1] != "n1"] == [], "nor is anybody blamed"
    assert set(cluster.statuses("n2")) == {ALIVE}
    assert {row.status for row in cluster.detector("n2").members()} == {ALIVE}
    alone = cluster.hosts["n1"].detector
    assert alone is not None
    assert {alone.status(name) for name in cluster.members} == {DEAD}, "it sees that it is cut off"


@given(st.sampled_from(["ping", "request", "ack", "table"]), st.sampled_from([ALIVE, DEAD]))
def test_a_removed_member_does_not_come_back_by_an_old_table(kind: str, status: Status) -> None:
    detector = FailureDetector("a", ["b", "c", "x"], 3, SETTINGS, random.Random(1))
    detector.start(100.0)
    detector.on_members(["b", "c"], 101.0)
    updates = (Update("b", ALIVE, 1), Update("x", status, 9))
    messages: dict[str, GossipMessage] = {
        "ping": Ping(1, "a", updates),
        "request": PingRequest(1, "x", updates),
        "ack": Ack(1, updates),
        "table": PushPull(updates, reply=True),
    }
    outputs = detector.on_message("b", messages[kind], 101.0)
    while (due := detector.next_deadline()) < 140.0:
        outputs += detector.on_timer(due)
    assert [row.node for row in detector.members()] == ["a", "b", "c"]
    assert all(o.to != "x" for o in outputs if isinstance(o, Send))
    assert all(o.node != "x" for o in outputs if isinstance(o, StatusChanged))


@given(clusters, st.floats(0.0, 10.0))
def test_one_that_has_just_joined_and_dies_is_found_dead(cluster: Network, lived: float) -> None:
    cluster.start_all()
    cluster.run(2.0)
    inject(cluster, "add", 0)
    cluster.run(SPREAD + lived)
    new = cluster.members[-1]
    assert set(cluster.statuses(new)) == {ALIVE}
    cluster.crash(new)
    assert cluster.run_until(cluster.settled, BOUND) < 6.0

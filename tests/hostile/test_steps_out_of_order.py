"""A step of a protocol that comes before its time, or from whom it must not come, is not obeyed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvstore.config import AntiEntropySettings, BucketSettings, Conflict
from kvstore.errors import InvalidRequest, WriteTimeout
from kvstore.hlc import MAX_TIME
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Failed, Stored
from kvstore.protocol.peer import Candidate, ReapCheck, ReapConfirm, ReplicaWrite
from kvstore.server.handshake import Refused, check_caller, introduction
from kvstore.versions import Dot, EncodedVersion, Sibling, Version, digest, encode_version
from tests.plain import Delete, Get, Put, data_key, token
from tests.unit.quorum_cluster import WALL, Cluster
from tests.unit.server_nodes import cluster_state

KEY = b"user:1"
REAP_AGE = 4.0
NOTHING_BY_ITSELF = AntiEntropySettings(float("inf"), reap_interval=float("inf"), reap_age=REAP_AGE)
YEAR_MS = 365 * 86_400_000
LWW = BucketSettings("lww", conflict=Conflict.LWW)


# reaping


def deleted() -> tuple[Cluster, Candidate]:
    """A tombstone on all replicas, and what a reaper would ask about it."""
    cluster = Cluster(settings=NodeSettings(anti_entropy=NOTHING_BY_ITSELF))
    cluster.stored_reply("n1", Put("carts", KEY, b"v", w=3))
    cluster.stored_reply("n1", Delete("carts", KEY, w=3))
    stored = cluster.stored("n1", "carts", KEY)
    assert stored
    return cluster, Candidate(data_key(token("carts", KEY), "carts", KEY), digest(EncodedVersion(stored)))


def ask(cluster: Cluster, candidate: Candidate, commit: bool, sender: str = "n2") -> bool:
    """Whether n1 confirms it; with `commit` it has deleted it then."""
    host = cluster.hosts["n1"]
    del host.sent[:]
    host.node.on_frame(sender, [ReapCheck(1, 1, (candidate,), commit)], cluster.instant)
    answers = [answer for _, answer in host.sent if isinstance(answer, ReapConfirm)]
    del host.sent[:]
    (answer,) = answers
    return answer.positions == (0,)


def test_to_reap_without_a_round_before_deletes_nothing() -> None:
    """It did, and the value that had been deleted came back from a replica that was away."""
    cluster, candidate = deleted()
    for _ in range(3):
        assert not ask(cluster, candidate, commit=True)
        cluster.move(REAP_AGE)
    assert cluster.stored("n1", "carts", KEY)


def test_to_reap_at_once_after_the_round_deletes_nothing_and_in_time_it_does() -> None:
    cluster, candidate = deleted()
    assert ask(cluster, candidate, commit=False)
    assert not ask(cluster, candidate, commit=True)
    cluster.move(REAP_AGE)
    assert not ask(cluster, candidate, commit=True, sender="n3"), "another has asked for the round"
    assert cluster.stored("n1", "carts", KEY)
    assert ask(cluster, candidate, commit=True)
    assert not cluster.stored("n1", "carts", KEY)


def test_a_round_that_was_denied_meanwhile_or_was_before_a_restart_does_not_count() -> None:
    cluster, candidate = deleted()
    assert ask(cluster, candidate, commit=False)
    cluster.move(REAP_AGE)
    cluster.hosts["n1"].node.background.reaper._silent_until = cluster.instant.mono + 1
    assert not ask(cluster, candidate, commit=False)
    cluster.move(1.5)
    assert not ask(cluster, candidate, commit=True)
    assert ask(cluster, candidate, commit=False)
    cluster.move(REAP_AGE)
    cluster.start_again()
    assert not ask(cluster, candidate, commit=True)
    assert cluster.stored("n1", "carts", KEY)


# who speaks

STATE = cluster_state([1, 2, 3])


@pytest.mark.parametrize("epoch", [0, 2, 3, 2**63, 2**64 - 1])
@pytest.mark.parametrize("partitions", [4, 16])
def test_another_epoch_proves_nothing_of_other_partitions(epoch: int, partitions: int) -> None:
    """Whoever claimed another epoch was not compared at all."""
    other = replace(cluster_state([1, 2, 3], STATE.cluster_id, partitions=partitions), epoch=epoch)
    with pytest.raises(Refused, match="other members, partitions"):
        check_caller(introduction("n2", other), "n1", STATE)


@pytest.mark.parametrize("epoch", [0, 1, 2, 2**64 - 1])
def test_the_own_id_is_refused_whatever_epoch_it_claims(epoch: int) -> None:
    with pytest.raises(Refused, match="is this one"):
        check_caller(introduction("n1", replace(STATE, epoch=epoch)), "n1", STATE)


def test_who_keeps_silent_about_what_lasts_is_refused() -> None:
    of_one_epoch = {"kvstore-epoch", "kvstore-state", "kvstore-shape", "kvstore-configuration-bin"}
    told = introduction("n2", replace(STATE, epoch=2))
    assert len(told) == len(of_one_epoch) + 3
    for missing in range(len(told)):
        if told[missing][0] not in of_one_epoch:
            with pytest.raises(Refused):
                check_caller(told[:missing] + told[missing + 1 :], "n1", STATE)


# clocks


def stamped(cluster: Cluster, time: int, nodes: tuple[str, ...]) -> None:
    """A peer writes a value of this time to some replicas of the key."""
    dot = Dot("zz.0.0", 1)
    version = encode_version(Version((dot,), (Sibling(dot, b"future", time),)))
    write = ReplicaWrite(1, 1, data_key(token("lww", KEY), "lww", KEY), version)
    for node in nodes:
        sender = "n3" if node != "n3" else "n2"
        cluster.hosts[node].node.on_frame(sender, [write], cluster.instant)
    cluster.run()


def test_a_time_a_thousand_years_ahead_is_refused_at_the_door() -> None:
    cluster = Cluster(3, [LWW])
    for node in cluster.hosts:
        with pytest.raises(InvalidRequest):
            stamped(cluster, (WALL + 1000 * YEAR_MS) << 16, (node,))
        assert not cluster.stored(node, "lww", KEY)
    assert cluster.stored_reply("n1", Put("lww", KEY, b"next")).siblings == 1
    assert [s.value for s in cluster.found("n2", Get("lww", KEY, r=3)).siblings] == [b"next"]


def test_a_write_that_cannot_be_later_than_what_it_saw_is_refused_by_its_coordinator() -> None:
    """With w=1 nobody else is asked, and the last time there is goes to whoever has the greater dot."""
    cluster = Cluster(3, [LWW])
    stamped(cluster, MAX_TIME, ("n1", "n2", "n3"))
    assert isinstance(cluster.error("n1", Put("lww", KEY, b"next", w=1)), InvalidRequest)
    assert [s.value for s in cluster.found("n2", Get("lww", KEY, r=3)).siblings] == [b"future"]


@pytest.mark.parametrize("ahead", [2 * 86_400_000, YEAR_MS, 100 * YEAR_MS, None])
@pytest.mark.parametrize("nodes", [("n2", "n3"), ("n1",), ("n1", "n2", "n3")])
def test_a_write_that_a_wrong_clock_would_swallow_is_told_so(
    ahead: int | None, nodes: tuple[str, ...]
) -> None:
    """It was acknowledged, and nobody ever saw it."""
    cluster = Cluster(3, [LWW])
    stamped(cluster, MAX_TIME if ahead is None else (WALL + ahead) << 16, nodes)
    reply = cluster.call("n1", Put("lww", KEY, b"next", timeout=1.0))
    cluster.move(5.0)
    found = [s.value for s in cluster.found("n2", Get("lww", KEY, r=3)).siblings]
    if isinstance(reply, Failed):
        assert isinstance(reply.error, (InvalidRequest, WriteTimeout))
        assert found == [b"future"]
    else:
        assert isinstance(reply, Stored)
        assert found == [b"next"], "what was acknowledged is there"
    cluster.move(60.0)
    assert len({cluster.stored(node, "lww", KEY) for node in cluster.hosts}) == 1
    if ahead is not None:
        assert isinstance(cluster.call("n1", Put("lww", KEY, b"later")), Stored), (
            "a write of who has seen it wins"
        )
        assert [s.value for s in cluster.found("n3", Get("lww", KEY, r=3)).siblings] == [b"later"]

"""Hints through real nodes: caps, age, pace, backoff, other rings. What is dropped is repaired."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from kvstore.config import AntiEntropySettings, BucketSettings, QuorumMode, QuorumSettings
from kvstore.errors import Overloaded, StorageFull
from kvstore.node.settings import NodeSettings
from kvstore.protocol.peer import RepairWanted, ReplicaWrite, WriteAck
from kvstore.protocol.table import PeerMessage
from kvstore.quorum.counters import Counters
from kvstore.versions import EncodedVersion, InternalKey, decode_version
from tests.plain import Get, Put
from tests.unit.quorum_cluster import Cluster

KEY = b"user:1"
WHEN_MARKED = AntiEntropySettings(interval=float("inf"))
"""Anti-entropy that compares nothing unless a hint was dropped."""
SLOPPY = BucketSettings("sloppy", quorum=QuorumMode.SLOPPY)


def cluster_of(nodes: int = 3, **hints: Any) -> Cluster:
    quorum = QuorumSettings(**hints)
    return Cluster(nodes, [SLOPPY], NodeSettings(quorum=quorum, anti_entropy=WHEN_MARKED))


def counters(cluster: Cluster, node: str) -> Counters:
    return cluster.hosts[node].status().counters


def dropped(cluster: Cluster, node: str) -> tuple[int, int, int, int]:
    c = counters(cluster, node)
    return c.hints_dropped, c.hints_overflowed, c.hints_expired, c.hints_unwritable


def with_hints(cluster: Cluster, count: int, value: bytes = b"v") -> None:
    """n1 keeps so many hints for n3, which is dead."""
    cluster.kill("n3")
    for i in range(count):
        cluster.stored_reply("n1", Put("carts", b"k%d" % i, value))
    assert cluster.hints("n1") == {"n3": count}


def equal_everywhere(cluster: Cluster, keys: int) -> bool:
    return all(
        len({cluster.stored(node, "carts", b"k%d" % i) for node in cluster.hosts}) == 1 for i in range(keys)
    )


# caps


@pytest.mark.parametrize("cap", [{"hint_count": 4}, {"hint_bytes": 400}])
def test_a_hint_over_a_cap_is_counted_and_its_partition_repaired(cap: dict[str, int]) -> None:
    cluster = cluster_of(**cap)
    cluster.kill("n3")
    for i in range(10):
        cluster.stored_reply("n1", Put("carts", b"k%d" % i, b"v" * 20))
    kept = cluster.hints("n1")["n3"]
    assert 2 <= kept < 10
    assert dropped(cluster, "n1") == (10 - kept, 10 - kept, 0, 0)
    cluster.revive("n3")
    assert cluster.hints("n1") == {}
    assert equal_everywhere(cluster, 10), "without a mark nobody would have looked"


def test_a_hint_that_is_kept_grows_even_when_there_is_no_room_for_another() -> None:
    cluster = cluster_of(hint_count=1)
    with_hints(cluster, 1)
    cluster.stored_reply("n1", Put("carts", b"k0", b"again"))
    assert dropped(cluster, "n1") == (0, 0, 0, 0)


@pytest.mark.parametrize("error", [StorageFull("no space left"), Overloaded(0.1, "compaction is behind")])
def test_a_hint_that_the_disk_does_not_take_is_counted_and_its_partition_repaired(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = cluster_of()
    cluster.passes = lambda sender, to, message: not (isinstance(message, ReplicaWrite) and to == "n3")
    cluster.stored_reply("n1", Put("carts", b"k0", b"v"))

    def full(_batch: object) -> int:
        raise error

    monkeypatch.setattr(cluster.hosts["n1"].engine, "write", full)
    cluster.move(2.5)
    monkeypatch.undo()
    assert dropped(cluster, "n1") == (1, 0, 0, 1)
    cluster.passes = lambda sender, to, message: True
    cluster.move(10.0)
    assert equal_everywhere(cluster, 1)


def test_a_fallback_that_refuses_drops_nothing_as_the_coordinator_keeps_the_hint() -> None:
    cluster = cluster_of(4, hint_count=1)
    primaries = cluster.replicas("carts", KEY)
    fallback = next(node for node in cluster.hosts if node not in primaries)
    local = cluster.hosts[fallback].node.base.local
    local.store(
        InternalKey(b"d" + bytes(8) + b"other\0key"), EncodedVersion(cluster_version(cluster)), primaries[2]
    )
    lost = primaries[2]
    cluster.passes = lambda sender, to, message: not (isinstance(message, ReplicaWrite) and to == lost)
    cluster.stored_reply(primaries[0], Put("carts", KEY, b"v"))
    cluster.move(3.0)
    assert [dropped(cluster, node)[0] for node in cluster.live()] == [0] * 4
    assert cluster.hints(primaries[0]) == {lost: 1}


@pytest.mark.parametrize("dead", [False, True], ids=["slow", "dead"])
def test_a_hint_is_kept_on_the_host_that_holds_no_other_copy(dead: bool) -> None:
    """Six nodes on three hosts: on another one the hint would be lost together with a replica."""
    cluster = Cluster(6, [SLOPPY], machines=3)
    for key in (b"k%d" % i for i in range(20)):
        coordinator, kept, lost = cluster.replicas("sloppy", key)
        beside = f"n{(int(lost[1]) + 2) % 6 + 1}"
        cluster.passes = partial(_no_write_to, lost)
        if dead:
            cluster.kill(lost)
        cluster.stored_reply(coordinator, Put("sloppy", key, b"v", w=3))
        assert cluster.hints(beside) == {lost: 1}
        assert cluster.stored(kept, "sloppy", key)
        cluster.passes = lambda sender, to, message: True
        cluster.revive(lost)
        assert all(not cluster.hints(node) for node in cluster.hosts)


def _no_write_to(node: str, _sender: str, to: str, message: PeerMessage) -> bool:
    return not (isinstance(message, ReplicaWrite) and to == node)


def cluster_version(cluster: Cluster) -> bytes:
    cluster.stored_reply("n1", Put("carts", b"any", b"v", w=3))
    return next(v for n in cluster.hosts if (v := cluster.stored(n, "carts", b"any")))


# age


def test_an_old_hint_is_dropped_counted_and_its_partition_repaired() -> None:
    cluster = cluster_of(hint_age=60.0)
    with_hints(cluster, 3)
    cluster.move(50.0)
    assert cluster.hints("n1") == {"n3": 3}, "not before its time"
    cluster.move(20.0)
    assert cluster.hints("n1") == {}
    assert dropped(cluster, "n1") == (3, 0, 3, 0)
    cluster.revive("n3")
    assert equal_everywhere(cluster, 3)


def test_a_hint_that_is_written_again_is_young_again() -> None:
    cluster = cluster_of(hint_age=60.0)
    with_hints(cluster, 2)
    cluster.move(40.0)
    cluster.stored_reply("n1", Put("carts", b"k0", b"again"))
    cluster.move(40.0)
    assert cluster.hints("n1") == {"n3": 1}


def test_status_tells_the_age_of_the_oldest_hint_over_restarts() -> None:
    cluster = cluster_of(hint_age=3600.0)
    with_hints(cluster, 1)
    cluster.move(100.0)
    cluster.stored_reply("n1", Put("carts", b"younger", b"v"))

    def oldest() -> float:
        (pending,) = cluster.hosts["n1"].status().hints
        assert pending.count == 2
        return pending.oldest

    assert oldest() == pytest.approx(100.0, abs=1.0)
    cluster.restart("n1", "n2", "n3")
    assert oldest() == pytest.approx(100.0, abs=1.0)


def test_a_fallback_whose_hint_expires_tells_a_primary_and_takes_a_new_actor() -> None:
    """BUGS 2 and 10: it may not know its own earlier dots any more."""
    cluster = cluster_of(7, hint_age=60.0)
    told: list[tuple[str, str]] = []

    def noted(sender: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, RepairWanted):
            told.append((sender, to))
        return True

    cluster.passes = noted
    primaries = cluster.replicas("sloppy", KEY)
    outsider = next(node for node in cluster.hosts if node not in primaries)
    cluster.kill(*primaries[1:])
    cluster.stored_reply(outsider, Put("sloppy", KEY, b"v", w=3))
    holders = [node for node in cluster.live() if cluster.hints(node)]
    assert primaries[0] not in holders
    actors = {node: cluster.hosts[node].node.base.mint._actors for node in holders}
    partition = cluster.state.ring.partition("sloppy", KEY)
    before = {node: actors[node].mint(partition).actor for node in holders}
    cluster.move(80.0)
    assert not any(cluster.hints(node) for node in cluster.live())
    assert {to for _, to in told} == {primaries[0]}
    assert {sender for sender, _ in told} == set(holders)
    assert all(actors[node].mint(partition).actor != before[node] for node in holders)
    cluster.revive(*primaries[1:])
    assert len({cluster.stored(node, "sloppy", KEY) for node in primaries}) == 1


def test_an_old_hint_that_no_primary_holds_is_kept_until_one_does() -> None:
    """Dropped by its age alone, the only copies of an acknowledged write would be gone."""
    cluster = cluster_of(7, hint_age=60.0)
    primaries = cluster.replicas("sloppy", KEY)
    outsider = next(node for node in cluster.hosts if node not in primaries)
    cluster.kill(*primaries)
    cluster.stored_reply(outsider, Put("sloppy", KEY, b"v", w=3))
    cluster.move(100.0)
    assert sum(sum(cluster.hints(node).values()) for node in cluster.live()) == 3
    cluster.revive(primaries[0])
    cluster.move(100.0)
    assert not any(cluster.hints(node) for node in cluster.live())
    assert cluster.stored(primaries[0], "sloppy", KEY)
    cluster.revive(*primaries[1:])
    assert len({cluster.stored(node, "sloppy", KEY) for node in primaries}) == 1


def test_a_hint_that_could_not_be_read_and_was_written_anew_is_kept() -> None:
    """What cannot be read waits until there is space to delete it; meanwhile another write may have come."""
    cluster = cluster_of()
    cluster.kill("n3")
    cluster.stored_reply("n1", Put("carts", KEY, b"v"))
    hints = cluster.hosts["n1"].node.base.local.hints
    (key,) = [key for key, _ in cluster.hosts["n1"].engine.scan_prefix(b"h")]
    gone = b"hn2\0rubbish"
    cluster.hosts["n1"].engine.write([(gone, b"rubbish")])
    hints._unreadable.update((key, gone))
    hints.drop_unreadable()
    assert [key for key, _ in cluster.hosts["n1"].engine.scan_prefix(b"h")] == [key]
    assert cluster.hosts["n1"].status().counters.hints_unreadable == 1


def test_hints_of_a_fallback_that_grow_old_one_after_the_other_all_find_an_heir() -> None:
    cluster = cluster_of(7, hint_age=60.0)
    primaries = cluster.replicas("sloppy", KEY)
    outsider = next(node for node in cluster.hosts if node not in primaries)
    keys = [k for k in (b"k%d" % i for i in range(2000)) if cluster.replicas("sloppy", k) == primaries][:3]
    cluster.kill(*primaries[1:])
    for key in keys:
        cluster.stored_reply(outsider, Put("sloppy", key, b"v", w=2))
        cluster.move(20.0)
    assert any(cluster.hints(node) for node in cluster.live())
    cluster.move(120.0)
    assert not any(cluster.hints(node) for node in cluster.live())
    assert all(cluster.stored(primaries[0], "sloppy", key) for key in keys)


# replay


def _replayed(cluster: Cluster) -> list[float]:
    """When each hint is sent home from now on."""
    sent: list[float] = []
    passes = cluster.passes

    def noted(sender: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, ReplicaWrite) and message.background:
            sent.append(cluster.now)
        return passes(sender, to, message)

    cluster.passes = noted
    return sent


def test_replay_keeps_to_its_rate_in_hints_and_in_bytes() -> None:
    for rate, per_second in (("hint_rate", 100.0), ("hint_byte_rate", 10_000.0)):
        cluster = cluster_of(hint_window=10, **{rate: per_second})  # type: ignore[arg-type]
        with_hints(cluster, 100, b"x" * 60)
        sent = _replayed(cluster)
        cluster.revive("n3")
        cluster.move(20.0)
        assert cluster.hints("n1") == {}
        assert len(sent) == 100
        assert 0.85 < sent[-1] - sent[0] < 3.0


def test_the_default_rate_brings_thousands_of_hints_home_in_a_second() -> None:
    settings = QuorumSettings()
    assert settings.hint_rate >= 1000
    cluster = cluster_of()
    with_hints(cluster, 2000)
    sent = _replayed(cluster)
    cluster.revive("n3")
    assert cluster.hints("n1") == {}
    assert sent[-1] - sent[0] == pytest.approx(
        2000 / settings.hint_rate, abs=2 * settings.hint_window / settings.hint_rate
    )


def test_replay_gives_way_to_foreground_work() -> None:
    cluster = cluster_of(hint_window=10, hint_rate=40.0)
    with_hints(cluster, 200)
    sent = _replayed(cluster)
    cluster.hosts["n1"].node.base.admission.unanswered = 64
    cluster.revive("n3")
    assert sent
    assert len(sent) < 200, "five times slower with 64 requests under way"
    cluster.hosts["n1"].node.base.admission.unanswered = 0
    cluster.move(6.0)
    assert len(sent) == 200


def test_a_target_that_refuses_is_asked_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_of()
    with_hints(cluster, 3)
    sent = _replayed(cluster)
    cluster.revive("n3")
    assert cluster.hints("n1") == {}
    cluster.kill("n3")
    cluster.stored_reply("n1", Put("carts", KEY, b"v"))
    sent.clear()

    def refuse(_batch: object) -> int:
        raise StorageFull("no space left")

    monkeypatch.setattr(cluster.hosts["n3"].engine, "write", refuse)
    cluster.dead.clear()
    cluster.move(150.0)
    monkeypatch.undo()
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    assert gaps[:5] == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0], abs=0.3)
    assert gaps[5:] == pytest.approx([30.0] * len(gaps[5:]), abs=0.3)
    cluster.move(31.0)
    assert cluster.hints("n1") == {}


def test_two_targets_take_turns() -> None:
    cluster = cluster_of(5, hint_window=5, hint_rate=50.0)
    cluster.kill("n4", "n5")
    number = 0
    while min(cluster.hints("n1").get(node, 0) for node in ("n4", "n5")) < 20:
        number += 1
        cluster.call("n1", Put("carts", b"k%d" % number, b"v", w=1))
        assert number < 1000
    to: list[str] = []

    def noted(sender: str, node: str, message: PeerMessage) -> bool:
        if isinstance(message, ReplicaWrite) and message.background and sender == "n1":
            to.append(node)
        return True

    cluster.passes = noted
    cluster.hosts["n1"].node.background.replay._paced_until = cluster.now + 12.0  # until both are seen alive
    cluster.revive("n4", "n5")
    cluster.move(5.0)
    assert len(set(to[:5])) == len(set(to[5:10])) == 1, "pages of five"
    assert {*to[:10]} == {"n4", "n5"}


def test_a_hint_is_not_deleted_before_its_ack() -> None:
    """BUGS 10."""
    cluster = cluster_of()
    with_hints(cluster, 1)
    cluster.passes = lambda sender, to, message: not isinstance(message, WriteAck)
    cluster.revive("n3")
    assert cluster.hints("n1") == {"n3": 1}
    cluster.passes = lambda sender, to, message: True
    cluster.move(40.0)
    assert cluster.hints("n1") == {}


@pytest.mark.parametrize("held_by", ["its target", "a fallback's target", "an heir"])
def test_bugs_10_a_refused_hint_is_kept(held_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an ack says that another disk has it: who refuses has an answer, and not the version."""
    fallback = held_by != "its target"
    cluster = cluster_of(7 if fallback else 3, hint_age=60.0 if held_by == "an heir" else 10_000.0)
    primaries = cluster.replicas("sloppy", KEY)
    if fallback:
        cluster.kill(*primaries)
        writer = next(node for node in cluster.hosts if node not in primaries)
        cluster.stored_reply(writer, Put("sloppy", KEY, b"v", w=3))
    else:
        cluster.kill(primaries[2])
        cluster.stored_reply(primaries[0], Put("sloppy", KEY, b"v", w=2))
    before = {node: cluster.hints(node) for node in cluster.live()}

    def refuse(_batch: object) -> int:
        raise StorageFull("no space left")

    for node in primaries if fallback else primaries[2:]:
        monkeypatch.setattr(cluster.hosts[node].engine, "write", refuse)
    cluster.revive(*(primaries[:1] if held_by == "an heir" else primaries if fallback else primaries[2:]))
    cluster.move(100.0)
    assert {node: cluster.hints(node) for node in before} == before
    monkeypatch.undo()
    cluster.revive(*primaries)
    cluster.move(200.0)
    assert not any(cluster.hints(node) for node in cluster.live())
    assert len({cluster.stored(node, "sloppy", KEY) for node in primaries}) == 1


# another ring


@pytest.mark.parametrize("members", [("n1", "n2", "n3", "n4", "n5"), ("n1", "n2", "n4")])
def test_a_hint_whose_target_is_no_primary_any_more_goes_to_the_present_primaries(
    members: tuple[str, ...],
) -> None:
    """The target has given the partition away, or is no member at all."""
    cluster = cluster_of()
    with_hints(cluster, 40)
    cluster.restart(*members)
    moved = [b"k%d" % i for i in range(40) if "n3" not in cluster.replicas("carts", b"k%d" % i)]
    assert len(moved) > 3
    cluster.move(10.0)
    assert not any(cluster.hints(node) for node in cluster.hosts)
    assert counters(cluster, "n1").hints_rerouted == len(moved)
    for key in moved:
        stored = {cluster.stored(node, "carts", key) for node in cluster.replicas("carts", key)}
        assert len(stored) == 1
        version = stored.pop()
        assert version is not None
        assert [sibling.value for sibling in decode_version(EncodedVersion(version)).siblings] == [b"v"]


def test_a_hint_is_rerouted_although_its_target_is_dead_and_waits_for_all_present_primaries() -> None:
    cluster = cluster_of()
    with_hints(cluster, 40)
    cluster.restart("n1", "n2", "n3", "n4", "n5")
    cluster.passes = lambda sender, to, message: (
        not (isinstance(message, ReplicaWrite) and message.background)
    )
    cluster.kill("n3", "n5")
    cluster.passes = lambda sender, to, message: True
    cluster.move(40.0)
    waiting = [b"k%d" % i for i in range(40) if {"n3", "n5"} & set(cluster.replicas("carts", b"k%d" % i))]
    assert cluster.hints("n1") == {"n3": len(waiting)}
    assert 0 < len(waiting) < 40
    cluster.revive("n5")
    cluster.move(40.0)
    mine = [key for key in waiting if "n3" in cluster.replicas("carts", key)]
    assert cluster.hints("n1") == {"n3": len(mine)}
    cluster.revive("n3")
    assert cluster.hints("n1") == {}
    found = cluster.found("n2", Get("carts", waiting[0], r=3))
    assert [sibling.value for sibling in found.siblings] == [b"v"]


def test_a_rerouted_hint_that_a_present_primary_refuses_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_of()
    with_hints(cluster, 40)
    cluster.restart("n1", "n2", "n4")
    refused: list[int] = []

    def refuse(_batch: object) -> int:
        refused.append(1)
        raise StorageFull("no space left")

    monkeypatch.setattr(cluster.hosts["n4"].engine, "write", refuse)
    cluster.move(5.0)
    assert refused
    assert cluster.hints("n1") == {"n3": 40}
    monkeypatch.undo()
    cluster.move(40.0)
    assert cluster.hints("n1") == {}
    assert all(cluster.stored("n4", "carts", b"k%d" % i) for i in range(40))

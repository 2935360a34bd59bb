"""When a node compares with whom, who of two repairs, what it tells of it, and how it serves others."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kvstore.config import MIB, AntiEntropySettings, QuorumSettings
from kvstore.errors import KVError, Overloaded, StorageFull
from kvstore.node.settings import NodeSettings
from kvstore.protocol.peer import (
    RangeDifference,
    RangeItems,
    Refusal,
    RepairWanted,
    ReplicaWrite,
    TreeNode,
    TreeRead,
    WriteAck,
)
from kvstore.protocol.table import PeerMessage
from kvstore.quorum.background.merkle_tree import LEAVES, ROOT
from kvstore.versions import Dot, EncodedVersion, InternalKey, Sibling, Version, encode_version
from tests.plain import data_key, token
from tests.unit.quorum_cluster import Cluster

INTERVAL, SETTLE = 10.0, 1.0
ASKED_ONLY = float("inf")


def cluster_of(nodes: int = 3, interval: float = INTERVAL, hints: int = 1000) -> Cluster:
    anti_entropy = AntiEntropySettings(interval, SETTLE, reap_interval=ASKED_ONLY)
    cluster = Cluster(
        nodes, settings=NodeSettings(quorum=QuorumSettings(hint_count=hints), anti_entropy=anti_entropy)
    )
    if interval == ASKED_ONLY:
        cluster.move(1.0)  # the trees are built
    return cluster


def version(actor: str, value: bytes = b"v") -> bytes:
    dot = Dot(actor, 1)
    return encode_version(Version((dot,), (Sibling(dot, value),)))


def internal(key: bytes) -> bytes:
    return data_key(token("carts", key), "carts", key)


def plant(cluster: Cluster, node: str, key: bytes, value: bytes) -> None:
    cluster.hosts[node].node.base.local.store(InternalKey(internal(key)), EncodedVersion(value), "")
    cluster.hosts[node].sync_wanted = True
    cluster.run()


def key_of(cluster: Cluster, *primaries: str) -> bytes:
    """A key whose replica list begins with these nodes."""
    keys = (b"k%d" % i for i in range(10_000))
    return next(k for k in keys if cluster.replicas("carts", k)[: len(primaries)] == primaries)


class Watched:
    """What is sent from now on: sender, receiver, message and time."""

    def __init__(self, cluster: Cluster) -> None:
        self.sent: list[tuple[str, str, PeerMessage, float]] = []
        self._cluster = cluster
        cluster.passes = self._note

    def _note(self, sender: str, to: str, message: PeerMessage) -> bool:
        self.sent.append((sender, to, message, self._cluster.now))
        return True

    def rounds(self, sender: str, to: str) -> list[float]:
        """When `sender` has begun to compare with `to`: all roots are asked for at once."""
        return [
            when
            for who, whom, message, when in self.sent
            if (who, whom) == (sender, to)
            and isinstance(message, TreeRead)
            and {node.number for node in message.nodes} == {ROOT}
            and len(message.nodes) > 1
        ]

    def of(self, kind: type[PeerMessage]) -> list[tuple[str, str]]:
        return [(sender, to) for sender, to, message, _ in self.sent if isinstance(message, kind)]


def status(cluster: Cluster, node: str) -> tuple[int, int, float, int, tuple[str, ...]]:
    found = cluster.hosts[node].status().anti_entropy
    return found.pairs, found.unproven, found.oldest, found.wanted, found.waiting_for


def test_every_peer_is_compared_with_once_in_an_interval_while_nothing_differs() -> None:
    cluster = cluster_of()
    cluster.move(2 * INTERVAL)
    watched = Watched(cluster)
    cluster.move(5 * INTERVAL)
    for sender in cluster.hosts:
        for to in set(cluster.hosts) - {sender}:
            times = watched.rounds(sender, to)
            assert 4 <= len(times) <= 5
            assert all(
                later - earlier == pytest.approx(INTERVAL, rel=0.1) for earlier, later in pairwise(times)
            )
    assert watched.of(RangeItems) == []


def test_who_stands_first_repairs_and_looks_again_after_a_short_while() -> None:
    cluster = cluster_of(5)
    cluster.move(2 * INTERVAL)
    key = key_of(cluster, "n2", "n4")
    plant(cluster, "n4", key, version("a"))
    watched = Watched(cluster)
    cluster.move(2 * INTERVAL)
    assert cluster.stored("n2", "carts", key) == version("a")
    repaired = {(sender, to) for sender, to in watched.of(RangeItems)}
    third = cluster.replicas("carts", key)[2]
    assert repaired <= {("n2", "n4"), ("n2", third), ("n4", third)}
    assert ("n2", "n4") in repaired
    times = watched.rounds("n2", "n4")
    assert min(later - earlier for earlier, later in pairwise(times)) < 2.5 * SETTLE, "found work: soon again"


def test_repairs_are_counted_once_for_each_version_that_has_changed() -> None:
    cluster = cluster_of(interval=ASKED_ONLY)
    first, second, _ = cluster.replicas("carts", b"k")
    plant(cluster, second, b"k", version("a"))
    cluster.hosts[first].node.repair_now(cluster.instant)
    cluster.move(30.0)
    held = [node for node in cluster.hosts if cluster.stored(node, "carts", b"k") == version("a")]
    assert first in held
    assert cluster.hosts[first].status().counters.repairs == len(held) - 1
    assert cluster.hosts[first].status().counters.repair_bytes > 2 * len(version("a"))


def test_a_tree_that_is_wrong_is_corrected_when_it_is_built_anew_and_counted() -> None:
    rules = AntiEntropySettings(ASKED_ONLY, SETTLE, rebuild=60.0, reap_interval=ASKED_ONLY)
    cluster = Cluster(settings=NodeSettings(anti_entropy=rules))
    cluster.move(1.0)  # the trees are built
    host = cluster.hosts["n1"]
    host.node.base.trees.update(
        InternalKey(internal(b"k")), EncodedVersion(b""), EncodedVersion(version("a"))
    )
    assert host.status().counters.trees_corrected == 0
    cluster.move(rules.rebuild + 1.0)
    assert host.status().counters.trees_corrected == 1
    assert cluster.hosts["n2"].status().counters.trees_corrected == 0


def test_who_is_dead_is_compared_with_soon_after_it_has_come_back() -> None:
    cluster = cluster_of()
    cluster.kill("n3")
    watched = Watched(cluster)
    cluster.move(3 * INTERVAL)
    assert watched.rounds("n1", "n3") == []
    assert len(watched.rounds("n1", "n2")) >= 2
    back = cluster.now
    cluster.revive("n3")
    seen = [when for when in watched.rounds("n1", "n3") if when >= back]
    assert seen
    assert seen[0] - back < INTERVAL


def test_an_operator_s_repair_compares_with_everybody_now_and_says_what_is_left() -> None:
    cluster = cluster_of(interval=ASKED_ONLY)
    pairs, unproven, oldest, wanted, waiting = status(cluster, "n1")
    assert (unproven, oldest, wanted, waiting) == (pairs, 0.0, 0, ())
    assert pairs == 2 * 16
    cluster.hosts["n1"].node.repair_now(cluster.instant)
    assert status(cluster, "n1") == (pairs, pairs, 0.0, pairs, ("n2", "n3"))
    cluster.dead.add("n3")
    cluster.move(5.0)
    pairs, unproven, oldest, wanted, waiting = status(cluster, "n1")
    assert (unproven, wanted, waiting) == (16, 16, ("n3",))
    assert 0 < oldest <= 5.0
    cluster.revive("n3")
    cluster.move(20.0)
    pairs, unproven, oldest, wanted, waiting = status(cluster, "n1")
    assert (unproven, wanted, waiting) == (0, 0, ())
    began = oldest
    cluster.move(7.0)
    assert status(cluster, "n1")[2] == pytest.approx(began + 7.0)


def test_a_proof_is_as_old_as_the_question() -> None:
    """What was written since then is not in it."""
    cluster = cluster_of(interval=ASKED_ONLY)
    asked = [0.0]

    def slow(_: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, TreeRead):
            asked[0] = cluster.now
            cluster.stuck = {to}
            cluster.hosts[to].node.base.local.store(
                InternalKey(internal(b"x")), EncodedVersion(version("a")), ""
            )
        return True

    cluster.passes = slow
    cluster.hosts["n1"].node.repair_now(cluster.instant)
    cluster.move(3.0)
    cluster.passes = lambda sender, to, message: True
    cluster.stuck = set()
    for host in cluster.hosts.values():
        host.sync_wanted = True
    cluster.run()
    cluster.move(0.02)
    host = cluster.hosts["n1"]
    found = host.status().anti_entropy
    assert found.unproven < found.pairs
    assert set(host.node.background.proofs._proven.values()) <= {asked[0]}
    assert found.oldest == pytest.approx(cluster.now - asked[0])
    assert cluster.now > asked[0]


def test_what_a_fallback_had_to_drop_is_told_to_one_primary_that_is_alive_and_not_at_once_again() -> None:
    cluster = cluster_of(5, interval=ASKED_ONLY)
    primaries = cluster.replicas("carts", b"k")
    outsider = next(node for node in cluster.hosts if node not in primaries)
    cluster.kill(primaries[0])
    watched = Watched(cluster)
    entropy = cluster.hosts[outsider].node.background.anti_entropy
    for target, wait in (
        (primaries[1], 0.0),
        (primaries[1], SETTLE / 2),
        (primaries[1], SETTLE),
        (primaries[2], 0.0),
    ):
        cluster.move(wait)
        entropy.hint_dropped(target, InternalKey(internal(b"k")), cluster.instant)
        cluster.run()
    told = [(sender, to) for sender, to in watched.of(RepairWanted)]
    assert told == [(outsider, primaries[2]), (outsider, primaries[2]), (outsider, primaries[1])]
    cluster.move(10.0)
    assert {(sender, to) for sender, to in watched.of(TreeRead)} == {
        (primaries[2], primaries[1]),
        (primaries[1], primaries[2]),
    }


def test_a_marked_partition_is_repaired_by_whoever_was_told_also_if_it_does_not_stand_first() -> None:
    cluster = cluster_of(interval=ASKED_ONLY)
    first, second, _ = cluster.replicas("carts", b"k")
    plant(cluster, second, b"k", version("a"))
    watched = Watched(cluster)
    node = cluster.hosts[second].node
    marked = node.background.proofs._marked
    partition = cluster.state.ring.partition("carts", b"k")

    def want(peer: str, n: int) -> None:
        node.on_frame("n1", [RepairWanted(1, partition, n, peer)], cluster.instant)

    want("stranger", 3)
    want(first, 2)
    assert marked == set(), "nobody shares such trees"
    want(first, 3)
    want(first, 3)
    assert marked == {(first, TreeNode(partition, 3, ROOT))}
    cluster.move(SETTLE / 2)
    assert watched.rounds(second, first) == []
    cluster.move(5 * SETTLE)
    assert cluster.stored(first, "carts", b"k") == version("a")
    assert marked == set()
    assert len(watched.rounds(second, first)) < 6


def test_a_partition_serves_one_peer_at_a_time_until_that_one_is_done_or_gone() -> None:
    cluster = cluster_of(interval=ASKED_ONLY)
    host = cluster.hosts["n1"]

    def asks(peer: str, partition: int) -> RangeDifference | KVError:
        host.sent.clear()
        question = RangeItems(1, 1, partition, 3, bytes(range(LEAVES)), b"", b"", b"")
        host.node.on_frame(peer, [question], cluster.instant)
        ((to, answer),) = host.sent
        assert to == peer
        if isinstance(answer, Refusal):
            return answer.error
        assert isinstance(answer, RangeDifference)
        return answer

    assert isinstance(asks("n2", 0), RangeDifference)
    assert isinstance(asks("n2", 0), RangeDifference)
    refused = asks("n3", 0)
    assert isinstance(refused, Overloaded)
    assert refused.retry_after == pytest.approx(SETTLE)
    assert isinstance(asks("n3", 1), RangeDifference)
    cluster.now += SETTLE
    assert isinstance(asks("n3", 0), RangeDifference)
    assert isinstance(asks("n2", 0), Overloaded)


def test_versions_are_pushed_in_pages_and_a_page_waits_for_the_acks_of_the_last() -> None:
    cluster = cluster_of(interval=ASKED_ONLY)
    keys = [b"k%d" % i for i in range(3000)]
    partition = cluster.state.ring.partition("carts", b"k")
    keys = [key for key in keys if cluster.state.ring.partition("carts", key) == partition][:50]
    first, second, third = cluster.replicas("carts", b"k")
    for key in keys:
        for node in (first, third):
            cluster.hosts[node].node.base.local.store(
                InternalKey(internal(key)), EncodedVersion(version("a", b"x" * 100_000)), ""
            )
    for host in cluster.hosts.values():
        host.sync_wanted = True
    cluster.run()
    cluster.stuck = {second}
    pushed: list[int] = []

    def count(_: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, ReplicaWrite) and message.background:
            assert to == second
            pushed.append(len(message.version))
        return True

    cluster.passes = count
    cluster.hosts[first].node.repair_now(cluster.instant)
    cluster.move(4.0)
    assert MIB <= sum(pushed) < MIB + 2 * 100_100
    cluster.stuck = set()
    cluster.move(20.0)
    assert len(pushed) == len(keys)
    assert all(cluster.stored(second, "carts", key) for key in keys)


def test_a_push_that_is_refused_ends_the_exchange_and_a_later_one_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = cluster_of()
    cluster.move(2 * INTERVAL)
    first, second, _ = cluster.replicas("carts", b"k")
    plant(cluster, first, b"k", version("a"))

    def refuse(_batch: object) -> int:
        raise StorageFull("no space left")

    monkeypatch.setattr(cluster.hosts[second].engine, "write", refuse)
    watched = Watched(cluster)
    cluster.move(4 * INTERVAL)
    assert cluster.stored(second, "carts", b"k") is None
    assert (second, first) in watched.of(Refusal)
    assert not [each for each in cluster.hosts[first].node.base.rpc.all() if each.touches()], (
        "no push is left"
    )
    monkeypatch.undo()
    cluster.move(3 * INTERVAL)
    assert cluster.stored(second, "carts", b"k") == version("a")


def test_a_peer_that_answers_nothing_is_left_after_the_timeout_and_others_have_their_turn() -> None:
    cluster = cluster_of()
    watched = Watched(cluster)
    note = cluster.passes
    cluster.passes = lambda sender, to, message: (
        note(sender, to, message) and not (to == "n2" and isinstance(message, TreeRead))
    )
    cluster.move(6 * INTERVAL)
    assert 3 <= len(watched.rounds("n1", "n2")) <= 7
    assert len(watched.rounds("n1", "n3")) >= 3
    proven = {peer for peer, _ in cluster.hosts["n1"].node.background.proofs._proven}
    assert proven == {"n3"}


def test_an_answer_to_an_earlier_question_is_none_to_this_one() -> None:
    cluster = cluster_of(interval=ASKED_ONLY)
    node = cluster.hosts["n1"].node
    node.repair_now(cluster.instant)
    for late in (WriteAck((4711,)), Refusal(4711, Overloaded(0.1)), RangeDifference(4711, (), (), b"")):
        node.on_frame("n2", [late], cluster.instant)
    cluster.move(10.0)
    assert status(cluster, "n1")[1] == 0
    assert cluster.hosts["n1"].status().counters.repairs == 0


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "refused"])
def test_between_two_steps_of_an_exchange_lies_a_pause(lost: bool) -> None:
    anti_entropy = AntiEntropySettings(5.0, SETTLE, pause=0.2, reap_interval=ASKED_ONLY)
    cluster = Cluster(3, settings=NodeSettings(anti_entropy=anti_entropy))
    cluster.move(20.0)
    first, second, _ = cluster.replicas("carts", b"k")
    asked: list[float] = []

    def note(sender: str, to: str, message: PeerMessage) -> bool:
        if sender != first or not isinstance(message, TreeRead | RangeItems):
            return True
        asked.append(cluster.now)
        if lost and isinstance(message, RangeItems):
            refusal = Refusal(message.number, Overloaded(0.1))
            cluster.hosts[sender].node.on_frame(to, [refusal], cluster.instant)
            return False
        return True

    plant(cluster, second, b"k", version("a"))
    cluster.passes = note
    cluster.move(20.0)
    assert len(asked) > 8
    assert all(later - earlier >= 0.2 - 1e-9 for earlier, later in pairwise(asked))


def test_who_was_compared_with_longest_ago_is_next_unless_something_is_marked() -> None:
    cluster = cluster_of(5, interval=ASKED_ONLY)
    proofs = cluster.hosts["n1"].node.background.proofs

    def next_peer() -> str:
        return proofs.next_peer(cluster.instant)

    proofs._next = {"n2": 0.5, "n3": 0.2, "n4": 0.9, "n5": cluster.now + 5}
    assert next_peer() == "n3"
    proofs._next = {"n2": 0.1, "n3": 0.2, "n4": 0.9, "n5": cluster.now + 5}
    assert next_peer() == "n2"
    assert proofs.mark("n4", proofs.roots["n4"][0], cluster.now + 9)
    assert next_peer() == "n4"
    watched = Watched(cluster)
    cluster.hosts["n1"].node.background.anti_entropy.hurry(cluster.now)
    cluster.hosts["n1"].node.on_timer(cluster.instant)
    cluster.run()
    assert watched.of(TreeRead)[:1] == [("n1", "n4")]

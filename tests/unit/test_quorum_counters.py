"""What a node counts: exactly what happened, once, at whoever did it."""

from __future__ import annotations

from dataclasses import asdict

from kvstore.config import AntiEntropySettings, BucketSettings, Conflict, QuorumSettings
from kvstore.contexts import encode_seen
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import ClientRequest
from kvstore.protocol.peer import Candidate, ReapCheck, ReplicaRead, ReplicaWrite
from kvstore.versions import (
    Digest,
    Dot,
    EncodedVersion,
    InternalKey,
    Sibling,
    Version,
    digest,
    encode_version,
)
from tests.plain import Delete, Get, Put, data_key, token
from tests.unit.quorum_cluster import Cluster

KEY = b"user:1"
INTERNAL = data_key(token("carts", KEY), "carts", KEY)


def cluster_of(nodes: int = 3, hint_age: float = 10_000.0) -> Cluster:
    settings = NodeSettings(
        quorum=QuorumSettings(hint_age=hint_age),
        anti_entropy=AntiEntropySettings(interval=float("inf"), reap_interval=float("inf")),
    )
    cluster = Cluster(nodes, [BucketSettings("lww", conflict=Conflict.LWW)], settings=settings)
    cluster.move(2.0)
    return cluster


class Counted:
    """What has been counted since, at each node; syncs and bytes of repairs are of no fixed number."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._before = self._now()

    def _now(self) -> dict[str, dict[str, int]]:
        hosts = self._cluster.hosts.items()
        return {name: asdict(host.status().counters) for name, host in hosts}

    def __call__(self, node: str) -> dict[str, int]:
        before, now = self._before[node], self._now()[node]
        changed = {what: now[what] - before[what] for what in now if now[what] != before[what]}
        changed.pop("syncs", None)
        return changed


def plant(cluster: Cluster, node: str, value: bytes | None = b"v") -> None:
    dot = Dot("another", 1)
    version = encode_version(Version((dot,), (Sibling(dot, value),)))
    cluster.hosts[node].node.base.local.store(INTERNAL, version, "")
    cluster.hosts[node].sync_wanted = True
    cluster.run()


def test_requests_are_counted_by_kind_where_they_arrive() -> None:
    cluster = cluster_of(5)
    replicas = cluster.replicas("carts", KEY)
    counted = Counted(cluster)
    context = cluster.stored_reply(replicas[0], Put("carts", KEY, b"v")).context
    cluster.found(replicas[0], Get("carts", KEY))
    cluster.stored_reply(replicas[0], Delete("carts", KEY, context))
    cluster.stored_reply(replicas[0], Delete("carts", KEY))
    assert counted(replicas[0]) == {"puts": 1, "gets": 1, "deletes": 2}
    assert counted(replicas[1]) == counted(replicas[2]) == {}
    outsider = next(node for node in cluster.hosts if node not in replicas)
    cluster.found(outsider, Get("carts", KEY))
    assert counted(outsider) == {"gets": 1, "forwards": 1}
    assert sum(counted(node).get("gets", 0) for node in replicas) == 2


def test_what_is_refused_is_counted_as_an_error_too() -> None:
    cluster = cluster_of()
    counted = Counted(cluster)
    calls: list[ClientRequest] = [Put("carts", b"", b"v"), Get("carts", KEY, r=9), Put("", KEY, b"v")]
    for call in calls:
        cluster.error("n1", call)
    assert counted("n1") == {"puts": 2, "gets": 1, "errors": 3}


def test_hints_are_counted_when_they_are_kept_and_when_they_are_home() -> None:
    cluster = cluster_of()
    cluster.kill("n3")
    counted = Counted(cluster)
    cluster.stored_reply("n1", Put("carts", b"a", b"v"))
    cluster.stored_reply("n1", Put("carts", b"b", b"v"))
    assert counted("n1") == {"puts": 2, "hints_stored": 2}
    cluster.stored_reply("n1", Put("carts", b"b", b"v"))
    assert counted("n1") == {"puts": 3, "hints_stored": 3}, "it grew"
    cluster.revive("n3")
    assert counted("n1") == {"puts": 3, "hints_stored": 3, "hints_delivered": 2}
    assert counted("n2") == {}


def test_hints_that_are_too_old_are_counted_as_dropped_and_why() -> None:
    cluster = cluster_of(hint_age=20.0)
    cluster.kill("n3")
    counted = Counted(cluster)
    cluster.stored_reply("n1", Put("carts", b"a", b"v"))
    cluster.move(60.0)
    assert counted("n1") == {"puts": 1, "hints_stored": 1, "hints_dropped": 1, "hints_expired": 1}


def test_repairs_of_reads_are_counted_by_replica() -> None:
    cluster = cluster_of()
    first = cluster.replicas("carts", KEY)[0]
    plant(cluster, first)
    counted = Counted(cluster)
    cluster.found(first, Get("carts", KEY, r=3))
    assert counted(first) == {"gets": 1, "read_repairs": 2}
    cluster.found(first, Get("carts", KEY, r=3))
    assert counted(first) == {"gets": 2, "read_repairs": 2}


def test_a_read_that_has_to_ask_all_is_counted_once() -> None:
    cluster = cluster_of()
    first, _, third = cluster.replicas("carts", KEY)
    plant(cluster, third)
    counted = Counted(cluster)
    seen = encode_seen((Dot("another", 1),), token("carts", KEY))
    assert cluster.found(first, Get("carts", KEY, r=1, seen=seen)).siblings
    found = counted(first)
    assert found.pop("read_repairs") >= 1
    assert found == {"gets": 1, "wide_reads": 1}


def test_a_client_that_leaves_and_a_question_that_comes_too_late_are_counted() -> None:
    cluster = cluster_of()
    counted = Counted(cluster)
    numbers = [cluster.start("n1", Get("carts", KEY)), cluster.start("n1", Put("carts", KEY, b"v"))]
    cluster.hosts["n1"].node.on_cancelled({*numbers, 4711}, cluster.instant)
    cluster.run()
    assert counted("n1") == {"gets": 1, "puts": 1, "errors": 2, "cancelled": 2}
    late = ReplicaRead(1, 1, INTERNAL, Digest(bytes(16)), "", 1000)
    cluster.hosts["n2"].node.on_frame("n1", [late], cluster.instant, delay=2.0)
    assert counted("n2") == {"expired": 1}


def test_what_lww_loses_is_counted_by_the_coordinator_or_by_each_replica() -> None:
    cluster = cluster_of()
    counted = Counted(cluster)
    cluster.stored_reply("n1", Put("lww", KEY, b"one"))
    cluster.stored_reply("n1", Put("lww", KEY, b"two"))
    assert counted("n1") == {"puts": 2, "lww_overwritten": 1}
    assert counted("n2") == counted("n3") == {}
    cluster.passes = lambda sender, to, message: not isinstance(message, ReplicaWrite)
    counted = Counted(cluster)
    cluster.start("n1", Put("lww", b"x", b"lost"))
    cluster.now += 0.1
    cluster.start("n2", Put("lww", b"x", b"kept"))
    cluster.run()
    cluster.passes = lambda sender, to, message: True
    cluster.move(20.0)
    cluster.found("n3", Get("lww", b"x", r=3))
    assert [counted(node).get("lww_discarded") for node in ("n1", "n2", "n3")] != [None] * 3
    assert counted("n1")["lww_discarded"] == 1


def test_frames_that_are_wrong_are_counted_and_nothing_of_them() -> None:
    cluster = cluster_of()
    counted = Counted(cluster)
    cluster.hosts["n2"].sent.append(("n1", ReplicaWrite(1, 1, InternalKey(b"no key"), EncodedVersion(b""))))
    cluster.run()
    assert counted("n1") == {"frames_refused": 1}


def test_versions_that_are_reaped_are_counted_by_each_replica() -> None:
    cluster = cluster_of()
    plant(cluster, "n1", None)
    counted = Counted(cluster)
    stored = cluster.hosts["n1"].engine.get(INTERNAL)
    assert stored
    asked = Candidate(INTERNAL, digest(EncodedVersion(stored)))
    cluster.hosts["n1"].node.on_frame("n2", [ReapCheck(1, 1, (asked,), commit=False)], cluster.instant)
    cluster.move(AntiEntropySettings().reap_age)
    cluster.hosts["n1"].node.on_frame("n2", [ReapCheck(2, 1, (asked,), commit=True)], cluster.instant)
    assert counted("n1") == {"reaped": 1}
    assert cluster.hosts["n1"].engine.get(INTERNAL) is None


def test_who_cannot_read_its_own_copy_passes_the_request_on_and_counts_that() -> None:
    cluster = cluster_of()
    first = cluster.replicas("carts", KEY)[0]
    cluster.stored_reply(first, Put("carts", KEY, b"v", w=3))
    host = cluster.hosts[first]
    host.engine.write([(INTERNAL, b"rubbish")])
    host.sync_wanted = True
    cluster.run()
    counted = Counted(cluster)
    cluster.stored_reply(first, Put("carts", KEY, b"w", w=2))
    assert counted(first)["forwards"] == 1
    assert counted(first)["puts"] == 1


def test_syncs_are_counted() -> None:
    cluster = cluster_of()
    before = cluster.hosts["n1"].status().counters.syncs
    cluster.stored_reply("n1", Put("carts", KEY, b"v"))
    assert cluster.hosts["n1"].status().counters.syncs == before + 1

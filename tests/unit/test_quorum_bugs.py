"""Defects that broke others (BUGS.md), through real nodes: rows 5, 7, 14, 19 and 20."""

from __future__ import annotations

from typing import Literal

import pytest

from kvstore.config import AntiEntropySettings, BucketSettings, Limits, QuorumMode, QuorumSettings
from kvstore.errors import Outcome, TooManySiblings, Unavailable, WriteTimeout
from kvstore.node.settings import NodeSettings
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import ReplicaWrite
from kvstore.protocol.table import PeerMessage
from kvstore.versions import Dot, EncodedVersion, Sibling, Version, decode_version, encode_version
from tests.plain import Get, Put, data_key, token
from tests.unit.quorum_cluster import WALL, Cluster

KEY = b"user:1"
INTERNAL = data_key(token("carts", KEY), "carts", KEY)
NEVER = AntiEntropySettings(interval=float("inf"))
SLOPPY = BucketSettings("sloppy", quorum=QuorumMode.SLOPPY)

Way = Literal["read repair", "hints", "anti-entropy"]


def held(cluster: Cluster, bucket: str = "carts") -> set[bytes | None]:
    return {cluster.stored(node, bucket, KEY) for node in cluster.replicas(bucket, KEY)}


def plant(cluster: Cluster, node: str, version: Version) -> None:
    cluster.hosts[node].node.base.local.store(INTERNAL, encode_version(version), "")
    cluster.hosts[node].sync_wanted = True
    cluster.run()


def test_bugs_5_no_repair_prunes_a_context_however_many_actors_it_has() -> None:
    """Riak pruned by size and age on the way, and its replicas differed for ever (riak_kv#1864)."""
    cluster = Cluster()
    old = tuple(Dot(f"a{i:04}", 1) for i in range(3000))
    new = tuple(Dot(f"b{i:04}", 1) for i in range(3000))
    plant(cluster, "n1", Version(old, (Sibling(old[0], b"one"),)))
    plant(cluster, "n2", Version(new, (Sibling(new[0], b"two"),)))
    found = cluster.found("n1", Get("carts", KEY, r=3))
    assert sorted(sibling.value for sibling in found.siblings) == [b"one", b"two"]
    (version,) = held(cluster)
    assert version is not None
    assert decode_version(EncodedVersion(version)).context == old + new


@pytest.mark.parametrize("deadline", [0.5, 10.0])
def test_bugs_7_a_write_that_may_become_visible_is_said_to_be_of_unknown_outcome(deadline: float) -> None:
    """Too few acks is not "not applied": the value is seen later. What is said not applied never is."""
    cluster = Cluster()
    cluster.passes = lambda sender, to, message: not isinstance(message, ReplicaWrite)
    late = cluster.error("n1", Put("carts", KEY, b"late", timeout=deadline))
    assert isinstance(late, WriteTimeout)
    assert late.outcome is Outcome.UNKNOWN
    cluster.passes = lambda sender, to, message: True
    cluster.kill("n2", "n3")
    never = cluster.error("n1", Put("carts", KEY, b"never"))
    assert isinstance(never, Unavailable)
    assert never.outcome is Outcome.NOT_APPLIED
    cluster.revive("n2", "n3")
    cluster.move(30.0)
    assert [s.value for s in cluster.found("n2", Get("carts", KEY, r=3)).siblings] == [b"late"]


@pytest.mark.parametrize("bucket", ["carts", "sloppy"])
def test_bugs_14_fallbacks_count_only_where_the_bucket_is_sloppy(bucket: str) -> None:
    """Else R + W > N no longer means that a read meets every write."""
    cluster = Cluster(5, [SLOPPY])
    primaries = cluster.replicas(bucket, KEY)

    def only_fallbacks(_: str, to: str, message: PeerMessage) -> bool:
        return not (isinstance(message, ReplicaWrite) and to in primaries)

    cluster.passes = only_fallbacks
    put = Put(bucket, KEY, b"v", timeout=4.0)
    if bucket == "sloppy":
        cluster.stored_reply(primaries[0], put)
    else:
        error = cluster.error(primaries[0], put)
        assert isinstance(error, WriteTimeout)
        assert (error.received, error.required) == (1, 2)
    assert sum(sum(cluster.hints(node).values()) for node in cluster.hosts if node not in primaries) == 2


@pytest.mark.parametrize("siblings", [5, 9])
@pytest.mark.parametrize("way", ["read repair", "hints", "anti-entropy"])
def test_bugs_19_repair_works_at_and_above_the_sibling_cap(siblings: int, way: Way) -> None:
    """riak_kv#1156: a cap for clients' writes alone. Above it is what two sides of a split wrote."""
    limits = Limits(siblings=5)
    hints = QuorumSettings() if way == "hints" else QuorumSettings(hint_count=0)
    interval = 1.0 if way == "anti-entropy" else float("inf")
    settings = NodeSettings(quorum=hints, limits=limits, anti_entropy=AntiEntropySettings(interval))
    cluster = Cluster(settings=settings)
    cluster.passes = lambda sender, to, message: not (isinstance(message, ReplicaWrite) and to == "n3")
    for i in range(5):
        cluster.stored_reply("n1", Put("carts", KEY, b"%d" % i))
    if siblings > 5:
        dots = [Dot("other side", i) for i in range(1, siblings - 4)]
        version = Version((dots[-1],), tuple(Sibling(dot, b"other") for dot in dots))
        for node in ("n1", "n2"):
            plant(cluster, node, version)
        cluster.move(3.0)
        if way == "hints":
            cluster.hosts["n1"].node.base.local.store(INTERNAL, encode_version(version), "n3")
    assert isinstance(cluster.error("n2", Put("carts", KEY, b"one more")), TooManySiblings)
    cluster.move(3.0)
    assert len(held(cluster)) == 2
    cluster.passes = lambda sender, to, message: True
    if way == "read repair":
        cluster.found("n3", Get("carts", KEY, r=3))
    else:
        cluster.move(30.0)
    (stored,) = held(cluster)
    assert stored is not None
    assert len(decode_version(EncodedVersion(stored)).siblings) == siblings
    read = cluster.found("n3", Get("carts", KEY, r=3))
    assert cluster.stored_reply("n3", Put("carts", KEY, b"all", context=read.context)).siblings == 1


def test_bugs_20_repair_does_not_renew_what_expires_although_clocks_differ() -> None:
    """The expiry is absolute and part of the version: repair a minute later brings the same bytes."""
    cluster = Cluster(settings=NodeSettings(anti_entropy=NEVER, quorum=QuorumSettings(hint_count=0)))
    cluster.kill("n3")
    cluster.stored_reply("n1", Put("carts", KEY, b"v", ttl=100))
    cluster.revive("n3")
    cluster.move(60.0)
    before = cluster.stored("n1", "carts", KEY)
    wrong = Instant(cluster.now, WALL + int(cluster.now * 1000) - 100_000)
    cluster.requests += 1
    cluster.hosts["n3"].node.on_requests([(cluster.requests, Get("carts", KEY, r=3))], wrong)
    cluster.run()
    assert held(cluster) == {before}
    cluster.move(100.0)
    assert cluster.found("n3", Get("carts", KEY, r=3)).siblings == ()
    assert held(cluster) == {before}

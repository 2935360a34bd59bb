"""`lww` buckets through real nodes: lossy by choice, and they say what they lose (BUGS 1)."""

from __future__ import annotations

import pytest

from kvstore.config import BucketSettings, Conflict
from kvstore.errors import Overloaded
from kvstore.hlc import wall_time
from kvstore.lsm import Engine
from kvstore.protocol.client import Failed
from kvstore.protocol.peer import ReplicaWrite
from kvstore.quorum.counters import Counters
from kvstore.versions import EncodedVersion, decode_version
from tests.plain import Delete, Get, Put
from tests.unit.quorum_cluster import WALL, Cluster

KEY = b"user:1"
LWW = BucketSettings("lww", conflict=Conflict.LWW)
YEAR_MS = 365 * 86_400_000


def counters(cluster: Cluster, node: str) -> Counters:
    return cluster.hosts[node].status().counters


def test_bugs_1_a_put_in_an_lww_bucket_says_what_it_overwrote_without_having_seen_it() -> None:
    cluster = Cluster(5, [LWW])
    assert cluster.stored_reply("n1", Put("lww", KEY, b"one")).overwritten == 0
    blind = cluster.stored_reply("n2", Put("lww", KEY, b"two"))
    assert (blind.overwritten, blind.siblings) == (1, 1)
    seen = cluster.found("n3", Get("lww", KEY)).context
    assert cluster.stored_reply("n3", Put("lww", KEY, b"three", context=seen)).overwritten == 0
    assert cluster.stored_reply("n4", Put("lww", KEY, b"four", context=seen)).overwritten == 1
    assert cluster.stored_reply("n5", Delete("lww", KEY, context=seen)).overwritten == 1
    assert cluster.stored_reply("n1", Put("lww", KEY, b"five")).overwritten == 0, "a tombstone is no value"
    explained = cluster.stored_reply("n2", Put("lww", KEY, b"six", explain=True))
    assert explained.explain is not None
    assert explained.overwritten == 1
    assert sum(counters(cluster, node).lww_overwritten for node in cluster.hosts) == 4


def test_a_put_that_is_refused_has_overwritten_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(3, [LWW])
    cluster.stored_reply("n1", Put("lww", KEY, b"one"))

    def refuse(*_: object) -> int:
        raise Overloaded(0.1, "flushes are behind")

    with monkeypatch.context() as full:
        full.setattr(Engine, "write", refuse)
        number = cluster.start("n2", Put("lww", KEY, b"two"))
    assert isinstance(cluster.hosts["n2"].replies[number], Failed)
    assert counters(cluster, "n2").lww_overwritten == 0


def test_bugs_1_a_put_in_a_bucket_with_siblings_never_overwrites_what_it_has_not_seen() -> None:
    cluster = Cluster()
    for value in (b"one", b"two", b"three"):
        assert cluster.stored_reply("n1", Put("carts", KEY, value)).overwritten == 0
    assert len(cluster.found("n2", Get("carts", KEY)).siblings) == 3


@pytest.mark.parametrize("first", ["n1", "n2"])
def test_bugs_1_replicas_count_what_concurrent_writes_of_an_lww_bucket_lose(first: str) -> None:
    """Neither coordinator knows of the other's write, so neither reply can tell: the replicas do."""
    second = "n2" if first == "n1" else "n1"
    cluster = Cluster(3, [LWW])
    cluster.passes = lambda sender, to, message: not isinstance(message, ReplicaWrite)
    cluster.start(first, Put("lww", KEY, b"lost"))
    cluster.now += 0.1
    cluster.start(second, Put("lww", KEY, b"kept"))
    cluster.run()
    cluster.passes = lambda sender, to, message: True
    cluster.move(30.0)
    for node in cluster.hosts:
        version = cluster.stored(node, "lww", KEY)
        assert version is not None
        assert [sibling.value for sibling in decode_version(EncodedVersion(version)).siblings] == [b"kept"]
        assert counters(cluster, node).lww_overwritten == 0
    lost = [counters(cluster, node).lww_discarded for node in cluster.hosts]
    assert 1 in lost, "where both met"
    assert max(lost) == 1, "however often it was told"


def test_a_clock_a_year_ahead_carries_no_other_clock_along() -> None:
    """Its own keys can be written over all the same: a write is later than what it saw."""
    cluster = Cluster(3, [LWW])
    right = cluster.instant
    wrong = type(right)(right.mono, right.wall + YEAR_MS)
    cluster.requests += 1
    cluster.hosts["n1"].node.on_requests([(cluster.requests, Put("lww", KEY, b"future"))], wrong)
    cluster.run()
    for value in (b"one", b"two"):
        assert cluster.stored_reply("n2", Put("lww", KEY, value)).overwritten == 1
        assert [s.value for s in cluster.found("n3", Get("lww", KEY, r=3)).siblings] == [value]
    cluster.stored_reply("n2", Put("lww", b"other", b"v"))
    (other,) = cluster.found("n2", Get("lww", b"other")).siblings
    assert WALL <= other.time <= WALL + 60_000
    assert counters(cluster, "n2").clock_ahead == 2
    assert counters(cluster, "n3").clock_ahead == 0


def test_all_replicas_of_an_lww_bucket_hold_the_same_whatever_their_clocks_say() -> None:
    cluster = Cluster(3, [LWW])
    errors = {"n1": 3_600_000, "n2": -3_600_000, "n3": 10 * YEAR_MS}
    for i in range(30):
        node = f"n{i % 3 + 1}"
        now = cluster.instant
        cluster.requests += 1
        put = Put("lww", b"k%d" % (i % 4), b"%d" % i)
        cluster.hosts[node].node.on_requests(
            [(cluster.requests, put)], type(now)(now.mono, now.wall + errors[node])
        )
        cluster.run()
        cluster.move(0.01)
    for key in (b"k0", b"k1", b"k2", b"k3"):
        (version,) = {cluster.stored(node, "lww", key) for node in cluster.hosts}
        assert version is not None
        (sibling,) = decode_version(EncodedVersion(version)).siblings
        assert int(sibling.value or b"") >= 26, "one after the other: the last one wins"
        assert wall_time(sibling.time) >= WALL

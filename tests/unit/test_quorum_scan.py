"""Scans: what so many replicas hold that no acknowledged write is missed, united by any node."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from kvstore.config import MIB, BucketSettings, Limits
from kvstore.errors import InternalError, InvalidRequest, KVError, ReadTimeout, Unavailable
from kvstore.node import scans
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Delete, Put, Value
from kvstore.protocol.peer import KeyVersion, ReplicaWrite, ScanDifference, ScanItems
from kvstore.protocol.scan import Scan, Scanned, ScannedKey
from kvstore.protocol.table import PeerMessage
from kvstore.ring import partition_bounds, place_of
from kvstore.versions import BucketName, EncodedVersion, InternalKey, UserKey
from tests.plain import data_key, token
from tests.unit.quorum_cluster import Cluster

CARTS = BucketName("carts")
SCAN = Scan(CARTS)
VALUES = Scan(CARTS, values=True)


def put(cluster: Cluster, key: bytes, value: bytes = b"v", **options: Any) -> None:
    cluster.stored_reply("n1", Put(CARTS, UserKey(key), value, **options))


def keys(cluster: Cluster, scan: Scan, *nodes: str) -> list[bytes]:
    found = [bytes(each.key) for each in cluster.scanned(scan, *nodes)]
    assert len(set(found)) == len(found), "a key is there twice"
    return sorted(found)


def lose(cluster: Cluster, node: str, kind: type) -> None:
    """From now on this node gets no message of a kind; of writes, hints do not bring them home either."""
    cluster.passes = lambda _, to, message: not (to == node and isinstance(message, kind))


def values(cluster: Cluster, key: bytes, node: str = "n1") -> list[bytes]:
    (found,) = [each for each in cluster.scanned(VALUES, node) if each.key == key]
    return sorted(value.value for value in found.siblings)


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("limit", [1, 7, 0])
def test_every_node_gives_every_key_once(nodes: int, limit: int) -> None:
    """Of five nodes two are no replica of a key."""
    cluster = Cluster(nodes)
    expected = sorted(b"user:%d" % i for i in range(60))
    for key in expected:
        put(cluster, key)
    put(cluster, b"gone")
    cluster.stored_reply("n1", Delete(CARTS, UserKey(b"gone")))
    cluster.stored_reply("n1", Put(BucketName("other"), UserKey(b"elsewhere"), b"v"))
    scan = Scan(CARTS, limit=limit)
    for node in cluster.hosts:
        assert keys(cluster, scan, node) == expected
    assert keys(cluster, scan, *cluster.hosts) == expected, "each page by another node"
    assert all(not each.siblings for each in cluster.scanned(scan))
    assert keys(cluster, Scan(BucketName("absent"), limit=limit)) == []
    assert all(host.status().in_flight == 0 for host in cluster.hosts.values())


@pytest.mark.parametrize("nodes", [3, 5])
def test_a_few_keys_are_one_page(nodes: int) -> None:
    """Although they are in partitions that have nothing between them, or are of other nodes."""
    cluster = Cluster(nodes)
    for key in (b"a", b"b", b"c"):
        put(cluster, key)
    for node in cluster.hosts:
        page = cluster.page(node, SCAN)
        assert isinstance(page, Scanned)
        assert ({bytes(each.key) for each in page.keys}, page.next) == ({b"a", b"b", b"c"}, b"")
    assert cluster.page("n1", Scan(BucketName("absent"))) == Scanned((), b"")


def test_a_page_has_what_was_found_before_an_error_and_the_next_one_tells_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scans, "_PARTITIONS", 4)
    cluster = Cluster()
    for i in range(60):
        put(cluster, b"user:%d" % i, w=3)
    asked = 0

    def passes(_sender: str, _to: str, message: PeerMessage) -> bool:
        nonlocal asked
        asked += isinstance(message, ScanItems)
        return asked <= cluster.state.ring.partitions // 2 or not isinstance(message, ScanItems)

    cluster.passes = passes
    page = cluster.page("n1", Scan(CARTS, limit=60))
    assert isinstance(page, Scanned)
    assert 0 < len(page.keys) < 60
    assert isinstance(cluster.page("n1", Scan(CARTS, page.next, limit=60)), KVError)
    cluster.passes = lambda *_: True
    rest = cluster.page("n1", Scan(CARTS, page.next, limit=60))
    assert isinstance(rest, Scanned)
    assert (len(page.keys) + len(rest.keys), rest.next) == (60, b"")


def test_a_prefix_is_left_to_the_nodes() -> None:
    cluster = Cluster()
    for i in range(30):
        put(cluster, b"user:%d" % i)
    put(cluster, b"order:1")
    assert keys(cluster, Scan(CARTS, prefix=UserKey(b"user:2"))) == sorted(
        b"user:%d" % i for i in (2, *range(20, 30))
    )


def test_values_come_as_a_get_shows_them() -> None:
    cluster = Cluster()
    put(cluster, b"k", b"one", content_type="text/plain", ttl=60)
    put(cluster, b"k", b"two")
    (found,) = cluster.scanned(VALUES)
    wall = cluster.instant.wall
    assert sorted(found.siblings, key=lambda value: value.value) == [
        Value(b"one", "text/plain", wall, wall + 60_000),
        Value(b"two", "", wall),
    ]
    cluster.move(61.0)
    assert values(cluster, b"k") == [b"two"]


@pytest.mark.parametrize("stale", ["n1", "n2", "n3"])
def test_a_replica_that_missed_writes_hides_nothing_and_brings_nothing_back(stale: str) -> None:
    """Whichever node is asked: a write that two have acknowledged is on one of any two of three."""
    cluster = Cluster()
    put(cluster, b"changed", b"old")
    put(cluster, b"deleted")
    writer = "n1" if stale != "n1" else "n2"
    lose(cluster, stale, ReplicaWrite)
    read = {each.key: each for each in cluster.scanned(VALUES, writer)}
    assert {*read} == {b"changed", b"deleted"}
    cluster.stored_reply(writer, Put(CARTS, UserKey(b"new"), b"v"))
    cluster.stored_reply(writer, Put(CARTS, UserKey(b"changed"), b"new"))
    cluster.stored_reply(writer, Delete(CARTS, UserKey(b"deleted")))
    for node in cluster.hosts:
        assert keys(cluster, SCAN, node) == [b"changed", b"new"], node
        assert values(cluster, b"changed", node) == [b"new", b"old"], node


def test_a_node_that_lost_all_it_had_gives_what_the_others_have() -> None:
    cluster = Cluster()
    expected = sorted(b"user:%d" % i for i in range(60))
    for key in expected:
        put(cluster, key, bytes(1000))
    cluster.passes = lambda _, to, message: not isinstance(message, ReplicaWrite)
    for key in cluster.contents("n1"):
        cluster.hosts["n1"].engine.write([(key, None)])
    assert keys(cluster, SCAN, "n1") == expected
    assert keys(cluster, Scan(CARTS, limit=7), "n1") == expected


def test_what_is_behind_the_end_of_an_answer_is_on_the_next_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that lacks nearly everything, and others whose answers have a bound."""
    monkeypatch.setattr("kvstore.node.scan_answers._ANSWER_BYTES", 3000)
    test_a_node_that_lost_all_it_had_gives_what_the_others_have()


@pytest.mark.parametrize(("w", "dead", "fails"), [(2, 1, False), (2, 2, True), (3, 2, False), (1, 1, True)])
def test_it_needs_so_many_replicas_that_none_can_hide_what_w_have_acknowledged(
    w: int, dead: int, fails: bool
) -> None:
    cluster = Cluster(buckets=[BucketSettings("carts", n=3, r=2, w=2)])
    put(cluster, b"k", w=3)
    cluster.kill(*["n3", "n2"][:dead])
    page = cluster.page("n1", Scan(CARTS, w=w))
    if fails:
        assert isinstance(page, Unavailable)
        assert (page.required, page.alive) == (4 - w, 3 - dead)
    else:
        assert keys(cluster, Scan(CARTS, w=w)) == [b"k"]


def test_one_that_does_not_answer_is_replaced_by_another() -> None:
    cluster = Cluster()
    put(cluster, b"k", w=3)
    for silent in ("n2", "n3"):
        lose(cluster, silent, ScanItems)
        assert keys(cluster, SCAN, "n1") == [b"k"]
    cluster.passes = lambda _, to, message: not isinstance(message, ScanItems)
    error = cluster.page("n1", Scan(CARTS, timeout=1.0))
    assert isinstance(error, Unavailable | ReadTimeout)
    assert cluster.hosts["n1"].status().in_flight == 0


def damage(cluster: Cluster, node: str, key: bytes) -> None:
    stored = data_key(token("carts", key), "carts", key)
    cluster.hosts[node].engine.write([(stored, b"no version")])


def test_a_copy_that_cannot_be_read_is_no_answer() -> None:
    """Whether it is that of the node that is asked or of another: the third one tells."""
    for damaged in ("n1", "n2"):
        cluster = Cluster()
        put(cluster, b"k", w=3)
        damage(cluster, damaged, b"k")
        assert keys(cluster, SCAN, "n1") == [b"k"]
        assert values(cluster, b"k", "n1") == [b"v"]
    cluster = Cluster()
    put(cluster, b"k", w=3)
    for node in ("n1", "n2"):
        damage(cluster, node, b"k")
    pages = [cluster.page("n1", Scan(CARTS, cursor)) for cursor in _cursors(cluster)]
    errors = [page for page in pages if isinstance(page, KVError)]
    assert errors
    assert all(isinstance(error, Unavailable) for error in errors)


@pytest.mark.parametrize("limit", [1, 7, 0])
def test_a_range_has_what_is_in_it_and_its_last_page_says_so(limit: int) -> None:
    """Ranges that begin and end anywhere: at a key, before it, behind it, in the middle of a partition."""
    cluster = Cluster(5)
    found = [b"user:%d" % i for i in range(60)]
    for key in found:
        put(cluster, key)
    at = {key: bytes(data_key(token(CARTS, key), CARTS, key)) for key in found}
    inner = sorted(at.values())
    places = [
        b"",
        place_of(1 << 60),
        inner[3],
        inner[4] + b"\0",
        place_of(1 << 63),
        inner[50],
        inner[59],
        b"",
    ]
    ranges = list(pairwise(places))
    parts = [keys(cluster, Scan(CARTS, start, until=end, limit=limit), "n1", "n4") for start, end in ranges]
    assert sorted(key for part in parts for key in part) == sorted(found)
    for (start, end), part in zip(ranges, parts, strict=True):
        assert all(start <= at[key] < (end or b"e") for key in part)


def _cursors(cluster: Cluster) -> list[bytes]:
    partitions = cluster.state.ring.partitions
    return [partition_bounds(partition, partitions)[0] for partition in range(partitions)]


@pytest.mark.parametrize(
    ("scan", "field"),
    [
        (Scan(BucketName("no bucket")), "bucket"),
        (Scan(CARTS, w=4), "w"),
        (Scan(CARTS, cursor=b"h" * 20), "cursor"),
        (Scan(CARTS, cursor=b"d"), "cursor"),
        (Scan(CARTS, until=b"h" * 20), "until"),
        (Scan(CARTS, cursor=place_of(7), until=place_of(7)), "until"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(scan: Scan, field: str) -> None:
    cluster = Cluster()
    error = cluster.page("n1", scan)
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert cluster.hosts["n1"].status().in_flight == 0


def test_a_page_has_at_most_a_thousand_keys_however_many_are_asked_for() -> None:
    cluster = Cluster()
    for i in range(1100):
        put(cluster, b"%d" % i)
    for limit in (0, 1_000_000):
        page = cluster.page("n1", Scan(CARTS, limit=limit))
        assert isinstance(page, Scanned)
        assert len(page.keys) == Limits.scan_keys


def test_a_page_has_no_more_values_than_it_may_and_names_a_key_that_has_more_by_itself() -> None:
    cluster = Cluster(settings=NodeSettings(limits=Limits(value=8 * MIB)))
    for i in range(30):
        put(cluster, b"%d" % i, bytes(MIB // 2))
    put(cluster, b"large", bytes(5 * MIB))
    for node in ("n1", "n2"):
        sizes: list[int] = []
        found: dict[UserKey, ScannedKey] = {}
        cursor = b""
        while True:
            page = cluster.page(node, Scan(CARTS, cursor, values=True))
            assert isinstance(page, Scanned)
            sizes.append(sum(len(value.value) for each in page.keys for value in each.siblings))
            found |= {each.key: each for each in page.keys}
            cursor = page.next
            if not cursor:
                break
        assert max(sizes) <= 4 * MIB
        assert len(found) == 31
        assert found.pop(UserKey(b"large")).large
        assert all(not each.large and len(each.siblings[0].value) == MIB // 2 for each in found.values())
        cluster.passes = lambda _, to, message: not isinstance(message, ReplicaWrite)
        for key in cluster.contents("n2"):
            cluster.hosts["n2"].engine.write([(key, None)])  # so that all comes from the others at once


def wrong_answers(cluster: Cluster, wrong: Callable[[ScanItems], ScanDifference]) -> None:
    """What n1 asks of others for scans is answered with this."""

    def passes(sender: str, to: str, message: PeerMessage) -> bool:
        if not isinstance(message, ScanItems):
            return True
        cluster.hosts[sender].node.on_frame(to, [wrong(message)], cluster.instant)
        return False

    cluster.passes = passes


def test_an_answer_that_would_make_the_scan_endless_or_show_other_keys_is_none() -> None:
    cluster = Cluster()
    put(cluster, b"k", w=3)
    cluster.stored_reply("n1", Put(BucketName("other"), UserKey(b"o"), b"v", w=3))
    internal = data_key(token("other", b"o"), "other", b"o")
    version = cluster.stored("n1", "other", b"o")
    assert version
    other = (KeyVersion(InternalKey(internal), EncodedVersion(version)),)
    wrong_answers(cluster, lambda asked: ScanDifference(asked.number, (), asked.after))
    assert isinstance(cluster.page("n1", SCAN), Unavailable)
    wrong_answers(cluster, lambda asked: ScanDifference(asked.number, (), asked.until))
    assert isinstance(cluster.page("n1", SCAN), Unavailable)
    partition, _ = partition_bounds(
        cluster.state.ring.partition("other", b"o"), cluster.state.ring.partitions
    )

    def with_another(asked: ScanItems) -> ScanDifference:
        there = asked.after <= internal < asked.until
        return ScanDifference(asked.number, other if there else (), b"")

    wrong_answers(cluster, with_another)
    assert isinstance(cluster.page("n1", Scan(CARTS, partition)), Unavailable)
    wrong_answers(cluster, lambda asked: ScanDifference(asked.number, (), b""))
    assert isinstance(cluster.page("n1", SCAN), Scanned)


def test_a_question_reads_nothing_outside_of_its_partition() -> None:
    """Hints, and what else a node keeps, begin with another byte."""
    cluster = Cluster()
    for i in range(40):
        put(cluster, b"user:%d" % i, w=3)
    partition = cluster.state.ring.partition("carts", b"user:1")
    asked = ScanItems(7, cluster.state.epoch, partition, CARTS, UserKey(b""), b"", b"", b"", 0)
    cluster.hosts["n2"].sent.clear()
    cluster.hosts["n2"].node.on_frame("n1", [asked], cluster.instant)
    (answer,) = [m for _, m in cluster.hosts["n2"].sent if isinstance(m, ScanDifference)]
    there = {b"user:%d" % i for i in range(40)}
    there = {key for key in there if cluster.state.ring.partition("carts", key) == partition}
    assert {key.split(b"\0")[-1] for key, _ in answer.versions} == there
    assert answer.reached == b""


def test_what_is_not_on_the_disk_yet_is_not_shown() -> None:
    cluster = Cluster()
    cluster.stuck.update(cluster.hosts)
    cluster.start("n1", Put(CARTS, UserKey(b"k"), b"v"))
    cluster.run()
    replies: list[Any] = []
    cluster.hosts["n1"].node.on_scan(Scan(CARTS, timeout=5.0), replies.append, cluster.instant)
    cluster.run()
    assert replies == []
    cluster.stuck.clear()
    cluster.run()
    assert len(replies) == 1


def test_a_defect_is_told_to_who_asked_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    put(cluster, b"k", w=3)
    monkeypatch.setattr(scans, "shown", None)
    told: list[Exception] = []
    monkeypatch.setattr(cluster.hosts["n1"], "defect", told.append, raising=True)
    monkeypatch.setattr(cluster.hosts["n1"].node.base.guard, "_report", told.append)
    errors = [cluster.page("n1", Scan(CARTS, cursor)) for cursor in _cursors(cluster)]
    error = next(error for error in errors if not isinstance(error, Scanned))
    assert isinstance(error, InternalError)
    assert {type(error) for error in told} == {TypeError}
    assert cluster.hosts["n1"].status().in_flight == 0

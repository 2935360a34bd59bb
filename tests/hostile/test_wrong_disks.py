"""What an earlier version has stored of a peer's defect never prevents a start, nor anything else."""

from __future__ import annotations

import pytest

from kvstore.config import AntiEntropySettings, QuorumSettings
from kvstore.errors import Corruption
from kvstore.node.settings import NodeSettings
from kvstore.protocol.fields import MAX_INCARNATION
from kvstore.protocol.gossip import Status
from kvstore.protocol.scan import Scan
from kvstore.quorum.hints import hint_key
from kvstore.versions import BucketName, Dot, Sibling, Version, encode_version
from tests.plain import Delete, Get, Put, data_key, token
from tests.unit.quorum_cluster import Cluster

DOT = Dot("n9.0.0", 7)
GOOD = encode_version(Version((DOT,), (Sibling(DOT, b"v"),)))
TOMBSTONE = encode_version(Version((DOT,), (Sibling(DOT, None),)))
OWN = next(p for p, nodes in enumerate(Cluster().state.ring.replica_lists) if nodes[0] == "n1")
STRAY = data_key(OWN << 60, "carts", b"other")
"""In a partition that n1 reaps, and not of the token that its bucket and key have."""
KEY = data_key(token("carts", b"key"), "carts", b"key")

STORED = {
    "a hint with a garbage version": (hint_key("n3", KEY), b"rubbish"),
    "a hint with a version out of bounds": (
        hint_key("n3", KEY),
        encode_version(Version((DOT,), (Sibling(DOT, b"v", time=-1),))),
    ),
    "a hint for a name that is none": (hint_key("No One", KEY), GOOD),
    "a hint without a target": (b"h\0" + KEY, GOOD),
    "a hint without a key": (b"hn3", GOOD),
    "a hint for a garbage key": (b"hn3\0rubbish", GOOD),
    "a hint that is nothing but its keyspace": (b"h", GOOD),
    "a key without NUL": (KEY[:9] + b"carts", GOOD),
    "a tombstone of a key without NUL": (KEY[:9] + b"carts", TOMBSTONE),
    "a key with the token of another": (STRAY, GOOD),
    "a tombstone with the token of another": (STRAY, TOMBSTONE),
    "a key that is nothing but its keyspace": (b"d", GOOD),
    "a key whose bucket is no text": (KEY[:9] + b"\xff\xfe\0k", GOOD),
    "a garbage version": (KEY, b"rubbish"),
    "a version with a negative time": (KEY, encode_version(Version((DOT,), (Sibling(DOT, b"v", time=-1),)))),
    "a version with time 2^64-1": (KEY, encode_version(Version((DOT,), (Sibling(DOT, b"v", 2**64 - 1),)))),
    "a version that is not canonical": (KEY, GOOD.replace(b"\x07", b"\xce\0\0\0\x07", 1)),
    "an incarnation of 2^64-1": (b"n/incarnation", b"\xff" * 8),
    "an incarnation of many bytes": (b"n/incarnation", b"\xff" * 100),
    "an incarnation of no bytes": (b"n/incarnation", b""),
    "a key for contexts that is too short": (b"n/context-key/00", b"short"),
    "a record of the node's own that nobody knows": (b"n/what", b"rubbish"),
}
SETTINGS = NodeSettings(
    quorum=QuorumSettings(hint_age=5.0),
    anti_entropy=AntiEntropySettings(interval=2.0, settle=0.5, reap_interval=2.0, reap_age=4.0),
)


@pytest.mark.parametrize("name", STORED)
def test_a_node_starts_and_works_whatever_is_stored(name: str) -> None:
    cluster = Cluster(settings=SETTINGS)
    for i in range(20):
        cluster.stored_reply("n1", Put("carts", b"k%d" % i, b"v", w=3))
    cluster.start_again(lambda: cluster.put_on_disk("n1", *STORED[name]))
    cluster.move(60.0)
    status = cluster.hosts["n1"].status()
    assert {member.status for member in status.members} == {Status.ALIVE}
    assert all(member.incarnation <= MAX_INCARNATION for member in status.members)
    assert status.hints == ()
    assert status.counters.hints_unreadable == name.startswith("a hint")
    for i in range(20):
        assert [s.value for s in cluster.found("n1", Get("carts", b"k%d" % i, r=3)).siblings] == [b"v"]
    cluster.stored_reply("n1", Put("carts", b"after", b"v", w=3))
    cluster.stored_reply("n1", Delete("carts", b"after"))
    for host in cluster.hosts.values():
        host.node.repair_now(cluster.instant)
    cluster.move(30.0)
    assert all(cluster.stored(node, "carts", b"after") is None for node in cluster.hosts), "it was reaped"
    if not name.startswith(("a version", "a garbage")):
        assert [host.status().anti_entropy.wanted for host in cluster.hosts.values()] == [0, 0, 0]
    assert cluster.refused == 0, "it never sends what others refuse"
    assert b"other" not in {each.key for each in cluster.scanned(Scan(BucketName("carts")), "n1")}
    cluster.start_again()


@pytest.mark.parametrize("name", [name for name in STORED if STORED[name][0] == KEY])
def test_a_version_that_cannot_be_read_is_an_error_or_comes_from_the_others(name: str) -> None:
    """Never "not found", and never sent on: the others would refuse it, and all else with it."""
    cluster = Cluster(settings=NodeSettings(anti_entropy=AntiEntropySettings(interval=float("inf"))))
    for node in ("n2", "n3"):
        host = cluster.hosts[node]
        host.node.base.local.store(KEY, GOOD, "")
        host.sync_wanted = True
    bad = STORED[name][1]
    engine = cluster.hosts["n1"].engine
    engine.write([(KEY, bad)])
    cluster.run()
    readable = "canonical" in name
    for node in cluster.hosts:
        assert [s.value for s in cluster.found(node, Get("carts", b"key")).siblings] == [b"v"], node
    if not readable:
        assert isinstance(cluster.error("n1", Get("carts", b"key", r=3)), Corruption)
    cluster.stored_reply("n1", Put("carts", b"key", b"more"))
    cluster.start_again()

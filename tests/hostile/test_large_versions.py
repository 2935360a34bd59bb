"""Sizes: what is acknowledged can be read, resolved, written over and deleted, on every replica, for ever."""

from __future__ import annotations

import pytest

from kvstore.config import AntiEntropySettings, BucketSettings, Limits, QuorumMode, QuorumSettings
from kvstore.errors import InvalidRequest, Outcome, VersionTooLarge
from kvstore.lsm import Options
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Failed, Stored
from kvstore.protocol.peer import ReplicaWrite
from kvstore.protocol.table import PeerMessage
from kvstore.versions import EncodedVersion, decode_version
from tests.plain import Delete, Get, Put
from tests.unit.quorum_cluster import Cluster

KEY = b"user:1"
LIMITS = Limits(value=1000, version=5000)
SETTINGS = NodeSettings(limits=LIMITS, anti_entropy=AntiEntropySettings(interval=2.0, settle=0.5))
SLOPPY = BucketSettings("sloppy", r=1, w=1, quorum=QuorumMode.SLOPPY)


def value(name: int | str, size: int = 1000) -> bytes:
    return str(name).encode().ljust(size, b".")


def fill(cluster: Cluster, node: str, bucket: str = "carts") -> tuple[list[bytes], VersionTooLarge]:
    """Blind puts of one node until it refuses: what was acknowledged, and the refusal."""
    taken: list[bytes] = []
    for i in range(100):
        reply = cluster.call(node, Put(bucket, KEY, value(f"{node}.{i}")))
        if isinstance(reply, Failed):
            assert isinstance(reply.error, VersionTooLarge)
            return taken, reply.error
        assert isinstance(reply, Stored)
        taken.append(value(f"{node}.{i}"))
    raise AssertionError("nothing was refused")


def values(cluster: Cluster, node: str, bucket: str = "carts", r: int = 3) -> list[bytes]:
    return sorted(sibling.value for sibling in cluster.found(node, Get(bucket, KEY, r=r)).siblings)


def test_a_client_that_adds_too_much_to_a_key_is_refused_and_the_key_goes_on() -> None:
    cluster = Cluster(settings=SETTINGS)
    taken, error = fill(cluster, "n1")
    assert len(taken) == 4
    assert error.outcome is Outcome.NOT_APPLIED
    assert error.limit == 5000
    assert error.size > 5000
    assert "write with the context of a read" in str(error)
    for _ in range(2):
        for node in cluster.hosts:
            assert values(cluster, node) == taken
        cluster.start_again()
        cluster.move(10.0)
    # what adds nothing is taken: a part of the siblings, all of them, none of them
    context = cluster.found("n2", Get("carts", KEY)).context
    assert cluster.stored_reply("n2", Put("carts", KEY, value("all"), context)).siblings == 1
    fill(cluster, "n3")
    assert cluster.stored_reply("n3", Delete("carts", KEY)).siblings == 0
    assert values(cluster, "n1") == []


@pytest.mark.parametrize("room", [-1, 0, 1])
def test_the_bound_of_a_key_is_exact(room: int) -> None:
    cluster = Cluster(settings=SETTINGS)
    fill(cluster, "n1")
    stored = len(cluster.stored("n1", "carts", KEY) or b"")
    cluster.stored_reply("n1", Put("carts", KEY, b"?"))
    overhead = len(cluster.stored("n1", "carts", KEY) or b"") - stored - 1
    size = LIMITS.version - stored - overhead - (1 + overhead) - 1 + room
    reply = cluster.call("n1", Put("carts", KEY, value("last", size)))
    length = len(cluster.stored("n1", "carts", KEY) or b"")
    assert isinstance(reply, Stored) == (room <= 0)
    assert length == LIMITS.version + room if room <= 0 else length < LIMITS.version
    assert values(cluster, "n2")


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 100_000])
def test_a_value_is_bounded_by_itself(size: int) -> None:
    cluster = Cluster(settings=SETTINGS)
    reply = cluster.call("n1", Put("carts", KEY, b"x" * size))
    if size <= 1000:
        assert isinstance(reply, Stored)
        assert values(cluster, "n2") == [b"x" * size]
    else:
        assert isinstance(reply, Failed)
        assert isinstance(reply.error, InvalidRequest)
        assert reply.error.field == "value"
        assert values(cluster, "n2") == []


@pytest.mark.parametrize("length", [0, 255, 256, 60_000_000])
def test_a_content_type_is_bounded(length: int) -> None:
    cluster = Cluster(settings=SETTINGS)
    reply = cluster.call("n1", Put("carts", KEY, b"v", content_type="x" * length))
    assert isinstance(reply, Stored) == (length <= 255)


def test_what_both_sides_of_a_split_have_added_is_kept_although_it_is_above_the_bound_of_one() -> None:
    """Repair and hints are not refused: each side was within its right."""
    cluster = Cluster(5, [SLOPPY], settings=SETTINGS)
    taken: list[bytes] = []
    for node in cluster.replicas("sloppy", KEY):
        cluster.passes = lambda sender, to, message: not isinstance(message, ReplicaWrite)
        taken += fill(cluster, node, "sloppy")[0]
    of_one_side = cluster.found(node, Get("sloppy", KEY, r=1)).context
    cluster.passes = lambda sender, to, message: True
    cluster.move(60.0)
    assert len(taken) == 12
    for node in cluster.hosts:
        assert values(cluster, node, "sloppy") == sorted(taken)
    refused = cluster.error("n1", Put("sloppy", KEY, value("one more")))
    assert isinstance(refused, VersionTooLarge)
    # this leaves less than there was, if still more than one side may have
    assert cluster.stored_reply(node, Put("sloppy", KEY, b"four in one", of_one_side)).siblings == 9
    context = cluster.found("n1", Get("sloppy", KEY)).context
    assert cluster.stored_reply("n2", Put("sloppy", KEY, value("all"), context)).siblings == 1


def apart(cluster: Cluster) -> list[bytes]:
    """Each replica has so much of a key that no disk takes what all of them have."""
    taken: list[bytes] = []

    def none(_sender: str, _to: str, message: PeerMessage) -> bool:
        return not isinstance(message, ReplicaWrite)

    for node in cluster.replicas("sloppy", KEY):
        cluster.passes = none
        taken += fill(cluster, node, "sloppy")[0]
    cluster.passes = lambda sender, to, message: True
    cluster.move(60.0)
    return sorted(taken)


@pytest.mark.parametrize("way", ["put", "delete", "delete with a context"])
def test_what_no_disk_can_take_together_is_still_readable_resolvable_and_deletable(way: str) -> None:
    quorum = QuorumSettings(hint_interval=1.0, hint_longest_interval=2.0)
    settings = NodeSettings(quorum=quorum, limits=LIMITS, anti_entropy=SETTINGS.anti_entropy)
    cluster = Cluster(3, [SLOPPY], settings=settings, options=Options(value_bytes=6000))
    taken = apart(cluster)
    for node in cluster.hosts:
        assert len(cluster.stored(node, "sloppy", KEY) or b"") <= 6000
        assert values(cluster, node, "sloppy") == taken
    cluster.stored_reply("n1", Put("sloppy", b"another", b"key", w=3))
    read = cluster.found("n2", Get("sloppy", KEY, r=3))
    if way == "put":
        cluster.stored_reply("n2", Put("sloppy", KEY, value("all"), read.context, w=3))
    elif way == "delete":
        cluster.stored_reply("n2", Delete("sloppy", KEY, r=3, w=3))
    else:
        cluster.stored_reply("n2", Delete("sloppy", KEY, read.context, w=3))
    cluster.move(60.0)
    for node in cluster.hosts:
        assert values(cluster, node, "sloppy") == ([value("all")] if way == "put" else [])
        assert cluster.hints(node) == {}
    assert len({cluster.stored(node, "sloppy", KEY) for node in cluster.hosts}) == 1
    statuses = [host.status() for host in cluster.hosts.values()]
    assert sum(status.counters.oversized for status in statuses) > 0


def test_one_key_that_is_too_large_keeps_no_other_from_being_repaired() -> None:
    quorum = QuorumSettings(hint_count=0)
    settings = NodeSettings(quorum=quorum, limits=LIMITS, anti_entropy=SETTINGS.anti_entropy)
    cluster = Cluster(3, [SLOPPY], settings=settings, options=Options(value_bytes=6000))
    apart(cluster)
    cluster.passes = lambda sender, to, message: not isinstance(message, ReplicaWrite)
    others = [b"%d" % i for i in range(60)]
    for key in others:
        cluster.stored_reply("n1", Put("sloppy", key, b"v"))
    cluster.passes = lambda sender, to, message: True
    cluster.move(60.0)
    for key in others:
        assert len({cluster.stored(node, "sloppy", key) for node in cluster.hosts}) == 1
    assert all(
        decode_version(EncodedVersion(cluster.stored(node, "sloppy", KEY) or b"")) for node in cluster.hosts
    )
